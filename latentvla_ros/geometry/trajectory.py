"""Trajectories in time: a plan's 8 knots to 41 points at 10 Hz, kinematics, constant-turn motion.

A plan's knots are split into *where* and *when*. Where: a cubic spline through the knots over their
chord length, leaving along the ego's heading. When: the chord length over time, a cubic spline that
starts at the ego's speed and is limited to be monotone (Fritsch and Carlson 1980), so that nothing
ever rolls back or overshoots into a stop. Knots less than ``MIN_SEGMENT_M`` from the last one kept
are merged into it: the segment stands still, holds the yaw and has no curvature.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latentvla_ros.contract import KNOT_INTERVAL_S, NUM_KNOTS, ContractError
from latentvla_ros.geometry import se2

Array = NDArray[np.float64]

#: Shorter movement between two knots is standstill.
MIN_SEGMENT_M = 0.1
#: Knots beyond this are no plan.
MAX_REACH_M = 1e4
POINT_INTERVAL_S = 0.1
NUM_POINTS = 41
POINT_TIMES_S: Array = np.linspace(0.0, (NUM_POINTS - 1) * POINT_INTERVAL_S, NUM_POINTS)
_KNOT_TIMES_S: Array = np.linspace(0.0, NUM_KNOTS * KNOT_INTERVAL_S, NUM_KNOTS + 1)
#: Below this speed a path has no measurable curvature.
MIN_TURNING_SPEED_MPS = 1e-2


@dataclass(frozen=True)
class Trajectory:
    """Motion sampled in time; N points.

    Attributes:
        times_s: (N,) from t0. poses: (N, 3) x, y, yaw, m and rad.
        speeds: (N,) m/s along the yaw, >= 0. accelerations: (N,) m/s^2 along the path.
        yaw_rates: (N,) rad/s, left positive. curvatures: (N,) 1/m, left positive.
    """

    times_s: Array
    poses: Array
    speeds: Array
    accelerations: Array
    yaw_rates: Array
    curvatures: Array

    def in_frame(self, a_from_b: ArrayLike) -> Trajectory:
        """Return this trajectory, given in frame b, in frame a of the pose (3,)."""
        return replace(self, poses=se2.compose(a_from_b, self.poses))

    def at(self, time_s: float) -> tuple[Array, float, float]:
        """Return pose (3,), speed and curvature at a time; before and past the ends those hold."""
        yaw = np.unwrap(self.poses[:, 2])
        pose = np.array(
            [
                np.interp(time_s, self.times_s, self.poses[:, 0]),
                np.interp(time_s, self.times_s, self.poses[:, 1]),
                float(se2.wrap_angle(np.interp(time_s, self.times_s, yaw))),
            ]
        )
        speed = float(np.interp(time_s, self.times_s, self.speeds))
        return pose, speed, float(np.interp(time_s, self.times_s, self.curvatures))


@dataclass(frozen=True)
class Kinematics:
    """Finite differences of equally spaced poses; leading dimensions free.

    Attributes:
        speeds: (..., N-1) m/s, negative in reverse. yaw_rates: (..., N-1) rad/s.
        curvatures: (..., N-1) 1/m, 0 where a step is shorter than 1 cm.
        accelerations: (..., N-2) m/s^2. lateral_accelerations: (..., N-1) m/s^2.
    """

    speeds: Array
    yaw_rates: Array
    curvatures: Array
    accelerations: Array
    lateral_accelerations: Array


def kinematics(poses: ArrayLike, interval_s: float) -> Kinematics:
    """Differentiate poses (..., N, 3) that are ``interval_s`` apart, N >= 3."""
    values = np.asarray(poses, np.float64)
    steps = se2.relative(values[..., :-1, :], values[..., 1:, :])
    half = 0.5 * steps[..., 2]
    chord = np.hypot(steps[..., 0], steps[..., 1])
    forward = steps[..., 0] * np.cos(half) + steps[..., 1] * np.sin(half)
    speeds = np.where(forward < 0, -chord, chord) / interval_s
    yaw_rates = steps[..., 2] / interval_s
    curvatures = np.where(chord < 0.01, 0.0, steps[..., 2] / np.maximum(chord, 0.01))
    return Kinematics(
        speeds=speeds,
        yaw_rates=yaw_rates,
        curvatures=curvatures,
        accelerations=np.diff(speeds, axis=-1) / interval_s,
        lateral_accelerations=speeds * yaw_rates,
    )


def constant_turn_rate(
    speed_mps: float,
    yaw_rate_radps: float,
    horizon_s: float = NUM_KNOTS * KNOT_INTERVAL_S,
    interval_s: float = KNOT_INTERVAL_S,
) -> Array:
    """Return the poses (8, 3) reached by keeping speed and turn rate, ego frame.

    With another horizon or interval: (round(horizon / interval), 3).
    """
    count = round(horizon_s / interval_s)
    return np.stack(
        [
            se2.exponential(speed_mps, 0.0, yaw_rate_radps, interval_s * (index + 1))
            for index in range(count)
        ]
    )


def resample(knots: ArrayLike, speed_mps: float) -> Trajectory:
    """Fill a plan's knots in to 41 points every 0.1 s, the ego's own pose at t0 included.

    Args:
        knots: (8, 3) x, y, yaw every 0.5 s, ego frame of t0. Their yaw does not enter: the yaw of
            the points is the direction of motion.
        speed_mps: the ego's speed at t0.

    Returns:
        a trajectory that starts at the ego pose, passes through every knot that is at least
        ``MIN_SEGMENT_M`` from the last one kept, and never moves backwards along its path.

    Raises:
        ContractError: ``knots`` has another shape, is not finite or beyond ``MAX_REACH_M``.
    """
    poses = np.asarray(knots, np.float64)
    if poses.shape != (NUM_KNOTS, 3):
        raise ContractError("plan.poses", poses.shape, f"shape ({NUM_KNOTS}, 3)")
    if not np.isfinite(poses).all() or not np.isfinite(speed_mps):
        raise ContractError("plan.poses", "not finite", "finite knots and speed")
    if np.abs(poses[:, :2]).max() > MAX_REACH_M:
        raise ContractError(
            "plan.poses", float(np.abs(poses[:, :2]).max()), f"knots within {MAX_REACH_M:g} m"
        )
    times = POINT_TIMES_S
    nodes, arc, arc_at_knots = _merge_standstill(poses[:, :2])
    if len(nodes) == 1:
        zeros = np.zeros(NUM_POINTS)
        return Trajectory(times, np.zeros((NUM_POINTS, 3)), zeros, zeros, zeros, zeros)

    travelled, rate, rate_change = _travel(arc_at_knots, max(float(speed_mps), 0.0), times)
    tangents = _spline_slopes(arc, nodes, np.array([1.0, 0.0]))
    position, first, second = _hermite(arc, nodes, tangents, travelled)

    stretch = np.maximum(np.hypot(first[:, 0], first[:, 1]), 1e-9)
    speeds = stretch * rate
    accelerations = stretch * rate_change + (first * second).sum(axis=-1) / stretch * np.square(
        rate
    )
    cross = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    turning = speeds > MIN_TURNING_SPEED_MPS
    curvatures = np.where(turning, cross / stretch**3, 0.0)
    yaw = np.arctan2(first[:, 1], first[:, 0])
    return Trajectory(
        times_s=times,
        poses=np.concatenate([position, yaw[:, None]], axis=-1),
        speeds=speeds,
        accelerations=accelerations,
        yaw_rates=curvatures * speeds,
        curvatures=curvatures,
    )


def _merge_standstill(points: Array) -> tuple[Array, Array, Array]:
    """Drop knots that hardly move.

    Args:
        points: (8, 2) knot positions.

    Returns:
        the kept nodes (M, 2), the origin first; their chord length (M,); and the chord length (9,)
        reached at t0 and at every knot.
    """
    nodes, arc, arc_at_knots = [np.zeros(2)], [0.0], [0.0]
    for point in points:
        step = float(np.hypot(*(point - nodes[-1])))
        if step >= MIN_SEGMENT_M:
            nodes.append(point)
            arc.append(arc[-1] + step)
        arc_at_knots.append(arc[-1])
    return np.array(nodes), np.array(arc), np.array(arc_at_knots)


def _travel(arc_at_knots: Array, speed_mps: float, times: Array) -> tuple[Array, Array, Array]:
    """Return chord length, its rate and the rate's change at ``times``, monotone through (9,)."""
    mean_rates = np.diff(arc_at_knots) / KNOT_INTERVAL_S
    rates = _spline_slopes(_KNOT_TIMES_S, arc_at_knots[:, None], np.array([speed_mps]))[:, 0]
    # Slopes within three times the smaller neighbouring mean keep a cubic monotone.
    ceiling = np.minimum(np.append(mean_rates, np.inf), np.append(np.inf, mean_rates))
    rates = np.clip(rates, 0.0, 3.0 * ceiling)
    value, rate, change = _hermite(_KNOT_TIMES_S, arc_at_knots[:, None], rates[:, None], times)
    return value[:, 0], np.maximum(rate[:, 0], 0.0), change[:, 0]


