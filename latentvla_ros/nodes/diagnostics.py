"""~/status and /diagnostics of the planner: alive in every lifecycle state, in steady time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from latentvla_msgs.msg import CameraStatus, PlannerStatus
from latentvla_ros.contract import Command
from latentvla_ros.nodes import conversions, qos
from latentvla_ros.nodes.pipeline import Pipeline
from latentvla_ros.safety.health import HealthState, HealthStatus

_RATE_WINDOW_S = 3.0

_LEVELS = {
    PlannerStatus.WAITING: DiagnosticStatus.OK,
    PlannerStatus.WARMING_UP: DiagnosticStatus.OK,
    PlannerStatus.OK: DiagnosticStatus.OK,
    PlannerStatus.DEGRADED: DiagnosticStatus.WARN,
    PlannerStatus.FAULT: DiagnosticStatus.ERROR,
}
_NAMES = {
    PlannerStatus.WAITING: "waiting",
    PlannerStatus.WARMING_UP: "warming up",
    PlannerStatus.OK: "ok",
    PlannerStatus.DEGRADED: "degraded",
    PlannerStatus.FAULT: "fault",
}


def rate_hz(times_s: Iterable[float], now_s: float) -> float:
    """Return events per second over the last seconds of steady time."""
    return sum(1 for at_s in times_s if now_s - at_s <= _RATE_WINDOW_S) / _RATE_WINDOW_S


def health_code(status: HealthStatus, lifecycle_state: str) -> int:
    """Return the PlannerStatus constant of a health in a lifecycle state."""
    if status.state is HealthState.ERROR:
        return int(PlannerStatus.FAULT)
    if lifecycle_state != "active":
        return int(PlannerStatus.WAITING)
    return {
        HealthState.UNCONFIGURED: int(PlannerStatus.WAITING),
        HealthState.OK: int(PlannerStatus.OK),
        HealthState.WARMING_UP: int(PlannerStatus.WARMING_UP),
        HealthState.DEGRADED: int(PlannerStatus.DEGRADED),
    }[status.state]


class StatusPublisher:
    """Publishes the planner's status by ordinary publishers: no lifecycle state mutes them."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._status = node.create_publisher(
            PlannerStatus,
            "~/status",
            qos.STATUS,
            event_callbacks=qos.no_publisher_events(),
        )
        self._diagnostics = node.create_publisher(
            DiagnosticArray,
            "/diagnostics",
            qos.DIAGNOSTICS,
            event_callbacks=qos.no_publisher_events(),
        )

    def publish(
        self, lifecycle_state: str, health: HealthStatus, pipeline: Pipeline | None
    ) -> None:
        """Publish the present state; ``pipeline`` is None while the node is not configured."""
        now_s = time.monotonic()
        status = PlannerStatus()
        status.header.stamp = self._node.get_clock().now().to_msg()
        status.lifecycle_state = lifecycle_state
        status.health = health_code(health, lifecycle_state)
        if health.active:
            status.cause, status.detail = health.active[0].name, health.active[0].detail
        if health.first_cause is not None:
            status.first_cause = health.first_cause.name
            status.first_cause_stamp = self._stamp_of(health.first_cause.since_s, now_s)
        status.command = int(Command.UNKNOWN)
        status.odometry_age_s = -1.0
        if pipeline is not None:
            _describe(status, pipeline, now_s)
        self._status.publish(status)
        self._diagnostics.publish(self._array(status, health))

    def _stamp_of(self, steady_s: float, now_s: float) -> Time:
        """Return the ROS time of a steady one; zero where the clock does not reach back to it."""
        ago_ns = int((now_s - steady_s) * 1e9)
        return conversions.ns_to_stamp(max(self._node.get_clock().now().nanoseconds - ago_ns, 0))

    def _array(self, status: PlannerStatus, health: HealthStatus) -> DiagnosticArray:
        name = self._node.get_fully_qualified_name().lstrip("/")
        array = DiagnosticArray()
        array.header.stamp = status.header.stamp
        message = status.cause or _NAMES[status.health]
        if status.detail:
            message += f": {status.detail}"
        array.status.append(
            _diagnostic(
                f"{name}: planner",
                _LEVELS[status.health],
                message,
                {
                    "lifecycle": status.lifecycle_state,
                    "health": _NAMES[status.health],
                    "first cause": status.first_cause,
                    "bundle": status.bundle_id,
                    "backend": status.backend,
                    "frames": status.frames,
                    "plans": status.plans,
                    "plan rate (Hz)": f"{status.plan_rate_hz:.1f}",
                    "plan age (s)": f"{status.age_s:.3f}",
                    "command": Command(status.command).name,
                    **{f"active: {cause.name}": cause.detail for cause in health.active},
                    **{
                        f"dropped: {cause}": count
                        for cause, count in zip(status.drop_causes, status.drop_counts, strict=True)
                    },
                    **{
                        f"stage {stage} (ms)": f"{1e3 * seconds:.1f}"
                        for stage, seconds in zip(status.stage_names, status.stage_s, strict=True)
                    },
                },
            )
        )
        if status.lifecycle_state == "active":
            array.status += [_camera_diagnostic(name, camera) for camera in status.cameras]
            array.status.append(_odometry_diagnostic(name, status, health))
        return array


