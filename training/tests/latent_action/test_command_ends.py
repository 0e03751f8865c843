"""Whatever ends the command that a user sees ends the training, and the same command goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest
import yaml
from latentvla_training import cli
from latentvla_training.engine.checkpoint import CHECKPOINT, checkpoint_step
from latentvla_training.latent_action.settings import CodebookRecipe, StageSettings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux ends it")

#: A checkpoint after every step, and so many steps of stage 0 that a run can be caught in it.
_STEPS = 150


@pytest.fixture
def arguments(splits: Path, recipe: CodebookRecipe) -> list[str]:
    """What is given to ``latentvla-train`` for a run in ``splits / "run"``."""

    def short(stage: StageSettings, steps: int) -> StageSettings:
        run = replace(stage.run, passes=4 * steps, validate_passes=4 * steps)
        return replace(stage, run=replace(run, checkpoint_minutes=0.0, threads=1))

    recipe = replace(
        recipe,
        pretraining=short(recipe.pretraining, _STEPS),
        environment=short(recipe.environment, 2),
        ego=short(recipe.ego, 2),
    )
    path = splits / "recipe.yaml"
    path.write_text(yaml.safe_dump(json.loads(json.dumps(asdict(recipe)))))
    return ["codebook", "train", "--recipe", str(path), "--run", str(splits / "run")]


def started(arguments: list[str]) -> subprocess.Popen[bytes]:
    """Start the command as a user does, on a CPU."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("LATENTVLA_LAUNCHED", None)
    command = [sys.executable, "-m", "latentvla_training.cli", *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def until(true: Callable[[], bool], seconds: float = 900.0) -> bool:
    """Wait until something is true; returns whether it became so."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()


def processes_of(run: Path) -> list[int]:
    """Return the processes that have a run's folder among their arguments."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        ended = process.info["status"] == psutil.STATUS_ZOMBIE
        if not ended and str(run) in (process.info["cmdline"] or ()):
            found.append(process.pid)
    return found


def test_a_killed_command_leaves_nothing_and_goes_on(
    splits: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile a second one in the same folder is refused; it names folder and process."""
    run = splits / "run"
    command = started(arguments)
    try:
        assert until(lambda: (run / "frames" / CHECKPOINT).is_file() or command.poll() is not None)
        command.send_signal(signal.SIGSTOP)
        assert checkpoint_step(run / "frames") < _STEPS
        assert processes_of(run) == [command.pid]
        monkeypatch.setenv("LATENTVLA_LAUNCHED", "1")
        monkeypatch.setattr(sys, "argv", ["latentvla-train", *arguments])
        with pytest.raises(SystemExit) as refused:
            cli.main()
        assert f"{run / 'frames'}: found" in str(refused.value.code)
        assert f"process {command.pid}" in str(refused.value.code)
    finally:
        command.kill()
    assert command.wait() == -signal.SIGKILL
    assert processes_of(run) == []
    assert started(arguments).wait() == 0
    steps = [checkpoint_step(run / name) for name in ("frames", "environment", "ego")]
    assert steps == [_STEPS, 2, 2]


@pytest.mark.slow
def test_several_processes_end_with_a_killed_command(splits: Path, arguments: list[str]) -> None:
    run = splits / "run"
    command = started([*arguments, "--processes", "2"])
    try:
        assert until(lambda: (run / "frames" / CHECKPOINT).is_file() or command.poll() is not None)
        assert len(processes_of(run)) == 4  # the command, torchrun and its two
    finally:
        command.kill()
    assert command.wait() == -signal.SIGKILL
    assert until(lambda: processes_of(run) == [], 20.0)
    assert checkpoint_step(run / "frames") < _STEPS
