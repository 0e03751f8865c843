"""Recovery starts: the same moment with the ego beside its path, driven back by the expert.

Experiments.md section 4. A start is an episode of its own, cut out around the moment, whose ego has
another past and future; cameras, odometry and labels are made from it as from any episode.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.geometry import se2
from latentvla_ros.sensing.route_command import route_command
from latentvla_training.data.labels import AGENT_STEPS, HISTORY_STEPS, RouteProgress
from latentvla_training.world.episode import Episode
from latentvla_training.world.expert import EgoState, Expert
from latentvla_training.world.logged_traffic import LaneFinder, LoggedTraffic
from latentvla_training.world.networks import right_of_way
from latentvla_training.world.road_map import RoadMap
from latentvla_training.world.route import make_route

Array = NDArray[np.float64]

MAX_LATERAL_M = 1.0
MAX_YAW_RAD = math.radians(8.0)
MAX_SPEED_SHARE = 0.2
#: A car at rest is nowhere that it did not drive to: only moving ones are disturbed.
MIN_SPEED_MPS = 1.0
#: Steps before the moment that a start keeps: history, and what the expert remembers of others.
PAST_STEPS = 20
#: Room to find the disturbed past on the route, m.
START_SEARCH_M = 10.0
#: The expert turns its wheels no farther.
MAX_WHEEL_RAD = 0.6
_DRAW = 0x5EC


@dataclass(frozen=True)
class Disturbance:
    """Of the ego at one moment: to the left in m, of the yaw in rad, factor on the speed."""

    lateral_m: float
    yaw_rad: float
    speed_factor: float

    @staticmethod
    def draw(rng: np.random.Generator) -> Disturbance:
        """Draw one; uniform in each of the three."""
        lateral, yaw, speed = rng.uniform(-1.0, 1.0, 3)
        return Disturbance(
            lateral * MAX_LATERAL_M, yaw * MAX_YAW_RAD, 1.0 + speed * MAX_SPEED_SHARE
        )

    def past(self, ego: Array) -> Array:
        """Return the past (T, 7) ``EGO_COLUMNS`` that ends in the disturbed pose.

        Moved rigidly with it, and displacements scaled with the speed: the yaw rate stays, so the
        wheel angle grows as the speed falls.
        """
        now = ego[-1, :3]
        relative = se2.relative(now, ego[:, :3])
        relative[:, :2] *= self.speed_factor
        disturbed = se2.compose(now, np.array([0.0, self.lateral_m, self.yaw_rad]))
        past = ego.copy()
        past[:, :3] = se2.compose(disturbed, relative)
        past[:, 3:5] *= self.speed_factor
        past[:, 5] = np.arctan(np.tan(ego[:, 5]) / self.speed_factor)
        return past


@dataclass(frozen=True)
class RecoveryStart:
    """A disturbed moment of an episode.

    Attributes:
        step: of the original episode. disturbance: what was drawn.
        episode: from ``PAST_STEPS`` before the moment to 5 s after it, the ego's path replaced.
        moment: the step within ``episode``. start_m: arc length on the route before its first step.
    """

    step: int
    disturbance: Disturbance
    episode: Episode
    moment: int
    start_m: float


class RecoveryDriver:
    """Draws recovery starts of an episode and drives on from them.

    Args:
        episode: the state log. road_map: its network. lanes: finder of that network.
    """

    def __init__(self, episode: Episode, road_map: RoadMap, lanes: LaneFinder) -> None:
        self._episode = episode
        self._traffic = LoggedTraffic(episode, lanes, road_map)
        self._route = make_route(road_map, right_of_way(road_map.name), episode.route_lanes)
        self._progress = RouteProgress(episode).ego
        begin = np.hypot(*(self._route.xy - episode.route_centerline[0]).T)
        self._route_begin_m = float(self._route.s[int(begin.argmin())])

    def starts(self, steps: Sequence[int], share: float) -> Iterator[RecoveryStart]:
        """Yield starts for a share of the steps, oldest first; drawn by the episode's seed.

        Args:
            steps: of the episode's Scenes. share: of them, 0 to 1; only moving egos are taken.
        """
        rng = np.random.default_rng((self._episode.seed, _DRAW))
        wanted = round(share * len(steps))
        moving = [
            step
            for step in steps
            if step >= -HISTORY_STEPS[0] and self._episode.ego[step, 3] >= MIN_SPEED_MPS
        ]
        chosen = rng.permutation(len(moving))[:wanted]
        for step in sorted(moving[index] for index in chosen):
            yield self.start(step, Disturbance.draw(rng))

    def start(self, step: int, disturbance: Disturbance) -> RecoveryStart:
        """Return the start at a step under a disturbance, driven on for 5 s."""
        episode = self._episode
        first = max(step - PAST_STEPS, 0)
        past = disturbance.past(episode.ego[first : step + 1])
        future = self._drive(first, step, past)
        window = slice(first, step + AGENT_STEPS + 1)
        moment = step - first
        command = episode.command[window].copy()
        command[moment] = self._command(past[-1, :3])
        cut = replace(
            episode,
            ego=np.concatenate([past, future]),
            agent_state=episode.agent_state[window],
            agent_valid=episode.agent_valid[window],
            agent_braking=episode.agent_braking[window],
            signal_state=episode.signal_state[window],
            command=command,
            events=tuple(
                replace(event, start_step=event.start_step - first, end_step=event.end_step - first)
                for event in episode.events
            ),
        )
        start_m = max(float(self._progress[first]) - START_SEARCH_M, 0.0)
        return RecoveryStart(step, disturbance, cut, moment, start_m)

    def _drive(self, first: int, step: int, past: Array) -> Array:
        """Let the expert drive on from the last row of ``past``; returns (50, 7)."""
        expert = Expert(self._route, self._route_begin_m + float(self._progress[first]))
        # It has been watching the others: how long they stand, how they turn.
        for offset, row in enumerate(past[:-1]):
            expert.drive(_state(row), self._traffic.at(first + offset))
        state, rows = _state(past[-1]), []
        for offset in range(AGENT_STEPS):
            state = expert.drive(state, self._traffic.at(step + offset))
            rows.append(_row(state))
        return np.array(rows)

    def _command(self, pose: Array) -> int:
        """Command from the route ahead of the disturbed pose, as the log's commands."""
        line, limit = self._episode.route_centerline, self._episode.route_speed_limit
        nearest = int(np.argmin(np.hypot(*(line - pose[:2]).T)))
        ahead = line[max(nearest - 2, 0) : nearest + 90]
        return int(
            route_command(se2.transform_points(se2.inverse(pose), ahead), float(limit[nearest]))
        )


def _state(row: Array) -> EgoState:
    wheel = float(np.clip(row[5], -MAX_WHEEL_RAD, MAX_WHEEL_RAD))
    return EgoState(*(float(value) for value in row[:5]), wheel)


def _row(state: EgoState) -> tuple[float, ...]:
    return (
        state.x, state.y, state.yaw, state.speed, state.acceleration, state.wheel_angle,
        state.yaw_rate,
    )  # fmt: skip
