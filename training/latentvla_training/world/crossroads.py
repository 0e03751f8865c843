"""A hand-made junction with signals, a curved road and traffic: the smallest world, without SUMO.

Tests and the camera benchmark run on it. Two-lane carriageways, right-hand traffic; the ego comes
from the west (arm 0) and crosses towards the east, where the road bends to the left.
"""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from latentvla_training.world.episode import STEP_S, AgentModel, Episode
from latentvla_training.world.road_map import (
    Lane,
    Layer,
    Marking,
    MarkingKind,
    Polygon,
    RoadMap,
    Signal,
    SignalState,
)
from latentvla_training.world.scenery import place_props

Array = NDArray[np.float64]

NAME = "crossroads"
_LANE_M, _MOUTH_M, _LIMIT_MPS = 3.5, 18.0, 13.9
_LAMP_HEIGHTS_M = (7.3, 6.25, 5.2)
#: Direction of each arm as seen from the junction.
_ARM_YAW = {"west": np.pi, "south": -np.pi / 2, "east": 0.0, "north": np.pi / 2}


def crossroads_map() -> RoadMap:
    """Return the junction as a RoadMap."""
    polygons: list[Polygon] = []
    lanes: dict[str, Lane] = {}
    signals: list[Signal] = []
    markings: list[Marking] = []
    for arm, yaw in _ARM_YAW.items():
        axis = _arm_axis(yaw, bend=arm == "east")
        for side, heading in (("in", -1), ("out", 1)):
            for number in range(2):
                # Seen outwards, the outgoing lanes lie right of the axis, the incoming ones left.
                center = _offset(axis, -heading * (0.5 + number) * _LANE_M)[::heading]
                lane_id = f"{arm}_{side}_{number}"
                neighbor = {0: (None, f"{arm}_{side}_1"), 1: (f"{arm}_{side}_0", None)}[number]
                targets = _targets(arm) if side == "in" else {}
                lanes[lane_id] = Lane(
                    lane_id,
                    f"{arm}_{side}",
                    False,
                    center,
                    _LANE_M,
                    _LIMIT_MPS,
                    tuple(f"{arm}_{turn}_{number}" for turn in targets),
                    *neighbor,
                    -1,
                    "",
                )
                polygons.append(_strip(Layer.LANE, lane_id, center, _LANE_M))
            middle = _offset(axis, -heading * _LANE_M)
            polygons.append(_strip(Layer.ROADBLOCK, f"{arm}_{side}", middle, 2 * _LANE_M))
            markings.append(Marking(MarkingKind.DASHED, middle, 0.15))
            edge = _offset(axis, -heading * (2 * _LANE_M - 0.2))
            markings.append(Marking(MarkingKind.SOLID, edge, 0.15))
        markings.append(Marking(MarkingKind.CENTRE, _offset(axis, 0.0), 0.2))
        out = np.array([np.cos(yaw), np.sin(yaw)])
        left = np.array([-out[1], out[0]])
        start = _MOUTH_M * out
        stop = np.array([start + 4.6 * out, start + 4.6 * out + 2 * _LANE_M * left])
        markings.append(Marking(MarkingKind.STOP_LINE, stop, 0.4))
        zebra = np.array([start + 2.0 * out - 2 * _LANE_M * left, start + 2 * out + 7.0 * left])
        markings.append(Marking(MarkingKind.CROSSING, zebra, 3.0))
        for number in range(2):
            across = (0.5 + number) * _LANE_M * left
            head = -(_MOUTH_M + 3.0) * out + across
            lamps = np.array([[*head, z] for z in _LAMP_HEIGHTS_M])
            signals.append(
                Signal("crossroads", (len(signals),), f"{arm}_in_{number}", stop, lamps, float(yaw))
            )
    for arm in _ARM_YAW:
        for turn, target in _targets(arm).items():
            for number in range(2):
                lane_id, end = f"{arm}_{turn}_{number}", f"{target}_out_{number}"
                center = _curve(lanes[f"{arm}_in_{number}"].centerline, lanes[end].centerline)
                signal = 2 * list(_ARM_YAW).index(arm) + number
                lanes[lane_id] = Lane(
                    lane_id, ":c", True, center, _LANE_M, 9.0, (end,), None, None, signal, turn
                )
                polygons.append(_strip(Layer.LANE_CONNECTOR, lane_id, center, _LANE_M))
    inner = _MOUTH_M - 2 * _LANE_M
    square = shapely.box(-inner, -inner, inner, inner).buffer(2 * _LANE_M, join_style="bevel")
    polygons.append(Polygon(Layer.INTERSECTION, ":c", np.asarray(square.exterior.coords)[-2::-1]))
    points = np.concatenate([polygon.ring for polygon in polygons])
    bounds = np.concatenate([points.min(axis=0), points.max(axis=0)])
    props = place_props(tuple(polygons), lanes, tuple(signals), bounds, seed=7)
    return RoadMap(NAME, tuple(polygons), lanes, tuple(signals), tuple(markings), props, bounds)


