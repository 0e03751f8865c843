"""How far along its route the ego is, where the route ends, and how fast the traffic around is."""

from __future__ import annotations

import math

import numpy as np

from latentvla_training.world.episode import AgentModel, AgentType
from latentvla_training.world.expert import EgoState
from latentvla_training.world.route import Route
from latentvla_training.world.traffic import Snapshot

#: Vehicles nearer than this say how fast the traffic is; checkpoints of a route that compare.
_TRAFFIC_RADIUS_M = 50.0
_CHECKPOINTS = 4


class RouteProgress:
    """How far along its route the ego is; looks forward only."""

    def __init__(self, route: Route, state: EgoState) -> None:
        self._route = route
        self._index = int(np.argmin(np.hypot(*(route.xy - (state.x, state.y)).T)))
        self.s = float(route.s[self._index])
        self.distance_m = 0.0

    def update(self, state: EgoState) -> None:
        """Find the ego; ``s`` never shrinks, ``distance_m`` is to the route's nearest point."""
        window = slice(max(self._index - 20, 0), self._index + 30)
        points = self._route.xy[window]
        distance = np.hypot(points[:, 0] - state.x, points[:, 1] - state.y)
        nearest = int(np.argmin(distance))
        self._index = window.start + nearest
        self.distance_m = float(distance[nearest])
        yaw, point = self._route.yaw[self._index], points[nearest]
        along = (state.x - point[0]) * math.cos(yaw) + (state.y - point[1]) * math.sin(yaw)
        self.s = max(self.s, float(self._route.s[self._index]) + float(np.clip(along, -0.5, 0.5)))


def goal_of(route: Route, start_s: float, free_flow_s: float) -> float:
    """Return the arc length reached from ``start_s`` in so many seconds at the target speeds.

    At the most 40 m before the end of the route, so that there is always road ahead.
    """
    ahead = route.s > start_s
    s = np.concatenate([[start_s], route.s[ahead]])
    speed = np.maximum(np.interp(s, route.s, route.target_speed), 1.0)
    seconds = np.append(0.0, np.cumsum(np.diff(s) / (0.5 * (speed[1:] + speed[:-1]))))
    return float(min(np.interp(free_flow_s, seconds, s), route.s[-1] - 40.0))


class TrafficSpeed:
    """The ego's speed against that of the traffic around it, by part of the route."""

    def __init__(self, start_s: float, goal_s: float) -> None:
        self._edges = np.linspace(start_s, goal_s, _CHECKPOINTS + 1)
        self._ego: list[list[float]] = [[] for _ in range(_CHECKPOINTS)]
        self._others: list[list[float]] = [[] for _ in range(_CHECKPOINTS)]

    def add(self, s: float, state: EgoState, traffic: Snapshot) -> None:
        """Note one moment."""
        part = int(np.clip(np.searchsorted(self._edges, s) - 1, 0, _CHECKPOINTS - 1))
        vehicle = [AgentModel(model).agent_type == AgentType.VEHICLE for model in traffic.model]
        moving = np.array(vehicle, bool) & np.array([lane != "" for lane in traffic.lane_ids], bool)
        near = np.hypot(*(traffic.center - (state.x, state.y)).T) < _TRAFFIC_RADIUS_M
        if (near & moving).any():
            self._ego[part].append(state.speed)
            self._others[part].append(float(traffic.speed[near & moving].mean()))

    def percents(self) -> tuple[float, ...]:
        """Return the checkpoints' percentages; those without moving traffic are left out."""
        found = []
        for own, others in zip(self._ego, self._others, strict=True):
            if others and np.mean(others) > 0.1:
                found.append(float(100.0 * max(np.mean(own), 0.0) / np.mean(others)))
        return tuple(found)
