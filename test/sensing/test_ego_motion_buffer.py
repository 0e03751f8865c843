"""Odometry to ego state: rate-independent, jump-free history, every refusal counted by cause."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentvla_ros.contract import ContractError
from latentvla_ros.geometry import se2
from latentvla_ros.sensing.ego_motion_buffer import (
    EgoMotionBuffer,
    EgoMotionSettings,
    OdometryStale,
    WarmingUp,
    in_base_frame,
)

START_NS = 1_000_000_000_000


def stamp(time_s: float) -> int:
    return START_NS + round(time_s * 1e9)


def twist(time_s: float) -> np.ndarray:
    """A drive that speeds up and turns in: smooth, nothing of it constant."""
    return np.array([6.0 + 1.2 * time_s, 0.0, 0.15 * np.sin(0.8 * time_s)])


def drive(duration_s: float = 4.0, rate: int = 1000) -> np.ndarray:
    """Poses (N, 3) of ``twist`` at 1 kHz."""
    pose, poses = np.array([100.0, -50.0, 2.0]), []
    for index in range(round(duration_s * rate) + 1):
        poses.append(pose)
        pose = se2.compose(pose, se2.exponential(*twist((index + 0.5) / rate), 1.0 / rate))
    return np.array(poses)


DRIVE = drive()


def filled(rate_hz: int, until_s: float = 4.0, **settings: float) -> EgoMotionBuffer:
    buffer = EgoMotionBuffer(EgoMotionSettings(**settings))  # type: ignore[arg-type]
    for index in range(round(until_s * rate_hz) + 1):
        time_s = index / rate_hz
        assert buffer.add(stamp(time_s), DRIVE[round(time_s * 1000)], twist(time_s))
    return buffer


@pytest.mark.parametrize("rate_hz", [10, 50, 100])
@pytest.mark.parametrize("time_s", [1.5, 2.03, 3.456, 4.0])
def test_state_is_that_of_the_drive_at_any_rate(rate_hz: int, time_s: float) -> None:
    ego = filled(rate_hz).at(stamp(time_s))
    truth = DRIVE[round(time_s * 1000)]
    np.testing.assert_allclose(ego.pose, truth, atol=0.01)
    times = np.array([-1.5, -1.0, -0.5, 0.0]) + time_s
    history = se2.relative(truth, DRIVE[np.rint(times * 1000).astype(int)])
    np.testing.assert_allclose(ego.history, history, atol=0.01)
    np.testing.assert_allclose(ego.dynamics[:3], twist(time_s), atol=0.01)
    assert ego.history_mask.all()
    assert ego.dynamics_mask.tolist() == [True] * 5 + [False]
    assert ego.dynamics[5] == 0.0


@settings(max_examples=10)
@given(st.floats(1.6, 4.0))
def test_acceleration_does_not_depend_on_the_rate(time_s: float) -> None:
    found = [filled(rate_hz).at(stamp(time_s)).dynamics for rate_hz in (10, 50, 100)]
    for dynamics in found:
        np.testing.assert_allclose(dynamics, found[-1], atol=0.02)
        assert dynamics[3] == pytest.approx(1.2, abs=0.02)
        speed, _, yaw_rate = twist(time_s)
        assert dynamics[4] == pytest.approx(speed * yaw_rate, abs=0.03)


def test_the_acceleration_filter_is_causal() -> None:
    """What comes after t0 must not show, or training on recordings would see the future."""
    past = filled(100, until_s=3.0)
    future = filled(100, until_s=3.0)
    for index in range(1, 60):
        assert future.add(stamp(3.0 + index / 100), DRIVE[3000 + 10 * index], (20.0, 0.0, 0.5))
    np.testing.assert_array_equal(past.at(stamp(3.0)).dynamics, future.at(stamp(3.0)).dynamics)


def test_relative_is_the_motion_between_two_stamps() -> None:
    buffer = filled(50)
    moved = buffer.relative(stamp(3.0), stamp(2.957))
    np.testing.assert_allclose(moved, se2.relative(DRIVE[3000], DRIVE[2957]), atol=2e-3)
    back = buffer.relative(stamp(2.957), stamp(3.0))
    np.testing.assert_allclose(se2.compose(moved, back), 0.0, atol=1e-9)


def test_extrapolation_ends_after_its_limit() -> None:
    buffer = filled(50)
    ahead = buffer.at(stamp(4.1))
    last = twist(4.0)
    np.testing.assert_allclose(
        ahead.pose, se2.compose(DRIVE[-1], se2.exponential(*last, 0.1)), atol=1e-9
    )
    np.testing.assert_allclose(ahead.dynamics[:3], last, atol=1e-6)
    with pytest.raises(OdometryStale, match=r"0\.110 s older"):
        buffer.at(stamp(4.11))
    with pytest.raises(OdometryStale):
        buffer.relative(stamp(4.0), stamp(4.2))


def test_it_warms_up_for_a_whole_history() -> None:
    buffer = EgoMotionBuffer()
    with pytest.raises(WarmingUp, match="no odometry"):
        buffer.at(START_NS)
    for index in range(75):
        buffer.add(stamp(index / 50), DRIVE[index * 20], twist(index / 50))
    with pytest.raises(WarmingUp, match=r"1\.48 s of odometry"):
        buffer.at(stamp(1.48))
    buffer.add(stamp(1.5), DRIVE[1500], twist(1.5))
    assert buffer.at(stamp(1.5)).history_mask.all()
    with pytest.raises(WarmingUp, match="before the first"):
        buffer.relative(stamp(1.5), stamp(-0.1))


@pytest.mark.parametrize("jump", [(30.0, -7.0, 0.0), (0.0, 0.0, 1.0), (0.6, 0.0, 0.0)])
def test_a_jump_leaves_history_smooth_and_is_counted(jump: tuple[float, float, float]) -> None:
    """The localiser corrects itself at 2 s: history must not see it, the pose must."""
    buffer = EgoMotionBuffer()
    for index in range(201):
        time_s = index / 50
        pose = DRIVE[index * 20]
        if time_s > 2.0:
            pose = se2.compose(jump, pose)
        buffer.add(stamp(time_s), pose, twist(time_s))
    assert buffer.jumps == 1
    ego, truth = buffer.at(stamp(3.0)), filled(50).at(stamp(3.0))
    np.testing.assert_allclose(ego.history, truth.history, atol=0.01)
    np.testing.assert_allclose(ego.dynamics, truth.dynamics, atol=1e-5)
    np.testing.assert_allclose(ego.pose, se2.compose(jump, DRIVE[3000]), atol=0.01)


def test_a_small_correction_is_no_jump() -> None:
    buffer = filled(50, until_s=2.0)
    buffer.add(stamp(2.02), se2.compose(DRIVE[2020], (0.3, 0.0, 0.01)), twist(2.02))
    assert buffer.jumps == 0


def test_a_silence_starts_the_buffer_afresh() -> None:
    buffer = filled(50, until_s=2.0)
    buffer.add(stamp(2.6), DRIVE[2600], twist(2.6))
    assert buffer.restarts == 1
    with pytest.raises(WarmingUp):
        buffer.at(stamp(2.6))


REFUSED = [
    ("not_finite", stamp(2.02), (np.nan, 0, 0), (1, 0, 0)),
    ("not_finite", stamp(2.02), (0, 0, 0), (np.inf, 0, 0)),
    ("implausible", stamp(2.02), (0, 0, 0), (400.0, 0, 0)),
    ("implausible", stamp(2.02), (0, 0, 0), (1.0, 0, 50.0)),
    ("implausible", stamp(2.02), (1e12, 0, 0), (1.0, 0, 0)),
    ("zero_stamp", 0, (0, 0, 0), (1, 0, 0)),
    ("stamp_repeated", stamp(2.0), (0, 0, 0), (1, 0, 0)),
    ("stamp_backwards", stamp(1.9), (0, 0, 0), (1, 0, 0)),
    ("future_stamp", stamp(9.0), (0, 0, 0), (1, 0, 0)),
]


@pytest.mark.parametrize(("cause", "stamp_ns", "pose", "motion"), REFUSED)
def test_bad_odometry_is_refused_by_cause_and_good_goes_on(
    cause: str, stamp_ns: int, pose: tuple[float, ...], motion: tuple[float, ...]
) -> None:
    buffer = filled(50, until_s=2.0)
    before = buffer.at(stamp(2.0))
    assert not buffer.add(stamp_ns, pose, motion, now_ns=stamp(2.05))
    assert buffer.rejected == {cause: 1}
    np.testing.assert_array_equal(buffer.at(stamp(2.0)).history, before.history)
    assert buffer.add(stamp(2.02), DRIVE[2020], twist(2.02), now_ns=stamp(2.05))
    buffer.at(stamp(2.02))


def test_a_restarted_source_takes_over_after_some_samples() -> None:
    """A recording that loops sends old stamps for ever: they are the new truth."""
    buffer = filled(50, until_s=4.0)
    accepted = [
        buffer.add(stamp(index / 50), DRIVE[index * 20], twist(index / 50)) for index in range(90)
    ]
    assert accepted.index(True) == buffer.settings.restart_after_backwards - 1
    assert all(accepted[accepted.index(True) :])
    assert buffer.restarts == 1
    assert buffer.jumps == 0
    buffer.at(stamp(89 / 50))


def test_the_wheel_angle_is_unmasked_where_it_is_given() -> None:
    buffer = EgoMotionBuffer()
    for index in range(100):
        buffer.add(stamp(index / 50), DRIVE[index * 20], twist(index / 50), wheel_angle=0.1)
    ego = buffer.at(stamp(1.9))
    assert ego.dynamics_mask.all()
    assert ego.dynamics[5] == pytest.approx(0.1)


def test_memory_is_bounded_by_time_and_by_count() -> None:
    by_time = EgoMotionBuffer()
    by_count = EgoMotionBuffer(EgoMotionSettings(max_samples=200))
    for index in range(3000):
        for buffer in (by_time, by_count):
            buffer.add(stamp(index / 100), (index * 0.01, 0.0, 0.0), (1.0, 0.0, 0.0))
    assert len(by_time) < 5.0 * 100 + 70
    assert by_time.buffered_s >= 5.0
    assert len(by_count) <= 200
    by_count.at(stamp(29.99))


def test_clear_forgets_samples_and_keeps_counts() -> None:
    buffer = filled(50, until_s=2.0)
    buffer.add(0, (0, 0, 0), (0, 0, 0))
    buffer.clear()
    assert len(buffer) == 0
    assert buffer.newest_stamp_ns is None
    assert buffer.rejected == {"zero_stamp": 1}
    assert buffer.add(stamp(0.5), DRIVE[500], twist(0.5))


sample = st.tuples(
    st.integers(-10, 4_000_000_000),
    st.tuples(st.floats(), st.floats(), st.floats()),
    st.tuples(st.floats(), st.floats(), st.floats()),
)


@given(st.lists(sample, max_size=40), st.integers(0, 5_000_000_000))
def test_any_odometry_gives_a_finite_state_or_a_named_refusal(
    samples: list[tuple[int, tuple[float, ...], tuple[float, ...]]], t0_ns: int
) -> None:
    buffer = EgoMotionBuffer()
    for stamp_ns, pose, motion in samples:
        buffer.add(stamp_ns, pose, motion)
    try:
        ego = buffer.at(t0_ns)
    except (WarmingUp, OdometryStale):
        return
    assert np.isfinite(ego.history).all()
    assert np.isfinite(ego.dynamics).all()
    assert np.isfinite(ego.pose).all()


def test_two_threads_may_add_and_ask() -> None:
    buffer = EgoMotionBuffer(EgoMotionSettings(max_samples=64, warm_up_s=0.4))
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            for _ in range(300):
                newest = buffer.newest_stamp_ns
                if newest is not None and buffer.buffered_s > 0.5:
                    buffer.at(newest)
        except WarmingUp:
            pass
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    for index in range(2000):
        buffer.add(stamp(index / 100), (index * 0.01, 0.0, 0.0), (1.0, 0.0, 0.0))
    thread.join()
    assert not failures


@given(st.floats(-3, 3), st.floats(-2, 2), st.floats(-3, 3), st.floats(-2, 2), st.floats(-20, 20))
def test_odometry_of_another_point_is_moved_to_the_ego_frame(
    x: float, y: float, yaw: float, yaw_rate: float, speed: float
) -> None:
    """A rigid body: the ego's twist, integrated, must lead where the moved pose leads."""
    base_from_child = np.array([x, y, yaw])
    ego_before = np.array([5.0, 6.0, 0.7])
    ego_twist = np.array([speed, 0.3, yaw_rate])
    ego_after = se2.compose(ego_before, se2.exponential(*ego_twist, 1e-4))
    child_before, child_after = (se2.compose(p, base_from_child) for p in (ego_before, ego_after))
    child_twist = se2.logarithm(se2.relative(child_before, child_after)) / 1e-4
    pose, found = in_base_frame(child_before, child_twist, base_from_child)
    np.testing.assert_allclose(pose, ego_before, atol=1e-9)
    np.testing.assert_allclose(found, ego_twist, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [("horizon_s", -1.0), ("warm_up_s", 9.0), ("max_samples", 2), ("max_extrapolation_s", -0.1)],
)
def test_settings_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(ContractError, match=f"ego_motion.{name}"):
        EgoMotionSettings(**{name: value})  # type: ignore[arg-type]