def crossroads_episode(seed: int = 1, num_steps: int = 140) -> Episode:
    """Return an episode: a leader that brakes, oncoming, crossing and parked-up traffic.

    The ego drives 9 m/s along the right lane; its light is red, then green at 4 s, yellow at 10 s.
    """
    road_map = crossroads_map()
    routes = {
        "ahead": ("west_in_1", "west_s_1", "east_out_1"),
        "left": ("west_in_0", "west_l_0", "north_out_0"),
        "oncoming": ("east_in_0", "east_s_0", "west_out_0"),
        "crossing": ("south_in_0", "south_s_0", "north_out_0"),
        "crossing_back": ("north_in_1", "north_s_1", "south_out_1"),
    }
    # Model, route, start (m along it), speed (m/s), length, width, height, colour.
    car, van, truck, bus = AgentModel.CAR, AgentModel.VAN, AgentModel.TRUCK, AgentModel.BUS
    traffic = [
        (car, "ahead", 100.0, 9.0, (4.6, 1.85, 1.5), (176, 28, 34)),
        (van, "ahead", 215.0, 6.0, (5.4, 2.0, 2.4), (40, 84, 150)),
        (car, "left", 90.0, 8.0, (4.2, 1.8, 1.5), (235, 235, 238)),
        (truck, "left", 128.0, 0.0, (8.5, 2.5, 3.3), (222, 196, 90)),
        (car, "oncoming", 60.0, 9.0, (4.8, 1.95, 1.75), (60, 62, 66)),
        (bus, "oncoming", 100.0, 7.0, (11.8, 2.55, 3.2), (205, 70, 40)),
        (car, "crossing", 128.0, 0.0, (4.6, 1.85, 1.5), (196, 200, 204)),
        (car, "crossing", 120.0, 0.0, (4.3, 1.8, 1.5), (30, 110, 80)),
        (AgentModel.MOTORCYCLE, "crossing_back", 60.0, 10.0, (2.2, 0.8, 1.6), (190, 30, 40)),
    ]
    # Model, x, y, yaw, vx, vy, length, width, height, colour: who keeps to no lane.
    others = [
        (AgentModel.CONE, -46.0, -7.7, 0.0, 0.0, 0.0, (0.4, 0.4, 0.75), (240, 100, 30)),
        (AgentModel.CONE, -42.0, -7.7, 0.0, 0.0, 0.0, (0.4, 0.4, 0.75), (240, 100, 30)),
        (AgentModel.BARRIER, -38.0, -8.0, 0.0, 0.0, 0.0, (0.5, 2.0, 1.0), (220, 220, 220)),
        (AgentModel.PEDESTRIAN, -26.0, 9.4, 0.0, 1.2, 0.0, (0.5, 0.5, 1.7), (70, 120, 70)),
        (
            AgentModel.PEDESTRIAN,
            -20.5,
            -10.0,
            np.pi / 2,
            0.0,
            1.3,
            (0.5, 0.5, 1.75),
            (200, 60, 130),
        ),
        (AgentModel.BICYCLE, -110.0, -6.3, 0.0, 4.0, 0.0, (1.8, 0.6, 1.75), (50, 140, 190)),
    ]
    time_s = STEP_S * np.arange(num_steps, dtype=np.float64)
    paths = {
        name: _resample(np.concatenate([road_map.lanes[lane].centerline for lane in lanes]))
        for name, lanes in routes.items()
    }
    ego_s: Array = 70.0 + 9.0 * time_s
    ego_xy, ego_yaw = _along(paths["ahead"], ego_s)
    ego = np.zeros((num_steps, 7))
    ego[:, :2], ego[:, 2], ego[:, 3] = ego_xy, ego_yaw, 9.0
    ego[:, 6] = 9.0 * (
        _along(paths["ahead"], ego_s + 0.5)[1] - _along(paths["ahead"], ego_s - 0.5)[1]
    )
    count = len(traffic) + len(others)
    state, size = np.zeros((num_steps, count, 5)), np.zeros((count, 3))
    color, models = np.zeros((count, 3), np.uint8), np.zeros(count, np.uint8)
    braking = np.zeros((num_steps, count), np.bool_)
    for index, (model, path, start, speed, dimensions, rgb) in enumerate(traffic):
        models[index], size[index], color[index] = model, dimensions, rgb
        xy, yaw = _along(paths[path], start + speed * time_s)
        state[:, index, :2], state[:, index, 2] = xy, yaw
        state[:, index, 3] = speed * np.cos(yaw)
        state[:, index, 4] = speed * np.sin(yaw)
        braking[:, index] = (time_s % 4.0 < 2.0) if speed else True
    for index, (model, x, y, heading, vx, vy, dimensions, rgb) in enumerate(others, len(traffic)):
        models[index], size[index], color[index] = model, dimensions, rgb
        state[:, index, 0], state[:, index, 1] = x + vx * time_s, y + vy * time_s
        state[:, index, 2:] = heading, vx, vy
    signal_state = np.full((num_steps, len(road_map.signals)), SignalState.RED, np.uint8)
    along_axis = [i for i, s in enumerate(road_map.signals) if s.approach_lane[0] in "we"]
    for begin, value in ((4.0, SignalState.GREEN), (10.0, SignalState.YELLOW)):
        for signal in along_axis:
            signal_state[time_s >= begin, signal] = value
    route = paths["ahead"]
    return Episode(
        name=f"{NAME}-{seed:02d}",
        network=NAME,
        seed=seed,
        ego=ego,
        agent_type=np.array([AgentModel(model).agent_type for model in models], np.uint8),
        agent_model=models,
        agent_size=size,
        agent_color=color,
        agent_state=state,
        agent_valid=np.ones((num_steps, count), np.bool_),
        agent_braking=braking,
        signal_state=signal_state,
        route_lanes=routes["ahead"],
        route_centerline=route,
        route_speed_limit=np.full(len(route), _LIMIT_MPS),
        command=np.ones(num_steps, np.uint8),
    )


