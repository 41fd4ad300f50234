#!/usr/bin/env bash
# Makes a virtual environment of Python with some packages in FOLDER; prints the path of its Python. Quick
# when it is there already: MODULES, as behind `import`, tell.
#
#   scripts/install-environment.sh FOLDER MODULES PACKAGE...
#
# Needs Python 3 with venv, which root gets from apt where it is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder=$1 modules=$2
shift 2

is_whole() { "$folder/bin/python" -c "import $modules" >/dev/null 2>&1; }

if ! is_whole; then
    if ! python3 -c 'import venv, ensurepip' >/dev/null 2>&1; then
        if [[ $(id -u) -ne 0 ]]; then
            echo "run: sudo apt-get install -y --no-install-recommends python3-venv" >&2
            exit 1
        fi
        apt-get update -qq >&2
        apt-get install -y -qq --no-install-recommends python3-venv >&2
    fi
    echo "installing $* into $folder" >&2
    python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check "$@" >&2
    is_whole
fi
printf '%s\n' "$folder/bin/python"
