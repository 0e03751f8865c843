"""A ROS node in its own process: started, watched, and always ended, also when we are killed."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from latentvla_ros.cli.errors import CommandError

_PR_SET_PDEATHSIG = 1
_LOG_LINES = 8


class NodeProcess:
    """Runs ``python -m module args``; use it as a context manager.

    The child gets a session of its own, so that Ctrl-C in the terminal reaches only us and we end
    it in order; the kernel sends it SIGINT should we die without doing so (Linux).

    Args:
        name: for messages to people.
        module: to run with ``-m``.
        arguments: its command line.
        environment: variables on top of ours; a value of None removes one.
        log_path: file for its output, replaced.
    """

    def __init__(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str | None],
        log_path: Path,
    ) -> None:
        self.name = name
        self.log_path = log_path
        self._command = [sys.executable, "-m", module, *arguments]
        self._environment = dict(os.environ)
        for key, value in environment.items():
            if value is None:
                self._environment.pop(key, None)
            else:
                self._environment[key] = value
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> NodeProcess:
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_before_exec(),
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def exit_code(self) -> int | None:
        """Exit code, negative for a signal; None while it runs, or before the start."""
        return None if self._process is None else self._process.poll()

    @property
    def pid(self) -> int:
        """Process id; raises RuntimeError before the start."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process.pid

    def cpu_s(self) -> float:
        """Return user and system seconds of all its threads since the start (Linux)."""
        # /proc/PID/stat, proc(5): after the name in parentheses, fields 14 and 15 (1-based).
        words = (
            Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        )
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def check(self) -> None:
        """Raise CommandError with the last lines of its log when it has ended."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        code = self._process.poll()
        if code is None:
            return
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        lines = " | ".join(self.last_lines()) or "no output"
        raise CommandError(
            "node-ended", f"{self.name} ended with {how}: {lines}", f"see {self.log_path}"
        )

    def last_lines(self, count: int = _LOG_LINES) -> list[str]:
        """Return the last non-empty lines of its output."""
        try:
            words = self.log_path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        return [line.strip() for line in words.splitlines() if line.strip()][-count:]

    def stop(self, patience_s: float = 15.0) -> int | None:
        """End it by SIGINT, SIGTERM, then SIGKILL; return its exit code (None: never started)."""
        if self._process is None:
            return None
        for sign, wait_s in (
            (signal.SIGINT, patience_s),
            (signal.SIGTERM, 2.0),
            (signal.SIGKILL, 30.0),
        ):
            if self._process.poll() is not None:
                break
            try:
                os.killpg(self._process.pid, sign)  # its session's group: its own children too
            except ProcessLookupError:
                break
            try:
                self._process.wait(wait_s)
            except subprocess.TimeoutExpired:
                continue
        return self._process.poll()


def _before_exec() -> Callable[[], None]:
    """Return what a child runs before exec: it listens to SIGINT, and gets it when our thread dies.

    A parent that ignores or blocks SIGINT (a script's background job) would have its children do
    so too: they could not be stopped in order. The signal at our end is Linux only.
    """
    prctl = None
    if sys.platform.startswith("linux"):
        prctl = ctypes.CDLL(None).prctl  # loaded before the fork: nothing may be imported after it

    def arrange() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, int(signal.SIGINT), 0, 0, 0)

    return arrange
