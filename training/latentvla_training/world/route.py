"""A route through a road map: lanes, a smooth centreline, speeds, and the junctions on the way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from latentvla_training.world.layers import RightOfWay
from latentvla_training.world.polyline import polyline_length, resample_polyline
from latentvla_training.world.road_map import Crosswalk, Lane, RoadMap

Array = NDArray[np.float64]

SPACING_M = 1.0
LATERAL_ACCELERATION = 2.0
COMFORTABLE_BRAKING = 1.8
CONFLICT_RADIUS_M = 2.7
#: Way over a crosswalk: a shorter one only touches it, points farther apart are two passages.
LEAST_ZEBRA_M, MAX_ZEBRA_M = 1.0, 25.0
#: An episode of 30 s and the drive before it, at the speed limit, s.
DRIVE_S = 45.0
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
        upstream: lanes that lead to the approach lane, with the distance from the start of each
            to the start of the connector: who comes fast is seen before the approach lane.
    """

    lane_ids: tuple[str, ...]
    approach_lane: str
    approach_length: float
    start_offset: tuple[float, ...]
    route_interval: tuple[float, float]
    foe_interval: tuple[float, float]
    has_priority: bool
    signal: int
    upstream: tuple[tuple[str, float], ...] = ()


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
        left_room, right_room: (N,) from the path to the edge of the lanes that run beside it in
            the same direction; half a lane inside junctions.
        zebras: (enter_s, exit_s, index into ``RoadMap.crosswalks``) of the crosswalks on the way,
            in order.
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
    left_room: Array
    right_room: Array
    zebras: tuple[tuple[float, float, int], ...] = ()


def draw_route(
    road_map: RoadMap, rules: RightOfWay, rng: np.random.Generator, length_m: float
) -> Route | None:
    """Walk lanes at random from a random lane, turns balanced; None when the walk gets stuck.

    The route is at least ``length_m`` long and, at the limit, takes at least ``DRIVE_S``.

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
    duration = length / lane.speed_limit_mps
    while length < length_m or duration < DRIVE_S:
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
        onward = polyline_length(lane.centerline)
        duration += onward / lane.speed_limit_mps
        length += onward
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
    left_room, right_room = _room(road_map, lanes, ends, s)
    before = _predecessors(road_map)
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
                conflicts=_conflicts(
                    road_map, rules, before, lane_ids[index], xy, s, stop_s, exit_s
                ),
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
        left_room=left_room,
        right_room=right_room,
        zebras=_zebras(road_map.crosswalks, xy, s),
    )


def _zebras(
    crosswalks: tuple[Crosswalk, ...], xy: Array, s: Array
) -> tuple[tuple[float, float, int], ...]:
    """Arc lengths between which the route runs over each crosswalk."""
    line = shapely.LineString(xy)
    found = []
    for index, crosswalk in enumerate(crosswalks):
        inside = shapely.get_coordinates(line.intersection(shapely.Polygon(crosswalk.ring)))
        if len(inside) < 2:
            continue
        # The route may come back: only what lies together is one passage.
        along = np.sort([_locate(point, xy, s) for point in inside])
        for group in np.split(along, np.flatnonzero(np.diff(along) > MAX_ZEBRA_M) + 1):
            if group[-1] - group[0] > LEAST_ZEBRA_M:  # else a route begins or ends at its edge
                found.append((float(group[0]), float(group[-1]), index))
    return tuple(sorted(found))


def _locate(point: Array, xy: Array, s: Array) -> float:
    """Arc length of the place on a polyline nearest to a point of it."""
    start, step = xy[:-1], np.diff(xy, axis=0)
    length2 = (step**2).sum(axis=1)
    t = np.clip(((point - start) * step).sum(axis=1) / length2, 0.0, 1.0)
    distance = np.linalg.norm(start + t[:, None] * step - point, axis=1)
    index = int(np.argmin(distance))
    return float(s[index] + t[index] * (s[index + 1] - s[index]))


def _room(road_map: RoadMap, lanes: list[Lane], ends: Array, s: Array) -> tuple[Array, Array]:
    """Distance from the path to the edges of the same-direction lanes, left and right of it."""
    room = []
    for side in ("left_neighbor", "right_neighbor"):
        values = []
        for lane in lanes:
            width, beside = lane.width_m / 2, getattr(lane, side)
            while not lane.is_connector and beside in road_map.lanes:
                width += road_map.lanes[beside].width_m
                beside = getattr(road_map.lanes[beside], side)
            values.append(width)
        room.append(np.array(values)[np.minimum(np.searchsorted(ends, s), len(lanes) - 1)])
    return room[0], room[1]


def _predecessors(road_map: RoadMap) -> dict[str, list[str]]:
    before: dict[str, list[str]] = {}
    for lane in road_map.lanes.values():
        for following in lane.successors:
            before.setdefault(following, []).append(lane.lane_id)
    return before


def _upstream(
    road_map: RoadMap, before: dict[str, list[str]], approach: Lane, reach_m: float = 160.0
) -> tuple[tuple[str, float], ...]:
    """Lanes that lead to ``approach``, none farther than ``reach_m`` from the junction."""
    found: dict[str, float] = {}
    front = [(approach.lane_id, polyline_length(approach.centerline))]
    while front:
        name, distance = front.pop()
        if distance > reach_m:
            continue
        for previous in before.get(name, ()):
            farther = distance + polyline_length(road_map.lanes[previous].centerline)
            if farther < found.get(previous, np.inf) and previous != approach.lane_id:
                found[previous] = farther
                front.append((previous, farther))
    return tuple(sorted(found.items()))


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
    before: dict[str, list[str]],
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
        approach = road_map.lanes[before[foe][0]]
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
                upstream=_upstream(road_map, before, approach),
            )
        )
    return tuple(found)
