#!/usr/bin/env bash
# Runs every trial of hostile input and failure, one after the other, and renders docs/reliability.md.
#
#     scripts/reliability.sh             or: make reliability
#     scripts/reliability.sh NAME...     only these, such as: batch_faults training_kills soak
#
# Takes hours, on a machine that does nothing else. Each trial replaces its own record. One that fails does not stop the
# others; it is named at the end, and the exit code is 1. Needs pip install -e '.[dev]'; where root runs it on Linux, a
# small disk in memory is mounted to be filled. The order and the commands are in reliability/pages.py. Of the
# environment: PYTHON.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python}

COMMANDS=$("$PYTHON" -m reliability.pages --commands "$@")
failed=
while read -r -a words <&3; do
    echo "== $(date +%H:%M) ${words[*]}"
    "$PYTHON" "${words[@]:1}" || failed+="failed: ${words[*]}"$'\n'
done 3<<<"$COMMANDS"
"$PYTHON" -m reliability.pages
if [ -n "$failed" ]; then
    printf %s "$failed" >&2
    exit 1
fi
