"""Every limit catches its own plan and no other; plans worth driving pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from latentvla_ros.contract import ContractError
from latentvla_ros.geometry.trajectory import constant_turn_rate, resample
from latentvla_ros.safety.plan_checks import PlanLimits, check_plan, check_trajectory

TIMES = np.arange(1, 9) * 0.5


def straight(distance: np.ndarray) -> np.ndarray:
    return np.stack([distance, np.zeros(8), np.zeros(8)], axis=-1)


def names(knots: np.ndarray, speed: float, age_s: float = 0.1) -> set[str]:
    return {violation.name for violation in check_plan(knots, speed, age_s).violations}


@pytest.mark.parametrize(
    ("knots", "speed"),
    [
        (constant_turn_rate(13.9, 0.0), 13.9),
        (constant_turn_rate(8.0, 0.5), 8.0),
        (constant_turn_rate(3.0, -0.5), 3.0),
        (straight(0.5 * 2.0 * TIMES**2), 0.0),
        (straight(np.zeros(8)), 0.0),
        (straight(np.zeros(8)) + 0.03, 0.0),
        (straight(10 * np.minimum(TIMES, 2) - 2.5 * np.minimum(TIMES, 2) ** 2), 10.0),
        (straight(np.maximum(TIMES - 2, 0.0) ** 2), 0.0),
    ],
)
def test_plans_worth_driving_pass(knots: np.ndarray, speed: float) -> None:
    check = check_plan(knots, speed, 0.1)
    assert check.violations == ()
    assert check.valid


@given(st.floats(0, 25), st.floats(-0.25, 0.25), st.floats(-1, 1), st.integers(0, 2**32 - 1))
def test_small_errors_of_the_network_do_not_fail_a_plan(
    speed: float, yaw_rate: float, bias: float, seed: int
) -> None:
    """Two centimetres of noise on every knot, and a speed that is off by up to 1 m/s."""
    noise = np.random.default_rng(seed).normal(0.0, 0.02, (8, 3))
    knots = constant_turn_rate(max(speed + bias, 0.0), yaw_rate) + noise
    assert names(knots, speed) - {"curvature"} == set()
    if speed > 5.0:
        assert names(knots, speed) == set()


@pytest.mark.parametrize(
    ("knots", "speed", "expected"),
    [
        (constant_turn_rate(60.0, 0.0), 60.0, "speed"),
        (straight(0.5 * 9.0 * TIMES**2), 0.0, "acceleration"),
        (straight(np.full(8, 1.0)), 15.0, "deceleration"),
        (constant_turn_rate(15.0, 0.7), 15.0, "lateral_acceleration"),
        (constant_turn_rate(3.0, 1.5), 3.0, "curvature"),
        (constant_turn_rate(10.0, 0.0), 2.0, "start_speed"),
        (constant_turn_rate(5.0, 0.0)[:, [1, 0, 2]], 5.0, "start_heading"),
        (-straight(2.0 * TIMES), 2.0, "backwards"),
        (straight(np.array([4.0, 8, 12, 16, 14, 12, 10, 8])), 8.0, "backwards"),
    ],
)
def test_every_limit_names_its_violation(knots: np.ndarray, speed: float, expected: str) -> None:
    assert expected in names(knots, speed)


@pytest.mark.parametrize(
    ("age_s", "expected"), [(0.49, set()), (0.51, {"too_old"}), (-0.6, {"from_future"})]
)
def test_age_is_judged(age_s: float, expected: set[str]) -> None:
    assert names(constant_turn_rate(8.0, 0.0), 8.0, age_s) == expected


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_plan_that_is_not_finite_has_no_trajectory(bad: float) -> None:
    knots = constant_turn_rate(8.0, 0.0)
    knots[3, 1] = bad
    check = check_plan(knots, 8.0, 0.1)
    assert not check.valid
    assert check.trajectory is None
    assert [violation.name for violation in check.violations] == ["not_finite"]
    assert names(constant_turn_rate(8.0, 0.0), bad) == {"not_finite"}
    trajectory = resample(constant_turn_rate(8.0, 0.0), 8.0)
    broken = replace(trajectory, speeds=trajectory.speeds * bad)
    assert [v.name for v in check_trajectory(broken, 8.0, 0.1)] == ["not_finite"]
    assert [v.name for v in check_trajectory(trajectory, 8.0, bad)] == ["not_finite"]


def test_a_plan_to_the_moon_has_no_trajectory() -> None:
    check = check_plan(straight(1e9 * TIMES), 8.0, 0.1)
    assert check.trajectory is None
    assert [violation.name for violation in check.violations] == ["reach"]


def test_continuity_is_judged_in_the_frame_of_the_trajectory() -> None:
    ego = (100.0, 50.0, 2.0)
    trajectory = resample(constant_turn_rate(8.0, 0.2), 8.0).in_frame(ego)
    assert check_trajectory(trajectory, 8.0, 0.1, ego) == []
    found = check_trajectory(trajectory, 8.0, 0.1, (101.0, 50.0, 2.0))
    assert "start_pose" in {violation.name for violation in found}
    found = check_trajectory(trajectory, 8.0, 0.1, (100.0, 50.0, 3.0))
    assert {violation.name for violation in found} == {"start_heading"}


@pytest.mark.filterwarnings("error")
@given(
    st.one_of(
        arrays(np.float64, (8, 3)), arrays(np.float64, (8, 3), elements=st.floats(-1e4, 1e4))
    ),
    st.floats(),
    st.floats(),
)
def test_any_numbers_are_judged_without_an_error(
    knots: np.ndarray, speed: float, age_s: float
) -> None:
    check = check_plan(knots, speed, age_s)
    for violation in check.violations:
        assert violation.name in str(violation)


def test_limits_out_of_range_are_named() -> None:
    with pytest.raises(ContractError, match=r"plan_limits\.max_speed_mps"):
        PlanLimits(max_speed_mps=0.0)
