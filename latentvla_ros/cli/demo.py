"""``latentvla demo``: the recording that ships with this package, through the real nodes."""

from __future__ import annotations

import argparse
from pathlib import Path

from latentvla_ros.cli.errors import CommandError, print_error
from latentvla_ros.cli.replay import add_playing_arguments, run_guarded
from latentvla_ros.data import data_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``latentvla demo``."""
    add_playing_arguments(parser, Path("out/demo"))


def run(args: argparse.Namespace) -> int:
    """Replay the shipped recording; exit codes as ``latentvla replay``."""
    bag = data_path("demo_bag")
    if not bag.is_dir():
        return print_error(
            CommandError(
                "no-demo-bag",
                f"{bag} is not installed",
                "reinstall latentvla_ros from a whole checkout, or replay a bag of your own",
            )
        )
    return run_guarded(args, bag)
