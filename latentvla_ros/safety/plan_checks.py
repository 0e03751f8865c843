"""May this plan be published? Finite, fresh, continuous with the ego and drivable, or why not."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike

from latentvla_ros.contract import ContractError
from latentvla_ros.geometry import se2
from latentvla_ros.geometry.trajectory import MAX_REACH_M, POINT_INTERVAL_S, Trajectory, resample

#: Accelerations are judged as means over this time: a spline's own ripple is no fault of the plan.
_MEAN_OVER_S = 0.5
#: Curvature is judged where the vehicle moves at least this fast.
_CURVATURE_FROM_MPS = 1.0


@dataclass(frozen=True)
class PlanLimits:
    """What a plan may ask of the vehicle. Bounds of plausibility, wider than comfort.

    Attributes:
        deadline_s: largest age, now minus t0.
        max_speed_mps, max_acceleration_mps2, max_deceleration_mps2, max_lateral_acceleration_mps2:
            along the trajectory.
        max_curvature_per_m: the vehicle's tightest turn, with some margin.
        max_start_distance_m, max_start_angle_rad: from the ego pose to the first point,
            and from the ego's heading to the direction of the first movement.
        max_start_speed_error_mps: mean speed of the first 0.5 s against the ego's speed.
        max_backwards_m: movement against the ego's heading, which the planner never intends.
    """

    deadline_s: float = 0.5
    max_speed_mps: float = 40.0
    max_acceleration_mps2: float = 5.0
    max_deceleration_mps2: float = 9.0
    max_lateral_acceleration_mps2: float = 7.0
    max_curvature_per_m: float = 0.35
    max_start_distance_m: float = 0.5
    max_start_angle_rad: float = 0.8
    max_start_speed_error_mps: float = 3.0
    max_backwards_m: float = 0.3

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not (np.isfinite(value) and value > 0):
                raise ContractError(f"plan_limits.{item.name}", value, "a finite positive value")


@dataclass(frozen=True)
class Violation:
    """One limit that a plan breaks: its name, the value found, the limit."""

    name: str
    value: float
    limit: float

    def __str__(self) -> str:
        return f"{self.name}: {self.value:.2f}, limit {self.limit:g}"


@dataclass(frozen=True)
class PlanCheck:
    """The trajectory, None where the knots allow none, and every limit that is broken."""

    trajectory: Trajectory | None
    violations: tuple[Violation, ...]

    @property
    def valid(self) -> bool:
        """Whether the plan may be published."""
        return self.trajectory is not None and not self.violations


def check_plan(
    knots: ArrayLike, ego_speed_mps: float, age_s: float, limits: PlanLimits | None = None
) -> PlanCheck:
    """Resample a plan and check it.

    Args:
        knots: (8, 3) ``Plan.poses``, ego frame of t0.
        ego_speed_mps: at t0. age_s: ROS time now minus t0.

    Returns:
        the trajectory with the violations of ``check_trajectory``; or none, with ``not_finite`` or
        ``reach`` (a knot unreachably far away).

    Raises:
        ContractError: ``knots`` has another shape than (8, 3).
    """
    bounds = limits or PlanLimits()
    poses = np.asarray(knots, np.float64)
    if not np.isfinite(poses).all() or not np.isfinite(ego_speed_mps):
        unusable = np.count_nonzero(~np.isfinite(poses)) + (not np.isfinite(ego_speed_mps))
        return PlanCheck(None, (Violation("not_finite", float(unusable), 0.0),))
    reach_m = float(np.abs(poses[:, :2]).max())
    if reach_m > MAX_REACH_M:
        return PlanCheck(None, (Violation("reach", reach_m, MAX_REACH_M),))
    trajectory = resample(poses, ego_speed_mps)
    return PlanCheck(
        trajectory, tuple(check_trajectory(trajectory, ego_speed_mps, age_s, limits=bounds))
    )


@np.errstate(over="ignore", invalid="ignore")
def check_trajectory(
    trajectory: Trajectory,
    ego_speed_mps: float,
    age_s: float,
    ego_pose: ArrayLike = (0.0, 0.0, 0.0),
    limits: PlanLimits | None = None,
) -> list[Violation]:
    """Return what a trajectory breaks: nothing when it may be followed.

    Names: ``not_finite``, ``too_old``, ``from_future``, ``speed``, ``acceleration``,
    ``deceleration``, ``lateral_acceleration``, ``curvature``, ``start_pose``, ``start_heading``,
    ``start_speed``, ``backwards``.

    Args:
        trajectory: points every 0.1 s in some frame.
        ego_speed_mps: the ego's speed at t0; ego_pose: (3,) its pose at t0 in the same frame.
        age_s: ROS time now minus t0.
    """
    bounds = limits or PlanLimits()
    arrays = (
        trajectory.poses,
        trajectory.speeds,
        trajectory.accelerations,
        trajectory.yaw_rates,
        trajectory.curvatures,
    )
    unusable = sum(int(np.count_nonzero(~np.isfinite(array))) for array in arrays)
    if unusable or not np.isfinite([ego_speed_mps, age_s]).all():
        return [Violation("not_finite", float(unusable), 0.0)]

    window = round(_MEAN_OVER_S / POINT_INTERVAL_S)
    speeds = trajectory.speeds
    change = (speeds[window:] - speeds[:-window]) / _MEAN_OVER_S
    # The step from the ego's own speed belongs to the plan too.
    first_change = (speeds[window] - ego_speed_mps) / _MEAN_OVER_S
    moving = speeds > _CURVATURE_FROM_MPS
    local = se2.relative(ego_pose, trajectory.poses)
    first_step = local[window, :2] - local[0, :2]
    first_length = float(np.hypot(*first_step))
    start_angle = abs(float(np.arctan2(first_step[1], first_step[0])))

    def largest(values: np.ndarray) -> float:
        return float(values.max()) if values.size else 0.0

    found = (
        Violation("too_old", age_s, bounds.deadline_s),
        Violation("from_future", -age_s, bounds.deadline_s),
        Violation("speed", largest(speeds), bounds.max_speed_mps),
        Violation(
            "acceleration",
            max(largest(change), float(first_change)),
            bounds.max_acceleration_mps2,
        ),
        Violation(
            "deceleration",
            max(largest(-change), -float(first_change)),
            bounds.max_deceleration_mps2,
        ),
        Violation(
            "lateral_acceleration",
            largest(np.abs(speeds * trajectory.yaw_rates)),
            bounds.max_lateral_acceleration_mps2,
        ),
        Violation(
            "curvature",
            largest(np.abs(trajectory.curvatures[moving])),
            bounds.max_curvature_per_m,
        ),
        Violation("start_pose", float(np.hypot(*local[0, :2])), bounds.max_start_distance_m),
        Violation(
            "start_heading",
            max(abs(float(local[0, 2])), start_angle if first_length > 0.5 else 0.0),
            bounds.max_start_angle_rad,
        ),
        Violation(
            "start_speed",
            abs(first_length / _MEAN_OVER_S - ego_speed_mps),
            bounds.max_start_speed_error_mps,
        ),
        Violation("backwards", _backwards_m(local, window), bounds.max_backwards_m),
    )
    # Written so that a value that overflowed to no number counts as broken.
    return [violation for violation in found if not violation.value <= violation.limit]


def _backwards_m(local: np.ndarray, window: int) -> float:
    """Return how far poses (N, 3), ego frame, move against their direction ``window`` earlier."""
    moves = np.diff(local[:, :2], axis=0)
    earlier = np.concatenate([np.tile([1.0, 0.0], (window, 1)), moves[:-window]])
    against = (moves * earlier).sum(axis=-1) < 0
    return float(np.hypot(*moves[against].T).sum())