def _targets(arm: str) -> dict[str, str]:
    """Return the arm that each turn from ``arm`` leads to."""
    ring = list(_ARM_YAW)
    index = ring.index(arm)
    return {"r": ring[(index + 1) % 4], "s": ring[(index + 2) % 4], "l": ring[(index + 3) % 4]}


def _arm_axis(yaw: float, bend: bool) -> Array:
    """Return the middle of an arm, outwards from the junction's mouth, 1 m spacing."""
    if not bend:
        along = np.arange(_MOUTH_M, 170.0)
        return np.outer(along, [np.cos(yaw), np.sin(yaw)])
    straight = np.stack([np.arange(_MOUTH_M, 60.0), np.zeros(42)], axis=1)
    angle = np.arange(0.0, np.radians(100.0), 1.0 / 70.0)
    arc = np.stack([60.0 + 70.0 * np.sin(angle), 70.0 * (1.0 - np.cos(angle))], axis=1)
    return np.concatenate([straight, arc])


def _offset(line: Array, distance: float) -> Array:
    """Shift a polyline to its left by ``distance`` m."""
    tangent = np.gradient(line, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    return line + distance * np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)


def _strip(layer: Layer, source_id: str, center: Array, width: float) -> Polygon:
    shape = shapely.LineString(center).buffer(width / 2.0 + 0.2, cap_style="flat")
    ring = np.asarray(shapely.orient_polygons(shape).exterior.coords)[:-1]
    return Polygon(layer, source_id, ring)


def _curve(before: Array, after: Array) -> Array:
    """Return a cubic from the end of one lane to the start of another, tangent to both."""
    start, end = before[-1], after[0]
    reach = 0.45 * float(np.linalg.norm(end - start))
    first = start + reach * _unit(before[-1] - before[-2])
    second = end - reach * _unit(after[1] - after[0])
    t = np.linspace(0.0, 1.0, 30)[:, None]
    return np.asarray(
        (1 - t) ** 3 * start
        + 3 * t * (1 - t) ** 2 * first
        + 3 * t**2 * (1 - t) * second
        + t**3 * end
    )


def _unit(vector: Array) -> Array:
    return np.asarray(vector / np.linalg.norm(vector))


def _resample(line: Array) -> Array:
    length = shapely.LineString(line).length
    points = shapely.line_interpolate_point(shapely.LineString(line), np.arange(0.0, length, 1.0))
    return np.asarray(shapely.get_coordinates(points))


def _along(line: Array, distance: Array) -> tuple[Array, Array]:
    """Return positions (N, 2) and yaw (N,) at distances along a line of 1 m spacing."""
    tangent = np.gradient(line, axis=0)
    yaw = np.unwrap(np.arctan2(tangent[:, 1], tangent[:, 0]))
    index = np.arange(len(line), dtype=np.float64)
    xy = np.stack([np.interp(distance, index, line[:, axis]) for axis in (0, 1)], axis=1)
    return xy, np.interp(distance, index, yaw)
