"""What a stage costs: CPU time and memory of this process and of those that it has started.

A process may train several stages one after the other; each has a meter of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import time
from pathlib import Path

import psutil
import torch

_GIB = 2.0**30


class CostMeter:
    """Counts from here on; one at a time, for the next one starts the kernel's peaks anew.

    CPU time is that of this process and of all below it, whether they have ended or not. Memory is
    the most that this process has held at once, what was there before and is still held included,
    and beside it the most that processes below it (loader workers) were seen to hold for themselves
    alone: pages that they share with this one count once. ``look`` sees; so does reading a figure.
    On a GPU it is the most that torch has allocated of the GPU's memory instead.

    Where the kernel does not let go of its peak (it does on Linux, for any user), memory counts
    from the start of the process.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        gc.collect()
        _return_free_memory()
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # proc(5): VmHWM starts anew
        if torch.cuda.is_available():
            torch.cuda.init()
            torch.cuda.reset_peak_memory_stats()
        self._below = 0.0
        self._begun, self._begun_cpu = time.monotonic(), self._all_cpu_s()

    @property
    def wall_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._begun

    @property
    def cpu_s(self) -> float:
        """CPU seconds since the start."""
        return self._all_cpu_s() - self._begun_cpu

    @property
    def peak_gib(self) -> float:
        """Most memory since the start, GiB."""
        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated() / _GIB
        self.look()
        return (_own_peak() + self._below) / _GIB

    def look(self) -> None:
        """Note what processes below this one hold now; it takes milliseconds a process."""
        held = 0.0
        for child in self._process.children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it has just ended
                held += child.memory_full_info().uss
        self._below = max(self._below, held)

    def __str__(self) -> str:
        """Return the figures in words."""
        return f"{self.wall_s:.0f} s, {self.cpu_s:.0f} CPU s, at most {self.peak_gib:.2f} GiB"

    def _all_cpu_s(self) -> float:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        total = time.process_time() + ended.ru_utime + ended.ru_stime
        for child in self._process.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                total += sum(child.cpu_times()[:4])  # user, system; of its children that ended
        return total


def _return_free_memory() -> None:
    """Give freed memory back to the kernel: ``launch.ALLOCATOR`` keeps it, and it would count."""
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):  # glibc
        library.malloc_trim(0)


def _own_peak() -> float:
    """Return the peak of this process's resident memory, bytes."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024.0 * int(line.split()[1])
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
