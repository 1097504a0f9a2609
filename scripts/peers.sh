#!/usr/bin/env bash
# peers.sh VENV [PYTHON]: make the environment VENV with nirvana and the peers it is measured beside (benchmarks/peers.txt).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/python.sh
venv=$1
install=("$venv/bin/python" -m pip install -qq --disable-pip-version-check --constraint constraints.txt)

if ! "$venv/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  python=$(find_python "${2:-}")
  echo "Setting up $venv with $("$python" --version): the peers have their own environment, with its own PyTorch ..."
  new_venv "$python" "$venv"
else
  echo "Updating $venv ..."
fi
rm -f "$venv/.ready"
"${install[@]}" hatchling editables
"${install[@]}" --no-build-isolation --editable .
"${install[@]}" scipy openvino
"${install[@]}" --no-deps --requirement benchmarks/peers.txt
printf '%s' "$PWD" >"$venv/.ready"