def _spline_slopes(x: Array, y: Array, start_slope: Array) -> Array:
    """Return the slopes (n, d) of the cubic spline through y (n, d) at x (n,).

    Twice continuously differentiable, ``start_slope`` (d,) at the start; the last piece is a
    parabola, so that a plan ends with the acceleration and the bend it has.
    """
    count = len(x)
    inverse_step = 1.0 / np.diff(x)
    chord = np.diff(y, axis=0) * inverse_step[:, None]
    system, right = np.zeros((count, count)), np.zeros_like(y)
    system[0, 0], right[0] = 1.0, start_slope
    for row in range(1, count - 1):
        before, after = inverse_step[row - 1], inverse_step[row]
        system[row, row - 1 : row + 2] = before, 2.0 * (before + after), after
        right[row] = 3.0 * (chord[row - 1] * before + chord[row] * after)
    system[-1, -2:], right[-1] = (1.0, 1.0), 2.0 * chord[-1]
    return np.asarray(np.linalg.solve(system, right), np.float64)


def _hermite(x: Array, y: Array, slopes: Array, at: Array) -> tuple[Array, Array, Array]:
    """Evaluate the piecewise cubic of y (n, d) and slopes (n, d) over x (n,) at points (m,).

    Returns:
        value, first and second derivative, (m, d) each; at a node those of the following piece.
    """
    piece = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
    step = (x[piece + 1] - x[piece])[:, None]
    u = np.clip((at - x[piece])[:, None] / step, 0.0, 1.0)
    start, delta = y[piece], y[piece + 1] - y[piece]
    slope0, slope1 = slopes[piece] * step, slopes[piece + 1] * step
    quadratic, cubic = 3.0 * delta - 2.0 * slope0 - slope1, slope0 + slope1 - 2.0 * delta
    value: Array = start + u * (slope0 + u * (quadratic + u * cubic))
    first: Array = (slope0 + u * (2.0 * quadratic + u * 3.0 * cubic)) / step
    second: Array = (2.0 * quadratic + 6.0 * u * cubic) / step**2
    return value, first, second
