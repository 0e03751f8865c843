"""The script of ``make train-nano``: every command of it is one that is taken."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tyro
from latentvla_training.cli import Commands
from latentvla_training.closed_loop.commands import Drive
from latentvla_training.closed_loop.registry import BASELINE_DRIVERS, BUNDLE_DRIVERS
from latentvla_training.report.commands import Report

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "train_nano.sh"


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Run it with a program that notes what it is asked, and read that as the real one does."""
    place = tmp_path_factory.mktemp("train_nano")
    program = place / "latentvla-train"
    program.write_text(f"#!/bin/sh\nprintf '%s ' \"$@\" >> {place}/asked\necho >> {place}/asked\n")
    program.chmod(0o755)
    asked = ["sh", str(SCRIPT), str(place)]
    subprocess.run(asked, cwd=place, check=True, env=os.environ, timeout=60)
    lines = (place / "asked").read_text().splitlines()
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
    return [tyro.cli(Commands, args=shlex.split(line), config=config) for line in lines]


def test_whoever_drives_is_told_what_it_takes_and_no_more(commands: list[Any]) -> None:
    drives = [command for command in commands if isinstance(command, Drive)]
    assert len(drives) == 15
    for drive in drives:
        assert (drive.baselines is not None) == (drive.driver in BASELINE_DRIVERS)
        assert (drive.bundle == "out/host/nano_s0") == (drive.driver in BUNDLE_DRIVERS)


def test_the_report_is_of_what_was_made(commands: list[Any]) -> None:
    report = commands[-1]
    assert isinstance(report, Report)
    assert report.bundle is not None and str(report.bundle) == "out/host/nano_s0"
