"""How the ego has moved up to t0, as the network reads it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Times of ``Observation.ego_history`` rows, seconds relative to t0 (NAVSIM: 2 Hz, 4 states).
HISTORY_OFFSETS_S: tuple[float, ...] = (-1.5, -1.0, -0.5, 0.0)

#: Order of ``Observation.ego_dynamics``: m/s, m/s, rad/s, m/s^2, m/s^2, rad; body frame at t0.
EGO_DYNAMICS: tuple[str, ...] = ("vx", "vy", "yaw_rate", "ax", "ay", "wheel_angle")


@dataclass(frozen=True)
class EgoMotion:
    """Ego state at one stamp, made by ``sensing.EgoMotionBuffer`` on the car and in training alike.

    Attributes:
        stamp_ns: t0 in nanoseconds.
        pose: (3,) x, y, yaw of ``base_frame`` in the odometry frame, m and rad, float64.
        history: (4, 3) x, y, yaw at ``HISTORY_OFFSETS_S`` in the ego frame of t0, float32.
        history_mask: (4,) bool, False where the buffer does not reach back that far.
        dynamics: (6,) ``EGO_DYNAMICS`` in the body frame at t0; 0 where unknown, float32.
        dynamics_mask: (6,) bool, False where unknown.
    """

    stamp_ns: int
    pose: NDArray[np.float64]
    history: NDArray[np.float32]
    history_mask: NDArray[np.bool_]
    dynamics: NDArray[np.float32]
    dynamics_mask: NDArray[np.bool_]
