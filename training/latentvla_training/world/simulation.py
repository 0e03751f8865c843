"""Drives an episode: SUMO's traffic around the expert, kept as a compact state log."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import ContractError
from latentvla_ros.geometry import se2
from latentvla_ros.sensing.route_command import route_command
from latentvla_training.world.episode import EgoVehicle, Episode
from latentvla_training.world.expert import EgoState, Expert
from latentvla_training.world.networks import build_road_map, network_seed, right_of_way
from latentvla_training.world.road_map import RoadMap
from latentvla_training.world.route import Route, draw_route
from latentvla_training.world.traffic import EGO_FRONT_M, Snapshot, TrafficSession

Array = NDArray[np.float64]

NUM_STEPS = 301
#: Agents farther than this from the ego are not logged.
LOG_RADIUS_M = 120.0
#: Route kept behind the start and past the end of the drive.
ROUTE_BEHIND_M, ROUTE_AHEAD_M = 30.0, 120.0
MAX_EPISODES = 100


@dataclass(frozen=True)
class _Start:
    """A route and where on it the ego begins."""

    route: Route
    s: float
    speed: float


def simulate_episode(name: str) -> Episode:
    """Return episode ``name`` = ``<network>-<nn>``: 30 s at 10 Hz, the same for the same name.

    One libsumo simulation runs per process, so call it from several processes, not threads.

    Raises:
        ContractError: the name is no episode of a known network.
        NetworkBuildError: the network cannot be built.
    """
    match = re.fullmatch(r"(.+)-(\d{2})", name)
    if not match or not match[1]:
        raise ContractError("episode", name, "<network>-<nn>, e.g. train-0007-02")
    network, number = match[1], int(match[2])
    seed = network_seed(network) * MAX_EPISODES + number
    road_map = build_road_map(network)
    rng = np.random.default_rng((seed, 0))
    density = float(rng.choice((2.5, 4.5, 7.0, 10.0)) * rng.uniform(0.8, 1.2))
    warm_up_steps = int(rng.integers(250, 500))
    with TrafficSession(road_map, seed % 2**31, density) as traffic:
        for _ in range(warm_up_steps):
            traffic.step()
        start = _find_start(road_map, rng, traffic.snapshot())
        ego, snapshots = _drive(traffic, start, pre_roll=int(rng.integers(20, 90)))
        colors, sizes = traffic.colors, traffic.sizes
    return _episode(name, network, seed, start.route, ego, snapshots, colors, sizes)


def _find_start(road_map: RoadMap, rng: np.random.Generator, traffic: Snapshot) -> _Start:
    """Draw routes until one begins where there is room."""
    rules = right_of_way(road_map.name)
    for _ in range(400):
        route = draw_route(road_map, rules, rng, length_m=760.0)
        if route is None or len(route.crossings) < 2:
            continue
        first = route.crossings[0].stop_s
        front = rng.uniform(25.0, first - 8.0) if first > 40.0 else None
        if front is None:
            continue
        s = float(front - EGO_FRONT_M)
        ahead = _free_distance(route, front, traffic)
        if ahead is None:
            continue
        target = float(np.interp(s, route.s, route.target_speed))
        room = max(min(ahead - 4.0, first - front - 2.0), 0.0)
        speed = min(target, np.sqrt(2.0 * 1.5 * room)) * rng.uniform(0.6, 1.0)
        return _Start(route, s, float(speed))
    raise RuntimeError(f"network {road_map.name}: no free place to start an episode was found")


def _free_distance(route: Route, front: float, traffic: Snapshot) -> float | None:
    """Free path ahead of a bumper at ``front``; None when its place or the road behind is taken."""
    if len(traffic.ids) == 0:
        return 200.0
    path = (route.s > front - 25.0) & (route.s < front + 60.0)
    distance = np.linalg.norm(traffic.center[:, None] - route.xy[path][None], axis=2)
    where = route.s[path][np.argmin(distance, axis=1)] - front
    on_path = distance.min(axis=1) < 2.4
    half = traffic.size[:, 0] / 2
    taken = on_path & (where + half > -22.0) & (where - half < 4.0)
    if taken.any():
        return None
    ahead = where[on_path & (where > 0.0)] - half[on_path & (where > 0.0)]
    return float(ahead.min()) if len(ahead) else 60.0


def _drive(traffic: TrafficSession, start: _Start, pre_roll: int) -> tuple[Array, list[Snapshot]]:
    """Drive; return the ego rows (T, 7) and T snapshots, recorded after ``pre_roll`` steps."""
    route = start.route
    state = EgoState(
        x=float(np.interp(start.s, route.s, route.xy[:, 0])),
        y=float(np.interp(start.s, route.s, route.xy[:, 1])),
        yaw=float(se2.wrap_angle(np.interp(start.s, route.s, route.yaw))),
        speed=start.speed,
        acceleration=0.0,
        wheel_angle=float(
            np.arctan(EgoVehicle().wheelbase_m * np.interp(start.s, route.s, route.curvature))
        ),
    )
    expert = Expert(route, start.s)
    lane_index = int(route.lane_ids[0].rsplit("_", 1)[1])
    traffic.add_ego(route.edge_ids, lane_index, start.s + EGO_FRONT_M)
    ego, snapshots = [], []
    for step in range(-pre_roll, NUM_STEPS):
        traffic.move_ego(np.array([state.x, state.y, state.yaw]), *_lane_at(route, expert, state))
        traffic.step()
        snapshot = traffic.snapshot()
        if step >= 0:
            ego.append(
                (state.x, state.y, state.yaw, state.speed, state.acceleration, state.wheel_angle,
                 state.yaw_rate)
            )  # fmt: skip
            snapshots.append(snapshot)
        state = expert.drive(state, snapshot)
    return np.array(ego), snapshots


def _lane_at(route: Route, expert: Expert, state: EgoState) -> tuple[str, int]:
    """SUMO edge and lane index of the front bumper."""
    front = expert.locate(state) + EGO_FRONT_M
    lane = route.lane_ids[
        min(int(np.searchsorted(route.lane_ends, front)), len(route.lane_ids) - 1)
    ]
    edge, index = lane.rsplit("_", 1)
    return edge, int(index)


def _episode(
    name: str,
    network: str,
    seed: int,
    route: Route,
    ego: Array,
    snapshots: list[Snapshot],
    colors: dict[str, NDArray[np.uint8]],
    sizes: dict[str, tuple[float, float, float]],
) -> Episode:
    """Keep the agents that come near the ego, to 1 cm, so that a file holds them exactly."""
    seen: dict[str, int] = {}
    near = []
    for row, snapshot in zip(ego, snapshots, strict=True):
        close = np.linalg.norm(snapshot.center - row[:2], axis=1) < LOG_RADIUS_M
        near.append(np.flatnonzero(close))
        for index in near[-1]:
            seen.setdefault(snapshot.ids[index], len(seen))
    steps, count = len(ego), len(seen)
    state = np.zeros((steps, count, 5))
    valid, braking = np.zeros((steps, count), bool), np.zeros((steps, count), bool)
    for step, (snapshot, indices) in enumerate(zip(snapshots, near, strict=True)):
        columns = [seen[snapshot.ids[index]] for index in indices]
        yaw, speed = se2.wrap_angle(snapshot.yaw[indices]), snapshot.speed[indices]
        state[step, columns, :2] = snapshot.center[indices].round(2)
        state[step, columns, 2] = yaw.round(4)
        state[step, columns, 3] = (speed * np.cos(yaw)).round(2)
        state[step, columns, 4] = (speed * np.sin(yaw)).round(2)
        valid[step, columns] = True
        braking[step, columns] = snapshot.braking[indices]
    s_first, s_last = _span(route, ego)
    kept = (route.s > s_first - ROUTE_BEHIND_M) & (route.s < s_last + ROUTE_AHEAD_M)
    centerline = route.xy[kept].round(3)
    limit = route.speed_limit[kept].round(3)
    return Episode(
        name=name,
        network=network,
        seed=seed,
        ego=ego,
        agent_type=np.zeros(count, np.uint8),
        agent_size=np.array([sizes[agent] for agent in seen]).reshape(-1, 3),
        agent_color=np.array([colors[agent] for agent in seen], np.uint8).reshape(-1, 3),
        agent_state=state + 0.0,
        agent_valid=valid,
        agent_braking=braking,
        signal_state=np.array([snapshot.signals for snapshot in snapshots], np.uint8),
        route_lanes=route.lane_ids,
        route_centerline=centerline,
        route_speed_limit=limit,
        command=_commands(ego, centerline, limit),
    )


def _span(route: Route, ego: Array) -> tuple[float, float]:
    first = int(np.argmin(np.linalg.norm(route.xy - ego[0, :2], axis=1)))
    last = int(np.argmin(np.linalg.norm(route.xy - ego[-1, :2], axis=1)))
    return float(route.s[first]), float(route.s[last])


def _commands(ego: Array, centerline: Array, limit: Array) -> NDArray[np.uint8]:
    """Commands (T,) from the route ahead of each pose, never from the driven path."""
    commands = []
    for pose in ego[:, :3]:
        nearest = int(np.argmin(np.linalg.norm(centerline - pose[:2], axis=1)))
        behind = max(nearest - 2, 0)
        ahead = se2.transform_points(se2.inverse(pose), centerline[behind : nearest + 90])
        commands.append(route_command(ahead, float(limit[nearest])))
    return np.array(commands, np.uint8)
