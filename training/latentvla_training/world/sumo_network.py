"""Draws a road network with SUMO's own tools: netgenerate's topology, bent roads, netconvert.

netgenerate only makes straight roads; here each road is re-drawn as an arc or an S-curve and given
a class (lanes, speed, priority) before netconvert builds junctions.
"""

from __future__ import annotations

import math
import subprocess
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from shapely.geometry import LineString

from latentvla_training.world.polyline import polyline_length, resample_polyline
from latentvla_training.world.signal_programs import write_signal_programs

Array = NDArray[np.float64]


class NetworkBuildError(RuntimeError):
    """SUMO could not build a usable network from this seed."""


@dataclass(frozen=True)
class RoadClass:
    """What a road of one class looks like: choices of lanes and of km/h, SUMO priority."""

    lanes: tuple[int, ...]
    speeds_kmh: tuple[int, ...]
    priority: int


ROAD_CLASSES = (
    RoadClass(lanes=(2, 2, 3), speeds_kmh=(50, 60), priority=3),
    RoadClass(lanes=(1, 2), speeds_kmh=(40, 50, 50), priority=2),
    RoadClass(lanes=(1,), speeds_kmh=(30, 40), priority=1),
)
LANE_WIDTH_M = 3.5
JUNCTION_RADIUS_M = 9.0
MIN_JUNCTIONS = 12
#: Width of the Gaussian that rounds a corner; 90 degrees become a radius of about 30 m.
CORNER_SMOOTHING_M = 18.0


@dataclass
class _Road:
    """An undirected road between two nodes."""

    a: str
    b: str
    road_class: int = 2
    lanes: int = 1
    speed: float = 8.0
    shape: Array | None = None


def draw_network(seed: int, folder: Path) -> tuple[Path, Path]:
    """Write ``net.net.xml`` and ``tls.add.xml`` of the network drawn with ``seed`` into ``folder``.

    Raises:
        NetworkBuildError: the tools failed or left too small a network.
    """
    rng = np.random.default_rng(seed)
    nodes, roads = _topology(rng, seed, folder)
    roads = _prune(nodes, roads, rng)
    junctions = sum(count > 2 for count in _degrees(roads).values())
    if junctions < MIN_JUNCTIONS:
        raise NetworkBuildError(f"seed {seed}: {junctions} junctions, at least {MIN_JUNCTIONS}")
    _assign_classes(nodes, roads, rng)
    _bend(nodes, roads, rng)
    roads = _join_at_corners(nodes, roads)
    _write_plain(nodes, roads, rng, folder)
    net_path = folder / "net.net.xml"
    _run(
        "netconvert", "--node-files", "plain.nod.xml", "--edge-files", "plain.edg.xml",
        "--output-file", net_path.name, "--no-turnarounds", "--seed", str(seed),
        "--junctions.internal-link-detail", "12", "--junctions.corner-detail", "6",
        "--junctions.limit-turn-speed", "2.5", "--default.lanewidth", str(LANE_WIDTH_M),
        "--default.junctions.radius", str(JUNCTION_RADIUS_M), "--precision", "3",
        cwd=folder,
    )  # fmt: skip
    tls_path = folder / "tls.add.xml"
    write_signal_programs(net_path, tls_path, rng)
    return net_path, tls_path


def sumo_binary(name: str) -> str:
    """Return the path of a SUMO tool of the installed ``eclipse-sumo`` package."""
    import sumo

    return str(Path(sumo.SUMO_HOME) / "bin" / name)


