"""The ego as the world moves it: rear axle, speed, wheel angle, and the kinematic bicycle."""

from __future__ import annotations

import math
from dataclasses import dataclass

from latentvla_training.world.episode import STEP_S, EgoVehicle


@dataclass(frozen=True)
class EgoState:
    """Rear axle in the map frame, speed, acceleration, wheel angle; SI units."""

    x: float
    y: float
    yaw: float
    speed: float
    acceleration: float
    wheel_angle: float

    @property
    def yaw_rate(self) -> float:
        """Of the kinematic bicycle, rad/s."""
        return self.speed * math.tan(self.wheel_angle) / EgoVehicle().wheelbase_m


def step_bicycle(state: EgoState, acceleration: float, wheel_angle: float) -> EgoState:
    """Advance the kinematic bicycle by ``STEP_S``, with the step's mean speed and wheel angle."""
    speed = max(0.0, state.speed + acceleration * STEP_S)
    mean_speed = (speed + state.speed) / 2
    mean_angle = (wheel_angle + state.wheel_angle) / 2
    turn = mean_speed * math.tan(mean_angle) / EgoVehicle().wheelbase_m * STEP_S
    heading = state.yaw + turn / 2
    return EgoState(
        x=state.x + mean_speed * math.cos(heading) * STEP_S,
        y=state.y + mean_speed * math.sin(heading) * STEP_S,
        yaw=math.remainder(state.yaw + turn, 2 * math.pi),
        speed=speed,
        acceleration=(speed - state.speed) / STEP_S,
        wheel_angle=wheel_angle,
    )
