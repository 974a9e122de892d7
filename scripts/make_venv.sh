#!/bin/sh
# Make a virtual environment with the newest Python >= 3.10 that runs here.   Usage: scripts/make_venv.sh FOLDER
set -eu
folder=$1

# Run, not only looked up: a version manager may put names on the PATH that start nothing.
fits() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1
}

for python in ${PYTHON:-} python3.13 python3.12 python3.11 python3.10 python3 python; do
    if fits "$python"; then
        if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
            echo "error: $python has no venv or ensurepip module. On Debian or Ubuntu: apt-get install python3-venv" >&2
            exit 2
        fi
        echo "Making $folder with $("$python" --version) ($python)"
        exec "$python" -m venv --clear "$folder"
    fi
done
echo "error: no Python >= 3.10 found. Install one, or name it: make PYTHON=/path/to/python3 ..." >&2
exit 2