def _run(tool: str, *arguments: str, cwd: Path) -> None:
    result = subprocess.run(
        [sumo_binary(tool), *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise NetworkBuildError(f"{tool} failed: {result.stderr.strip()[:500]}")


def _topology(
    rng: np.random.Generator, seed: int, folder: Path
) -> tuple[dict[str, Array], list[_Road]]:
    """Let netgenerate place nodes and straight roads."""
    style = ("grid", "rand", "spider", "rand")[int(rng.integers(4))]
    arguments = {
        "grid": [
            "--grid", "--grid.x-number", "5", "--grid.y-number", "5",
            "--grid.x-length", f"{rng.uniform(115, 145):.1f}",
            "--grid.y-length", f"{rng.uniform(115, 145):.1f}",
        ],
        "rand": [
            "--rand", "--rand.iterations", str(int(rng.integers(46, 64))),
            "--rand.min-distance", "95", "--rand.max-distance", "160", "--rand.min-angle", "65",
            "--rand.num-tries", "80", "--rand.connectivity", "0.97",
            "--rand.neighbor-dist1", "0", "--rand.neighbor-dist2", "1",
            "--rand.neighbor-dist3", "8", "--rand.neighbor-dist4", "10",
            "--rand.neighbor-dist5", "0", "--rand.neighbor-dist6", "0",
        ],
        "spider": [
            "--spider", "--spider.arm-number", str(int(rng.integers(5, 8))),
            "--spider.circle-number", "3", "--spider.space-radius", f"{rng.uniform(90, 110):.1f}",
            "--spider.omit-center",
        ],
    }[style]  # fmt: skip
    _run("netgenerate", *arguments, "--seed", str(seed), "--plain-output-prefix", "base",
         "--no-turnarounds", cwd=folder)  # fmt: skip
    jitter = {"grid": 16.0, "rand": 0.0, "spider": 9.0}[style]
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
    return nodes, [_Road(a, b) for a, b in sorted(pairs)]


def _prune(nodes: dict[str, Array], roads: list[_Road], rng: np.random.Generator) -> list[_Road]:
    """Take out a few roads of dense nets, then dead ends and all but one component."""
    degree = _degrees(roads)
    kept: list[_Road] = []
    for index in rng.permutation(len(roads)):
        road = roads[index]
        if rng.random() < 0.18 and degree[road.a] > 3 and degree[road.b] > 3:
            degree[road.a] -= 1
            degree[road.b] -= 1
        else:
            kept.append(road)
    kept.sort(key=lambda road: (road.a, road.b))
    while True:
        degree = _degrees(kept)
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


def _degrees(roads: list[_Road]) -> dict[str, int]:
    degree: dict[str, int] = defaultdict(int)
    for road in roads:
        degree[road.a] += 1
        degree[road.b] += 1
    return degree


def _assign_classes(nodes: dict[str, Array], roads: list[_Road], rng: np.random.Generator) -> None:
    """Give classes along straight-on chains, so that a main road stays one through a junction."""
    incident: dict[str, list[_Road]] = defaultdict(list)
    for road in roads:
        incident[road.a].append(road)
        incident[road.b].append(road)
    assigned: set[int] = set()
    for index in rng.permutation(len(roads)):
        if int(index) in assigned:
            continue
        kind = int(rng.choice(len(ROAD_CLASSES), p=(0.4, 0.35, 0.25)))
        chain = [roads[index]]
        for node in (roads[index].a, roads[index].b):
            chain += _straight_on(roads[index], node, nodes, incident)
        lanes = int(rng.choice(ROAD_CLASSES[kind].lanes))
        speed = float(rng.choice(ROAD_CLASSES[kind].speeds_kmh)) / 3.6
        for road in chain:
            position = roads.index(road)
            if position not in assigned:
                assigned.add(position)
                road.road_class, road.lanes, road.speed = kind, lanes, speed


def _straight_on(
    road: _Road, node: str, nodes: dict[str, Array], incident: dict[str, list[_Road]]
) -> list[_Road]:
    """Roads met when leaving ``road`` at ``node`` and keeping within 35 degrees of straight."""
    found: list[_Road] = []
    for _ in range(4):
        origin = road.a if road.b == node else road.b
        heading = nodes[node] - nodes[origin]
        best, best_cosine = None, math.cos(math.radians(35))
        for other in incident[node]:
            if other is road:
                continue
            target = other.a if other.b == node else other.b
            onward = nodes[target] - nodes[node]
            cosine = float(heading @ onward / np.linalg.norm(heading) / np.linalg.norm(onward))
            if cosine > best_cosine:
                best, best_cosine = other, cosine
        if best is None:
            break
        found.append(best)
        node = best.a if best.b == node else best.b
        road = best
    return found


def _bend(nodes: dict[str, Array], roads: list[_Road], rng: np.random.Generator) -> None:
    """Draw each road as a straight, an arc or an S; what would hit another road stays straight."""
    for road in roads:
        start, end = nodes[road.a], nodes[road.b]
        length = float(np.linalg.norm(end - start))
        normal = np.array([-(end - start)[1], (end - start)[0]]) / length
        t = np.linspace(0.0, 1.0, max(2, int(length / 5.0)) + 1)
        kind = rng.random()
        sign = float(rng.choice((-1.0, 1.0)))
        if kind < 0.12:
            offset = np.zeros_like(t)
        elif kind < 0.58:
            limit = min(0.13 * length, length**2 / 400.0)  # radius of at least about 40 m
            offset = sign * rng.uniform(0.35, 1.0) * limit * np.sin(math.pi * t)
        else:
            limit = min(0.07 * length, length**2 / 1400.0)
            offset = sign * rng.uniform(0.4, 1.0) * limit * np.sin(2 * math.pi * t)
        road.shape = start + t[:, None] * (end - start) + offset[:, None] * normal
    _straighten_sharp_corners(nodes, roads)
    for road in roads:
        line = LineString(road.shape[1:-1]).buffer(26.0)  # type: ignore[index]
        for other in roads:
            if other is road or {road.a, road.b} & {other.a, other.b}:
                continue
            if line.intersects(LineString(other.shape)):
                road.shape = np.stack([nodes[road.a], nodes[road.b]])
                break


def _join_at_corners(nodes: dict[str, Array], roads: list[_Road]) -> list[_Road]:
    """Join the two roads of a node that is no junction, their corner rounded to about 30 m."""
    joined = list(roads)
    for node in sorted(nodes):
        pair = [road for road in joined if node in (road.a, road.b)]
        if len(pair) != 2:
            continue
        first, second = pair
        start = first.a if first.b == node else first.b
        end = second.a if second.b == node else second.b
        if start == end:
            continue
        assert first.shape is not None and second.shape is not None
        incoming = first.shape if first.b == node else first.shape[::-1]
        outgoing = second.shape if second.a == node else second.shape[::-1]
        shape = _round_corner(incoming, outgoing)
        joined = [road for road in joined if road not in pair]
        joined.append(_Road(start, end, first.road_class, first.lanes, first.speed, shape))
        del nodes[node]
    return joined


def _round_corner(incoming: Array, outgoing: Array, spacing_m: float = 3.0) -> Array:
    """Join two polylines and smooth them around the joint, their far ends left as they are."""
    corner = polyline_length(incoming)
    shape = resample_polyline(np.concatenate([incoming, outgoing]), spacing_m)
    smooth = gaussian_filter1d(shape, CORNER_SMOOTHING_M / spacing_m, axis=0, mode="nearest")
    s = np.linspace(0.0, polyline_length(shape), len(shape))
    reach = max(min(corner, s[-1] - corner) - 8.0, 1.0)
    weight = np.clip(2.0 - 2.0 * np.abs(s - corner) / reach, 0.0, 1.0)[:, None]
    return np.asarray(weight * smooth + (1.0 - weight) * shape)


def _straighten_sharp_corners(nodes: dict[str, Array], roads: list[_Road]) -> None:
    """Straighten bends that close the angle between two roads; refuse less than 45 degrees."""
    for limit_deg, last in ((62.0, False), (45.0, True)):
        for node in sorted(nodes):
            leaving = []
            for road in roads:
                if node in (road.a, road.b) and road.shape is not None:
                    shape = road.shape if road.a == node else road.shape[::-1]
                    reach = np.argmax(np.linalg.norm(shape - shape[0], axis=1) > 18.0) or -1
                    leaving.append((road, shape[reach] - shape[0]))
            for first in range(len(leaving)):
                for road, vector in leaving[first + 1 :]:
                    other, ray = leaving[first]
                    cosine = vector @ ray / np.linalg.norm(vector) / np.linalg.norm(ray)
                    if cosine < math.cos(math.radians(limit_deg)):
                        continue
                    if last:
                        raise NetworkBuildError(f"two roads leave node {node} too close together")
                    for sharp in (road, other):
                        sharp.shape = np.stack([nodes[sharp.a], nodes[sharp.b]])


def _write_plain(
    nodes: dict[str, Array], roads: list[_Road], rng: np.random.Generator, folder: Path
) -> None:
    degree = _degrees(roads)
    rank: dict[str, list[int]] = defaultdict(list)
    for road in roads:
        rank[road.a].append(road.road_class)
        rank[road.b].append(road.road_class)
    root = ElementTree.Element("nodes")
    for node in sorted(nodes):
        major = sum(kind == 0 for kind in rank[node])
        chance = 0.0 if degree[node] < 3 else (0.65 if major >= 2 else 0.4)
        kind = "traffic_light" if rng.random() < chance else "priority"
        x, y = nodes[node]
        ElementTree.SubElement(
            root, "node", id=node, x=f"{x:.3f}", y=f"{y:.3f}", type=kind,
            radius=f"{JUNCTION_RADIUS_M}",
        )  # fmt: skip
    ElementTree.ElementTree(root).write(folder / "plain.nod.xml")
    root = ElementTree.Element("edges")
    for number, road in enumerate(roads):
        assert road.shape is not None
        for name, source, target, shape in (
            (f"r{number}f", road.a, road.b, road.shape),
            (f"r{number}b", road.b, road.a, road.shape[::-1]),
        ):
            ElementTree.SubElement(
                root, "edge", {"id": name, "from": source, "to": target},
                numLanes=str(road.lanes), speed=f"{road.speed:.3f}",
                priority=str(ROAD_CLASSES[road.road_class].priority), spreadType="right",
                shape=" ".join(f"{x:.3f},{y:.3f}" for x, y in shape),
            )  # fmt: skip
    ElementTree.ElementTree(root).write(folder / "plain.edg.xml")
