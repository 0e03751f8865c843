"""Frames to messages, and trajectories back to plans."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from latentvla_training.world.drivers import SensorFrame

from latentvla_ros.contract import ContractError, Rig
from latentvla_ros.geometry import se2
from latentvla_ros.geometry.trajectory import constant_turn_rate, resample

pytest.importorskip("rclpy")
pytest.importorskip("latentvla_msgs")

pytestmark = pytest.mark.ros

POSE = np.array([120.0, -40.0, 2.1])
T0_NS = 1_700_000_000_100_000_000


def message(speed: float = 8.0, yaw_rate: float = 0.1, with_knots: bool = False) -> Any:
    """Return a trajectory of constant speed and turn rate in the frame ``odom``."""
    from latentvla_ros.nodes.trajectory_messages import trajectory_message

    knots = constant_turn_rate(speed, yaw_rate)
    trajectory = resample(knots, speed).in_frame(POSE)
    made = trajectory_message(trajectory, POSE, T0_NS, "odom", "base_link")
    if with_knots:
        made.knots = knots.astype(np.float32).ravel()
    return made


def frame_at(age_s: float, speed: float = 8.0, yaw_rate: float = 0.1) -> SensorFrame:
    """Return the frame of an ego that has followed the trajectory for a while, without pictures."""
    pose = se2.compose(POSE, se2.exponential(speed, 0.0, yaw_rate, age_s))
    twist = np.array([speed, 0.0, yaw_rate])
    return SensorFrame(T0_NS + round(age_s * 1e9), {}, pose, twist, 1)  # type: ignore[arg-type]


def test_knots_come_back_as_they_were_sent() -> None:
    from latentvla_training.ros.sensor_messages import plan_from_message

    plan = plan_from_message(message(with_knots=True))
    assert np.array_equal(plan.poses, constant_turn_rate(8.0, 0.1).astype(np.float32))
    assert plan.stamp_ns == T0_NS and plan.candidates.shape == (1, 8, 3)


@pytest.mark.parametrize("speed", [8.0, 0.0])
def test_without_knots_the_points_are_taken(speed: float) -> None:
    from latentvla_training.ros.sensor_messages import plan_from_message

    plan = plan_from_message(message(speed))
    expected = constant_turn_rate(speed, 0.1 if speed else 0.0)
    assert np.allclose(plan.poses[:, :2], expected[:, :2], atol=1e-3)


@pytest.mark.parametrize("age_s", [0.0, 0.13, 0.4])
def test_what_is_left_of_a_trajectory_goes_on_where_the_ego_is(age_s: float) -> None:
    from latentvla_training.ros.sensor_messages import plan_from_now

    plan = plan_from_now(message(yaw_rate=0.02), frame_at(age_s, yaw_rate=0.02), "odom")
    expected = constant_turn_rate(8.0, 0.02)
    assert plan.stamp_ns == T0_NS + round(age_s * 1e9)
    assert np.allclose(plan.poses[:, :2], expected[:, :2], atol=0.05)


def test_a_trajectory_in_another_frame_or_of_the_future_is_refused() -> None:
    from latentvla_training.ros.sensor_messages import plan_from_now

    with pytest.raises(ContractError, match="frame_id"):
        plan_from_now(message(), frame_at(0.1), "map")
    with pytest.raises(ContractError, match="ahead"):
        plan_from_now(message(), frame_at(-0.1), "odom")


def test_what_is_not_finite_is_refused() -> None:
    from latentvla_training.ros.sensor_messages import plan_from_message, plan_from_now

    broken = message(with_knots=True)
    broken.knots[3] = np.nan
    with pytest.raises(ContractError, match="not finite"):
        plan_from_message(broken)
    broken = message()
    broken.points[7].pose.position.x = np.inf
    with pytest.raises(ContractError, match="not finite"):
        plan_from_now(broken, frame_at(0.1), "odom")


def test_sensors_as_messages(rig: Rig, frames: list[SensorFrame]) -> None:
    from latentvla_training.ros import sensor_messages

    from latentvla_ros.nodes import conversions

    frame = frames[3]
    camera = replace(rig.cameras[1], time_offset_s=0.01)
    image = sensor_messages.compressed_image(frame, camera)
    assert bytes(image.data) == frame.jpegs[camera.slot]
    assert conversions.stamp_to_ns(image.header.stamp) + 10_000_000 == frame.stamp_ns
    info = sensor_messages.camera_info(frame, camera)
    model = conversions.camera_model(info, rectified=True)
    assert camera.model is not None
    assert np.array_equal(model.matrix, camera.model.matrix)
    assert (model.width, model.height) == (camera.model.width, camera.model.height)
    said = sensor_messages.odometry(frame, rig, "odom")
    pose, twist = conversions.planar_odometry(said)
    assert np.allclose(pose, frame.pose, atol=1e-12) and np.allclose(twist, frame.twist)
    assert said.child_frame_id == rig.base_frame
    assert sensor_messages.driving_command(frame, rig).command == int(frame.command)
    with pytest.raises(ContractError, match="left"):
        sensor_messages.compressed_image(replace(frame, jpegs={}), rig.cameras[1])
