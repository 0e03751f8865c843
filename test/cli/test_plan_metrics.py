"""Errors, latencies and paths on drives whose answers are known."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace as Record

import numpy as np
import pytest
from drive_bag import Drive, rig
from hypothesis import given
from hypothesis import strategies as st

from latentvla_ros.cli.driven_path import DrivenPath, driven_path
from latentvla_ros.cli.plan_metrics import percentiles_ms, plan_errors, rate_hz
from latentvla_ros.geometry import se2
from latentvla_ros.geometry.trajectory import constant_turn_rate
from latentvla_ros.nodes.recording import RecordedPlan

DRIVE = Drive(duration_s=8.0, speed=9.0, yaw_rate=0.2)


def circle(start: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> DrivenPath:
    times = np.arange(0.0, DRIVE.duration_s, 0.02)
    poses = np.array([se2.compose(start, DRIVE.pose(t)) for t in times])
    twists = np.tile([DRIVE.speed, 0.0, DRIVE.yaw_rate], (len(times), 1))
    return DrivenPath(np.round(times * 1e9).astype(np.int64), poses, twists)


def plan(stamp_ns: int, knots: np.ndarray) -> RecordedPlan:
    return RecordedPlan(
        stamp_ns=stamp_ns,
        sequence=1,
        pose=np.zeros(3),
        knots=knots,
        candidates=knots[None],
        scores=np.zeros(1),
        points=np.zeros((41, 3)),
        speeds=np.zeros(41),
        latent_actions=np.zeros(12, np.int64),
        latent_probabilities=np.zeros(12),
    )


@given(st.floats(-300, 300), st.floats(-300, 300), st.floats(-3.1, 3.1))
def test_constant_turn_is_exact_on_a_circle_wherever_it_starts(
    x: float, y: float, yaw: float
) -> None:
    knots = constant_turn_rate(DRIVE.speed, DRIVE.yaw_rate)
    shifted = knots + np.array([0.3, -0.4, 0.0])
    path = circle((x, y, yaw))
    ours, constant = plan_errors([plan(500_000_000, shifted)], path)
    assert constant.ade_m == pytest.approx(0.0, abs=1e-3)
    assert ours.ade_m == pytest.approx(0.5, abs=1e-3)
    assert ours.fde_m == pytest.approx(0.5, abs=1e-3)
    assert ours.per_frame_ade_m == pytest.approx([0.5], abs=1e-3)


def test_only_frames_with_their_whole_future_count() -> None:
    knots = np.zeros((8, 3))
    plans = [plan(round(t * 1e9), knots) for t in (-0.5, 1.0, 3.9, 4.2)]
    ours, constant = plan_errors(plans, circle())
    assert ours.stamps_ns.tolist() == [1_000_000_000, 3_900_000_000]
    assert constant.stamps_ns.tolist() == ours.stamps_ns.tolist()
    empty, _ = plan_errors([], circle())
    assert np.isnan(empty.ade_m) and np.isnan(empty.fde_m)


def test_a_gap_in_the_odometry_is_not_interpolated_over() -> None:
    path = circle()
    keep = (path.stamps_ns < 3_000_000_000) | (path.stamps_ns > 3_700_000_000)
    gapped = DrivenPath(path.stamps_ns[keep], path.poses[keep], path.twists[keep])
    assert np.isnan(gapped.poses_at([3_300_000_000])).all()
    assert np.isfinite(gapped.poses_at([2_900_000_000, 3_800_000_000])).all()


def test_yaw_is_interpolated_across_the_wrap() -> None:
    path = DrivenPath(
        np.array([0, 100_000_000]), np.array([[0, 0, 3.1], [0, 0, -3.1]]), np.zeros((2, 3))
    )
    yaw = float(path.poses_at([50_000_000])[0, 2])
    assert abs(abs(yaw) - np.pi) < 1e-9


def odometry(stamp_ns: int, x: float, yaw: float, vx: float) -> Record:
    return Record(
        header=Record(stamp=Record(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)),
        pose=Record(
            pose=Record(
                position=Record(x=x, y=0.0),
                orientation=Record(x=0.0, y=0.0, z=np.sin(yaw / 2), w=np.cos(yaw / 2)),
            )
        ),
        twist=Record(twist=Record(linear=Record(x=vx, y=0.0), angular=Record(z=0.0))),
    )


def test_odometry_that_is_not_finite_or_not_newer_is_left_out() -> None:
    messages = [
        odometry(1, 0, 0, 1),
        odometry(1, 9, 0, 1),
        odometry(2, np.nan, 0, 1),
        odometry(3, 2, 0, 1),
    ]
    path = driven_path(messages, rig())
    assert path.stamps_ns.tolist() == [1, 3]
    assert path.length_m == pytest.approx(2.0)
    assert np.isnan(driven_path([], rig()).poses_at([0])).all()


def test_the_path_is_that_of_the_rear_axle_where_the_odometry_is_not() -> None:
    gps_ahead = replace(rig(), base_from_twist=(2.0, 0.0, 0.0))
    path = driven_path([odometry(1, 5, np.pi / 2, 1), odometry(2, 5, np.pi / 2, 1)], gps_ahead)
    assert path.poses[0] == pytest.approx([5.0, -2.0, np.pi / 2])
    assert path.twists[0] == pytest.approx([1.0, 0.0, 0.0])


def test_percentiles_ignore_what_is_not_finite() -> None:
    values = percentiles_ms([0.010, float("nan"), 0.030])
    assert values is not None
    assert values["p50"] == pytest.approx(20.0) and values["max"] == pytest.approx(30.0)
    assert percentiles_ms([float("nan")]) is None


def test_rate_counts_intervals() -> None:
    assert rate_hz([0.0, 0.1, 0.2, 0.3]) == pytest.approx(10.0)
    assert rate_hz([1.0]) == 0.0
