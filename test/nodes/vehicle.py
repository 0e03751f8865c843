"""A vehicle on the test bench: cameras, odometry and command over DDS, and ears for the answers.

How fast the machine is does not matter to a test. ROS time is simulated: it moves by /clock, and
only when the node has taken in what was sent. Steady time, by which the nodes judge silence, is
the bench's as well: it moves with the clock, or as the executor works, and never leaps while the
machine is busy with something else.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
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
from latentvla_ros.nodes import gate_node  # noqa: F401  its steady time is the bench's, too
from latentvla_ros.nodes.planner_node import PlannerNode
from latentvla_ros.sensing.rig_file import save_rig

SECOND = 1_000_000_000
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
SPEED, YAW_RATE = 8.0, 0.1
STARTED_NS = time.time_ns()
#: What a test waits for may take so long on a starved machine; it costs nothing where it is there.
DEADLINE_S = 60.0
#: One step of a drive: the period of the odometry.
STEP_NS = SECOND // 50
#: Steady time passes by so much at most between two looks of the executor.
_LOOK_S = 0.02


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
        self.plans_heard = 0
        for kind, topic, kept, qos in (
            (PlannerStatus, f"{node}/status", self.statuses, LATCHED),
            (DiagnosticArray, "/diagnostics", self.diagnostics, QoSProfile(depth=10)),
            (Trajectory, "/gate/output/trajectory", self.gated, QoSProfile(depth=10)),
            (GateStatus, "/gate/status", self.gate_statuses, LATCHED),
        ):
            self.create_subscription(kind, topic, kept.append, qos)
        self.create_subscription(Trajectory, f"{node}/output/trajectory", self._on_plan, 10)

    def _on_plan(self, message: Trajectory) -> None:
        self.plans.append(message)
        self.plans_heard += 1

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


class SteadyTime:
    """Stands in for the module ``time`` in the nodes: steady time is what the bench says."""

    def __init__(self) -> None:
        self.now_s = time.monotonic()

    def monotonic(self) -> float:
        """Return the bench's steady time."""
        return self.now_s

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


