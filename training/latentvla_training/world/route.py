"""A route through a road map: lanes, a smooth centreline, speeds, and the junctions on the way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from latentvla_training.world.layers import RightOfWay
from latentvla_training.world.polyline import polyline_length, resample_polyline
from latentvla_training.world.road_map import Lane, RoadMap

Array = NDArray[np.float64]

SPACING_M = 1.0
LATERAL_ACCELERATION = 2.0
COMFORTABLE_BRAKING = 1.8
CONFLICT_RADIUS_M = 2.7
#: Odds of a connector in the random walk, by SUMO's direction.
TURN_WEIGHTS = {"s": 1.0, "l": 1.6, "r": 2.8}


@dataclass(frozen=True)
class Conflict:
    """Where another connector meets the route's connector.

    Attributes:
        lane_ids: the other connector's chain of internal lanes.
        approach_lane, approach_length: the lane it starts from and how long that is.
        start_offset: (lanes,) arc length at which each lane of the chain begins.
        route_interval: route arc lengths between which the two paths are closer than 3 m.
        foe_interval: the same along the other connector, from its start.
        has_priority: the route must let it pass.
        signal: head that controls it, or -1.
    """

    lane_ids: tuple[str, ...]
    approach_lane: str
    approach_length: float
    start_offset: tuple[float, ...]
    route_interval: tuple[float, float]
    foe_interval: tuple[float, float]
    has_priority: bool
    signal: int


@dataclass(frozen=True)
class Crossing:
    """A junction on the route: arc length of its stop line and exit, its head, what it meets."""

    stop_s: float
    exit_s: float
    signal: int
    turn: str
    conflicts: tuple[Conflict, ...]


@dataclass(frozen=True)
class Route:
    """A drivable path of N points about 1 m apart.

    Attributes:
        lane_ids: lanes and connectors in order.
        edge_ids: SUMO edges in order, connectors left out.
        lane_ends: (lanes,) arc length at which each lane ends.
        xy: (N, 2). s: (N,) arc length. yaw: (N,) unwrapped. curvature: (N,) 1/m.
        speed_limit: (N,) of the road. target_speed: (N,) limit and comfort in bends, with braking.
        crossings: junctions in order.
    """

    lane_ids: tuple[str, ...]
    edge_ids: tuple[str, ...]
    lane_ends: Array
    xy: Array
    s: Array
    yaw: Array
    curvature: Array
    speed_limit: Array
    target_speed: Array
    crossings: tuple[Crossing, ...]


def draw_route(
    road_map: RoadMap, rules: RightOfWay, rng: np.random.Generator, length_m: float
) -> Route | None:
    """Walk lanes at random from a random lane, turns balanced; None when the walk gets stuck.

    The walk stays in its lane between junctions (nothing a camera sees would tell a free lane
    change) and never visits an edge twice.
    """
    starts = sorted(
        name
        for name, lane in road_map.lanes.items()
        if not lane.is_connector and polyline_length(lane.centerline) > 40.0
    )
    lane = road_map.lanes[starts[int(rng.integers(len(starts)))]]
    walked, edges = [lane.lane_id], [lane.edge_id]
    length = polyline_length(lane.centerline)
    while length < length_m:
        options = []
        for first in lane.successors:
            chain = connector_chain(road_map, first)
            target = road_map.lanes[chain[-1]].successors
            if target and road_map.lanes[target[0]].edge_id not in edges:
                options.append((chain, target[0], road_map.lanes[first].turn))
        if not options:
            return None
        weights = np.array([TURN_WEIGHTS.get(turn, 1.0) for _, _, turn in options])
        chain, target_id, _ = options[int(rng.choice(len(options), p=weights / weights.sum()))]
        lane = road_map.lanes[target_id]
        walked += [*chain, target_id]
        edges.append(lane.edge_id)
        length += polyline_length(lane.centerline)
        length += sum(polyline_length(road_map.lanes[name].centerline) for name in chain)
    return make_route(road_map, rules, tuple(walked))


def connector_chain(road_map: RoadMap, first: str) -> tuple[str, ...]:
    """Return a connector with the internal lanes that continue it inside the junction."""
    chain = [first]
    while True:
        following = road_map.lanes[chain[-1]].successors
        if not following or not road_map.lanes[following[0]].is_connector:
            return tuple(chain)
        chain.append(following[0])


def make_route(road_map: RoadMap, rules: RightOfWay, lane_ids: tuple[str, ...]) -> Route:
    """Join the centrelines of consecutive lanes into a smooth route."""
    lanes = [road_map.lanes[name] for name in lane_ids]
    raw = np.concatenate([lane.centerline for lane in lanes])
    joined, lane_end = resample_polyline(raw), np.cumsum([len(lane.centerline) for lane in lanes])
    raw_s = np.append(0.0, np.cumsum(np.linalg.norm(np.diff(raw, axis=0), axis=1)))
    ends = raw_s[lane_end - 1]
    xy = gaussian_filter1d(joined, 2.0 / SPACING_M, axis=0, mode="nearest")
    xy[:6], xy[-6:] = joined[:6], joined[-6:]
    step = np.diff(xy, axis=0)
    s = np.append(0.0, np.cumsum(np.linalg.norm(step, axis=1)))
    ends = np.interp(ends, np.linspace(0.0, raw_s[-1], len(s)), s)
    gradient = np.gradient(xy, s, axis=0)
    yaw = np.unwrap(np.arctan2(gradient[:, 1], gradient[:, 0]))
    curvature = gaussian_filter1d(np.gradient(yaw, s), 1.5)
    limit = _speed_limit(lanes, ends, s)
    crossings = []
    index = 1
    while index < len(lanes):
        if not lanes[index].is_connector:
            index += 1
            continue
        chain = connector_chain(road_map, lane_ids[index])
        last = min(index + len(chain), len(lanes)) - 1
        stop_s, exit_s = float(ends[index - 1]), float(ends[last])
        crossings.append(
            Crossing(
                stop_s=stop_s,
                exit_s=exit_s,
                signal=lanes[index].signal,
                turn=lanes[index].turn,
                conflicts=_conflicts(road_map, rules, lane_ids[index], xy, s, stop_s, exit_s),
            )
        )
        index = last + 1
    return Route(
        lane_ids=lane_ids,
        edge_ids=tuple(lane.edge_id for lane in lanes if not lane.is_connector),
        lane_ends=ends,
        xy=xy,
        s=s,
        yaw=yaw,
        curvature=curvature,
        speed_limit=limit,
        target_speed=_target_speed(limit, curvature, s),
        crossings=tuple(crossings),
    )


def _speed_limit(lanes: list[Lane], ends: Array, s: Array) -> Array:
    """Limit at each s; connectors, which SUMO slows for comfort, keep the approach's limit."""
    values, current = [], lanes[0].speed_limit_mps
    for lane in lanes:
        current = current if lane.is_connector else lane.speed_limit_mps
        values.append(current)
    return np.asarray(values)[np.minimum(np.searchsorted(ends, s), len(lanes) - 1)]


