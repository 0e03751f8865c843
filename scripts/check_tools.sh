#!/bin/sh
# Names what this machine lacks for building here, and how to get it; as root on Debian or Ubuntu
# it installs that. Prints the Python to use on the last line of its output.
# Usage: scripts/check_tools.sh [PYTHON]
set -u

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2])' 2>/dev/null; }
find_python() {
    for candidate in "$@" python3 python3.13 python3.12 python3.11; do
        if fits "$candidate"; then command -v "$candidate"; return; fi
    done
}

python=$(find_python "$@")
version=$([ -n "$python" ] && "$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

missing() {  # prints "what|Debian package" lines
    if [ -z "$python" ]; then
        name=$(command -v python3 >/dev/null && echo python3.11 || echo python3)
        echo "Python 3.11 or later|$name $name-venv $name-dev"
        return
    fi
    system=$([ "$python" = /usr/bin/python3 ] && echo python3 || echo "python$version")
    "$python" -c 'import venv, ensurepip' 2>/dev/null \
        || echo "the venv module of Python $version|$system-venv"
    header=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')/Python.h
    [ -f "$header" ] || echo "the headers of Python $version ($header)|$system-dev"
    command -v c++ >/dev/null || command -v g++ >/dev/null || echo "a C++ compiler|g++"
    command -v cmake >/dev/null || echo "cmake|cmake"
}

lacking=$(missing)
if [ -n "$lacking" ]; then
    packages=$(echo "$lacking" | cut -d'|' -f2 | tr '\n' ' ')
    echo "This machine lacks:" >&2
    echo "$lacking" | cut -d'|' -f1 | sed 's/^/  - /' >&2
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "Installing: $packages" >&2
        # shellcheck disable=SC2086  # a list of packages
        apt-get update -qq >&2 \
            && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $packages >&2
        python=$(find_python "$@")
        lacking=$(missing)
    fi
    if [ -n "$lacking" ]; then
        echo "Get it, on Debian and Ubuntu:  sudo apt-get install $packages" >&2
        echo "      on Fedora:               sudo dnf install python3 python3-devel gcc-c++ cmake" >&2
        echo "(another Python: make PYTHON=/path/to/python3.12 ...)" >&2
        exit 1
    fi
fi
echo "$python"
