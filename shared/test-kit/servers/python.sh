#!/usr/bin/env bash
# python.sh NAME REQUIREMENTS: a Python of its own with these packages, made once; prints where it is.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.sh"
venv=$cache/$1
if [ ! -e "$venv/.complete" ] || ! cmp -s "$2" "$venv/.complete"; then
    python3 -m venv "$venv" >&2
    "$venv/bin/pip" install --quiet --requirement "$2" >&2
    cp "$2" "$venv/.complete"
fi
echo "$venv/bin/python"
