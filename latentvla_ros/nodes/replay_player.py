"""Plays recorded messages over DDS on schedule, drives lifecycle nodes, records what they answer.

Recorded CDR bytes go to the publishers as they are, and what comes back is stored undecoded until
the play is over: this process must not take the processor time of the nodes it shows.
"""

from __future__ import annotations

import importlib
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import rclpy
from nav_msgs.msg import Odometry
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from rclpy.signals import SignalHandlerOptions

from latentvla_msgs.msg import PlannerStatus
from latentvla_ros.nodes.cdr_header import with_header_stamp
from latentvla_ros.nodes.lifecycle_client import LifecycleClient, NodeSilent
from latentvla_ros.nodes.recorded_messages import RawMessage, decode_recording, decode_status
from latentvla_ros.nodes.recording import Recording, StatusSample

#: Period of /clock, s of steady time; architecture.md asks for 100 Hz or more.
CLOCK_PERIOD_S = 0.008
_CHECK_PERIOD_S = 0.25
#: Causes in a planner's status that configuring again would not change.
_LASTING_FAULTS = ("bundle_error", "configuration_error", "internal_error")
_CDR_LITTLE_ENDIAN = b"\x00\x01\x00\x00"


class PlayerError(RuntimeError):
    """The nodes did not get ready, or did not answer; ``name`` says in short what happened."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(problem)
        self.name = name


@dataclass(frozen=True)
class Stream:
    """A topic to play.

    Attributes:
        topic: name on DDS.
        message_type: ``package/msg/Name``.
        reliable, latched: QoS of the publisher (latched: transient local, depth 1).
        depth: queue of the publisher.
        expects_subscriber: whether to wait for a matched subscription before playing.
        slot: camera slot, ``odometry``, or empty; latencies count from messages with a slot.
        time_offset_ns: from a camera's stamps to its exposures, which are what plans name.
    """

    topic: str
    message_type: str
    reliable: bool = True
    latched: bool = False
    depth: int = 10
    expects_subscriber: bool = True
    slot: str = ""
    time_offset_ns: int = 0


@dataclass(frozen=True)
class TimedMessage:
    """A message to play: when (ns of the recording), topic, its stamp (ns), its CDR bytes."""

    due_ns: int
    topic: str
    stamp_ns: int
    data: bytes


def message_class(name: str) -> Any:
    """Return the Python class of ``package/msg/Name``.

    Raises:
        PlayerError: this ROS installation does not have it.
    """
    package, _, short = name.partition("/msg/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), short)
    except (ImportError, AttributeError) as error:
        raise PlayerError("unknown-message-type", f"{name} is not installed ({error})") from None


class ReplayPlayer:
    """Publishes streams and listens to a planner and a gate; use it as a context manager.

    Threads: the caller's thread plays; one thread of our own spins the subscriptions and services.

    Args:
        streams: what can be played.
        planner, gate: fully qualified node names, e.g. ``/planner``.
        simulated_time: publish /clock; otherwise messages are expected on the system clock.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        planner: str,
        gate: str | None,
        simulated_time: bool = True,
        domain_id: int | None = None,
    ) -> None:
        self._context = Context()
        rclpy.init(
            context=self._context,
            domain_id=domain_id,
            signal_handler_options=SignalHandlerOptions.NO,
        )
        self._node = rclpy.create_node("latentvla_replay", context=self._context)
        self._streams = {stream.topic: stream for stream in streams}
        self._publishers = {
            stream.topic: self._node.create_publisher(
                message_class(stream.message_type), stream.topic, _publisher_qos(stream)
            )
            for stream in streams
        }
        self._clock: Any = None
        if simulated_time:
            self._clock = self._node.create_publisher(
                message_class("rosgraph_msgs/msg/Clock"), "/clock", QoSProfile(depth=10)
            )
        self._clock_ns = 0
        self._published_s: dict[tuple[str, int], float] = {}
        self._heard: dict[str, list[RawMessage]] = {}
        self._outputs: list[str] = []
        self._planner, self._gate = planner, gate
        self._listen("plans", f"{planner}/output/trajectory", "latentvla_msgs/msg/Trajectory")
        self._listen(
            "statuses", f"{planner}/status", "latentvla_msgs/msg/PlannerStatus", latched=True
        )
        self._listen("diagnostics", "/diagnostics", "diagnostic_msgs/msg/DiagnosticArray")
        if gate is not None:
            self._listen("gated", f"{gate}/output/trajectory", "latentvla_msgs/msg/Trajectory")
            self._listen(
                "gate_statuses", f"{gate}/status", "latentvla_msgs/msg/GateStatus", latched=True
            )
        self._lifecycle = LifecycleClient(self._node)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, name="replay-listener", daemon=True)
        self._published: dict[str, int] = dict.fromkeys(self._publishers, 0)
        self._last_sent_s: dict[str, float] = {}
        self._lateness_s: list[float] = []
        self._wall_s = 0.0
        self._played_from_s, self._played_until_s = float("-inf"), float("inf")

    def __enter__(self) -> ReplayPlayer:
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

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    def _listen(self, key: str, topic: str, type_name: str, latched: bool = False) -> None:
        heard = self._heard.setdefault(key, [])
        self._outputs.append(topic)

        def keep(data: bytes) -> None:
            now_ns = time.time_ns() if self._clock is None else self._clock_ns
            heard.append(RawMessage(time.monotonic(), now_ns, data))

        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        qos = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE, durability=durability)
        self._node.create_subscription(message_class(type_name), topic, keep, qos, raw=True)

    @property
    def plans_heard(self) -> int:
        """Trajectories received from the planner so far."""
        return len(self._heard["plans"])

    def _latest_status(self) -> StatusSample | None:
        heard = self._heard["statuses"]
        return decode_status(heard[-1]) if heard else None

    def planner_has_failed(self) -> bool:
        """Return whether the planner's newest status reports a fault that waiting cannot mend."""
        status = self._latest_status()
        return (
            status is not None
            and status.health == PlannerStatus.FAULT
            and status.cause in _LASTING_FAULTS
        )

    def planner_cause(self) -> str:
        """Return what the planner's newest status complains about; empty for nothing."""
        status = self._latest_status()
        if status is None or not status.cause:
            return ""
        return f"{status.cause}: {status.detail}" if status.detail else status.cause

    def change_state(
        self, node: str, transition: str, timeout_s: float, alive: Callable[[], None]
    ) -> bool:
        """Ask ``node`` for a transition, as ``LifecycleClient.change_state``.

        Raises:
            PlayerError: it did not answer within ``timeout_s`` of steady time.
        """
        try:
            return self._lifecycle.change_state(node, transition, timeout_s, alive)
        except NodeSilent as error:
            raise PlayerError("node-silent", str(error)) from None

    def wait_for_subscribers(self, timeout_s: float, alive: Callable[[], None]) -> None:
        """Wait until every expected stream is matched, and /clock and the outputs by all nodes.

        Raises:
            PlayerError: naming the topics that are not.
        """
        deadline = time.monotonic() + timeout_s
        while missing := self._unmatched():
            alive()
            if time.monotonic() > deadline:
                raise PlayerError(
                    "not-matched",
                    f"{', '.join(missing)} not matched by the nodes in {timeout_s:.0f} s",
                )
            time.sleep(0.02)

    def _unmatched(self) -> list[str]:
        topics = [
            topic
            for topic, publisher in self._publishers.items()
            if self._streams[topic].expects_subscriber and not publisher.get_subscription_count()
        ]
        nodes = 2 if self._gate is not None else 1
        if self._clock is not None and self._clock.get_subscription_count() < nodes:
            topics.append("/clock")
        topics += [topic for topic in self._outputs if not self._node.count_publishers(topic)]
        # The planner's trajectories go to us and to the gate.
        plans = f"{self._planner}/output/trajectory"
        if self._node.count_subscribers(plans) < nodes:
            topics.append(plans)
        return topics

    def publish_clock(self, stamp_ns: int) -> None:
        """Publish /clock (simulated time only); it never runs backwards."""
        if self._clock is None or stamp_ns <= self._clock_ns:
            return
        self._clock_ns = stamp_ns
        self._clock.publish(
            _CDR_LITTLE_ENDIAN + struct.pack("<iI", *divmod(stamp_ns, 1_000_000_000))
        )

    def play(
        self,
        messages: Iterable[TimedMessage],
        start_ns: int,
        rate: float,
        alive: Callable[[], None],
        on_progress: Callable[[float], None] | None = None,
    ) -> None:
        """Publish ``messages``, sorted by ``due_ns``, each at its time after ``start_ns``.

        Messages that are late are sent at once; none is left out. Steady time throughout. Without
        /clock the stamps of messages with a header are moved to the system clock.

        Args:
            rate: seconds of the recording per second.
            alive: called about four times a second; raises to stop.
            on_progress: called likewise with the seconds of the recording played.
        """
        self._played_from_s = origin = time.monotonic() + 0.02
        next_tick = next_check = origin
        shift_ns = time.time_ns() + round((origin - time.monotonic()) * 1e9) - start_ns
        for message in messages:
            due = origin + (message.due_ns - start_ns) * 1e-9 / rate
            while self._clock is not None and next_tick < due:
                _sleep_until(next_tick)
                self.publish_clock(start_ns + int((next_tick - origin) * rate * 1e9))
                next_tick = max(next_tick + CLOCK_PERIOD_S, time.monotonic())
            _sleep_until(due)
            self.publish_clock(message.due_ns)
            stamp_ns, data = message.stamp_ns, message.data
            if self._clock is None:
                stamp_ns += shift_ns
                data = with_header_stamp(data, stamp_ns)
            now = time.monotonic()
            self._publishers[message.topic].publish(data)
            self._published[message.topic] += 1
            self._last_sent_s[message.topic] = now
            self._lateness_s.append(now - due)
            stream = self._streams[message.topic]
            if stream.slot:
                self._published_s[message.topic, stamp_ns + stream.time_offset_ns] = now
            if now >= next_check:
                next_check = now + _CHECK_PERIOD_S
                alive()
                if on_progress is not None:
                    on_progress((message.due_ns - start_ns) * 1e-9)
        self._played_until_s = time.monotonic()
        self._wall_s += self._played_until_s - origin

    def run_clock(self, duration_s: float, rate: float, alive: Callable[[], None]) -> None:
        """Let ``duration_s`` of steady time pass with /clock running and nothing else played."""
        origin, start_ns = time.monotonic(), self._clock_ns
        next_tick = origin
        while next_tick < origin + duration_s:
            _sleep_until(next_tick)
            self.publish_clock(start_ns + int((next_tick - origin) * rate * 1e9))
            next_tick += CLOCK_PERIOD_S
        alive()

    def recording(self) -> Recording:
        """Decode and return everything heard so far."""
        topics = {stream.slot: stream.topic for stream in self._streams.values() if stream.slot}
        recording = decode_recording(self._heard, topics, self._published_s)
        recording.published = dict(self._published)
        recording.last_sent_s = dict(self._last_sent_s)
        recording.lateness_s = list(self._lateness_s)
        recording.wall_s = self._wall_s
        recording.played_from_s = self._played_from_s
        recording.played_until_s = self._played_until_s
        return recording


def standing_odometry(base_frame: str) -> bytes:
    """Return a serialised Odometry of a vehicle that stands at the origin."""
    message = Odometry()
    message.header.frame_id = "odom"
    message.child_frame_id = base_frame
    message.pose.pose.orientation.w = 1.0
    return bytes(serialize_message(message))


def _publisher_qos(stream: Stream) -> QoSProfile:
    return QoSProfile(
        depth=1 if stream.latched else stream.depth,
        reliability=(
            ReliabilityPolicy.RELIABLE if stream.reliable else ReliabilityPolicy.BEST_EFFORT
        ),
        durability=(
            DurabilityPolicy.TRANSIENT_LOCAL if stream.latched else DurabilityPolicy.VOLATILE
        ),
    )


def _sleep_until(steady_s: float) -> None:
    remaining = steady_s - time.monotonic()
    if remaining > 0:
        time.sleep(remaining)
