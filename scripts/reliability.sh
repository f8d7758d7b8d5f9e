#!/usr/bin/env bash
# Runs every trial of hostile input and failure, one after the other, and renders docs/reliability.md.
#
#     scripts/reliability.sh             or: make reliability
#     scripts/reliability.sh NAME...     only these, such as: batch_faults training_kills soak
#
# Takes hours, on a machine that does nothing else (batch_rate judges 160,000 rows). Each trial replaces its own record; one
# that fails ends the script, and the records before it are kept. Needs pip install -e '.[dev]'; where root runs it on
# Linux, a small disk in memory is mounted to be filled. Order and commands: reliability/pages.py. Of the environment:
# PYTHON.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python}

COMMANDS=$("$PYTHON" -m reliability.pages --commands "$@")
while read -r -a words <&3; do
    echo "== $(date +%H:%M) ${words[*]}"
    "$PYTHON" "${words[@]:1}"
done 3<<<"$COMMANDS"
"$PYTHON" -m reliability.pages
