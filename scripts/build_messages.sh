#!/bin/sh
# Builds latentvla_msgs into a virtual environment that holds the ROS 2 wheels from PyPI, so that
# `import latentvla_msgs.msg` works there with nothing sourced.
# Usage: scripts/build_messages.sh VENV BUILD_FOLDER
set -eu

venv=$(cd "$1" && pwd)
build=$2
python="$venv/bin/python"
source=$(cd "$(dirname "$0")/../latentvla_msgs" && pwd)
cmake=$(command -v "$venv/bin/cmake" || command -v cmake)
ninja=$(command -v "$venv/bin/ninja" || command -v ninja)

# Exported .cmake files carry the Python paths of the machine that built the wheels: point them at
# this interpreter.
include=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
numpy=$("$python" -c 'import numpy; print(numpy.get_include())')
grep -rlE --include='*.cmake' '/opt/(python|_internal)/[^;"]*/include' "$venv/share" | while read -r file; do
    sed -i -E "s#/opt/(python|_internal)/[^;\"]*/numpy/(_core|core)/include#$numpy#g; \
s#/opt/(python|_internal)/[^;\"]*/include/python3\.[0-9]+t?#$include#g" "$file"
done

# The generators run Python of this environment; a sourced ROS 2 installation must not mix in.
unset AMENT_PREFIX_PATH CMAKE_PREFIX_PATH PYTHONPATH COLCON_PREFIX_PATH ROS_DISTRO || true
PATH="$venv/bin:$PATH" "$cmake" -S "$source" -B "$build" -G Ninja \
    -DCMAKE_MAKE_PROGRAM="$ninja" -DCMAKE_PREFIX_PATH="$venv" -DCMAKE_INSTALL_PREFIX="$venv" \
    -DPython3_EXECUTABLE="$python" -DBUILD_TESTING=OFF -DCMAKE_BUILD_TYPE=Release -Wno-dev
PATH="$venv/bin:$PATH" "$ninja" -C "$build" install
"$python" -c 'import latentvla_msgs.msg, latentvla_msgs.srv'
