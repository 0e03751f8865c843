"""Runs ``latentvla-train`` commands in processes of their own that end with this one.

They are forked from a server that has imported the heavy libraries once (``multiprocessing``'s
forkserver): a command starts soon, and what it holds is given back when it ends. Each leads a
group of processes; when this process is killed, even by ``kill -9``, the group ends too, so that
the same command can be given again.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from latentvla_training.engine.launch import ALLOCATOR, LAUNCHED

#: Imported once, before commands are forked. Nothing of ours: a command is of the code that is
#: there when it starts, as a whole, also where somebody works on it during the night.
_PRELOADED = ("torch", "torch.utils.tensorboard", "accelerate", "numba", "pyarrow.parquet")


def run_command(
    arguments: Sequence[str],
    processes: int,
    log: Path,
    environment: dict[str, str],
    beat: Callable[[], None],
    interval_s: float = 1.0,
) -> int:
    """Run a command; returns its exit status (128 + the signal that ended it).

    Args:
        arguments: of ``latentvla-train``. processes: 1: it trains in its own process.
        log: file that takes what it prints, after what is there.
        environment: what it finds in the environment beside ours.
        beat: called again and again while it runs.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    process = _context().Process(
        target=_command, args=(list(arguments), processes, str(log), environment)
    )
    process.start()
    try:
        while process.is_alive():
            wait([process.sentinel], interval_s)
            beat()
    finally:
        _end(process)
    code = process.exitcode or 0
    return code if code >= 0 else 128 - code


def _context() -> multiprocessing.context.ForkServerContext:
    """Return the server's context; it is started with an allocator that keeps (engine.launch)."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    with _in_environment({**ALLOCATOR, "OMP_WAIT_POLICY": "PASSIVE", **os.environ}):
        from multiprocessing.forkserver import ensure_running

        ensure_running()
    return context


@contextlib.contextmanager
def _in_environment(values: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _end(process: ForkServerProcess) -> None:
    """End a command that is interrupted, and all that it has started."""
    if process.is_alive() and process.pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    process.join()


def _command(
    arguments: list[str], processes: int, log: str, environment: dict[str, str]
) -> None:  # pragma: no cover - in another process
    os.setpgid(0, 0)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(environment)
    os.environ.pop(LAUNCHED, None)
    if processes == 1:
        os.environ[LAUNCHED] = "1"
    from latentvla_training import cli

    sys.argv = ["latentvla-train", *arguments]
    print(f"$ {' '.join(sys.argv)}", flush=True)
    cli.main()


def _end_with_parent() -> None:  # pragma: no cover - in another process
    """Wait until the process that gave the command is no more; then end this one's group."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.killpg(0, signal.SIGTERM)
