"""Planar rigid motions as (..., 3) arrays of x, y, yaw; m and rad, yaw in (-pi, pi]."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Poses = NDArray[np.float64]


def wrap_angle(angle: ArrayLike) -> NDArray[np.float64]:
    """Wrap angles (any shape, rad) to (-pi, pi]."""
    values = np.asarray(angle, np.float64)
    return -((np.pi - values) % (2.0 * np.pi) - np.pi)


def compose(a_from_b: ArrayLike, b_from_c: ArrayLike) -> Poses:
    """Return a_from_c; arguments (..., 3) broadcast against each other."""
    first, second = np.asarray(a_from_b, np.float64), np.asarray(b_from_c, np.float64)
    cos, sin = np.cos(first[..., 2]), np.sin(first[..., 2])
    x = first[..., 0] + cos * second[..., 0] - sin * second[..., 1]
    y = first[..., 1] + sin * second[..., 0] + cos * second[..., 1]
    return _joined(x, y, wrap_angle(first[..., 2] + second[..., 2]))


def inverse(a_from_b: ArrayLike) -> Poses:
    """Return b_from_a of poses (..., 3)."""
    pose = np.asarray(a_from_b, np.float64)
    cos, sin = np.cos(pose[..., 2]), np.sin(pose[..., 2])
    x = -cos * pose[..., 0] - sin * pose[..., 1]
    y = sin * pose[..., 0] - cos * pose[..., 1]
    return _joined(x, y, wrap_angle(-pose[..., 2]))


def relative(origin: ArrayLike, poses: ArrayLike) -> Poses:
    """Express ``poses`` (..., 3) in the frame of ``origin`` (..., 3): inverse(origin) * poses."""
    return compose(inverse(origin), poses)


def transform_points(a_from_b: ArrayLike, points_b: ArrayLike) -> NDArray[np.float64]:
    """Map points (..., N, 2) from frame b to frame a by one pose (..., 3)."""
    pose, points = np.asarray(a_from_b, np.float64), np.asarray(points_b, np.float64)
    cos, sin = np.cos(pose[..., 2])[..., None], np.sin(pose[..., 2])[..., None]
    x = pose[..., 0, None] + cos * points[..., 0] - sin * points[..., 1]
    y = pose[..., 1, None] + sin * points[..., 0] + cos * points[..., 1]
    return np.stack([x, y], axis=-1)


def exponential(vx: float, vy: float, yaw_rate: float, duration_s: float) -> Poses:
    """Return the pose (3,) reached from the origin under a constant body twist."""
    angle = yaw_rate * duration_s
    if abs(angle) < 1e-9:
        return np.array([vx * duration_s, vy * duration_s, angle])
    sin_term, cos_term = np.sin(angle) / yaw_rate, (1.0 - np.cos(angle)) / yaw_rate
    return np.array(
        [vx * sin_term - vy * cos_term, vx * cos_term + vy * sin_term, float(wrap_angle(angle))]
    )


def logarithm(pose: ArrayLike) -> Poses:
    """Return the constant body twists (..., 3) that reach poses (..., 3) from the origin in 1 s."""
    values = np.asarray(pose, np.float64)
    angle = values[..., 2]
    half = 0.5 * angle
    small = np.abs(angle) < 1e-6
    # (angle / 2) / tan(angle / 2), which tends to 1 - angle^2 / 12.
    safe = np.where(small, 1.0, half)
    cotangent = np.where(small, 1.0 - angle**2 / 12.0, safe / np.tan(safe))
    vx = cotangent * values[..., 0] + half * values[..., 1]
    vy = -half * values[..., 0] + cotangent * values[..., 1]
    return _joined(vx, vy, angle)


def _joined(x: ArrayLike, y: ArrayLike, yaw: ArrayLike) -> Poses:
    """Join columns of one shape (...) to (..., 3); on single poses much faster than np.stack."""
    result = np.empty((*np.shape(x), 3))
    result[..., 0], result[..., 1], result[..., 2] = x, y, yaw
    return result
