#!/bin/sh
# Rewrites requirements.txt and requirements-dev.txt from the dependencies in pyproject.toml: they
# are installed, newest versions, into a temporary environment, which is then listed.
set -eu
cd -- "$(dirname -- "$0")/.."

tmp=$(mktemp -d)
trap 'rm -rf -- "$tmp"' EXIT
trap 'exit 130' INT TERM
python=$(scripts/preflight.sh "$tmp/venv")
"$python" -m venv "$tmp/venv"
py=$tmp/venv/bin/python

# The packages asked for in pyproject.toml, one a line: declared dependencies, or one extra.
declared() {
    "$py" -c '
import sys, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
extra = sys.argv[1]
print("\n".join(project["optional-dependencies"][extra] if extra else project["dependencies"]))
' "$1"
}

# name==version, without local version tags and without what belongs to one platform's torch.
frozen() {
    "$py" -m pip list --format=freeze --disable-pip-version-check |
        sed 's/+[^ ]*$//' | tr '[:upper:]_' '[:lower:]-' |
        grep -Ev '^(pip|triton|(nvidia|cuda)-[^=]*)==' | LC_ALL=C sort
}

declared '' >"$tmp/run.in"
declared dev >"$tmp/dev.in"
"$py" -m pip install --disable-pip-version-check -r scripts/build-requirements.txt
"$py" -m pip install --disable-pip-version-check --no-build-isolation --no-deps "$(grep '^pydensecrf2==' "$tmp/run.in")"
"$py" -m pip uninstall --quiet --yes cython setuptools # setuptools comes back where something needs it
"$py" -m pip install --disable-pip-version-check -r "$tmp/run.in"
frozen >"$tmp/run.txt"
"$py" -m pip install --disable-pip-version-check -r "$tmp/run.in" -r "$tmp/dev.in"
frozen >"$tmp/all.txt"

{
    cat <<'EOF'
# Made by `make lock`: the dependencies of pyproject.toml are installed into a temporary environment
# and every package found there is written down with its exact version. Do not edit by hand.
# Local version tags of torch are stripped and there are no hashes, because a CPU and a CUDA build of
# one version differ; the CUDA packages are not listed, pip adds them where a CUDA torch is installed.
EOF
    cat "$tmp/run.txt"
} >"$tmp/requirements.txt"
{
    cat <<'EOF'
# Made by `make lock`: what the tests and checks need beside requirements.txt. Do not edit by hand.
-r requirements.txt
EOF
    LC_ALL=C comm -13 "$tmp/run.txt" "$tmp/all.txt"
} >"$tmp/requirements-dev.txt"
cp "$tmp/requirements.txt" "$tmp/requirements-dev.txt" .
