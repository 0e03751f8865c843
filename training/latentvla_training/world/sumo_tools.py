"""Runs the command-line tools of the installed ``eclipse-sumo`` package."""

from __future__ import annotations

import subprocess
from pathlib import Path

from latentvla_training.world.network_plan import NetworkBuildError


def sumo_binary(name: str) -> str:
    """Return the path of a SUMO tool."""
    import sumo

    return str(Path(sumo.SUMO_HOME) / "bin" / name)


def run_tool(tool: str, *arguments: str, cwd: Path) -> None:
    """Run a SUMO tool in ``cwd``.

    Raises:
        NetworkBuildError: it failed; the message holds what it said.
    """
    result = subprocess.run(
        [sumo_binary(tool), *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise NetworkBuildError(f"{tool} failed: {result.stderr.strip()[:500]}")
