"""The gate's rules, without ROS."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from latentvla_ros.geometry.trajectory import constant_turn_rate, resample
from latentvla_ros.nodes.gate_policy import GatedPlan, GatePolicy, MeasuredMotion
from latentvla_ros.safety.plan_checks import PlanLimits
from latentvla_ros.safety.stop_trajectory import StopSettings

NOW = 1_000_000_000_000
STOP = StopSettings(comfortable_after_s=0.5, emergency_after_s=1.5)


def plan(stamp_ns: int = NOW, sequence: int = 1, speed: float = 8.0) -> GatedPlan:
    pose = np.array([100.0, -20.0, 2.0])
    trajectory = resample(constant_turn_rate(speed, 0.05), speed).in_frame(pose)
    return GatedPlan(stamp_ns, sequence, "odom", pose, trajectory)


def policy(stops: bool = True) -> GatePolicy:
    return GatePolicy(PlanLimits(), STOP, stops)


def test_a_fresh_plan_passes() -> None:
    gate = policy()
    assert gate.mode == "waiting"
    assert gate.offer(plan(), NOW + 100_000_000, 10.0) == ""
    assert gate.mode == "passing" and gate.cause == "" and gate.passed == 1


@pytest.mark.parametrize(
    ("broken", "cause"),
    [
        (replace(plan(), stamp_ns=0), "zero_stamp"),
        (replace(plan(), frame=""), "no_frame"),
        (plan(NOW - 700_000_000), "too_old"),
        (plan(NOW + 300_000_000), "from_future"),
        (replace(plan(), ego_pose=np.array([120.0, -20.0, 2.0])), "start_pose"),
        (
            replace(plan(), trajectory=replace(plan().trajectory, poses=np.full((41, 3), np.nan))),
            "not_finite",
        ),
        (plan(speed=60.0), "speed"),
    ],
)
def test_a_bad_plan_is_rejected_by_name_and_good_ones_pass_again(
    broken: GatedPlan, cause: str
) -> None:
    gate = policy()
    assert gate.offer(broken, NOW, 10.0) == cause
    assert gate.passed == 0 and gate.rejects == {cause: 1}
    assert gate.offer(plan(), NOW, 10.1) == "" and gate.mode == "passing"
    assert gate.first_cause == f"rejected: {cause}"


def test_nothing_old_is_repeated() -> None:
    gate = policy()
    assert gate.offer(plan(), NOW, 10.0) == ""
    assert gate.offer(plan(), NOW, 10.05) == "not_newer"
    gate.forget()
    assert gate.offer(plan(NOW - 5), NOW, 10.1) == "", "after a clock jump stamps begin anew"


def test_silence_before_the_first_plan_asks_for_nothing() -> None:
    gate = policy()
    assert gate.check(1e6) == "none" and gate.mode == "waiting"


def test_silence_times_out_without_stopping_where_it_is_not_told_to() -> None:
    gate = policy(stops=False)
    gate.offer(plan(), NOW, 10.0)
    assert gate.check(10.4) == "none" and gate.mode == "passing"
    assert gate.check(10.6) == "none" and gate.mode == "timed_out"
    assert gate.first_cause == "timed_out"


def test_a_stop_is_comfortable_then_hard_and_comes_to_rest_without_odometry() -> None:
    gate = policy()
    gate.offer(plan(), NOW, 10.0)
    speeds, places, modes = [], [], []
    for step in range(60):
        silent_s = 0.5 + 0.1 * step
        stage = gate.check(10.0 + silent_s)
        stop = gate.stop(stage, NOW + round(silent_s * 1e9), None)
        assert stop is not None
        modes.append(gate.mode)
        speeds.append(stop.speeds[0])
        places.append(stop.poses[0, :2])
        assert np.all(np.diff(stop.speeds) <= 1e-9)
    assert modes[0] == "comfortable_stop" and modes[-1] == "emergency_stop"
    decelerations = -np.diff(speeds) / 0.1
    assert decelerations[:9] == pytest.approx(1.5, abs=0.2)
    assert decelerations[12:18] == pytest.approx(5.0, abs=0.4)
    assert speeds[-1] == pytest.approx(0.0, abs=1e-6)
    moved = np.linalg.norm(np.diff(places, axis=0), axis=1)
    expected = 0.05 * (np.array(speeds[:-1]) + np.array(speeds[1:]))
    assert moved == pytest.approx(expected, abs=0.03), "each stop begins where the last has got to"


def test_a_new_plan_ends_a_stop() -> None:
    gate = policy()
    gate.offer(plan(), NOW, 10.0)
    assert gate.check(11.0) == "comfortable"
    later = NOW + 1_000_000_000
    assert gate.offer(plan(later), later, 11.1) == ""
    assert gate.mode == "passing" and gate.check(11.2) == "none"


def test_while_every_plan_is_refused_waiting_says_why() -> None:
    gate = policy()
    gate.offer(plan(NOW - 700_000_000), NOW, 10.0)
    assert gate.mode == "waiting" and "rejected: too_old" in gate.cause


def test_after_a_clock_jump_the_stop_follows_the_measured_motion() -> None:
    gate = policy()
    gate.offer(plan(), NOW, 10.0)
    gate.forget()
    before = NOW - 500_000_000_000
    assert gate.check(10.6) == "none" and gate.mode == "timed_out"
    assert gate.stop("comfortable", before, None) is None and gate.stop_frames == ("", "")
    pose = np.array([30.0, 40.0, -1.0])
    motion = MeasuredMotion("odom", "base_link", pose, 6.0, 0.3)
    assert gate.check(10.7, motion) == "comfortable" and gate.mode == "comfortable_stop"
    stop = gate.stop("comfortable", before, motion)
    assert stop is not None and gate.stop_frames == ("odom", "base_link")
    assert stop.poses[0] == pytest.approx(pose) and stop.speeds[0] == pytest.approx(6.0)
    assert stop.speeds[-1] == pytest.approx(0.0, abs=0.05)
    turned = np.unwrap(stop.poses[:, 2]) - pose[2]
    way = np.append(0.0, np.cumsum(np.hypot(*np.diff(stop.poses[:, :2], axis=0).T)))
    assert turned == pytest.approx(way * 0.3 / 6.0, abs=0.01), "on along the same arc"
    assert gate.check(10.8) == "comfortable", "once begun it goes on without odometry"
    later = gate.stop("comfortable", before + 1_000_000_000, None)
    assert later is not None and later.speeds[0] == pytest.approx(4.5, abs=0.1)
    gate.offer(plan(before + 2_000_000_000), before + 2_000_000_000, 12.0)
    assert gate.mode == "passing" and gate.stop_frames == ("", "")
