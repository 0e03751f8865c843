"""Rigid transforms, and the mounting of cameras in them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentvla_ros.geometry import se2, se3

length = st.floats(-50, 50)
angle = st.floats(-1.5, 1.5)
vector = st.tuples(length, length, length)


@given(vector, angle, angle, angle)
def test_inverse_undoes_a_mounting(
    xyz: tuple[float, float, float], yaw: float, pitch: float, roll: float
) -> None:
    transform = se3.camera_mount(xyz, yaw, pitch, roll)
    np.testing.assert_allclose(se3.inverse(transform) @ transform, np.eye(4), atol=1e-9)
    assert np.linalg.det(transform[:3, :3]) == pytest.approx(1.0)


@given(length, length, angle, length, length, angle)
def test_lifting_keeps_composition(
    x1: float, y1: float, a1: float, x2: float, y2: float, a2: float
) -> None:
    first, second = np.array([x1, y1, a1]), np.array([x2, y2, a2])
    lifted = se3.from_se2(se2.compose(first, second))
    np.testing.assert_allclose(lifted, se3.from_se2(first) @ se3.from_se2(second), atol=1e-9)


def test_a_forward_camera_looks_along_x() -> None:
    transform = se3.camera_mount((1.8, 0.0, 1.6), 0.0)
    ahead = se3.transform_points(transform, np.array([[0.0, 0.0, 10.0]]))
    np.testing.assert_allclose(ahead, [[11.8, 0.0, 1.6]], atol=1e-12)


def test_positive_pitch_looks_down_and_positive_yaw_left() -> None:
    transform = se3.camera_mount((0.0, 0.0, 0.0), np.deg2rad(90), np.deg2rad(30))
    axis = transform[:3, 2]
    np.testing.assert_allclose(axis, [0.0, np.cos(np.pi / 6), -0.5], atol=1e-12)


def test_quaternion_and_angles_agree() -> None:
    half = np.deg2rad(40) / 2
    turned = se3.from_quaternion((1, 2, 3), (0, 0, 3 * np.sin(half), 3 * np.cos(half)))
    expected = se3.from_xyz_rpy((1, 2, 3), (0, 0, np.deg2rad(40)))
    np.testing.assert_allclose(turned, expected, atol=1e-12)


@pytest.mark.parametrize("quaternion", [(0, 0, 0, 0), (np.nan, 0, 0, 1)])
def test_a_quaternion_without_length_is_refused(quaternion: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="normalised"):
        se3.from_quaternion((0, 0, 0), quaternion)
