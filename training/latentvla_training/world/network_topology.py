"""Which junctions there are and which roads join them: netgenerate's graphs, thinned out."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latentvla_training.world.sumo_tools import run_tool

Array = NDArray[np.float64]


@dataclass
class Road:
    """An undirected road between two nodes.

    Attributes:
        a, b: node ids. lanes: of each direction. speed: limit, m/s.
        priority: SUMO's; the higher one goes first. shape: (N, 2) from a to b.
    """

    a: str
    b: str
    lanes: int = 1
    speed: float = 8.0
    priority: int = 1
    shape: Array | None = None


def draw_topology(
    kind: str, rng: np.random.Generator, seed: int, folder: Path
) -> tuple[dict[str, Array], list[Road]]:
    """Let netgenerate place nodes and straight roads, move the nodes and thin the roads out.

    Args:
        kind: ``grid``, ``spider``, ``random``, ``rural`` or ``roundabout``.

    Returns:
        Node positions (2,) by id, and the roads that join them, without dead ends.
    """
    arguments = {
        "grid": [*_grid(5, 5), "--grid.x-length", f"{rng.uniform(120, 150):.1f}",
                 "--grid.y-length", f"{rng.uniform(120, 150):.1f}"],
        "random": [
            "--rand", "--rand.iterations", str(int(rng.integers(50, 70))),
            "--rand.min-distance", "92", "--rand.max-distance", "150", "--rand.min-angle", "65",
            "--rand.num-tries", "80", "--rand.connectivity", "0.97",
            "--rand.neighbor-dist1", "0", "--rand.neighbor-dist2", "1",
            "--rand.neighbor-dist3", "8", "--rand.neighbor-dist4", "10",
            "--rand.neighbor-dist5", "0", "--rand.neighbor-dist6", "0",
        ],
        "spider": [
            "--spider", "--spider.arm-number", str(int(rng.integers(5, 8))),
            "--spider.circle-number", "3", "--spider.space-radius", f"{rng.uniform(95, 115):.1f}",
            "--spider.omit-center",
        ],
        "rural": [*_grid(4, 4), "--grid.x-length", f"{rng.uniform(230, 270):.1f}",
                  "--grid.y-length", f"{rng.uniform(210, 260):.1f}"],
        "roundabout": [*_grid(4, 3), "--grid.x-length", f"{rng.uniform(200, 230):.1f}",
                       "--grid.y-length", f"{rng.uniform(200, 230):.1f}"],
    }[kind]  # fmt: skip
    run_tool("netgenerate", *arguments, "--seed", str(seed), "--plain-output-prefix", "base",
             "--no-turnarounds", cwd=folder)  # fmt: skip
    jitter = {"grid": 16.0, "random": 0.0, "spider": 9.0, "rural": 45.0, "roundabout": 18.0}[kind]
    nodes = {
        item.get("id", ""): np.array([float(item.get("x", 0)), float(item.get("y", 0))])
        + rng.uniform(-jitter, jitter, 2)
        for item in ElementTree.parse(folder / "base.nod.xml").getroot().iter("node")
    }
    pairs = {
        tuple(sorted((item.get("from", ""), item.get("to", ""))))
        for item in ElementTree.parse(folder / "base.edg.xml").getroot().iter("edge")
        if item.get("from") is not None
    }
    share = {"rural": 0.5, "roundabout": 0.35}.get(kind, 0.18)
    return nodes, _prune(nodes, [Road(a, b) for a, b in sorted(pairs)], rng, share)


def count_roads(roads: list[Road]) -> dict[str, int]:
    """Return how many roads meet at each node."""
    degree: dict[str, int] = defaultdict(int)
    for road in roads:
        degree[road.a] += 1
        degree[road.b] += 1
    return degree


def _grid(columns: int, rows: int) -> list[str]:
    return ["--grid", "--grid.x-number", str(columns), "--grid.y-number", str(rows)]


def _prune(
    nodes: dict[str, Array], roads: list[Road], rng: np.random.Generator, share: float
) -> list[Road]:
    """Take out a few roads of dense nets, then dead ends and all but one component."""
    degree = count_roads(roads)
    kept: list[Road] = []
    for index in rng.permutation(len(roads)):
        road = roads[index]
        if rng.random() < share and degree[road.a] > 3 and degree[road.b] > 3:
            degree[road.a] -= 1
            degree[road.b] -= 1
        else:
            kept.append(road)
    kept.sort(key=lambda road: (road.a, road.b))
    while True:
        degree = count_roads(kept)
        alive = [road for road in kept if degree[road.a] > 1 and degree[road.b] > 1]
        if len(alive) == len(kept):
            break
        kept = alive
    neighbors: dict[str, set[str]] = defaultdict(set)
    for road in kept:
        neighbors[road.a].add(road.b)
        neighbors[road.b].add(road.a)
    best: set[str] = set()
    seen: set[str] = set()
    for start in sorted(neighbors):
        if start in seen:
            continue
        component, stack = {start}, [start]
        while stack:
            for other in neighbors[stack.pop()] - component:
                component.add(other)
                stack.append(other)
        seen |= component
        best = max(best, component, key=len)
    for node in set(nodes) - best:
        del nodes[node]
    return [road for road in kept if road.a in best]
