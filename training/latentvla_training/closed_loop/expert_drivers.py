"""The privileged expert as a driver: itself, and its forecast as a plan that is tracked.

Both see the map and the present state of everything, and nothing of the future.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np

from latentvla_ros.contract import NUM_KNOTS, Plan, Rig
from latentvla_ros.geometry import se2
from latentvla_training.closed_loop.baseline_drivers import single_plan
from latentvla_training.world.drivers import SensorFrame
from latentvla_training.world.episode import STEP_S
from latentvla_training.world.expert import EgoState, Expert
from latentvla_training.world.route import Route
from latentvla_training.world.traffic import Snapshot

_STEPS_PER_KNOT = 5


class ExpertDriver:
    """The expert that drove the data: it moves the ego itself and makes no plans."""

    name = "expert"
    uses_cameras = False

    def start(self, rig: Rig) -> None:
        """Nothing to forget."""

    def plan(self, frame: SensorFrame) -> None:
        """Return no plan: ``drive_route`` asks the session's expert for the next state."""

    def close(self) -> None:
        """Nothing to free."""


class ExpertPlanDriver:
    """What the expert would do in 4 s if everybody kept speed and heading, as a plan.

    The difference to ``ExpertDriver`` is what eight poses and the tracker cost.
    """

    name = "expert_plan"
    uses_cameras = False

    def __init__(self) -> None:
        self._seen: tuple[Expert, Route, EgoState, Snapshot] | None = None

    def start(self, rig: Rig) -> None:  # noqa: ARG002 (it has no use for cameras)
        """Forget the route before."""
        self._seen = None

    def see(self, expert: Expert, route: Route, state: EgoState, traffic: Snapshot) -> None:
        """Take the privileged view of the moment that is planned next; ``route`` is the expert's.

        The expert stays as it is: what it imagines must not enter the memory it drives with.
        """
        self._seen = expert, route, state, traffic

    def plan(self, frame: SensorFrame) -> Plan | None:
        """Return the forecast."""
        if self._seen is None:
            return None
        expert, route, state, traffic = self._seen
        expert = copy.deepcopy(expert, {id(route): route})  # with whom it saw and is passing
        origin = np.array([state.x, state.y, state.yaw])
        heading = np.stack([np.cos(traffic.yaw), np.sin(traffic.yaw)], axis=1)
        step = traffic.speed * STEP_S
        poses = []
        for _ in range(NUM_KNOTS * _STEPS_PER_KNOT):
            state = expert.drive(state, traffic)
            poses.append((state.x, state.y, state.yaw))
            traffic = replace(
                traffic,
                center=traffic.center + heading * step[:, None],
                lane_position=traffic.lane_position + step,
            )
        knots = np.array(poses)[_STEPS_PER_KNOT - 1 :: _STEPS_PER_KNOT]
        return single_plan(se2.relative(origin, knots), frame.stamp_ns)

    def close(self) -> None:
        """Nothing to free."""
