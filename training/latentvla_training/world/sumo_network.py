"""Draws a road network of a kind with SUMO's own tools: a plan, netconvert, signal programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from latentvla_training.world.network_carriageways import plan_carriageway
from latentvla_training.world.network_plan import NetworkBuildError, NetworkPlan
from latentvla_training.world.network_roundabouts import plan_roundabouts
from latentvla_training.world.network_streets import plan_streets
from latentvla_training.world.signal_programs import write_signal_programs
from latentvla_training.world.sumo_tools import run_tool

__all__ = ["LANE_WIDTH_M", "NetworkBuildError", "draw_network"]

LANE_WIDTH_M = 3.5


def draw_network(kind: str, seed: int, folder: Path) -> tuple[Path, Path]:
    """Write ``net.net.xml`` and ``tls.add.xml`` of the network drawn with ``seed`` into ``folder``.

    Args:
        kind: one of ``networks.KINDS``.

    Raises:
        NetworkBuildError: the tools failed or left too small a network.
    """
    rng = np.random.default_rng(seed)
    _plan(kind, rng, seed, folder).write(folder)
    net_path = folder / "net.net.xml"
    run_tool(
        "netconvert", "--node-files", "plain.nod.xml", "--edge-files", "plain.edg.xml",
        "--connection-files", "plain.con.xml",
        "--output-file", net_path.name, "--no-turnarounds", "--seed", str(seed),
        "--junctions.internal-link-detail", "12", "--junctions.corner-detail", "6",
        "--junctions.limit-turn-speed", "2.5", "--default.lanewidth", str(LANE_WIDTH_M),
        "--roundabouts.guess", "true", "--precision", "3",
        cwd=folder,
    )  # fmt: skip
    tls_path = folder / "tls.add.xml"
    write_signal_programs(net_path, tls_path, rng)
    return net_path, tls_path


def _plan(kind: str, rng: np.random.Generator, seed: int, folder: Path) -> NetworkPlan:
    if kind in ("merge", "split"):
        return plan_carriageway(kind, rng)
    if kind == "roundabout":
        return plan_roundabouts(rng, seed, folder)
    return plan_streets(kind, rng, seed, folder)
