# Sourced. find_python [WANTED]: prints a Python 3.11 or newer, WANTED or else the first found; explains where there is none.
find_python() {
  local candidate
  for candidate in ${1:-python3 python3.13 python3.12 python3.11 python}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return 0
    fi
  done
  if [ -n "${1:-}" ]; then
    echo "PYTHON=$1 is no Python 3.11 or newer ($("$1" --version 2>&1 || true))" >&2
  else
    echo "nirvana needs Python 3.11 or newer, found: $(python3 --version 2>&1 || true)" >&2
    echo "Install one (Debian, Ubuntu: sudo apt-get install python3.11 python3.11-venv), or name it: make setup PYTHON=/path/to/python3" >&2
  fi
  return 1
}

# new_venv PYTHON FOLDER: an empty environment with pip in it; explains where the venv module is missing.
new_venv() {
  local said
  if ! said=$("$1" -m venv --clear "$2" 2>&1); then
    echo "$said" >&2
    echo "'$1 -m venv' failed. Debian, Ubuntu: sudo apt-get install python3-venv (or python3.11-venv), then try again." >&2
    return 1
  fi
}
