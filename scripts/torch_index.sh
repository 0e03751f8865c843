#!/bin/sh
# Prints the pip option for the index that torch comes from.
# Usage: scripts/torch_index.sh URL|auto|"" PYTHON
# auto: PyTorch's CPU index on a machine without an NVIDIA driver (PyPI's torch brings some gigabytes
# of CUDA), provided the index answers within 5 s; otherwise nothing, which is PyPI.
set -eu
cpu=https://download.pytorch.org/whl/cpu
case $1 in
    "") ;;
    auto)
        if [ ! -e /proc/driver/nvidia/version ] && "$2" -c "
import urllib.request
urllib.request.urlopen('$cpu/torch/', timeout=5).close()" 2>/dev/null; then
            echo "--extra-index-url $cpu"
        fi ;;
    *) echo "--extra-index-url $1" ;;
esac
