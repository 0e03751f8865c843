"""Processor time and plan rate of the real planner node while a recording plays to it over DDS."""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latentvla_ros.cli.bag_file import BagFile
from latentvla_ros.cli.plan_metrics import percentiles_ms, rate_hz
from latentvla_ros.cli.replay_inputs import ReplayInputs
from latentvla_ros.cli.replay_session import NodeSettings, ReplaySession
from latentvla_ros.cli.replay_streams import opened, streams_of, timed_messages
from latentvla_ros.cli.replay_summary import stage_percentiles
from latentvla_ros.nodes.cdr_header import with_header_stamp

if TYPE_CHECKING:
    from latentvla_ros.nodes.recording import Recording
    from latentvla_ros.nodes.replay_player import TimedMessage

#: ``sync_wait_s`` of the node, which the bound on a plan's age includes.
SYNC_WAIT_S = 0.03


@dataclass(frozen=True)
class NodeTimes:
    """What the node did at one input rate; times of plans in ms of steady or system time.

    Attributes:
        input_rate_hz: of each camera. frames, plans: counted outside the node.
        plan_rate_hz: between the first and the last plan.
        cpu_ms: process CPU (all threads, DDS's too, idle cost included) per published plan, from
            the first one to the end of the recording; None without plans.
        age_ms: t0 to receipt of the plan. receipt_to_publish_ms, stages_ms: of the node.
        drops: frames that made no plan, by cause.
        age_bound_ms: one period, the wait for other cameras, the recorded latency of the images and
            the slowest inference seen: what the age may reach under overload.
    """

    input_rate_hz: float
    frames: int
    plans: int
    plan_rate_hz: float
    cpu_ms: float | None
    age_ms: dict[str, float] | None
    stages_ms: dict[str, Any]
    drops: dict[str, int]
    age_bound_ms: float | None

    def document(self) -> dict[str, Any]:
        """Return the record for JSON."""
        return asdict(self)


def bench_node(
    bag: BagFile,
    inputs: ReplayInputs,
    bundle: str,
    backend: str,
    threads: int,
    seconds: float,
    repeat: int = 1,
    log_folder: Path | None = None,
) -> NodeTimes:
    """Play ``seconds`` of the recording on the system clock and measure the node's process.

    Args:
        repeat: each image is sent so many times at even intervals, newly stamped: 3 makes 30 Hz of
            a 10 Hz recording, while the odometry stays as it was recorded.
        log_folder: for the nodes' logs; a temporary one by default.

    Raises:
        CommandError: a node ended, refused or did not answer.
    """
    end_ns = min(bag.end_ns, bag.start_ns + round(seconds * 1e9))
    period_ns, latency_ns = _camera_timing(bag, inputs)
    with tempfile.TemporaryDirectory(prefix="latentvla-") as folder:
        settings = NodeSettings(
            bundle=bundle,
            rig=str(inputs.rig_path.resolve()),
            remaps=tuple(inputs.remaps()),
            parameters={
                "backend": backend,
                "threads": str(threads),
                "command_source": "topic" if inputs.command or not inputs.route else "route",
            },
            simulated_time=False,
            log_folder=log_folder or Path(folder),
            ros_log_folder=Path(folder),
        )
        with ReplaySession(settings, streams_of(inputs)) as session:
            messages = opened(timed_messages(bag, inputs, bag.start_ns, end_ns))
            session.get_ready(bag.start_ns)
            images = frozenset(camera.topic for camera in inputs.cameras)
            meter = _CpuMeter(session)
            sent = repeated(messages, images, repeat, period_ns)
            session.play(sent, bag.start_ns, 1.0, meter.look)
            session.player.run_clock(0.1, 1.0, session.check)  # the last plan is still being made
            cpu_s = meter.per_plan_s()
            session.settle(1.0)
            recording = session.finish()
    return _times(recording, inputs, cpu_s, period_ns // repeat, latency_ns)


class _CpuMeter:
    """Process CPU time per published plan, from the first plan that was seen on."""

    def __init__(self, session: ReplaySession) -> None:
        self._session = session
        self._start: tuple[float, int] | None = None

    def look(self, _played_s: float, plans: int) -> None:
        """Start counting once there are plans; before, the node warms up and plans nothing."""
        if self._start is None and plans:
            self._start = self._now()

    def _now(self) -> tuple[float, int]:
        return self._session.planner.cpu_s(), self._session.player.plans_heard

    def per_plan_s(self) -> float | None:
        """Return seconds per plan since then; None without plans."""
        end = self._now()
        if self._start is None or end[1] <= self._start[1]:
            return None
        return (end[0] - self._start[0]) / (end[1] - self._start[1])


def _times(
    recording: Recording,
    inputs: ReplayInputs,
    cpu_s: float | None,
    period_ns: int,
    latency_ns: int,
) -> NodeTimes:
    plans = recording.plans
    stages = stage_percentiles(recording.statuses)
    inference = [
        stages[name]["max"]
        for name in ("observation", "backend", "checks", "publish")
        if stages.get(name)
    ]
    bound = None
    if inference:
        bound = period_ns * 1e-6 + SYNC_WAIT_S * 1e3 + latency_ns * 1e-6 + sum(inference)
    return NodeTimes(
        input_rate_hz=1e9 / period_ns,
        frames=recording.published.get(inputs.cameras[0].topic, 0),
        plans=len(plans),
        plan_rate_hz=rate_hz([plan.received_s for plan in plans]),
        cpu_ms=None if cpu_s is None else cpu_s * 1e3,
        age_ms=percentiles_ms([plan.age_s for plan in plans]),
        stages_ms=stages,
        drops=dict(recording.statuses[-1].drops) if recording.statuses else {},
        age_bound_ms=bound,
    )


def _camera_timing(bag: BagFile, inputs: ReplayInputs) -> tuple[int, int]:
    """Return the reference camera's period and the recorded latency of its images, ns."""
    from latentvla_ros.nodes.cdr_header import header_stamp_ns

    stamps, received = [], []
    for message in bag.messages([inputs.cameras[0].topic]):
        stamps.append(header_stamp_ns(message.data))
        received.append(message.stamp_ns)
    period = int(np.median(np.diff(stamps))) if len(stamps) > 1 else 100_000_000
    return period, int(np.median(np.subtract(received, stamps)))


def repeated(
    messages: Iterator[TimedMessage], images: frozenset[str], repeat: int, period_ns: int
) -> Iterator[TimedMessage]:
    """Yield ``messages`` with each of ``images`` sent ``repeat`` times within ``period_ns``.

    Copies carry later stamps, as frames of a faster camera would; the order stays that of time.
    """
    from latentvla_ros.nodes.replay_player import TimedMessage

    if repeat < 1:
        raise ValueError(f"repeat: found {repeat}, expected 1 or more")
    waiting: list[tuple[int, int, TimedMessage]] = []
    count = 0
    for message in messages:
        while waiting and waiting[0][0] <= message.due_ns:
            yield heapq.heappop(waiting)[2]
        yield message
        if message.topic in images:
            for copy in range(1, repeat):
                later_ns = copy * period_ns // repeat
                stamp_ns = message.stamp_ns + later_ns
                count += 1
                again = TimedMessage(
                    message.due_ns + later_ns,
                    message.topic,
                    stamp_ns,
                    with_header_stamp(message.data, stamp_ns),
                )
                heapq.heappush(waiting, (again.due_ns, count, again))
    while waiting:
        yield heapq.heappop(waiting)[2]
