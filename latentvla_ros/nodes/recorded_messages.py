"""From serialised ROS messages to the records of ``nodes.recording``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.serialization import deserialize_message

from latentvla_msgs.msg import GateStatus, PlannerStatus, Trajectory
from latentvla_ros.contract import NUM_KNOTS
from latentvla_ros.nodes.recording import (
    CameraHealth,
    DiagnosticSample,
    GateOutput,
    GateSample,
    RecordedPlan,
    Recording,
    StatusSample,
)

_NAN = float("nan")


class RawMessage(NamedTuple):
    """A message as received: steady time (s), ROS time (ns; 0 without /clock), CDR bytes."""

    received_s: float
    clock_ns: int
    data: bytes


def decode_recording(
    heard: Mapping[str, Sequence[RawMessage]],
    topics: Mapping[str, str],
    published_s: Mapping[tuple[str, int], float],
) -> Recording:
    """Decode what a player heard.

    Args:
        heard: raw messages by the name of a list of ``Recording``.
        topics: topic by camera slot.
        published_s: steady time of publication by (topic, stamp in ns).
    """
    return Recording(
        plans=[decode_plan(raw, topics, published_s) for raw in heard.get("plans", ())],
        gated=[_gate_output(raw) for raw in heard.get("gated", ())],
        statuses=[decode_status(raw) for raw in heard.get("statuses", ())],
        gate_statuses=[_gate_sample(raw) for raw in heard.get("gate_statuses", ())],
        diagnostics=[
            sample for raw in heard.get("diagnostics", ()) for sample in _diagnostics(raw)
        ],
    )


def stamp_ns(stamp: Any) -> int:
    """Return a builtin_interfaces/Time in ns."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def _planar(pose: Any) -> tuple[float, float, float]:
    q = pose.orientation
    yaw = np.arctan2(2.0 * (q.w * q.z + q.x * q.y), 1.0 - 2.0 * (q.y * q.y + q.z * q.z))
    return pose.position.x, pose.position.y, float(yaw)


def decode_plan(
    raw: RawMessage, topics: Mapping[str, str], published_s: Mapping[tuple[str, int], float]
) -> RecordedPlan:
    """Decode a Trajectory; its latency counts from the last published of its camera frames."""
    message = deserialize_message(raw.data, Trajectory)
    t0_ns = stamp_ns(message.header.stamp)
    inputs = {entry.name: stamp_ns(entry.stamp) for entry in message.inputs}
    sent = [
        published_s[key]
        for slot, stamp in inputs.items()
        if (key := (topics.get(slot.partition("@")[0], ""), stamp)) in published_s
    ]
    candidates = [np.asarray(entry.knots, np.float64) for entry in message.candidates]
    return RecordedPlan(
        stamp_ns=t0_ns,
        sequence=int(message.sequence),
        pose=np.asarray(_planar(message.ego_pose)),
        knots=np.asarray(message.knots, np.float64).reshape(NUM_KNOTS, 3),
        candidates=np.asarray(candidates, np.float64).reshape(-1, NUM_KNOTS, 3),
        scores=np.asarray([entry.score for entry in message.candidates], np.float64),
        points=np.asarray([_planar(point.pose) for point in message.points]),
        speeds=np.asarray([point.longitudinal_velocity for point in message.points], np.float64),
        latent_actions=np.asarray(message.latent_actions.ids, np.int64),
        latent_probabilities=np.asarray(message.latent_actions.probabilities, np.float64),
        codebook_id=message.latent_actions.codebook_id,
        inputs_ns=inputs,
        received_s=raw.received_s,
        latency_s=raw.received_s - max(sent) if sent else _NAN,
        age_s=(raw.clock_ns - t0_ns) * 1e-9 if raw.clock_ns else _NAN,
    )


def _gate_output(raw: RawMessage) -> GateOutput:
    message = deserialize_message(raw.data, Trajectory)
    return GateOutput(stamp_ns(message.header.stamp), int(message.kind), raw.received_s)


def decode_status(raw: RawMessage) -> StatusSample:
    """Decode a PlannerStatus."""
    message = deserialize_message(raw.data, PlannerStatus)
    return StatusSample(
        received_s=raw.received_s,
        lifecycle_state=message.lifecycle_state,
        health=int(message.health),
        cause=message.cause,
        detail=message.detail,
        first_cause=message.first_cause,
        bundle_id=message.bundle_id,
        backend=message.backend,
        frames=int(message.frames),
        plans=int(message.plans),
        age_s=float(message.age_s),
        drops=_counts(message.drop_causes, message.drop_counts),
        cameras={
            camera.slot: CameraHealth(
                topic=camera.topic,
                received=int(camera.received),
                decoded=int(camera.decoded),
                faults=int(camera.faults),
                rate_hz=float(camera.rate_hz),
                starving=bool(camera.starving),
            )
            for camera in message.cameras
        },
        odometry_jumps=int(message.odometry_jumps),
        command=int(message.command),
        stages_s={
            name: float(value)
            for name, value in zip(message.stage_names, message.stage_s, strict=False)
        },
    )


def _gate_sample(raw: RawMessage) -> GateSample:
    message = deserialize_message(raw.data, GateStatus)
    return GateSample(
        received_s=raw.received_s,
        mode=int(message.mode),
        cause=message.cause,
        first_cause=message.first_cause,
        passed=int(message.passed),
        rejected=int(message.rejected),
        rejects=_counts(message.reject_causes, message.reject_counts),
    )


def _diagnostics(raw: RawMessage) -> list[DiagnosticSample]:
    message = deserialize_message(raw.data, DiagnosticArray)
    return [
        DiagnosticSample(
            received_s=raw.received_s,
            name=status.name,
            level=status.level[0] if isinstance(status.level, bytes) else int(status.level),
            message=status.message,
            values={entry.key: entry.value for entry in status.values},
        )
        for status in message.status
    ]


def _counts(names: Sequence[str], counts: Sequence[int]) -> dict[str, int]:
    return {name: int(count) for name, count in zip(names, counts, strict=False)}
