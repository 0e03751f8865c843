"""The world as a live peer: a stack that is somebody else's drives, or is missed by name."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from latentvla_training.world.drivers import SensorFrame

from latentvla_ros.contract import ContractError, Rig
from latentvla_ros.geometry.trajectory import constant_turn_rate, resample

pytest.importorskip("rclpy")
pytest.importorskip("latentvla_msgs")

pytestmark = pytest.mark.ros


class Stack:
    """A stack of somebody else: answers every front image with "straight on", after a delay."""

    def __init__(self, node: Any, rig: Rig, delay_s: float) -> None:
        from nav_msgs.msg import Odometry
        from rosgraph_msgs.msg import Clock
        from sensor_msgs.msg import CameraInfo, CompressedImage

        from latentvla_msgs.msg import DrivingCommand, Trajectory

        self.clocks: list[tuple[float, int]] = []
        self.commands: list[int] = []
        self.infos: list[Any] = []
        self.delay_s = delay_s
        self._poses: dict[int, Any] = {}
        self._send = node.create_publisher(Trajectory, "/gate/output/trajectory", 10)
        listen = node.create_subscription
        listen(Clock, "/clock", self._on_clock, 100)
        listen(Odometry, "/localization/odometry", self._on_odometry, 100)
        command = "/planning/driving_command"
        listen(DrivingCommand, command, lambda m: self.commands.append(m.command), 10)
        for camera in rig.cameras:
            front = camera.slot == "front"
            listen(CompressedImage, camera.topic, self._on_front if front else lambda _: None, 10)
            listen(CameraInfo, camera.camera_info_topic, self.infos.append, 10)

    def _on_clock(self, message: Any) -> None:
        self.clocks.append((time.monotonic(), _ns(message.clock)))

    def _on_odometry(self, message: Any) -> None:
        self._poses[_ns(message.header.stamp)] = message.pose.pose

    def _on_front(self, message: Any) -> None:
        from latentvla_ros.nodes.conversions import planar_pose
        from latentvla_ros.nodes.trajectory_messages import stamp_after, trajectory_message

        stamp_ns = _ns(message.header.stamp)
        pose = np.array(planar_pose(self._poses[stamp_ns]))
        trajectory = resample(constant_turn_rate(8.0, 0.0), 8.0).in_frame(pose)
        answer = trajectory_message(trajectory, pose, stamp_ns, "odom", "base_link")
        answer.valid_until = stamp_after(stamp_ns, 0.5)
        time.sleep(self.delay_s)
        self._send.publish(answer)


def _ns(stamp: Any) -> int:
    return stamp.sec * 1_000_000_000 + stamp.nanosec


@contextmanager
def stack(rig: Rig, delay_s: float = 0.0) -> Iterator[Stack]:
    """Run a stack on a context and a thread of its own."""
    import rclpy
    from rclpy.context import Context
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

    context = Context()
    rclpy.init(context=context)
    node = rclpy.create_node("somebody", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    made = Stack(node, rig, delay_s)

    def spin() -> None:
        try:
            executor.spin()
        except ExternalShutdownException:
            return

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        executor.shutdown(timeout_sec=2.0)
        context.try_shutdown()
        thread.join(timeout=3.0)


def test_in_lock_step_every_frame_has_its_trajectory(rig: Rig, frames: list[SensorFrame]) -> None:
    from latentvla_training.ros.live_driver import LiveDriver, LiveSettings

    driver = LiveDriver(LiveSettings(lock_step=True, patience_s=10.0), say=lambda _: None)
    with stack(rig, delay_s=0.01) as other:
        driver.start(rig)
        try:
            for frame in frames[:12]:
                plan = driver.plan(frame)
                assert plan is not None and plan.stamp_ns == frame.stamp_ns
                assert np.allclose(plan.poses[:, 0], 4.0 * np.arange(1, 9), atol=1e-3)
            # Its executor takes one of many ticks at a time.
            deadline = time.monotonic() + 5.0
            while other.clocks[-1][1] < frame.stamp_ns and time.monotonic() < deadline:
                time.sleep(0.02)
        finally:
            driver.close()
    assert driver.answered == driver.frames == 12
    assert other.commands == [int(frame.command) for frame in frames[:12]]
    assert {info.header.frame_id for info in other.infos} == {c.frame_id for c in rig.cameras}
    times = np.array([stamp for _, stamp in other.clocks])
    assert times[-1] == frames[11].stamp_ns
    assert np.diff(times).min() >= 0 and np.diff(times).max() <= 10_000_000, "100 Hz or more"


def test_in_real_time_the_clock_keeps_its_pace_and_trajectories_their_age(
    rig: Rig, frames: list[SensorFrame]
) -> None:
    from latentvla_training.ros.live_driver import LiveDriver, LiveSettings

    driver = LiveDriver(LiveSettings(rate=0.5), say=lambda _: None)
    with stack(rig) as other:
        driver.start(rig)
        try:
            plans = [driver.plan(frame) for frame in frames[:10]]
        finally:
            driver.close()
    assert plans[0] is None and driver.answered >= 4
    assert all(0.09 < age < 0.45 for age in driver.latency_s)
    for plan, frame in zip(plans, frames, strict=False):
        assert plan is None or plan.stamp_ns == frame.stamp_ns
    steady = np.array([entry for entry in other.clocks if entry[1] > frames[0].stamp_ns])
    stamps = steady[:, 1] - frames[0].stamp_ns
    assert (np.diff(stamps) >= 0).all()
    assert stamps[-1] * 1e-9 / (steady[-1, 0] - steady[0, 0]) < 0.65, "half of real time, or less"


def test_a_stack_that_is_not_there_is_missed_by_name(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    from latentvla_training.ros.live_driver import LiveDriver, LiveSettings, StackAbsent

    driver = LiveDriver(LiveSettings(match_s=0.3, trajectory_topic="/none/trajectory"))
    with pytest.raises(StackAbsent, match="/none/trajectory"):
        driver.start(rig)
    assert "waiting for" in capsys.readouterr().out


def test_bad_arguments_are_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    from latentvla_training.ros import world_node

    assert world_node.main(["nonsense"]) == 2
    assert world_node.main(["test-0000-00", "--rate", "0"]) == 2
    assert world_node.main(["test-0000-00", "--domain", "900"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and "episode" in lines[0]
    assert "--rate" in lines[1] and "--domain" in lines[2]


def test_ros_settings_are_checked() -> None:
    from latentvla_training.ros.node_pair import RosDriverSettings

    for wrong in ({"threads": -1}, {"plan_timeout_s": 0.0}, {"domain_id": 999}):
        with pytest.raises(ContractError):
            RosDriverSettings(**wrong)  # type: ignore[arg-type]
    assert RosDriverSettings(domain_id=int(os.environ["ROS_DOMAIN_ID"])).threads == 1
