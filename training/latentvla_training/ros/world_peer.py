"""The ROS 2 side of the world: /clock, the rig's sensors, and ears for trajectories and status.

Topics are those of a vehicle: the rig's images and CameraInfo, ``ODOMETRY_TOPIC``,
``COMMAND_TOPIC``, /clock. Time is the world's: it moves when ``advance_clock`` is called.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import rclpy
from nav_msgs.msg import Odometry
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage

from latentvla_msgs.msg import DrivingCommand, GateStatus, PlannerStatus, Trajectory
from latentvla_ros.cli.dds_profile import VARIABLES, profile_variable
from latentvla_ros.contract import ContractError, Rig, RigCamera
from latentvla_ros.data import data_path
from latentvla_ros.nodes import conversions, qos
from latentvla_training.data.bag_messages import COMMAND_TOPIC, ODOMETRY_TOPIC
from latentvla_training.ros import sensor_messages
from latentvla_training.world.drivers import SensorFrame

#: /clock is published at least so often in simulated time (architecture.md: 100 Hz or more).
CLOCK_STEP_NS = 10_000_000
ODOMETRY_FRAME = "odom"
#: Trajectories that are kept; a frame's answer comes before so many newer ones.
_KEPT = 32
#: A step of time larger than this is a jump, not a passage.
_JUMP_NS = 900_000_000


class WorldPeer:
    """Publishes sensors, hears answers; use it as a context manager.

    Threads: the caller's thread publishes and waits; one of our own spins the subscriptions.

    Args:
        rig: compressed, rectified cameras.
        trajectory_topic: where plans are expected.
        planner, gate: nodes whose status to hear, fully qualified; None for none.
        domain_id: ROS domain; None for that of the environment.

    Attributes:
        node: ours. clock_ns: what /clock shows, 0 before it was first published.
        planner_status, gate_status: newest, None before the first.

    Raises:
        ContractError: a camera is not published as JPEG.
    """

    def __init__(
        self,
        rig: Rig,
        trajectory_topic: str,
        planner: str | None = None,
        gate: str | None = None,
        domain_id: int | None = None,
    ) -> None:
        for camera in rig.cameras:
            if camera.message_type != "compressed":
                raise ContractError(
                    f"rig.cameras[{camera.slot}].message_type", camera.message_type, "compressed"
                )
        self.rig, self.trajectory_topic = rig, trajectory_topic
        self.clock_ns = 0
        self.planner_status: PlannerStatus | None = None
        self.gate_status: GateStatus | None = None
        self._trajectories: dict[int, Trajectory] = {}
        self._changed = threading.Condition()
        _use_image_profile()
        self._context = Context()
        rclpy.init(
            context=self._context,
            domain_id=domain_id,
            signal_handler_options=SignalHandlerOptions.NO,
        )
        self.node = rclpy.create_node("latentvla_world", context=self._context)
        self._clock = self.node.create_publisher(Clock, "/clock", QoSProfile(depth=100))
        self._odometry = self.node.create_publisher(Odometry, ODOMETRY_TOPIC, 100)
        self._command = self.node.create_publisher(DrivingCommand, COMMAND_TOPIC, qos.COMMAND)
        # The reference camera last: its frame completes a set.
        cameras = sorted(rig.cameras, key=lambda camera: camera.slot == rig.reference_camera)
        self._images: list[tuple[RigCamera, Any, Any]] = [
            (
                camera,
                self.node.create_publisher(CompressedImage, camera.topic, 10),
                self.node.create_publisher(CameraInfo, camera.camera_info_topic, 10)
                if camera.camera_info_topic
                else None,
            )
            for camera in cameras
        ]
        self.node.create_subscription(
            Trajectory, trajectory_topic, self._on_trajectory, QoSProfile(depth=10)
        )
        if planner is not None:
            self.node.create_subscription(
                PlannerStatus, f"{planner}/status", self._on_planner_status, qos.STATUS
            )
        if gate is not None:
            self.node.create_subscription(
                GateStatus, f"{gate}/status", self._on_gate_status, qos.STATUS
            )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, name="world-peer", daemon=True)

    def __enter__(self) -> WorldPeer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._executor.shutdown(timeout_sec=2.0)
        self._context.try_shutdown()
        self._thread.join(timeout=3.0)

    # What the world says.

    def publish_clock(self, stamp_ns: int) -> None:
        """Publish one moment on /clock, also one that was before."""
        self.clock_ns = stamp_ns
        self._clock.publish(Clock(clock=conversions.ns_to_stamp(stamp_ns)))

    def advance_clock(self, stamp_ns: int) -> None:
        """Let time pass until ``stamp_ns``, in steps of at most ``CLOCK_STEP_NS``; or jump."""
        if self.clock_ns and 0 < stamp_ns - self.clock_ns < _JUMP_NS:
            while self.clock_ns + CLOCK_STEP_NS < stamp_ns:
                self.publish_clock(self.clock_ns + CLOCK_STEP_NS)
        self.publish_clock(stamp_ns)

    def publish(self, frame: SensorFrame) -> None:
        """Publish everything that the sensors say at one moment; /clock has to be there already.

        Raises:
            ContractError: a picture is missing.
        """
        self._command.publish(sensor_messages.driving_command(frame, self.rig))
        self._odometry.publish(sensor_messages.odometry(frame, self.rig, ODOMETRY_FRAME))
        for camera, images, infos in self._images:
            message = sensor_messages.compressed_image(frame, camera)
            if infos is not None:
                infos.publish(sensor_messages.camera_info(frame, camera))
            images.publish(message)

    # What it hears.

    def trajectory(self, stamp_ns: int) -> Trajectory | None:
        """Return the trajectory of a moment, None while it has not come."""
        return self._trajectories.get(stamp_ns)

    @property
    def newest(self) -> Trajectory | None:
        """The trajectory that was heard last."""
        with self._changed:
            return next(reversed(self._trajectories.values()), None)

    def forget(self) -> None:
        """Forget every trajectory: those of a route are none of the next."""
        with self._changed:
            self._trajectories.clear()

    def wait_for(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until something holds, looked at whenever anything is heard; return whether."""
        with self._changed:
            return self._changed.wait_for(holds, timeout_s)

    def unmatched_inputs(self, clocks: int = 1) -> list[str]:
        """Return the topics of ours that nobody listens to.

        Args:
            clocks: nodes that have to listen to /clock.
        """
        publishers = [(camera.topic, images) for camera, images, _ in self._images]
        publishers += [(ODOMETRY_TOPIC, self._odometry), (COMMAND_TOPIC, self._command)]
        topics = [
            topic for topic, publisher in publishers if not publisher.get_subscription_count()
        ]
        if self._clock.get_subscription_count() < clocks:
            topics.append("/clock")
        return topics

    def unmatched(self, clocks: int = 1) -> list[str]:
        """Return the topics of ours that nobody listens to, and those to us that nobody offers."""
        topics = self.unmatched_inputs(clocks)
        if not self.node.count_publishers(self.trajectory_topic):
            topics.append(self.trajectory_topic)
        return topics

    def wait_until_matched(
        self, timeout_s: float, alive: Callable[[], None], clocks: int = 1
    ) -> list[str]:
        """Wait until every topic has its counterpart; return those that have none in time."""
        deadline = time.monotonic() + timeout_s
        while (missing := self.unmatched(clocks)) and time.monotonic() < deadline:
            alive()
            time.sleep(0.02)
        return missing

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    def _on_trajectory(self, message: Trajectory) -> None:
        with self._changed:
            stamp_ns = conversions.stamp_to_ns(message.header.stamp)
            self._trajectories.pop(stamp_ns, None)
            self._trajectories[stamp_ns] = message
            while len(self._trajectories) > _KEPT:
                del self._trajectories[next(iter(self._trajectories))]
            self._changed.notify_all()

    def _on_planner_status(self, message: PlannerStatus) -> None:
        with self._changed:
            self.planner_status = message
            self._changed.notify_all()

    def _on_gate_status(self, message: GateStatus) -> None:
        with self._changed:
            self.gate_status = message
            self._changed.notify_all()


def _use_image_profile() -> None:
    """Give this process the Fast DDS profile for publishers of images, unless it has its own."""
    if not any(os.environ.get(variable) for variable in VARIABLES):
        os.environ[profile_variable()] = str(data_path("fastdds.xml"))
