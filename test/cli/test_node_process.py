"""A node's process ends with us, whatever happens, and says why when it ends by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from latentvla_ros.cli.errors import CommandError
from latentvla_ros.cli.node_process import NodeProcess

POLITE = """
    import signal, sys, time
    print("started", flush=True)
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        sys.exit(0)
"""
STUBBORN = """
    import signal, time
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, signal.SIG_IGN)
    print("started", flush=True)
    time.sleep(60)
"""
CRASHING = """
    print("doing well")
    raise RuntimeError("the wheel came off")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.getenv("PYTHONPATH", "")]))
    return tmp_path / "some_node.py"


def process(module: Path, code: str) -> NodeProcess:
    module.write_text(textwrap.dedent(code))
    return NodeProcess("planner", module.stem, [], {}, module.with_suffix(".log"))


def wait_until(condition: object, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_is_interrupted_in_order(module: Path) -> None:
    with process(module, POLITE) as node:
        wait_until(lambda: "started" in node.last_lines())
        node.check()
        assert node.exit_code is None and node.cpu_s() >= 0.0
    assert node.exit_code == 0
    assert node.last_lines()[-1] == "interrupted"


def test_it_listens_where_its_parent_does_not(module: Path) -> None:
    """A script's background job ignores SIGINT, and so would all that it starts."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with process(module, POLITE) as node:
            wait_until(lambda: "started" in node.last_lines())
        assert node.exit_code == 0
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, before)


def test_it_is_killed_when_it_does_not_listen(module: Path) -> None:
    with process(module, STUBBORN) as node:
        wait_until(lambda: "started" in node.last_lines())
        assert node.stop(patience_s=0.2) == -signal.SIGKILL


def test_a_crash_is_told_with_its_last_words(module: Path) -> None:
    with process(module, CRASHING) as node:
        wait_until(lambda: node.exit_code is not None)
        with pytest.raises(CommandError, match=r"node-ended.*exit code 1.*the wheel came off"):
            node.check()


def test_it_ends_when_an_exception_leaves_the_block(module: Path) -> None:
    node = process(module, POLITE)
    with pytest.raises(KeyboardInterrupt), node:
        wait_until(lambda: "started" in node.last_lines())
        raise KeyboardInterrupt
    assert node.exit_code == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's help is Linux's")
def test_it_does_not_outlive_a_killed_parent(module: Path) -> None:
    module.write_text(textwrap.dedent(POLITE))
    log = module.with_suffix(".log")
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time\nfrom pathlib import Path\n"
            "from latentvla_ros.cli.node_process import NodeProcess\n"
            f"with NodeProcess('planner', 'some_node', [], {{}}, Path({str(log)!r})) as node:\n"
            "    print(node.pid, flush=True)\n    time.sleep(60)\n",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    wait_until(lambda: log.exists() and "started" in log.read_text())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: "interrupted" in log.read_text())
    wait_until(lambda: not Path(f"/proc/{child}/cmdline").exists() or _is_zombie(child))


def _is_zombie(pid: int) -> bool:
    try:
        return ") Z" in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
