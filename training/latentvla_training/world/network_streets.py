"""Streets and country roads: bent two-way roads with junctions, each road of a class.

netgenerate only makes straight roads; here each road is re-drawn as an arc or an S-curve and given
a class (lanes, speed, priority) before netconvert builds junctions.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from shapely.geometry import LineString

from latentvla_training.world.network_plan import (
    NetworkBuildError,
    NetworkPlan,
    PlanCrossing,
    PlanEdge,
    PlanNode,
)
from latentvla_training.world.network_topology import Road, count_roads, draw_topology
from latentvla_training.world.polyline import polyline_length, resample_polyline

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RoadClass:
    """What a road of one class looks like: choices of lanes and of km/h, SUMO priority."""

    lanes: tuple[int, ...]
    speeds_kmh: tuple[int, ...]
    priority: int


@dataclass(frozen=True)
class StreetStyle:
    """How the roads of a kind look.

    Attributes:
        classes: of roads, major first. arc, snake: offset of the two kinds of bends from the
            straight line, relative to the road's length.
        radius_m: least radius of a bend. corner_m: width of the Gaussian that rounds the corner
            of two roads that join; 18 m turn 90 degrees into a radius of about 30 m.
        kerb_radius_m: of junction corners.
        min_junctions: fewest junctions of a usable network.
        urban: pavements, crossings and traffic lights.
        straight_ends: bends begin and end level, so that they may be strong near a junction.
    """

    classes: tuple[RoadClass, ...]
    arc: float
    snake: float
    radius_m: float
    corner_m: float
    kerb_radius_m: float
    min_junctions: int
    urban: bool
    straight_ends: bool = False


URBAN_CLASSES = (
    RoadClass(lanes=(2, 2, 3), speeds_kmh=(50, 60), priority=3),
    RoadClass(lanes=(1, 2), speeds_kmh=(40, 50, 50), priority=2),
    RoadClass(lanes=(1,), speeds_kmh=(30, 40), priority=1),
)
RURAL_CLASSES = (
    RoadClass(lanes=(1,), speeds_kmh=(90, 100), priority=3),
    RoadClass(lanes=(1,), speeds_kmh=(80, 90), priority=2),
    RoadClass(lanes=(1,), speeds_kmh=(70, 80), priority=1),
)
_URBAN = StreetStyle(URBAN_CLASSES, 0.13, 0.07, 40.0, 18.0, 9.0, 12, urban=True)
STYLES = {
    "grid": _URBAN,
    "spider": _URBAN,
    "random": replace(_URBAN, min_junctions=9),
    "rural": StreetStyle(
        RURAL_CLASSES, 0.2, 0.13, 65.0, 34.0, 12.0, 5, urban=False, straight_ends=True
    ),
}
#: Chance of a light at a junction of two major roads, and at any other.
_LIGHT_MAJOR, _LIGHT_OTHER = 0.65, 0.4
#: Chance of a zebra crossing over an approach of up to two lanes a direction without a light.
_ZEBRA = 0.4


def plan_streets(kind: str, rng: np.random.Generator, seed: int, folder: Path) -> NetworkPlan:
    """Return a network of two-way roads.

    Args:
        kind: of ``STYLES``. folder: for netgenerate's files.

    Raises:
        NetworkBuildError: too few junctions, or roads that leave one too close together.
    """
    style = STYLES[kind]
    nodes, roads = draw_topology(kind, rng, seed, folder)
    junctions = sum(count > 2 for count in count_roads(roads).values())
    if junctions < style.min_junctions:
        raise NetworkBuildError(f"seed {seed}: {junctions} junctions, {style.min_junctions} wanted")
    assign_classes(nodes, roads, style.classes, rng)
    bend_roads(nodes, roads, style, rng)
    roads = join_at_corners(nodes, roads, style.corner_m)
    return _plan(nodes, roads, style, rng)


def assign_classes(
    nodes: dict[str, Array],
    roads: list[Road],
    classes: tuple[RoadClass, ...],
    rng: np.random.Generator,
) -> None:
    """Give classes along straight-on chains, so that a main road stays one through a junction."""
    incident: dict[str, list[Road]] = defaultdict(list)
    for road in roads:
        incident[road.a].append(road)
        incident[road.b].append(road)
    assigned: set[int] = set()
    for index in rng.permutation(len(roads)):
        if int(index) in assigned:
            continue
        road_class = classes[int(rng.choice(len(classes), p=(0.4, 0.35, 0.25)))]
        chain = [roads[index]]
        for node in (roads[index].a, roads[index].b):
            chain += _straight_on(roads[index], node, nodes, incident)
        lanes = int(rng.choice(road_class.lanes))
        speed = float(rng.choice(road_class.speeds_kmh)) / 3.6
        for road in chain:
            position = roads.index(road)
            if position not in assigned:
                assigned.add(position)
                road.priority, road.lanes, road.speed = road_class.priority, lanes, speed


def _straight_on(
    road: Road, node: str, nodes: dict[str, Array], incident: dict[str, list[Road]]
) -> list[Road]:
    """Roads met when leaving ``road`` at ``node`` and keeping within 35 degrees of straight."""
    found: list[Road] = []
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


def bend_roads(
    nodes: dict[str, Array], roads: list[Road], style: StreetStyle, rng: np.random.Generator
) -> None:
    """Draw each road as a straight, an arc or an S; what would hit another road stays straight."""
    ends = 2 if style.straight_ends else 1
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
            limit = min(style.arc * length, length**2 / (10.0 * ends * style.radius_m))
            offset = sign * rng.uniform(0.35, 1.0) * limit * np.sin(math.pi * t) ** ends
        else:
            limit = min(style.snake * length, length**2 / (35.0 * style.radius_m))
            offset = sign * rng.uniform(0.4, 1.0) * limit * np.sin(2 * math.pi * t)
            offset *= np.sin(math.pi * t) ** (ends - 1)
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


def join_at_corners(nodes: dict[str, Array], roads: list[Road], corner_m: float) -> list[Road]:
    """Join the two roads of a node that is no junction, their corner rounded."""
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
        shape = _round_corner(incoming, outgoing, corner_m)
        joined = [road for road in joined if road not in pair]
        joined.append(Road(start, end, first.lanes, first.speed, first.priority, shape))
        del nodes[node]
    return joined


def _round_corner(
    incoming: Array, outgoing: Array, width_m: float, spacing_m: float = 3.0
) -> Array:
    """Join two polylines and smooth them around the joint, their far ends left as they are."""
    corner = polyline_length(incoming)
    shape = resample_polyline(np.concatenate([incoming, outgoing]), spacing_m)
    smooth = gaussian_filter1d(shape, width_m / spacing_m, axis=0, mode="nearest")
    s = np.linspace(0.0, polyline_length(shape), len(shape))
    reach = max(min(corner, s[-1] - corner) - 8.0, 1.0)
    weight = np.clip(2.0 - 2.0 * np.abs(s - corner) / reach, 0.0, 1.0)[:, None]
    return np.asarray(weight * smooth + (1.0 - weight) * shape)


def _straighten_sharp_corners(nodes: dict[str, Array], roads: list[Road]) -> None:
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


def _plan(
    nodes: dict[str, Array], roads: list[Road], style: StreetStyle, rng: np.random.Generator
) -> NetworkPlan:
    """Decide on lights and crossings, and make two one-way edges of every road."""
    plan = NetworkPlan()
    meeting: dict[str, list[int]] = defaultdict(list)
    for number, road in enumerate(roads):
        meeting[road.a].append(number)
        meeting[road.b].append(number)
        assert road.shape is not None
        for name, source, target, shape in (
            (f"r{number}f", road.a, road.b, road.shape),
            (f"r{number}b", road.b, road.a, road.shape[::-1]),
        ):
            plan.edges[name] = PlanEdge(
                source, target, road.lanes, road.speed, road.priority, shape, style.urban
            )
    for node in sorted(nodes):
        arms = meeting[node]
        major = sum(roads[arm].priority == style.classes[0].priority for arm in arms)
        chance = _LIGHT_MAJOR if major >= 2 else _LIGHT_OTHER
        signalised = style.urban and len(arms) > 2 and rng.random() < chance
        control = "traffic_light" if signalised else "priority"
        plan.nodes[node] = PlanNode(nodes[node], style.kerb_radius_m, control)
        for arm in arms if style.urban and len(arms) > 2 else ():
            zebra = rng.random() < _ZEBRA and roads[arm].lanes <= 2
            if signalised or zebra:
                plan.crossings.append(PlanCrossing(node, (f"r{arm}f", f"r{arm}b")))
    return plan
