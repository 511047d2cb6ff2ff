#!/bin/sh
# Removes the virtual environment and the caches of the tools, never runs/. Usage: clean.sh FOLDER
set -eu
venv=${1:?usage: clean.sh VENV_FOLDER}
if [ -e "$venv/.made-by-make" ]; then
    rm -rf -- "$venv"
elif [ -e "$venv" ]; then
    echo "$venv was not made by make: left alone" >&2
fi
rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
find . \( -path ./.git -o -path ./runs -o -path ./.venv \) -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +
