"""Drives an episode: SUMO's traffic around the expert, kept as a compact state log."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.geometry import se2
from latentvla_ros.sensing.route_command import route_command
from latentvla_training.world.episode import Episode
from latentvla_training.world.route import Route
from latentvla_training.world.session import EpisodeSession
from latentvla_training.world.traffic import Snapshot

Array = NDArray[np.float64]

NUM_STEPS = 301
#: Agents farther than this from the ego are not logged.
LOG_RADIUS_M = 120.0
#: Route kept behind the start and past the end of the drive.
ROUTE_BEHIND_M, ROUTE_AHEAD_M = 30.0, 120.0


def simulate_episode(name: str) -> Episode:
    """Return episode ``name`` = ``<network>-<nn>``: 30 s at 10 Hz, the same for the same name.

    One libsumo simulation runs per process, so call it from several processes, not threads.

    Raises:
        ContractError: the name is no episode of a known network.
        NetworkBuildError: the network cannot be built.
    """
    ego, snapshots = [], []
    with EpisodeSession(name) as session:
        state = session.state
        for _ in range(NUM_STEPS):
            snapshot = session.observe(state)
            ego.append(
                (state.x, state.y, state.yaw, state.speed, state.acceleration, state.wheel_angle,
                 state.yaw_rate)
            )  # fmt: skip
            snapshots.append(snapshot)
            state = session.expert.drive(state, snapshot)
        return log_episode(session, np.array(ego), snapshots)


def log_episode(session: EpisodeSession, ego: Array, snapshots: list[Snapshot]) -> Episode:
    """Return what was driven as an ``Episode``.

    Keeps the agents that come near the ego, to 1 cm, so that a file holds them exactly.

    Args:
        ego: (T, 7) ``EGO_COLUMNS``. snapshots: T, the traffic at the same moments.
    """
    route, traffic = session.route, session.traffic
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
    looks = [traffic.looks[agent] for agent in seen]
    s_first, s_last = _span(route, ego)
    kept = (route.s > s_first - ROUTE_BEHIND_M) & (route.s < s_last + ROUTE_AHEAD_M)
    centerline = route.xy[kept].round(3)
    limit = route.speed_limit[kept].round(3)
    return Episode(
        name=session.name,
        network=session.network,
        seed=session.seed,
        ego=ego,
        agent_type=np.array([one.model.agent_type for one in looks], np.uint8),
        agent_model=np.array([one.model for one in looks], np.uint8),
        agent_size=np.array([one.size for one in looks]).reshape(-1, 3),
        agent_color=np.array([one.color for one in looks], np.uint8).reshape(-1, 3),
        agent_state=state + 0.0,
        agent_valid=valid,
        agent_braking=braking,
        signal_state=np.array([snapshot.signals for snapshot in snapshots], np.uint8),
        route_lanes=route.lane_ids,
        route_centerline=centerline,
        route_speed_limit=limit,
        command=_commands(ego, centerline, limit),
        weather=session.weather,
        events=session.events,
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