def _target_speed(limit: Array, curvature: Array, s: Array) -> Array:
    """Limit and lateral comfort, lowered so that braking ahead of a slower place is comfortable."""
    speed = np.minimum(limit, np.sqrt(LATERAL_ACCELERATION / np.maximum(np.abs(curvature), 1e-4)))
    for index in range(len(s) - 2, -1, -1):
        reachable = speed[index + 1] ** 2 + 2 * COMFORTABLE_BRAKING * (s[index + 1] - s[index])
        speed[index] = min(speed[index], np.sqrt(reachable))
    return np.asarray(speed)


def _conflicts(
    road_map: RoadMap,
    rules: RightOfWay,
    connector: str,
    xy: Array,
    s: Array,
    stop_s: float,
    exit_s: float,
) -> tuple[Conflict, ...]:
    inside = np.flatnonzero((s >= stop_s) & (s <= exit_s + 4.0))
    found = []
    for foe in rules.foes.get(connector, ()):
        chain = connector_chain(road_map, foe)
        lines = [road_map.lanes[name].centerline for name in chain]
        path = resample_polyline(np.concatenate(lines))
        near = np.linalg.norm(path[:, None] - xy[inside][None], axis=2) < CONFLICT_RADIUS_M
        if not near.any():
            continue
        along_foe, along_route = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
        approach = next(lane for lane in road_map.lanes.values() if foe in lane.successors)
        found.append(
            Conflict(
                lane_ids=chain,
                approach_lane=approach.lane_id,
                approach_length=polyline_length(approach.centerline),
                start_offset=tuple(np.cumsum([0.0, *map(polyline_length, lines)])[:-1].tolist()),
                route_interval=(
                    float(s[inside[along_route[0]]]),
                    float(s[inside[along_route[-1]]]),
                ),
                foe_interval=(float(along_foe[0]), float(along_foe[-1])),
                has_priority=foe in rules.yields_to.get(connector, ()),
                signal=road_map.lanes[foe].signal,
            )
        )
    return tuple(found)
