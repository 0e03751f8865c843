"""Trajectories that bring the vehicle to a stop, for when no valid plan arrives.

First comfortably along the last valid plan's path, then, when plans stay away, hard. A stop is
never faster than the plan it replaces: where that would have been slower, so is the stop. Where no
plan is known any more, it follows the arc that the vehicle is on.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import ContractError
from latentvla_ros.geometry import se2
from latentvla_ros.geometry.trajectory import (
    MIN_TURNING_SPEED_MPS,
    NUM_POINTS,
    POINT_INTERVAL_S,
    POINT_TIMES_S,
    Trajectory,
)

StopStage = Literal["none", "comfortable", "emergency"]

#: Integration step of the speed profile.
_FINE_S = 0.01
#: Yaw rate over a lower speed than this is no curvature.
_MIN_ARC_SPEED_MPS = 1.0
_MAX_CURVATURE_PER_M = 0.2


@dataclass(frozen=True)
class StopSettings:
    """When to stop, and how hard.

    Attributes:
        comfortable_after_s: steady time without a valid plan after which a comfortable stop begins.
        emergency_after_s: likewise for an emergency stop.
        comfortable_deceleration_mps2, emergency_deceleration_mps2: reached at once.
    """

    comfortable_after_s: float = 0.3
    emergency_after_s: float = 1.5
    comfortable_deceleration_mps2: float = 1.5
    emergency_deceleration_mps2: float = 5.0

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not (np.isfinite(value) and value > 0):
                raise ContractError(f"stop.{item.name}", value, "a finite positive value")
        if self.emergency_after_s < self.comfortable_after_s:
            raise ContractError(
                "stop.emergency_after_s",
                self.emergency_after_s,
                f"at least comfortable_after_s {self.comfortable_after_s}",
            )

    def stage(self, silent_s: float) -> StopStage:
        """Return what ``silent_s`` of steady time without a valid plan asks for."""
        if silent_s >= self.emergency_after_s:
            return "emergency"
        return "comfortable" if silent_s >= self.comfortable_after_s else "none"

    def deceleration_mps2(self, stage: StopStage) -> float:
        """Return the deceleration of a stage; 0 for none."""
        return {
            "none": 0.0,
            "comfortable": self.comfortable_deceleration_mps2,
            "emergency": self.emergency_deceleration_mps2,
        }[stage]


def stop_along(
    last_plan: Trajectory,
    elapsed_s: float,
    deceleration_mps2: float,
    speed_mps: float | None = None,
) -> Trajectory:
    """Return a stop along the path of the last valid plan.

    Args:
        last_plan: in any frame; the stop is given in the same.
        elapsed_s: time since its t0. The stop's own t0 is then.
        deceleration_mps2: > 0.
        speed_mps: the speed to stop from, where it is measured; by default the plan's own.

    Returns:
        41 points that begin where the plan is at ``elapsed_s``, at rest as soon as may be.
        Past the end of the plan's path it goes straight on.
    """
    elapsed = float(np.clip(elapsed_s, 0.0, last_plan.times_s[-1]))
    pose, planned_mps, _ = last_plan.at(elapsed)
    start_mps = max(planned_mps if speed_mps is None else speed_mps, 0.0)
    fine = np.arange(round((NUM_POINTS - 1) * POINT_INTERVAL_S / _FINE_S) + 1) * _FINE_S
    braking = np.maximum(start_mps - deceleration_mps2 * fine, 0.0)
    # A measured speed above the plan's is braked from, not jumped from; below it, the plan rules.
    planned = np.interp(elapsed + fine, last_plan.times_s, last_plan.speeds)
    speeds = np.minimum(braking, np.maximum(planned, braking if start_mps > planned_mps else 0.0))
    speeds = np.minimum.accumulate(speeds)
    distance = np.append(0.0, np.cumsum(0.5 * (speeds[1:] + speeds[:-1]) * _FINE_S))

    ahead = last_plan.times_s > elapsed
    path = np.concatenate([pose[None], last_plan.poses[ahead]])
    curvatures = np.append(last_plan.at(elapsed)[2], last_plan.curvatures[ahead])
    steps = np.hypot(*np.diff(path[:, :2], axis=0).T)
    keep = np.append(True, steps > 1e-6)
    path, curvatures = path[keep], curvatures[keep]
    arc = np.append(0.0, np.cumsum(np.hypot(*np.diff(path[:, :2], axis=0).T)))
    every = round(POINT_INTERVAL_S / _FINE_S)
    return _along_path(path, curvatures, arc, distance[::every], speeds[::every])


def stop_from_motion(
    speed_mps: float, yaw_rate_radps: float, deceleration_mps2: float
) -> Trajectory:
    """Return a stop along the arc of the present motion, ego frame of now.

    Args:
        speed_mps: measured, forward. yaw_rate_radps: measured; an arc tighter than a car turns is
            widened to ``_MAX_CURVATURE_PER_M``.

    Raises:
        ContractError: the motion is not finite.
    """
    if not (np.isfinite(speed_mps) and np.isfinite(yaw_rate_radps)):
        raise ContractError("motion", (speed_mps, yaw_rate_radps), "finite speed and yaw rate")
    start_mps = max(speed_mps, 0.0)
    curvature = 0.0
    if start_mps > _MIN_ARC_SPEED_MPS:
        limit = _MAX_CURVATURE_PER_M
        curvature = float(np.clip(yaw_rate_radps / start_mps, -limit, limit))
    braking_s = np.minimum(POINT_TIMES_S, start_mps / deceleration_mps2)
    distance = start_mps * braking_s - 0.5 * deceleration_mps2 * braking_s**2
    poses = np.stack([se2.exponential(s, 0.0, curvature * s, 1.0) for s in distance.tolist()])
    speeds = start_mps - deceleration_mps2 * braking_s
    return _trajectory(poses, speeds, np.full(NUM_POINTS, curvature))


def _along_path(
    path: NDArray[np.float64],
    curvatures: NDArray[np.float64],
    arc: NDArray[np.float64],
    distance: NDArray[np.float64],
    speeds: NDArray[np.float64],
) -> Trajectory:
    """Place points at ``distance`` (41,) along a path (M, 3) of arc length ``arc`` (M,)."""
    x = np.interp(distance, arc, path[:, 0])
    y = np.interp(distance, arc, path[:, 1])
    yaw = np.interp(distance, arc, np.unwrap(path[:, 2]))
    beyond = np.maximum(distance - arc[-1], 0.0)
    poses = np.stack([x + beyond * np.cos(yaw), y + beyond * np.sin(yaw), yaw], axis=-1)
    poses[:, 2] = se2.wrap_angle(poses[:, 2])
    bend = np.where(beyond > 0, 0.0, np.interp(distance, arc, curvatures))
    return _trajectory(poses, speeds, bend)


def _trajectory(
    poses: NDArray[np.float64], speeds: NDArray[np.float64], curvatures: NDArray[np.float64]
) -> Trajectory:
    bend = np.where(speeds > MIN_TURNING_SPEED_MPS, curvatures, 0.0)
    change = np.diff(speeds) / POINT_INTERVAL_S
    return Trajectory(
        times_s=POINT_TIMES_S,
        poses=poses,
        speeds=speeds,
        accelerations=np.append(change, 0.0),
        yaw_rates=bend * speeds,
        curvatures=bend,
    )
