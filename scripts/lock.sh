#!/usr/bin/env bash
# lock.sh [PYTHON]: renew constraints.txt with the newest versions that pyproject.toml allows; torch stays at the one below.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/python.sh
torch=2.13.0

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
new_venv "$(find_python "${1:-}")" "$folder/venv"
pip=("$folder/venv/bin/python" -m pip --disable-pip-version-check)
"${pip[@]}" install -qq hatchling editables "torch==$torch"
"${pip[@]}" install -qq --no-build-isolation --editable '.[dev]'
{
  echo '# Every version that `make setup` installs. Renew with `make lock`; torch is chosen in scripts/lock.sh.'
  echo '# Whoever brings their own torch (a GPU build) installs without this file: docs/install.md.'
  # The part after the + names a build (+cpu), which other machines may not have.
  "${pip[@]}" freeze --all --exclude-editable --exclude pip | sed 's/+[^+]*$//' | LC_ALL=C sort -f
} >"$folder/constraints.txt"
mv "$folder/constraints.txt" constraints.txt
echo "constraints.txt: $(grep -c == constraints.txt) versions"
