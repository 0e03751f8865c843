"""A folder is held by one run at a time, and by none that has ended, whatever it left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from latentvla_training.engine.folder_lock import alone

from latentvla_ros.contract import ContractError


def test_another_run_is_refused_while_one_lasts(tmp_path: Path) -> None:
    said = rf"{tmp_path}/run.*under way, process {os.getpid()}"
    for _ in range(2):
        with (
            alone(tmp_path / "run"),
            pytest.raises(ContractError, match=said),
            alone(tmp_path / "run"),
        ):
            pass


def test_a_run_that_ended_holds_nothing_though_a_worker_of_it_lives(tmp_path: Path) -> None:
    done, end = os.pipe()
    run = os.fork()
    if run == 0:  # holds the folder, forks a worker and ends without letting go
        alone(tmp_path).__enter__()
        if os.fork() == 0:
            os.close(end)
            os.read(done, 1)  # until the test has ended
        os._exit(0)
    os.close(done)
    os.waitpid(run, 0)
    assert (tmp_path / ".lock").read_text() == f"{run}\n"
    with alone(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"
    os.close(end)
