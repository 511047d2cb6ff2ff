#!/bin/sh
# Makes the virtual environment from the lock files. Usage, in the project's folder:
#   venv.sh run FOLDER   starts FOLDER over and installs requirements.txt
#   venv.sh dev FOLDER   adds requirements-dev.txt to it
# FOLDER/.ready and FOLDER/.ready-dev are written last, each when everything of its kind is
# installed; whatever is interrupted before that is started over. pip's output: FOLDER/install.log.
set -eu
# Settings of the caller which would make pip install elsewhere or see packages from elsewhere.
unset PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX || :
export PIP_USER=0 PIP_PROGRESS_BAR=off PYTHONNOUSERSITE=1

kind=${1:?usage: venv.sh run|dev FOLDER}
venv=${2:?usage: venv.sh run|dev FOLDER}
log=$venv/install.log

fail() {
    printf 'Cannot install: %s\n' "$1" >&2
    exit 1
}

# The line of the log that says most about a failure.
last_error() {
    {
        grep 'No space left on device' "$log" ||
            grep -E 'NewConnectionError|NameResolutionError|ConnectTimeoutError|ProxyError' "$log" ||
            grep 'ERROR:' "$log" || grep -i 'error:' "$log" || grep -v '^[[:space:]]*$' "$log" || :
    } 2>/dev/null | tail -n 1 | cut -c 1-300 | sed 's/^[[:space:]]*//'
}

logged() {
    what=$1
    shift
    "$@" >>"$log" 2>&1 </dev/null || fail "$what failed: $(last_error) (full log: $log)"
}

# pip's temporary files lie inside the environment: a small /tmp does not matter, and they go with it.
pip() {
    mkdir -p -- "$venv/tmp"
    logged "pip $*" env TMPDIR="$(cd -- "$venv/tmp" && pwd)" \
        "$venv/bin/python" -m pip --disable-pip-version-check --no-input "$@"
    rm -rf -- "$venv/tmp"
}

make_runtime() {
    # Only a folder that this script made (or an empty one) is ever emptied.
    if [ -d "$venv" ] && [ ! -e "$venv/.made-by-make" ] && [ -n "$(ls -A -- "$venv")" ]; then
        fail "$venv was not made by make: remove it, or choose another place: make VENV=/other/folder ..."
    fi
    rm -f -- "$venv/.ready" "$venv/.ready-dev" 2>/dev/null || :
    python=$(scripts/preflight.sh "$venv")
    rm -rf -- "$venv"
    mkdir -p -- "$venv"
    : >"$venv/.made-by-make"
    echo "Installing into $venv (some minutes; log: $log)"
    logged "$python -m venv $venv" "$python" -m venv "$venv"
    # pydensecrf2 first: it is built here, with our build tools instead of those it names.
    pip install -c requirements.txt -r scripts/build-requirements.txt
    pip install --no-build-isolation --no-deps "$(grep '^pydensecrf2==' requirements.txt)"
    pip uninstall --yes cython
    pip install -r requirements.txt
    : >"$venv/.ready"
}

case $kind in
run)
    make_runtime
    ;;
dev)
    # An earlier attempt was cut off: what it left cannot be trusted.
    if [ -e "$venv/.adding-dev" ]; then
        make_runtime
    fi
    : >"$venv/.adding-dev"
    echo "Installing the development tools into $venv"
    pip install -r requirements-dev.txt
    rm -f -- "$venv/.adding-dev"
    : >"$venv/.ready-dev"
    ;;
*)
    fail "venv.sh: unknown kind $kind"
    ;;
esac
