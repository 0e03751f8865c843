"""Roundabouts of one or two lanes joined by streets.

A street ends at a gate, where pedestrians cross it. From there an entry bends onto the ring and an
exit comes off it, with an island between them. Traffic keeps to the right and circulates
counter-clockwise, so that an arm's exit comes before its entry. On a ring of two lanes the outer
one leads off at the next exit and begins again at every entry.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import LineString
from shapely.ops import polygonize, unary_union

from latentvla_training.world.network_plan import (
    NetworkBuildError,
    NetworkPlan,
    PlanConnection,
    PlanCrossing,
    PlanEdge,
    PlanNode,
)
from latentvla_training.world.network_streets import (
    RoadClass,
    StreetStyle,
    assign_classes,
    bend_roads,
    join_at_corners,
)
from latentvla_training.world.network_topology import Road, count_roads, draw_topology
from latentvla_training.world.polyline import polyline_length, resample_polyline

Array = NDArray[np.float64]

LANE_M = 3.5
#: Gate to ring along the arm; length of a ring junction; of the ring between an exit and the entry
#: after it, for rings of one and of two lanes, m.
ARM_M, JUNCTION_M, ISLAND_M = 26.0, 9.0, (5.0, 11.0)
#: Where the entry gives way: that much of it, m, is inside the ring junction.
ENTRY_M = 9.0
#: The gate, which holds the crossing, along the street, m.
GATE_M = 6.0
MIN_RADIUS_M, MAX_RADIUS_M = 14.0, 26.0
#: Chance of a town with a ring road of two lanes.
RING_ROAD = 0.6
#: From where an entry sees the ring.
SIGHT_M = 20.0
_RING_KMH, _RING_PRIORITY, _ARM_PRIORITY = 30, 9, 3
_CLASSES = (
    RoadClass(lanes=(1,), speeds_kmh=(50, 60), priority=3),
    RoadClass(lanes=(1,), speeds_kmh=(50,), priority=2),
    RoadClass(lanes=(1,), speeds_kmh=(30, 40), priority=1),
)
_STYLE = StreetStyle(_CLASSES, 0.1, 0.05, 60.0, 24.0, 6.0, 4, urban=True)


@dataclass
class _Arm:
    """Where a street meets a roundabout: bearing from the centre, rad; the street; which end."""

    bearing: float
    number: int
    at_start: bool


def plan_roundabouts(rng: np.random.Generator, seed: int, folder: Path) -> NetworkPlan:
    """Return a network in which every junction is a roundabout.

    Raises:
        NetworkBuildError: too few of them, or arms too close together.
    """
    centers, roads = draw_topology("roundabout", rng, seed, folder)
    if sum(count > 2 for count in count_roads(roads).values()) < _STYLE.min_junctions:
        raise NetworkBuildError(f"seed {seed}: fewer than {_STYLE.min_junctions} roundabouts")
    assign_classes(centers, roads, _CLASSES, rng)
    bend_roads(centers, roads, _STYLE, rng)
    roads = join_at_corners(centers, roads, _STYLE.corner_m)
    _widen_ring_road(roads, rng)
    plan = NetworkPlan()
    streets: list[Array] = []
    arms: dict[str, list[_Arm]] = {name: [] for name in centers}
    for number, road in enumerate(roads):
        assert road.shape is not None
        streets.append(resample_polyline(road.shape))
        for name, at_start in ((road.a, True), (road.b, False)):
            shape = streets[number] if at_start else streets[number][::-1]
            leaving = shape[np.argmax(np.linalg.norm(shape - centers[name], axis=1) > 40.0)]
            offset = leaving - centers[name]
            arms[name].append(_Arm(math.atan2(offset[1], offset[0]), number, at_start))
    ends: dict[int, list[str]] = {number: ["", ""] for number in range(len(roads))}
    trims = {number: [0.0, 0.0] for number in range(len(roads))}
    for name in sorted(centers):
        ordered = sorted(arms[name], key=lambda arm: arm.bearing)
        inner, lanes = _ring_size(name, ordered, roads)
        for arm in ordered:
            side = 0 if arm.at_start else 1
            ends[arm.number][side] = f"{name}g{arm.number}{'ab'[side]}"
            trims[arm.number][side] = inner + lanes * LANE_M + ARM_M + GATE_M
        _draw_ring(plan, name, centers[name], inner, lanes, ordered, roads, streets, ends)
    for number, road in enumerate(roads):
        shape = _trim(streets[number], *trims[number])
        for name, (source, target), line in (
            (f"r{number}f", ends[number], shape),
            (f"r{number}b", ends[number][::-1], shape[::-1]),
        ):
            plan.edges[name] = PlanEdge(
                source, target, road.lanes, road.speed, road.priority, line, sidewalk=True
            )
    return plan


def _widen_ring_road(roads: list[Road], rng: np.random.Generator) -> None:
    """Give the roads all around a town two lanes, so that a second lane always leads on."""
    if rng.random() > RING_ROAD:
        return
    blocks = polygonize([LineString(road.shape) for road in roads])
    outside = unary_union(list(blocks)).boundary
    for road in roads:
        if outside.buffer(0.5).covers(LineString(road.shape)):
            road.lanes, road.speed, road.priority = 2, max(road.speed, 50 / 3.6), 3


def _ring_size(name: str, arms: list[_Arm], roads: list[Road]) -> tuple[float, int]:
    """Inner radius and lanes of the ring that gives every two neighbouring arms enough room."""
    lanes = 2 if sum(roads[arm.number].lanes > 1 for arm in arms) > 1 else 1
    bearings = [arm.bearing for arm in arms]
    gaps = [
        (second - first) % (2 * math.pi) or 2 * math.pi
        for first, second in zip(bearings, bearings[1:] + bearings[:1], strict=True)
    ]
    needed = (ISLAND_M[lanes - 1] + 2 * JUNCTION_M + 5.0) / min(gaps)
    outer_lane = LANE_M * (lanes - 0.5)
    inner = max(needed - outer_lane, MIN_RADIUS_M)
    if inner > MAX_RADIUS_M:
        raise NetworkBuildError(f"roundabout {name}: arms too close for a ring of {inner:.0f} m")
    return inner, lanes


def _draw_ring(
    plan: NetworkPlan,
    name: str,
    center: Array,
    inner: float,
    lanes: int,
    arms: list[_Arm],
    roads: list[Road],
    streets: list[Array],
    ends: dict[int, list[str]],
) -> None:
    """Add the ring, its entries, exits and gates, and how their lanes lead on."""
    outer = inner + LANE_M * (lanes - 0.5)  # of the outer lane's centre
    half_island, junction = ISLAND_M[lanes - 1] / 2 / outer, JUNCTION_M / outer
    count = len(arms)
    for index, arm in enumerate(arms):
        road = roads[arm.number]
        side = 0 if arm.at_start else 1
        gate = ends[arm.number][side]
        exit_node, entry_node = f"{name}x{arm.number}{side}", f"{name}e{arm.number}{side}"
        following = arms[(index + 1) % count]
        next_exit = f"{name}x{following.number}{0 if following.at_start else 1}"
        turn = (following.bearing - arm.bearing) % (2 * math.pi) or 2 * math.pi
        island = (arm.bearing - half_island, arm.bearing + half_island)
        onward = (
            arm.bearing + half_island + junction,
            arm.bearing + turn - half_island - junction,
        )
        past, ring = f"{name}i{arm.number}{side}x", f"{name}q{arm.number}{side}x"
        before = arms[index - 1]
        ring_before = f"{name}q{before.number}{0 if before.at_start else 1}x"
        # Past an exit only the inner lane goes on: the outer one has left.
        for edge, source, target, span, count_of in (
            (past, exit_node, entry_node, island, 1),
            (ring, entry_node, next_exit, onward, lanes),
        ):
            plan.edges[edge] = PlanEdge(
                source, target, count_of, _RING_KMH / 3.6, _RING_PRIORITY,
                _arc(center, inner, *span), sidewalk=edge == ring,
            )  # fmt: skip
        entry, exit_, crossing = _add_arm(plan, arm, road, streets[arm.number], gate, name,
                                          center, inner, lanes)  # fmt: skip
        plan.crossings.append(PlanCrossing(gate, crossing))
        for node, angle in (
            (exit_node, arm.bearing - half_island - junction / 2),
            (entry_node, arm.bearing + half_island + junction / 2),
        ):
            plan.nodes[node] = PlanNode(_arc(center, outer, angle, angle)[0], 2.0)
        inside = lanes - 1
        radius = inner + LANE_M / 2
        plan.connections += [
            PlanConnection(source, target, first, last, _arc(center, radius, *span))
            for source, target, first, last, span in (
                (ring_before, past, inside, 0, (island[0] - junction, island[0])),
                (past, ring, 0, inside, (island[1], onward[0])),
            )
        ]
        for lane in range(road.lanes):
            plan.connections.append(PlanConnection(ring_before, exit_, lane, lane))
            plan.connections.append(PlanConnection(entry, ring, lane, lane, sight_m=SIGHT_M))
        if lanes == 2 and road.lanes == 1:
            plan.connections.append(PlanConnection(entry, ring, 0, 1, sight_m=SIGHT_M))


def _add_arm(
    plan: NetworkPlan,
    arm: _Arm,
    road: Road,
    street: Array,
    gate: str,
    name: str,
    center: Array,
    inner: float,
    lanes: int,
) -> tuple[str, str, tuple[str, str]]:
    """Add gate, entry and exit of an arm; return entry, exit and the street's edges there."""
    side = 0 if arm.at_start else 1
    shape = street if arm.at_start else street[::-1]
    reach = inner + lanes * LANE_M + ARM_M
    distance = np.linalg.norm(shape - center, axis=1)
    first = int(np.argmax(distance > reach))
    start = shape[first]
    outward = shape[first + 3] - shape[first]
    outward /= np.linalg.norm(outward)
    plan.nodes[gate] = PlanNode(start + outward * GATE_M / 2, 2.0)
    outer = inner + LANE_M * (lanes - 0.5)
    angle = (ISLAND_M[lanes - 1] / 2 + JUNCTION_M) / outer
    entry, exit_ = f"{name}n{arm.number}{side}x", f"{name}o{arm.number}{side}x"
    # Left edges: an entry's runs from the street's centre line to the ring's, seen from its lanes.
    edge = inner + LANE_M * (lanes - road.lanes)
    joins = _arc(center, edge, arm.bearing + angle, arm.bearing + angle)[0]
    tangent = np.array([-math.sin(arm.bearing + angle), math.cos(arm.bearing + angle)])
    curve = resample_polyline(_hermite(start, -outward, joins, tangent), 1.0)
    plan.edges[entry] = PlanEdge(
        gate, f"{name}e{arm.number}{side}", road.lanes, min(road.speed, 40 / 3.6),
        _ARM_PRIORITY, _trim(curve, 0.0, ENTRY_M), sidewalk=True,
    )  # fmt: skip
    leaves = _arc(center, edge, arm.bearing - angle, arm.bearing - angle)[0]
    tangent = np.array([-math.sin(arm.bearing - angle), math.cos(arm.bearing - angle)])
    curve = resample_polyline(_hermite(leaves, tangent, start, outward), 1.0)
    plan.edges[exit_] = PlanEdge(
        f"{name}x{arm.number}{side}", gate, road.lanes, min(road.speed, 40 / 3.6),
        _ARM_PRIORITY, _trim(curve, ENTRY_M, 0.0), sidewalk=True,
    )  # fmt: skip
    outgoing, incoming = (f"r{arm.number}{letter}" for letter in ("fb" if arm.at_start else "bf"))
    for lane in range(road.lanes):
        plan.connections.append(PlanConnection(incoming, entry, lane, lane))
        plan.connections.append(PlanConnection(exit_, outgoing, lane, lane))
    return entry, exit_, (outgoing, incoming)


