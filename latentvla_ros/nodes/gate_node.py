"""``gate``: the process that controllers listen to. Passes fresh, valid plans, and times out.

Small on purpose and in a process of its own: it goes on when the planner hangs, dies or babbles.
Not a lifecycle node: there is no state in which it may be absent.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from nav_msgs.msg import Odometry
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from latentvla_msgs.msg import GateStatus
from latentvla_msgs.msg import Trajectory as TrajectoryMessage
from latentvla_ros.contract import ContractError
from latentvla_ros.nodes import conversions, qos
from latentvla_ros.nodes import parameters as node_parameters
from latentvla_ros.nodes.clock_watch import ClockWatch
from latentvla_ros.nodes.gate_policy import GatedPlan, GatePolicy, MeasuredMotion
from latentvla_ros.nodes.parameters import GateParameters
from latentvla_ros.nodes.process import run_node
from latentvla_ros.nodes.trajectory_messages import (
    ego_pose_of,
    from_message,
    stamp_after,
    trajectory_message,
)
from latentvla_ros.safety.stop_trajectory import StopStage

#: Odometry older than this (steady time) says nothing about the motion now.
_MOTION_VALID_S = 0.3
_MODES = {
    "waiting": GateStatus.WAITING,
    "passing": GateStatus.PASSING,
    "timed_out": GateStatus.TIMED_OUT,
    "comfortable_stop": GateStatus.COMFORTABLE_STOP,
    "emergency_stop": GateStatus.EMERGENCY_STOP,
}
_KINDS = {
    "comfortable": TrajectoryMessage.COMFORTABLE_STOP,
    "emergency": TrajectoryMessage.EMERGENCY_STOP,
}


class GateNode(Node):
    """See the module; raises ContractError for parameters that are not allowed."""

    def __init__(self, name: str = "gate", **options: object) -> None:
        super().__init__(name, **options)
        self._settings = node_parameters.declare(self, GateParameters)
        limits = node_parameters.declare_limits(self, self._settings.max_plan_age_s)
        self.policy = GatePolicy(
            limits, self._settings.stop_settings(), self._settings.stop_on_timeout
        )
        self._motion: MeasuredMotion | None = None
        self._motion_s = 0.0
        self._stop_s = 0.0
        self._sequence = 0
        self._shown = ""
        self._clock_watch = ClockWatch(self, self._on_clock_jump)
        self._output = self.create_publisher(TrajectoryMessage, "~/output/trajectory", qos.OUTPUT)
        self._status = self.create_publisher(GateStatus, "~/status", qos.STATUS)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
        self.create_subscription(TrajectoryMessage, "~/input/trajectory", self._on_plan, qos.OUTPUT)
        self.create_subscription(Odometry, "~/input/odometry", self._on_odometry, qos.ODOMETRY)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        tick_s = min(0.05, self._settings.stop_period_s, self._settings.timeout_s / 4)
        self.create_timer(tick_s, self._on_tick, clock=steady)
        self.create_timer(self._settings.diagnostics_period_s, self._publish_status, clock=steady)
        self._publish_status()

    def close(self) -> None:
        """Nothing to end: the gate has no thread. The counterpart of ``PlannerNode.close``."""

    def _on_plan(self, message: TrajectoryMessage) -> None:
        stamp_ns = conversions.stamp_to_ns(message.header.stamp)
        try:
            plan = GatedPlan(
                stamp_ns,
                int(message.sequence),
                message.header.frame_id,
                np.asarray(ego_pose_of(message), np.float64),
                from_message(message),
                message.base_frame,
            )
        except ContractError:
            self.policy.reject("wrong_points")
            return
        now_ns = int(self.get_clock().now().nanoseconds)
        if self.policy.offer(plan, now_ns, time.monotonic()) == "":
            self._output.publish(message)

    def _on_odometry(self, message: Odometry) -> None:
        pose, (vx, vy, yaw_rate) = conversions.planar_odometry(message)
        if np.isfinite((*pose, vx, vy, yaw_rate)).all():
            self._motion = MeasuredMotion(
                message.header.frame_id,
                message.child_frame_id,
                np.asarray(pose, np.float64),
                float(np.hypot(vx, vy)) if vx >= 0.0 else 0.0,  # a plan never goes backwards
                yaw_rate,
            )
            self._motion_s = time.monotonic()

    def _fresh_motion(self, steady_s: float) -> MeasuredMotion | None:
        return self._motion if steady_s - self._motion_s < _MOTION_VALID_S else None

    def _on_tick(self) -> None:
        self._clock_watch.check()
        steady_s = time.monotonic()
        stage = self.policy.check(steady_s, self._fresh_motion(steady_s))
        if stage != "none" and steady_s - self._stop_s >= self._settings.stop_period_s:
            self._stop_s = steady_s
            self._publish_stop(stage)
        if self.policy.mode != self._shown:
            self._shown = self.policy.mode
            # Two calls: a call site of rclpy's logger keeps the severity of its first use.
            if self.policy.mode in ("waiting", "passing"):
                self.get_logger().info(self.policy.mode)
            else:
                self.get_logger().error(f"{self.policy.mode}: {self.policy.cause}")
            self._publish_status()

    def _publish_stop(self, stage: StopStage) -> None:
        now_ns = int(self.get_clock().now().nanoseconds)
        stop = self.policy.stop(stage, now_ns, self._fresh_motion(time.monotonic()))
        if stop is None:
            return
        message = trajectory_message(stop, stop.poses[0], now_ns, *self.policy.stop_frames)
        message.kind = _KINDS[stage]
        message.sequence = self._sequence = self._sequence + 1
        message.valid_until = stamp_after(now_ns, self._settings.max_plan_age_s)
        self._output.publish(message)

    def _on_clock_jump(self, words: str) -> None:
        self.get_logger().warning(f"clock jump: {words}; the last plan is forgotten")
        self.policy.forget()
        self._motion = None  # a simulation that starts anew puts the vehicle somewhere else

    def _publish_status(self) -> None:
        status = GateStatus()
        status.header.stamp = self.get_clock().now().to_msg()
        status.mode = _MODES[self.policy.mode]
        status.cause, status.first_cause = self.policy.cause, self.policy.first_cause
        status.passed = self.policy.passed
        status.rejected = sum(self.policy.rejects.values())
        for cause, count in sorted(self.policy.rejects.items()):
            status.reject_causes.append(cause)
            status.reject_counts.append(count)
        silent_s = self.policy.silent_s(time.monotonic())
        status.plan_age_s = -1.0 if silent_s is None else silent_s
        self._status.publish(status)
        self._diagnostics.publish(self._array(status))

    def _array(self, status: GateStatus) -> DiagnosticArray:
        levels = {"waiting": DiagnosticStatus.OK, "passing": DiagnosticStatus.OK}
        if status.rejected:  # before the first plan, silence is well only while nothing is refused
            levels["waiting"] = DiagnosticStatus.ERROR
        values = {
            "first cause": status.first_cause,
            "passed": status.passed,
            "rejected": status.rejected,
            "last plan (s ago)": f"{status.plan_age_s:.2f}",
            **{f"rejected: {cause}": count for cause, count in self.policy.rejects.items()},
        }
        array = DiagnosticArray()
        array.header.stamp = status.header.stamp
        array.status.append(
            DiagnosticStatus(
                name=f"{self.get_fully_qualified_name().lstrip('/')}: gate",
                level=levels.get(self.policy.mode, DiagnosticStatus.ERROR),
                message=": ".join(filter(None, (self.policy.mode, status.cause))),
                hardware_id="latentvla",
                values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
            )
        )
        return array


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; returns the exit status."""
    return run_node("gate", GateNode, args)


if __name__ == "__main__":
    sys.exit(main())