def _describe(status: PlannerStatus, pipeline: Pipeline, now_s: float) -> None:
    """Write what a configured node knows into its status."""
    status.bundle_id = pipeline.bundle.manifest.bundle_id
    if pipeline.planner is not None:
        status.backend = pipeline.planner.backend.name
    status.frames = pipeline.cameras.frames
    status.plans = pipeline.plans
    status.plan_rate_hz = rate_hz(pipeline.plan_times_s, now_s)
    status.age_s = pipeline.age_s
    for cause, count in sorted(pipeline.drops.items()):
        status.drop_causes.append(cause)
        status.drop_counts.append(count)
    required = (
        pipeline.cameras.synchronizer.reference,
        *pipeline.cameras.synchronizer.required,
    )
    for slot, report in pipeline.cameras.health.report(now_s).items():
        camera = CameraStatus(
            slot=slot,
            topic=pipeline.cameras.cameras[slot].topic,
            required=slot in required,
            rate_hz=report.rate_hz,
            age_s=-1.0 if report.silent_s is None else report.silent_s,
            received=report.received,
            decoded=pipeline.decoded[slot],
            faults=sum(report.refused.values()),
            starving=bool(report.starving),
        )
        status.cameras.append(camera)
    silent_s = pipeline.odometry.silent_s(now_s)
    status.odometry_age_s = -1.0 if silent_s is None else silent_s
    status.odometry_rate_hz = pipeline.odometry.rate_hz(now_s)
    status.odometry_jumps = pipeline.odometry.buffer.jumps
    if pipeline.newest is not None:
        status.command = int(pipeline.newest.command)
        for stage, seconds in pipeline.newest.stages_s.items():
            status.stage_names.append(stage)
            status.stage_s.append(seconds)


def _camera_diagnostic(name: str, camera: CameraStatus) -> DiagnosticStatus:
    lost = camera.age_s < 0 or camera.starving
    level = DiagnosticStatus.OK
    message = f"{camera.rate_hz:.1f} Hz"
    if lost:
        level = DiagnosticStatus.ERROR if camera.required else DiagnosticStatus.WARN
        message = f"starving: {camera.rate_hz:.1f} Hz on {camera.topic}"
    return _diagnostic(
        f"{name}: camera {camera.slot}",
        level,
        message,
        {
            "topic": camera.topic,
            "required": camera.required,
            "rate (Hz)": f"{camera.rate_hz:.1f}",
            "age (s)": f"{camera.age_s:.3f}",
            "received": camera.received,
            "decoded": camera.decoded,
            "faults": camera.faults,
        },
    )


def _odometry_diagnostic(
    name: str, status: PlannerStatus, health: HealthStatus
) -> DiagnosticStatus:
    bad = next((cause for cause in health.active if "odometry" in cause.name), None)
    level, message = DiagnosticStatus.OK, f"{status.odometry_rate_hz:.0f} Hz"
    if bad is not None:
        error = bad.severity is HealthState.ERROR
        level = DiagnosticStatus.ERROR if error else DiagnosticStatus.WARN
        message = f"{bad.name}: {bad.detail}"
    return _diagnostic(
        f"{name}: odometry",
        level,
        message,
        {
            "rate (Hz)": f"{status.odometry_rate_hz:.1f}",
            "age (s)": f"{status.odometry_age_s:.3f}",
            "jumps": status.odometry_jumps,
        },
    )


def _diagnostic(
    name: str, level: bytes, message: str, values: Mapping[str, object]
) -> DiagnosticStatus:
    return DiagnosticStatus(
        name=name,
        level=level,
        message=message,
        hardware_id="latentvla",
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
