"""Starting training processes: one, or several under torchrun, with a memory allocator that keeps.

On a CPU, glibc returns every large activation to the kernel and faults it in again at the next
step, which costs a fifth of the time; a process must be started with that switched off.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import AbstractContextManager
from datetime import timedelta

#: What the environment of a process that trains on a CPU must hold when it starts.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(8 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}

#: Set in the environment of a process that need not start another.
LAUNCHED = "LATENTVLA_LAUNCHED"


def needs_launch(processes: int) -> bool:
    """Return whether this process must start others instead of training itself."""
    if LAUNCHED in os.environ or "WORLD_SIZE" in os.environ:
        return False
    import torch

    return processes > 1 or not torch.cuda.is_available()


def first_process_first() -> AbstractContextManager[None]:
    """Return a context that the first of several processes goes through before the others enter.

    For what is made once and then read by all. They wait as long as making a cache may take, which
    a collective operation usually may not.
    """
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=1))
    return state.main_process_first()


def launch(arguments: list[str], processes: int) -> int:
    """Run ``latentvla-train`` with ``arguments`` in some processes; returns the exit status."""
    environment = {**ALLOCATOR, **os.environ, LAUNCHED: "1"}
    command = [sys.executable, "-m"]
    if processes > 1:
        # Sleeping threads and one each: spinning costs more than it gains on shared cores.
        environment.setdefault("OMP_NUM_THREADS", "1")
        command += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
        command += ["--"]  # what follows is ours: torchrun abbreviates its own options
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    command += ["latentvla_training.cli", *arguments]
    return subprocess.call(command, env=environment)


def leave_group() -> None:
    """Leave the group of processes, if in one: torch may abort a process that ends within it."""
    if "torch" not in sys.modules:
        return
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
