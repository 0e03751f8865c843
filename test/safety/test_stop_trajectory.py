"""Stops end at rest, on the plan's own path, never faster than the plan, as hard as asked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentvla_ros.contract import ContractError
from latentvla_ros.geometry.trajectory import (
    NUM_POINTS,
    Trajectory,
    constant_turn_rate,
    kinematics,
    resample,
)
from latentvla_ros.safety.stop_trajectory import StopSettings, stop_along


def turning(speed: float, yaw_rate: float) -> Trajectory:
    return resample(constant_turn_rate(speed, yaw_rate), speed).in_frame((20.0, -5.0, 1.0))


def travelled(trajectory: Trajectory) -> float:
    return float(np.hypot(*np.diff(trajectory.poses[:, :2], axis=0).T).sum())


@given(st.floats(1, 20), st.floats(-0.3, 0.3), st.floats(0, 4.5), st.sampled_from([1.5, 5.0]))
def test_a_stop_follows_the_plan_and_brakes_as_asked(
    speed: float, yaw_rate: float, elapsed_s: float, deceleration: float
) -> None:
    plan = turning(speed, yaw_rate)
    stop = stop_along(plan, elapsed_s, deceleration)
    assert stop.poses.shape == (NUM_POINTS, 3)
    np.testing.assert_allclose(stop.poses[0], plan.at(elapsed_s)[0], atol=1e-9)
    expected = np.maximum(plan.at(elapsed_s)[1] - deceleration * stop.times_s, 0.0)
    np.testing.assert_allclose(stop.speeds, expected, atol=0.05)
    # What it says about speed is how it moves.
    moved = kinematics(stop.poses, 0.1).speeds
    assert np.abs(moved - 0.5 * (stop.speeds[1:] + stop.speeds[:-1])).max() < 0.03 * speed + 0.05
    # On the path: every point while the path lasts lies between two points of the plan.
    path = plan.poses[plan.times_s >= min(elapsed_s, 4.0) - 0.1, :2]
    end = travelled(stop)
    remaining = float(np.hypot(*np.diff(path, axis=0).T).sum()) if len(path) > 1 else 0.0
    if end < remaining - 0.2 * speed:
        distances = np.hypot(*(stop.poses[:, None, :2] - path[None]).transpose(2, 0, 1))
        assert distances.min(axis=1).max() < 0.06 * speed + 0.01


def test_a_stop_is_never_faster_than_the_plan() -> None:
    """The plan itself brakes hard behind a queue: a comfortable stop must not run into it."""
    times = np.minimum(np.arange(1, 9) * 0.5, 2.0)
    knots = np.stack([10 * times - 2.5 * times**2, np.zeros(8), np.zeros(8)], axis=-1)
    plan = resample(knots, 10.0)
    stop = stop_along(plan, 0.3, 1.5)
    assert stop.poses[-1, 0] <= plan.poses[-1, 0] + 0.05
    assert stop.speeds[-1] == 0.0


def test_a_plan_that_would_speed_up_again_stays_stopped() -> None:
    times = np.arange(1, 9) * 0.5
    slowing = np.where(times < 2, 4 * times - times**2, 4.0)
    distance = slowing + np.where(times > 2, 2.0 * (times - 2) ** 2, 0.0)
    plan = resample(np.stack([distance, np.zeros(8), np.zeros(8)], axis=-1), 4.0)
    assert plan.speeds[-1] > 3.0
    assert stop_along(plan, 0.0, 1.5).speeds[-1] == 0.0


def test_a_measured_speed_above_the_plans_is_braked_from() -> None:
    stop = stop_along(turning(5.0, 0.0), 0.0, 2.0, speed_mps=8.0)
    assert stop.speeds[0] == pytest.approx(8.0)
    np.testing.assert_allclose(stop.accelerations[:30], -2.0, atol=0.01)


def test_a_stop_past_the_end_of_the_path_goes_straight_on() -> None:
    plan = turning(10.0, 0.2)
    stop = stop_along(plan, 3.8, 1.5)
    np.testing.assert_allclose(stop.poses[-10:, 2], plan.poses[-1, 2], atol=1e-6)
    assert travelled(stop) == pytest.approx(10 * 4 - 0.75 * 16, abs=0.1)


def test_a_standing_vehicle_stays() -> None:
    plan = resample(np.zeros((8, 3)), 0.0).in_frame((3.0, 4.0, 0.5))
    stop = stop_along(plan, 1.0, 1.5)
    np.testing.assert_allclose(stop.poses, np.tile([3.0, 4.0, 0.5], (NUM_POINTS, 1)), atol=1e-9)
    assert not stop.speeds.any()
    assert not stop.yaw_rates.any()


def test_stages_follow_silence() -> None:
    settings = StopSettings(comfortable_after_s=0.3, emergency_after_s=1.5)
    assert [settings.stage(s) for s in (0.0, 0.29, 0.3, 1.49, 1.5, 60.0)] == [
        "none",
        "none",
        "comfortable",
        "comfortable",
        "emergency",
        "emergency",
    ]
    assert settings.deceleration_mps2("none") == 0.0
    assert settings.deceleration_mps2("comfortable") < settings.deceleration_mps2("emergency")


@pytest.mark.parametrize("change", [{"comfortable_after_s": -1.0}, {"emergency_after_s": 0.1}])
def test_settings_out_of_range_are_named(change: dict[str, float]) -> None:
    with pytest.raises(ContractError, match=f"stop.{next(iter(change))}"):
        StopSettings(**change)
