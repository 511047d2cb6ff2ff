#!/bin/sh
# Can the virtual environment be made here? Usage: preflight.sh VENV_FOLDER
# Yes: prints the interpreter to use on standard output, status 0.
# No: prints one line on standard error which says what to do, status 1.
# Settings: PYTHON (use this interpreter only), CXX, MIN_FREE_MB (disk needed).
set -eu

venv=${1:?usage: preflight.sh VENV_FOLDER}
# Measured: a CPU installation with the development tools fills 1.4 GB; while it is made, the downloads
# lie beside it. A CUDA build of torch brings several GB of its own.
min_free_mb=${MIN_FREE_MB:-3000}

fail() {
    printf 'Cannot install: %s\n' "$1" >&2
    exit 1
}

# Prints: version, whether venv and ensurepip are there, the C++ compiler, the folder of Python.h.
probe() {
    "$1" -c '
import sys
ver = "%d.%d" % sys.version_info[:2]
if sys.version_info < (3, 11):
    print(ver)
    sys.exit(0)
import sysconfig
try:
    import ensurepip, venv
    works = "venv"
except ImportError:
    works = "novenv"
cxx = (sysconfig.get_config_var("CXX") or "g++").split()[0]
print(ver, works, cxx, sysconfig.get_path("include"))
' 2>/dev/null </dev/null
}

# ---- Python: the first candidate which has everything, else the first reason why not ----
python="" seen="" reason="" cxx="" include=""
if [ -n "${PYTHON:-}" ]; then
    set -- "$PYTHON"
else
    set -- python3 python3.14 python3.13 python3.12 python3.11 python
fi
for candidate do
    command -v "$candidate" >/dev/null 2>&1 || continue
    line=$(probe "$candidate") || continue
    read -r ver works found_cxx found_include <<EOF
$line
EOF
    if [ -z "$works" ]; then
        seen="$seen${seen:+, }$candidate is ${ver:-unknown}"
    elif [ "$works" != venv ]; then
        : "${reason:="$candidate ($ver) has no working venv module: install python3-venv (python$ver-venv)"}"
    elif [ ! -f "$found_include/Python.h" ]; then
        : "${reason:="the headers of $candidate ($ver) are missing, no Python.h in $found_include: install python3-dev (python$ver-dev)"}"
    else
        python=$candidate cxx=$found_cxx include=$found_include
        break
    fi
done
if [ -z "$python" ]; then
    [ -z "$reason" ] || fail "$reason"
    fail "Python 3.11 or newer is needed (${seen:-${PYTHON:-python3} does not run}): install one, or name it: make PYTHON=/path/to/python3.11 ..."
fi

# ---- C++ compiler: pydensecrf2 is built from source. CXX may carry options: split it. ----
cxx=${CXX:-$cxx}
command -v "${cxx%% *}" >/dev/null 2>&1 ||
    fail "no C++ compiler (${cxx%% *} not found), and pydensecrf2 is built from source: install g++ (package g++ or build-essential)"
# shellcheck disable=SC2086
printf '#include <Python.h>\n#include <vector>\n' | $cxx -x c++ -fsyntax-only -I"$include" - >/dev/null 2>&1 ||
    fail "the C++ compiler $cxx cannot compile against Python.h in $include: install g++ and python3-dev"

# ---- the place: its nearest existing parent must be a folder that can be written ----
if [ -e "$venv" ] && [ ! -d "$venv" ]; then
    fail "$venv exists and is not a folder"
fi
parent=$venv
while [ ! -e "$parent" ]; do
    parent=$(dirname -- "$parent")
done
[ -d "$parent" ] || fail "cannot make $venv: $parent is not a folder"
trial=$(mktemp -d "$parent/.preflight.XXXXXX" 2>/dev/null) || fail "cannot make $venv: $parent is not writable"
rmdir -- "$trial"

# ---- disk ----
free_mb=$(df -Pk -- "$parent" | awk 'NR == 2 { print int($4 / 1024) }')
[ "${free_mb:-0}" -ge "$min_free_mb" ] ||
    fail "$free_mb MB of disk are free at $parent, $min_free_mb MB are needed: free some, or choose another place: make VENV=/other/folder ..."

printf '%s\n' "$python"
