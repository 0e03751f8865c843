"""Resampling: through the knots, at rest when at rest, never backwards; exact on simple motion."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentvla_ros.contract import ContractError
from latentvla_ros.geometry import se2
from latentvla_ros.geometry.trajectory import (
    MIN_SEGMENT_M,
    NUM_POINTS,
    Trajectory,
    constant_turn_rate,
    kinematics,
    resample,
)

KNOT_TIMES = np.arange(1, 9) * 0.5


def straight(distance: np.ndarray) -> np.ndarray:
    return np.stack([distance, np.zeros(8), np.zeros(8)], axis=-1)


@given(st.floats(0.5, 30), st.floats(-0.3, 0.3))
def test_constant_turn_is_reproduced(speed: float, yaw_rate: float) -> None:
    trajectory = resample(constant_turn_rate(speed, yaw_rate), speed)
    exact = np.concatenate([np.zeros((1, 3)), constant_turn_rate(speed, yaw_rate, 4.0, 0.1)])
    # Chords stand in for arcs: the error grows with the angle turned in a knot interval.
    slack = 0.005 + 0.02 * abs(yaw_rate) * speed * 0.5
    assert np.abs(trajectory.poses[:, :2] - exact[:, :2]).max() < slack
    assert np.abs(se2.wrap_angle(trajectory.poses[:, 2] - exact[:, 2])).max() < 0.02
    np.testing.assert_allclose(trajectory.speeds, speed, rtol=0.02)
    np.testing.assert_allclose(trajectory.curvatures, yaw_rate / speed, atol=0.03 * 0.3 / speed)


def test_start_off_with_constant_acceleration_is_exact() -> None:
    trajectory = resample(straight(0.5 * 1.5 * KNOT_TIMES**2), 0.0)
    np.testing.assert_allclose(trajectory.speeds, 1.5 * trajectory.times_s, atol=1e-6)
    np.testing.assert_allclose(trajectory.accelerations, 1.5, atol=1e-6)
    np.testing.assert_allclose(trajectory.poses[:, 1:], 0.0, atol=1e-9)


def test_hold_stands_still_at_the_ego_pose() -> None:
    noise = np.random.default_rng(3).uniform(-0.04, 0.04, (8, 3))
    trajectory = resample(noise, 0.0)
    for values in (trajectory.poses, trajectory.speeds, trajectory.curvatures):
        np.testing.assert_array_equal(values, 0.0)
    np.testing.assert_array_equal(trajectory.accelerations, 0.0)


def test_braking_to_standstill_ends_at_rest_with_the_last_yaw() -> None:
    braking_s = 2.5
    time = np.minimum(KNOT_TIMES, braking_s)
    arc = 8.0 * time - 0.5 * 3.2 * time**2
    angle = arc / 40.0
    knots = np.stack([40 * np.sin(angle), 40 * (1 - np.cos(angle)), angle], axis=-1)
    trajectory = resample(knots, 8.0)
    at_rest = trajectory.times_s > braking_s + 0.05
    np.testing.assert_array_equal(trajectory.speeds[at_rest], 0.0)
    np.testing.assert_array_equal(trajectory.yaw_rates[at_rest], 0.0)
    np.testing.assert_allclose(trajectory.poses[at_rest, 2], 0.25, atol=0.02)
    assert np.all(np.diff(trajectory.poses[:, 0]) >= -1e-9)


def test_waiting_before_start_off_holds_the_ego_yaw() -> None:
    moving = np.maximum(KNOT_TIMES - 1.0, 0.0)
    knots = straight(moving**2)
    knots[:2, 1] = 0.05  # a trembling knot must not turn the vehicle
    trajectory = resample(knots, 0.0)
    waiting = trajectory.times_s < 0.95
    np.testing.assert_array_equal(trajectory.poses[waiting], 0.0)
    np.testing.assert_array_equal(trajectory.speeds[waiting], 0.0)
    assert trajectory.poses[-1, 0] == pytest.approx(9.0)


random_knots = st.lists(
    st.tuples(st.floats(0.0, 15.0), st.floats(-0.4, 0.4)), min_size=8, max_size=8
).map(
    lambda moves: np.array(
        [
            pose
            for pose in _accumulate(moves)  # poses reached by turning, then driving straight
        ]
    )
)


def _accumulate(moves: list[tuple[float, float]]) -> list[np.ndarray]:
    pose, poses = np.zeros(3), []
    for distance, turn in moves:
        pose = se2.compose(se2.compose(pose, (0.0, 0.0, turn)), (distance, 0.0, 0.0))
        poses.append(pose)
    return poses


@given(random_knots, st.floats(0, 30))
def test_any_forward_plan_gives_a_sound_trajectory(knots: np.ndarray, speed: float) -> None:
    trajectory = resample(knots, speed)
    assert trajectory.poses.shape == (NUM_POINTS, 3)
    for values in vars(trajectory).values():
        assert np.isfinite(values).all()
    np.testing.assert_allclose(trajectory.poses[0], 0.0, atol=1e-12)
    assert (trajectory.speeds >= 0).all()
    assert (np.abs(trajectory.poses[:, 2]) <= np.pi).all()
    # Through every kept knot; within a segment's length of every merged one.
    kept = np.zeros(2)
    for index, knot in enumerate(knots):
        reached = trajectory.poses[5 * (index + 1), :2]
        if np.hypot(*(knot[:2] - kept)) >= MIN_SEGMENT_M:
            kept = knot[:2]
            np.testing.assert_allclose(reached, knot[:2], atol=1e-6)
        else:
            np.testing.assert_allclose(reached, kept, atol=1e-6)


@given(random_knots, st.floats(0, 30))
def test_speed_is_the_derivative_of_position(knots: np.ndarray, speed: float) -> None:
    trajectory = resample(knots, speed)
    steps = np.hypot(*np.diff(trajectory.poses[:, :2], axis=0).T)
    bounds = 0.1 * np.stack([trajectory.speeds[:-1], trajectory.speeds[1:]])
    # The chord of a step lies within its speeds up to the change of speed and direction in it.
    slack = 0.02 + 0.1 * np.abs(np.diff(trajectory.speeds)) + 0.15 * steps
    accelerations = np.abs(trajectory.accelerations)
    slack += 0.005 * np.maximum(accelerations[:-1], accelerations[1:])
    assert (steps >= bounds.min(axis=0) - slack).all()
    assert (steps <= bounds.max(axis=0) + slack).all()


@pytest.mark.parametrize("bad", [np.full((8, 3), np.nan), np.zeros((7, 3)), np.full((8, 3), 1e9)])
def test_unusable_knots_are_named(bad: np.ndarray) -> None:
    with pytest.raises(ContractError, match=r"plan\.poses"):
        resample(bad, 1.0)


def test_kinematics_of_a_circle() -> None:
    poses = constant_turn_rate(6.0, 0.3, 4.0, 0.1)
    found = kinematics(poses, 0.1)
    np.testing.assert_allclose(found.speeds, 6.0, rtol=1e-3)
    np.testing.assert_allclose(found.yaw_rates, 0.3, rtol=1e-6)
    np.testing.assert_allclose(found.curvatures, 0.05, rtol=1e-3)
    np.testing.assert_allclose(found.accelerations, 0.0, atol=1e-6)
    np.testing.assert_allclose(found.lateral_accelerations, 1.8, rtol=1e-3)


def test_kinematics_knows_reverse_from_forward() -> None:
    poses = np.array([[0.0, 0, 0], [-1.0, 0, 0], [-2.0, 0, 0]])
    np.testing.assert_allclose(kinematics(poses, 0.5).speeds, -2.0)


@given(st.floats(-50, 50), st.floats(-50, 50), st.floats(-3, 3), st.floats(-0.5, 4.5))
def test_sampling_commutes_with_the_frame(x: float, y: float, yaw: float, time_s: float) -> None:
    trajectory: Trajectory = resample(constant_turn_rate(8.0, 0.2), 8.0)
    pose, speed, curvature = trajectory.at(time_s)
    moved, moved_speed, moved_curvature = trajectory.in_frame((x, y, yaw)).at(time_s)
    expected = se2.compose((x, y, yaw), pose)
    np.testing.assert_allclose(moved[:2], expected[:2], atol=1e-6)
    assert abs(float(se2.wrap_angle(moved[2] - expected[2]))) < 1e-6
    assert (moved_speed, moved_curvature) == (speed, curvature)
