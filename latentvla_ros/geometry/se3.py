"""Rigid transforms as (..., 4, 4) matrices, named ``a_from_b`` and read right to left."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Transform = NDArray[np.float64]

#: Rotation of the optical axes (x right, y down, z forward) seen from body axes (REP-103).
BODY_FROM_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def from_xyz_rpy(xyz: ArrayLike, rpy: ArrayLike) -> Transform:
    """Return the transform of a translation (3,) m and roll, pitch, yaw (3,) rad (URDF order)."""
    roll, pitch, yaw = np.asarray(rpy, np.float64)
    cr, sr, cp, sp = np.cos(roll), np.sin(roll), np.cos(pitch), np.sin(pitch)
    cy, sy = np.cos(yaw), np.sin(yaw)
    transform = np.eye(4)
    transform[:3, :3] = [
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp, cp * sr, cp * cr],
    ]
    transform[:3, 3] = xyz
    return transform


def camera_mount(xyz: ArrayLike, yaw: float, pitch: float = 0.0, roll: float = 0.0) -> Transform:
    """Return ego_from_camera at ``xyz`` m, looking along yaw (left +) and pitch (down +), rad."""
    transform = from_xyz_rpy(xyz, (roll, pitch, yaw))
    transform[:3, :3] = transform[:3, :3] @ BODY_FROM_OPTICAL
    return transform


def from_se2(pose: ArrayLike) -> Transform:
    """Lift poses (..., 3) x, y, yaw to (..., 4, 4) transforms in the plane z = 0."""
    values = np.asarray(pose, np.float64)
    cos, sin = np.cos(values[..., 2]), np.sin(values[..., 2])
    transform = np.zeros((*values.shape[:-1], 4, 4))
    transform[..., 0, 0], transform[..., 0, 1] = cos, -sin
    transform[..., 1, 0], transform[..., 1, 1] = sin, cos
    transform[..., 2, 2] = transform[..., 3, 3] = 1.0
    transform[..., 0, 3], transform[..., 1, 3] = values[..., 0], values[..., 1]
    return transform


def from_quaternion(xyz: ArrayLike, xyzw: ArrayLike) -> Transform:
    """Return the transform of a translation (3,) and a quaternion x, y, z, w (normalised here).

    Raises:
        ValueError: the quaternion has zero length or is not finite.
    """
    quaternion = np.asarray(xyzw, np.float64)
    norm = float(np.linalg.norm(quaternion))
    if not np.isfinite(norm) or norm < 1e-6:
        raise ValueError(f"quaternion {quaternion.tolist()} cannot be normalised")
    x, y, z, w = quaternion / norm
    transform = np.eye(4)
    transform[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    transform[:3, 3] = xyz
    return transform


def inverse(a_from_b: ArrayLike) -> Transform:
    """Return b_from_a of rigid transforms (..., 4, 4)."""
    transform = np.asarray(a_from_b, np.float64)
    rotation = np.swapaxes(transform[..., :3, :3], -1, -2)
    result = np.zeros_like(transform)
    result[..., :3, :3] = rotation
    result[..., :3, 3] = -(rotation @ transform[..., :3, 3, None])[..., 0]
    result[..., 3, 3] = 1.0
    return result


def transform_points(a_from_b: ArrayLike, points_b: ArrayLike) -> NDArray[np.float64]:
    """Map points (N, 3) from frame b to frame a by one transform (4, 4)."""
    transform = np.asarray(a_from_b, np.float64)
    return np.asarray(points_b, np.float64) @ transform[:3, :3].T + transform[:3, 3]