POSES = Path(__file__).resolve().parents[3] / "shared/drives/comma2k19/segment40_poses.npz"


@pytest.mark.skipif(not POSES.exists(), reason="needs the real recordings in ../shared/drives")
def test_a_real_car_is_followed_without_jumps() -> None:
    """60 s of a real car at 20 Hz: no jump, history within centimetres of the recorded motion."""
    record = np.load(POSES)
    times = record["frame_times"] - record["frame_times"][0]
    w, qx, qy, qz = record["frame_orientations"].T
    forward = np.stack(
        [1 - 2 * (qy**2 + qz**2), 2 * (qx * qy + w * qz), 2 * (qx * qz - w * qy)], axis=-1
    )
    origin = record["frame_positions"][0]
    up = origin / np.linalg.norm(origin)
    east = np.cross([0.0, 0.0, 1.0], up)
    east /= np.linalg.norm(east)
    north = np.cross(up, east)
    offset = record["frame_positions"] - origin
    yaw = np.unwrap(np.arctan2(forward @ north, forward @ east))
    poses = np.stack([offset @ east, offset @ north, yaw], axis=-1)
    velocity = record["frame_velocities"]
    world = np.stack([velocity @ east, velocity @ north], axis=-1)
    vx = world[:, 0] * np.cos(yaw) + world[:, 1] * np.sin(yaw)
    vy = -world[:, 0] * np.sin(yaw) + world[:, 1] * np.cos(yaw)
    buffer = EgoMotionBuffer(EgoMotionSettings(horizon_s=100.0))
    for index in range(len(times)):
        motion = (vx[index], vy[index], np.gradient(yaw, times)[index])
        assert buffer.add(stamp(float(times[index])), poses[index], motion)
    assert buffer.jumps == 0
    ego = buffer.at(stamp(float(times[600])))
    wanted = times[600] + np.array([-1.5, -1.0, -0.5, 0.0])
    at = np.stack([np.interp(wanted, times, poses[:, axis]) for axis in range(3)], axis=-1)
    np.testing.assert_allclose(ego.history, se2.relative(poses[600], at), atol=0.05)
    assert abs(ego.dynamics[3]) < 5.0