class Bench:
    """The node under test and a vehicle on one executor; use it as a context manager.

    Attributes:
        clock_ns: simulated time, the newest on /clock; 0 on the system clock.
    """

    def __init__(self, bundle: Path, folder: Path) -> None:
        self.bundle, self.folder = bundle, folder
        self.context = Context()
        self.node: Any = None
        self.clock_ns = STARTED_NS
        self._steady: SteadyTime | None = None
        self._timed: list[Any] = []

    def __enter__(self) -> Bench:
        rclpy.init(context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.vehicle = Vehicle(self.context)
        self.executor.add_node(self.vehicle)
        self._steady = SteadyTime()
        for name, module in list(sys.modules.items()):
            if name.startswith("latentvla_ros.nodes.") and getattr(module, "time", None) is time:
                module.time = self._steady  # type: ignore[attr-defined]
                self._timed.append(module)
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
        self._give_back_time()

    def use_system_clock(self) -> None:
        """Let time be the machine's; before a node is created. Its settings have to be patient."""
        self.clock_ns = 0
        self._give_back_time()

    def _give_back_time(self) -> None:
        for module in self._timed:
            module.time = time
        self._timed.clear()
        self._steady = None

    def planner(self, rig: Rig | None = None, **parameters: Any) -> PlannerNode:
        """Create an unconfigured planner node."""
        path = self.folder / "rig.yaml"
        save_rig(rig or drive_bag.rig(), path)
        values = {
            "bundle": str(self.bundle),
            "rig": str(path),
            "threads": 1,
            "diagnostics_period_s": 0.1,
            "use_sim_time": bool(self.clock_ns),
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

    # Time.

    def now(self) -> int:
        """Return ROS time as the node under test has it."""
        return self.clock_ns or time.time_ns()

    def steady_s(self) -> float:
        """Return steady time as the node under test has it."""
        return time.monotonic() if self._steady is None else self._steady.now_s

    def spin(self, seconds: float) -> None:
        """Let both nodes work for a while of steady time; simulated ROS time stands still."""
        end = self.steady_s() + seconds
        while (left := end - self.steady_s()) > 0:
            self._work(min(left, _LOOK_S))

    def until(self, holds: Callable[[], Any], seconds: float = DEADLINE_S) -> Any:
        """Let both work until something holds; fails the test when it does not in time."""
        return self._until(holds, seconds)

    def pause(self, seconds: float) -> None:
        """Let time pass, simulated ROS time too, while the vehicle says nothing."""
        for _ in range(round(seconds * SECOND / STEP_NS)):
            began = time.monotonic()
            self._step()
            self._pace(began, STEP_NS * 1e-9)

    def tick_clock(self, now_ns: int) -> None:
        """Publish simulated time and wait until the node has it."""
        self.clock_ns = now_ns
        message = Clock(clock=stamp(now_ns))
        self.vehicle.clock_publisher.publish(message)
        again = time.monotonic() + 1.0

        def has_it() -> bool:
            nonlocal again
            if time.monotonic() > again:  # /clock is best effort
                again = time.monotonic() + 1.0
                self.vehicle.clock_publisher.publish(message)
            return bool(self.node.get_clock().now().nanoseconds == now_ns)

        self._until(has_it, passing=False)

    def _step(self) -> None:
        """Let one period of the odometry pass, in simulated ROS time and in steady time."""
        if self._steady is not None:
            self._steady.now_s += STEP_NS * 1e-9
        if self.clock_ns:
            self.tick_clock(self.clock_ns + STEP_NS)

    def _pace(self, began: float, seconds: float) -> None:
        """Work until so long after ``began``, on the machine's clock: timers are the machine's."""
        while (left := began + seconds - time.monotonic()) > 0:
            self._work(left, passing=False)

    def _work(self, timeout_s: float, passing: bool = True) -> None:
        began = time.monotonic()
        self.executor.spin_once(timeout_sec=timeout_s)
        if passing and self._steady is not None:
            self._steady.now_s += min(time.monotonic() - began, _LOOK_S)

    def _until(
        self, holds: Callable[[], Any], seconds: float = DEADLINE_S, passing: bool = True
    ) -> Any:
        end = time.monotonic() + seconds
        while not (value := holds()):
            assert time.monotonic() < end, f"not within {seconds:g} s; {self.explain()}"
            self._work(_LOOK_S, passing)
        return value

    # Driving.

    def running(self, rig: Rig | None = None, **parameters: Any) -> PlannerNode:
        """Return an active planner node, matched with the vehicle and with warm odometry.

        No steady time passes while it is waited for, however long: nothing falls silent.
        """
        node = self.planner(rig, **parameters)
        node.trigger_configure()
        self._until(lambda: node.pipeline is not None and node.pipeline.planner, passing=False)
        self._until(lambda: self.vehicle.odometry.get_subscription_count(), passing=False)
        self._until(lambda: self.vehicle.command.get_subscription_count(), passing=False)
        self._until(
            lambda: all(p.get_subscription_count() for p in self.vehicle.images.values()),
            passing=False,
        )
        if any(camera.model is None for camera in (rig or drive_bag.rig()).cameras):
            self._until(
                lambda: all(p.get_subscription_count() for p in self.vehicle.infos.values()),
                passing=False,
            )
        self._until(
            lambda: self.vehicle.count_publishers("/planner_node/output/trajectory"), passing=False
        )
        self._until(
            lambda: node.pipeline._publisher._trajectory.get_subscription_count(), passing=False
        )
        if self.clock_ns:
            self._until(
                lambda: self.vehicle.clock_publisher.get_subscription_count(), passing=False
            )
            self.tick_clock(self.clock_ns)
        self.warm_up()
        node.trigger_activate()
        self._until(
            lambda: self.status() and self.status().lifecycle_state == "active", passing=False
        )
        return node

    def warm_up(self, seconds: float = 2.0) -> None:
        """Publish odometry of the last seconds at once."""
        end = self.now()
        for step in range(int(seconds * 45), 0, -1):
            self.vehicle.send_odometry(end - (step - 1) * SECOND // 45)
        buffer = self.node.pipeline.odometry.buffer
        self._until(lambda: buffer.newest_stamp_ns == end, passing=False)
        self._odometry_ns = end

    def drive(
        self,
        seconds: float,
        command: int | None = DrivingCommand.STRAIGHT,
        slots: tuple[str, ...] = ("left", "right", "front"),
        image: Callable[[str, int], dict[str, Any]] | None = None,
        odometry: Callable[[int], dict[str, Any] | None] | None = None,
        image_stamp: Callable[[str, int], int] | None = None,
        settled: Callable[[], bool] | None = None,
    ) -> None:
        """Publish 50 Hz odometry and 10 Hz cameras for a while of simulated time.

        Time goes on when the node has heard everything and its plan, if it made one, is here. On
        the system clock time does not wait; what the vehicle is late with, it makes up for.

        Args:
            image, odometry: changes to each message; odometry of None is not sent.
            image_stamp: stamp by slot and the right one.
            settled: what to wait for before time goes on, instead of the plan.
        """
        for step in range(round(seconds * SECOND / STEP_NS)):
            began = time.monotonic()
            self._step()
            now = self.now()
            expected = [settled or self._plan_is_here()]
            if command is not None and step % 10 == 0:
                self.vehicle.send_command(now, command)
            changes = odometry(now) if odometry else {}
            if changes is not None:
                expected.append(self._send_odometry(now, changes))
            if step % 5 == 4:
                expected += self._images_are_there(slots)
                for slot in slots:
                    at = image_stamp(slot, now) if image_stamp else now
                    self.vehicle.send_image(slot, at, **(image(slot, now) if image else {}))
            for holds in reversed(expected):
                self._until(holds, passing=False)
            # The machine's timers make a status every 0.1 s: none of ours may be left out.
            self._pace(began, (0.5 if self.clock_ns else 1.0) * STEP_NS * 1e-9)

    def drive_until(
        self, holds: Callable[[], Any], seconds: float = DEADLINE_S, **drive: Any
    ) -> Any:
        """Drive as ``drive`` does, on and on, until something holds; fails when it does not."""
        end = time.monotonic() + seconds
        while not (value := holds()):
            assert time.monotonic() < end, f"not within {seconds:g} s; {self.explain()}"
            self.drive(0.1, **drive)
        return value

    def _send_odometry(self, now: int, changes: dict[str, Any]) -> Callable[[], bool]:
        """Publish odometry; on the system clock also that which is overdue.

        Returns:
            What holds when the node has it.
        """
        stamps = [now]
        if not self.clock_ns:
            overdue = max(self._odometry_ns, now - int(1.8 * SECOND)) + STEP_NS
            stamps = [*range(overdue, now - STEP_NS // 2, STEP_NS), now]
            self._odometry_ns = now
        received = self.node.pipeline.odometry.received
        for at in stamps:
            self.vehicle.send_odometry(at, **changes)
        pipeline, count = self.node.pipeline, received + len(stamps)
        return lambda: pipeline.odometry.received >= count

    def _images_are_there(self, slots: tuple[str, ...]) -> list[Callable[[], bool]]:
        """Return, before images are sent, what holds when the node has them."""
        pipeline = self.node.pipeline
        health = pipeline.cameras.health

        def heard(slot: str, count: int) -> bool:
            # After a reload other cameras listen, which count anew.
            return pipeline.cameras.health is not health or health._received[slot] > count

        return [
            partial(heard, slot, health._received[slot])
            for slot in slots
            if self.vehicle.images[slot].get_subscription_count()
        ]

    def _plan_is_here(self) -> Callable[[], bool]:
        """Return what holds when nothing is being planned and every new plan has been heard."""
        pipeline = self.node.pipeline
        missing = pipeline.plans - self.vehicle.plans_heard
        return lambda: (
            pipeline._worker.free
            and not pipeline._worker._results
            and pipeline.plans - self.vehicle.plans_heard <= missing
        )

    # What was heard.

    def status(self) -> PlannerStatus | None:
        """Return the newest status of the planner."""
        return self.vehicle.statuses[-1] if self.vehicle.statuses else None

    def active(self, cause: str) -> str:
        """Wait until /diagnostics lists a cause as active; return its newest detail."""
        return str(self.until(lambda: self.listed(cause)))

    def listed(self, cause: str) -> str | None:
        """Return a cause's newest detail in /diagnostics, None where it was never active."""
        return next(
            (
                entry.value
                for array in reversed(self.vehicle.diagnostics)
                for status in array.status
                for entry in status.values
                if entry.key == f"active: {cause}"
            ),
            None,
        )

    def seen(self, cause: str, **drive: Any) -> PlannerStatus:
        """Drive, where it is said how, until a status has this cause, or first cause; return it."""

        def named() -> PlannerStatus | None:
            statuses = self.vehicle.statuses
            return next((s for s in statuses if cause in (s.cause, s.first_cause)), None)

        return self.drive_until(named, **drive) if drive else self.until(named)

    def explain(self) -> str:
        """Say, for a failing test, what was heard: counts, drops, and every cause in its order."""
        vehicle = self.vehicle
        words = [f"{len(vehicle.plans)} plans heard"]
        status = self.status()
        if status is not None:
            drops = dict(zip(status.drop_causes, map(int, status.drop_counts), strict=True))
            causes = dict.fromkeys(s.cause for s in vehicle.statuses if s.cause)
            words += [
                f"planner {status.lifecycle_state}, health {status.health}: {status.cause!r} "
                f"({status.detail}), first cause {status.first_cause!r}",
                f"{status.frames} frames, {status.plans} plans, drops {drops}",
                f"causes so far: {', '.join(causes) or 'none'}",
                *(
                    f"{c.slot}: {c.received} received, {c.decoded} decoded, {c.faults} faults, "
                    f"{c.age_s:.2f} s ago"
                    for c in status.cameras
                ),
                f"odometry {status.odometry_age_s:.2f} s ago, {status.odometry_jumps} jumps",
            ]
        if vehicle.gate_statuses:
            gate = vehicle.gate_statuses[-1]
            refused = dict(zip(gate.reject_causes, map(int, gate.reject_counts), strict=True))
            words.append(
                f"gate mode {gate.mode}: {gate.cause!r}, {gate.passed} passed, refused {refused}"
            )
        return "; ".join(words)
