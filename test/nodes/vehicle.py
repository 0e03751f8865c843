"""A vehicle on the test bench: cameras, odometry and command over DDS, and ears for the answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import drive_bag
import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage

from latentvla_msgs.msg import DrivingCommand, GateStatus, PlannerStatus, Trajectory
from latentvla_ros.contract import Rig
from latentvla_ros.geometry import se2
from latentvla_ros.nodes.planner_node import PlannerNode
from latentvla_ros.sensing.rig_file import save_rig

SECOND = 1_000_000_000
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
SPEED, YAW_RATE = 8.0, 0.1
STARTED_NS = time.time_ns()


def stamp(ns: int) -> Time:
    """Return ns as a message's stamp."""
    return Time(sec=ns // SECOND, nanosec=ns % SECOND)


def ns(stamped: Time) -> int:
    """Return a stamp in ns."""
    return stamped.sec * SECOND + stamped.nanosec


class Vehicle(Node):
    """Publishes what it is told to, at any stamp; drives a circle at constant speed."""

    def __init__(self, context: Context, node: str = "/planner_node") -> None:
        super().__init__("vehicle", context=context)
        inputs = f"{node}/input"
        self.images = {
            slot: self.create_publisher(
                CompressedImage, f"{inputs}/{slot}/image/compressed", QoSProfile(depth=10)
            )
            for slot in ("front", "left", "right")
        }
        self.infos = {
            slot: self.create_publisher(CameraInfo, f"{inputs}/{slot}/camera_info", 10)
            for slot in ("front", "left", "right")
        }
        self.odometry = self.create_publisher(Odometry, f"{inputs}/odometry", 200)
        self.command = self.create_publisher(DrivingCommand, f"{inputs}/command", LATCHED)
        self.clock_publisher = self.create_publisher(Clock, "/clock", 10)
        self.jpeg = drive_bag.picture(0.0)
        self.plans: list[Trajectory] = []
        self.statuses: list[PlannerStatus] = []
        self.diagnostics: list[DiagnosticArray] = []
        self.gated: list[Trajectory] = []
        self.gate_statuses: list[GateStatus] = []
        for kind, topic, kept, qos in (
            (Trajectory, f"{node}/output/trajectory", self.plans, QoSProfile(depth=10)),
            (PlannerStatus, f"{node}/status", self.statuses, LATCHED),
            (DiagnosticArray, "/diagnostics", self.diagnostics, QoSProfile(depth=10)),
            (Trajectory, "/gate/output/trajectory", self.gated, QoSProfile(depth=10)),
            (GateStatus, "/gate/status", self.gate_statuses, LATCHED),
        ):
            self.create_subscription(kind, topic, kept.append, qos)

    def send_odometry(self, at_ns: int, **changes: Any) -> None:
        """Publish odometry of the circle at a stamp; ``changes``: frame, child_frame, x, vx, ..."""
        x, y, yaw = se2.exponential(SPEED, 0.0, YAW_RATE, (at_ns - STARTED_NS) * 1e-9)
        message = Odometry()
        message.header.stamp = stamp(changes.get("stamp_ns", at_ns))
        message.header.frame_id = changes.get("frame", "odom")
        message.child_frame_id = changes.get("child_frame", "base_link")
        message.pose.pose.position.x = changes.get("x", x)
        message.pose.pose.position.y = y
        message.pose.pose.orientation.z = float(np.sin(yaw / 2))
        message.pose.pose.orientation.w = float(np.cos(yaw / 2))
        message.twist.twist.linear.x = changes.get("vx", SPEED)
        message.twist.twist.angular.z = YAW_RATE
        self.odometry.publish(message)

    def send_image(self, slot: str, at_ns: int, **changes: Any) -> None:
        """Publish an image at a stamp; ``changes``: data, format, frame_id."""
        message = CompressedImage()
        message.header.stamp = stamp(at_ns)
        message.header.frame_id = changes.get("frame_id", f"{slot}_optical")
        message.format = changes.get("format", "jpeg")
        message.data = changes.get("data", self.jpeg)
        self.images[slot].publish(message)

    def send_command(self, at_ns: int, command: int = DrivingCommand.LEFT) -> None:
        """Publish a command at a stamp."""
        message = DrivingCommand(command=command)
        message.header.stamp = stamp(at_ns)
        self.command.publish(message)

    def send_info(self, slot: str, fov_deg: float, model: str = "plumb_bob") -> None:
        """Publish a CameraInfo of a rectified 256x128 camera."""
        focal = 128.0 / np.tan(np.radians(fov_deg) / 2)
        info = CameraInfo(width=256, height=128, distortion_model=model)
        info.k = [focal, 0.0, 127.5, 0.0, focal, 63.5, 0.0, 0.0, 1.0]
        info.p = [focal, 0.0, 127.5, 0.0, 0.0, focal, 63.5, 0.0, 0.0, 0.0, 1.0, 0.0]
        info.d = [0.1, 0.0, 0.0, 0.0, 0.0]
        self.infos[slot].publish(info)


def jpeg(width: int, height: int) -> bytes:
    """Return a grey JPEG of a size."""
    return cv2.imencode(".jpg", np.full((height, width, 3), 90, np.uint8))[1].tobytes()


class Bench:
    """The node under test and a vehicle on one executor; use it as a context manager."""

    def __init__(self, bundle: Path, folder: Path) -> None:
        self.bundle, self.folder = bundle, folder
        self.context = Context()
        self.node: Any = None
        self.clock_ns = 0

    def __enter__(self) -> Bench:
        rclpy.init(context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.vehicle = Vehicle(self.context)
        self.executor.add_node(self.vehicle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.node is not None:
            self.node.close()
            self.executor.remove_node(self.node)
            self.node.destroy_node()
        self.vehicle.destroy_node()
        self.executor.shutdown()
        self.context.try_shutdown()

    def planner(self, rig: Rig | None = None, **parameters: Any) -> PlannerNode:
        """Create an unconfigured planner node."""
        path = self.folder / "rig.yaml"
        save_rig(rig or drive_bag.rig(), path)
        values = {
            "bundle": str(self.bundle),
            "rig": str(path),
            "threads": 1,
            "diagnostics_period_s": 0.1,
            # A loaded test machine pauses for longer than a vehicle's may.
            "image_timeout_s": 0.8,
            "odometry_timeout_s": 0.8,
            **parameters,
        }
        return self.add(
            PlannerNode(
                context=self.context,
                parameter_overrides=[Parameter(name, value=v) for name, v in values.items()],
            )
        )

    def add(self, node: Any) -> Any:
        """Put the node under test on the executor."""
        self.node = node
        self.executor.add_node(node)
        return node

    def spin(self, seconds: float) -> None:
        """Let both nodes work for a while of steady time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.executor.spin_once(timeout_sec=left)

    def until(self, holds: Callable[[], Any], seconds: float = 5.0) -> Any:
        """Let both work until something holds; fails the test when it does not in time."""
        end = time.monotonic() + seconds
        while not (value := holds()):
            assert time.monotonic() < end, self.explain()
            self.executor.spin_once(timeout_sec=0.02)
        return value

    def explain(self) -> str:
        """Return the last status, for a failing test."""
        status = self.status()
        return "no status" if status is None else f"last status: {status}"

    def status(self) -> PlannerStatus | None:
        """Return the newest status of the planner."""
        return self.vehicle.statuses[-1] if self.vehicle.statuses else None

    def running(self, rig: Rig | None = None, **parameters: Any) -> PlannerNode:
        """Return an active planner node, matched with the vehicle and with warm odometry."""
        node = self.planner(rig, **parameters)
        node.trigger_configure()
        self.until(lambda: node.pipeline is not None and node.pipeline.planner)
        self.until(lambda: self.vehicle.odometry.get_subscription_count())
        self.until(lambda: all(p.get_subscription_count() for p in self.vehicle.images.values()))
        if any(camera.model is None for camera in (rig or drive_bag.rig()).cameras):
            self.until(lambda: all(p.get_subscription_count() for p in self.vehicle.infos.values()))
        self.until(lambda: self.vehicle.count_publishers("/planner_node/output/trajectory"))
        if self.clock_ns:
            self.until(lambda: self.vehicle.clock_publisher.get_subscription_count())
            self.tick_clock(self.clock_ns)
        self.warm_up()
        node.trigger_activate()
        assert self.until(self.status)
        return node

    def now(self) -> int:
        """Return ROS time as the node under test has it."""
        return self.clock_ns or time.time_ns()

    def warm_up(self, seconds: float = 2.0) -> None:
        """Publish odometry of the last seconds at once."""
        end = self.now()
        for step in range(int(seconds * 45), 0, -1):
            self.vehicle.send_odometry(end - (step - 1) * SECOND // 45)
        buffer = self.node.pipeline.odometry.buffer
        self.until(lambda: buffer.newest_stamp_ns == end)

    def tick_clock(self, now_ns: int) -> None:
        """Publish simulated time and wait until the node has it."""
        self.clock_ns = now_ns
        self.vehicle.clock_publisher.publish(Clock(clock=stamp(now_ns)))
        self.until(lambda: self.node.get_clock().now().nanoseconds == now_ns)

    def drive(
        self,
        seconds: float,
        command: int | None = DrivingCommand.STRAIGHT,
        slots: tuple[str, ...] = ("left", "right", "front"),
        image: Callable[[str, int], dict[str, Any]] | None = None,
        odometry: Callable[[int], dict[str, Any]] | None = None,
        image_stamp: Callable[[str, int], int] | None = None,
    ) -> None:
        """Publish 50 Hz odometry and 10 Hz cameras in real time (or by /clock) for a while.

        Args:
            image, odometry: changes to each message. image_stamp: stamp by slot and the right one.
        """
        for step in range(round(seconds * 50)):
            if self.clock_ns:
                self.tick_clock(self.clock_ns + SECOND // 50)
            now = self.now()
            if command is not None and step % 10 == 0:
                self.vehicle.send_command(now, command)
            self.vehicle.send_odometry(now, **(odometry(now) if odometry else {}))
            if step % 5 == 4:
                for slot in slots:
                    at = image_stamp(slot, now) if image_stamp else now
                    self.vehicle.send_image(slot, at, **(image(slot, now) if image else {}))
            self.spin(0.02 if not self.clock_ns else 0.01)

    def active(self, cause: str) -> str:
        """Wait until /diagnostics lists a cause as active; return its newest detail."""
        return self.until(
            lambda: next(
                (
                    entry.value
                    for array in reversed(self.vehicle.diagnostics)
                    for status in array.status
                    for entry in status.values
                    if entry.key == f"active: {cause}"
                ),
                None,
            )
        )

    def seen(self, cause: str) -> PlannerStatus:
        """Drive nothing and wait for a status whose cause, or first cause, is this one."""
        return self.until(
            lambda: next(
                (s for s in self.vehicle.statuses if cause in (s.cause, s.first_cause)), None
            )
        )
