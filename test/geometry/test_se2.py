"""Planar motions form a group, and logarithm undoes exponential."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentvla_ros.geometry import se2

coordinate = st.floats(-1e4, 1e4)
angle = st.floats(-np.pi + 1e-3, np.pi - 1e-3)
poses = st.tuples(coordinate, coordinate, angle).map(np.array)


@given(st.floats(-1e3, 1e3))
def test_wrapped_angle_is_the_same_direction(value: float) -> None:
    wrapped = float(se2.wrap_angle(value))
    assert -np.pi < wrapped <= np.pi
    assert np.cos(wrapped) == pytest.approx(np.cos(value), abs=1e-9)
    assert np.sin(wrapped) == pytest.approx(np.sin(value), abs=1e-9)


@given(poses, poses)
def test_relative_undoes_compose(first: np.ndarray, second: np.ndarray) -> None:
    back = se2.relative(first, se2.compose(first, second))
    np.testing.assert_allclose(back, second, atol=1e-7)


@given(poses, poses, poses)
def test_compose_is_associative(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    left = se2.compose(se2.compose(a, b), c)
    right = se2.compose(a, se2.compose(b, c))
    np.testing.assert_allclose(left[:2], right[:2], atol=1e-7)
    assert abs(float(se2.wrap_angle(left[2] - right[2]))) < 1e-9


@given(st.floats(-40, 40), st.floats(-5, 5), st.floats(-3, 3))
def test_logarithm_undoes_exponential(vx: float, vy: float, yaw_rate: float) -> None:
    pose = se2.exponential(vx, vy, yaw_rate, 1.0)
    np.testing.assert_allclose(se2.logarithm(pose), [vx, vy, yaw_rate], atol=1e-6)


@given(poses, st.lists(st.tuples(coordinate, coordinate), min_size=1, max_size=5))
def test_points_move_as_poses_do(pose: np.ndarray, points: list[tuple[float, float]]) -> None:
    moved = se2.transform_points(pose, np.array(points))
    as_poses = se2.compose(pose, np.array([(x, y, 0.0) for x, y in points]))
    np.testing.assert_allclose(moved, as_poses[:, :2], atol=1e-7)
