"""The ego of the closed loop: NAVSIM's tracker and bicycle along the newest plan.

One rollout of ``scoring.bicycle.simulate`` from the moment of a plan holds every state that the
tracker reaches while no newer plan comes; the vehicle walks along it, 0.1 s a step.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from latentvla_ros.geometry import se2
from latentvla_training.scoring.bicycle import simulate
from latentvla_training.scoring.reference_trajectory import reference_poses
from latentvla_training.scoring.vehicle import NUM_STEPS, PACIFICA, STATE_SIZE, StateIndex
from latentvla_training.world.expert import EgoState

Array = NDArray[np.float64]

#: Where the last plan has ended without a newer one, the vehicle stops at this rate, m/s^2.
BRAKING = 3.0
_KNOT_TIMES_S = np.arange(1, 9) * 0.5


class TrackedVehicle:
    """The ego and what it follows.

    Attributes:
        state: (11,) ``StateIndex``, map frame.
        plan_age_steps: steps driven along the plan it follows; None before the first.
    """

    def __init__(self, start: EgoState) -> None:
        self.state: Array = np.zeros(STATE_SIZE)
        self.state[: StateIndex.HEADING + 1] = start.x, start.y, start.yaw
        self.state[StateIndex.VX] = start.speed
        self.state[StateIndex.AX] = start.acceleration
        self.state[StateIndex.STEER] = start.wheel_angle
        self.state[StateIndex.YAW_RATE] = start.yaw_rate
        self.plan_age_steps: int | None = None
        self._rollout: Array | None = None
        self._row = 0

    @property
    def ego(self) -> EgoState:
        """The state as the world knows it."""
        x, y, yaw, speed = (float(value) for value in self.state[: StateIndex.VX + 1])
        return EgoState(
            x=x,
            y=y,
            yaw=yaw,
            speed=speed,
            acceleration=float(self.state[StateIndex.AX]),
            wheel_angle=float(self.state[StateIndex.STEER]),
        )

    def follow(self, knots: NDArray[np.floating]) -> None:
        """Follow a plan (8, 3), x, y, yaw at 0.5 ... 4 s in the ego frame of now."""
        self._roll_out(knots)
        self.plan_age_steps = 0

    def step(self) -> None:
        """Advance by 0.1 s; without a plan, or past its horizon, brake."""
        if self._rollout is None or self._row == NUM_STEPS:
            curvature = math.tan(self.state[StateIndex.STEER]) / PACIFICA.wheelbase
            self._roll_out(braking_plan(float(self.state[StateIndex.VX]), curvature))
        assert self._rollout is not None
        self._row += 1
        self.state = self._rollout[self._row].copy()
        if self.plan_age_steps is not None:
            self.plan_age_steps += 1

    def _roll_out(self, knots: NDArray[np.floating]) -> None:
        initial = torch.from_numpy(self.state)[None]
        plan = torch.from_numpy(np.asarray(knots, np.float64))[None, None]
        with torch.inference_mode():
            poses = reference_poses(initial, plan, np.zeros(1))
            self._rollout = simulate(initial, poses)[0, 0].numpy()
        self._row = 0


def braking_plan(speed: float, curvature: float) -> Array:
    """Return a plan (8, 3) that stops at ``BRAKING`` along the present arc (1/m)."""
    speed = max(speed, 0.0)
    times = np.minimum(_KNOT_TIMES_S, speed / BRAKING)
    distances = speed * times - 0.5 * BRAKING * times**2
    return np.stack([se2.exponential(s, 0.0, curvature * s, 1.0) for s in distances.tolist()])