def _arc(center: Array, radius: float, first: float, last: float) -> Array:
    """Points (N, 2) on a circle from one angle to another, counter-clockwise."""
    angle = np.linspace(first, last, max(2, round(radius * (last - first) / 1.0) + 1))
    return np.asarray(center + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1))


def _hermite(start: Array, leaving: Array, end: Array, arriving: Array) -> Array:
    """A cubic from ``start`` to ``end`` (2,) that leaves and arrives in two unit directions."""
    reach = 1.15 * float(np.linalg.norm(end - start))
    t = np.linspace(0.0, 1.0, 40)[:, None]
    return np.asarray(
        (2 * t**3 - 3 * t**2 + 1) * start
        + (t**3 - 2 * t**2 + t) * reach * leaving
        + (3 * t**2 - 2 * t**3) * end
        + (t**3 - t**2) * reach * arriving
    )


def _trim(points: Array, first: float, last: float) -> Array:
    """A polyline without its first and last metres.

    Raises:
        NetworkBuildError: less than 2 m would be left.
    """
    length = polyline_length(points)
    if length < first + last + 2.0:
        raise NetworkBuildError(f"a road of {length:.0f} m is too short for its ends")
    s = np.append(0.0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1)))
    inside = (s > first + 0.5) & (s < length - last - 0.5)
    grid = np.concatenate([[first], s[inside], [length - last]])
    return np.stack([np.interp(grid, s, points[:, axis]) for axis in (0, 1)], axis=1)
