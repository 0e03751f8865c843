"""Starting training processes: one, or several under torchrun, with a memory allocator that keeps.

On a CPU, glibc returns every large activation to the kernel and faults it in again at the next
step, which costs a fifth of the time; a process must be started with that switched off.

Whatever ends the command that a user sees, ``kill -9`` too, ends the training: one process takes
the command's place, several end with it (on Linux). This module, run as one, is torchrun.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import PartialState

#: What the environment of a process that trains on a CPU must hold when it starts.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(8 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}

#: Set in the environment of a process that need not start another.
LAUNCHED = "LATENTVLA_LAUNCHED"

#: In the environment of a process that is to end with the one that started it: whose id.
_LAUNCHER = "LATENTVLA_LAUNCHER"

#: Of prctl(2), ``PR_SET_PDEATHSIG``: which signal a process gets when its parent ends.
_SIGNAL_OF_PARENTS_END = 1


def needs_launch(processes: int) -> bool:
    """Return whether this process must start others instead of training itself."""
    if LAUNCHED in os.environ or "WORLD_SIZE" in os.environ:
        return False
    import torch

    return processes > 1 or not torch.cuda.is_available()


def join_processes() -> PartialState:
    """Join the group of processes, if this is one of several; returns what is known of it.

    They wait for each other as long as the first may take to make a cache or to validate, which is
    longer than a collective operation usually may. The first call in a process decides that, so
    nothing else makes a ``PartialState`` or an ``Accelerator`` before.
    """
    _end_with_launcher()
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=1))


@contextmanager
def first_process_first() -> Iterator[bool]:
    """Return a context that the first of several processes goes through before the others enter.

    For what is made once and then read by all. Yields whether this is the first.
    """
    state = join_processes()
    with state.main_process_first():
        yield state.is_main_process


def launch(arguments: list[str], processes: int) -> int:
    """Run ``latentvla-train`` with ``arguments`` in some processes.

    Returns:
        the exit status of several; one takes the place of this process, and nothing returns.
    """
    environment = {**ALLOCATOR, **os.environ, LAUNCHED: "1"}
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    ours = ["-m", "latentvla_training.cli", *arguments]
    if processes == 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, [sys.executable, *ours], environment)
    # Sleeping threads and one each: spinning costs more than it gains on shared cores.
    environment.setdefault("OMP_NUM_THREADS", "1")
    environment[_LAUNCHER] = str(os.getpid())
    command = [sys.executable, "-m", __name__, "--standalone", f"--nproc-per-node={processes}"]
    command += ["-m", "--", *ours[1:]]  # what follows is ours: torchrun abbreviates its own options
    return subprocess.call(command, env=environment)


def _end_with_launcher() -> None:
    """Have the kernel end this process with the one that launched it, if ``launch`` did (Linux)."""
    launcher = os.environ.pop(_LAUNCHER, None)
    if launcher is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_SIGNAL_OF_PARENTS_END, signal.SIGKILL)
    if os.getppid() != int(launcher):
        os._exit(1)  # it has ended already


def _torchrun() -> None:
    """Start the processes of a group; they end with this one, and this one with its launcher."""
    _end_with_launcher()
    os.environ[_LAUNCHER] = str(os.getpid())
    from torch.distributed.run import main

    main()


def leave_group() -> None:
    """Leave the group of processes, if in one: torch may abort a process that ends within it."""
    if "torch" not in sys.modules:
        return
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    _torchrun()
