"""Parameters of the nodes: one frozen dataclass each, declared, validated and read in one place.

A field's metadata carries what ``ros2 param describe`` shows. Structural parameters are read-only:
they hold from the start of the node to its end; the others may be set while it runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException, ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter

from latentvla_ros.contract import ContractError
from latentvla_ros.safety.plan_checks import PlanLimits
from latentvla_ros.safety.stop_trajectory import StopSettings


def _structural(default: Any, description: str) -> Any:
    return field(default=default, metadata={"description": description, "read_only": True})


def _live(default: Any, description: str) -> Any:
    return field(default=default, metadata={"description": description, "read_only": False})


@dataclass(frozen=True)
class PlannerParameters:
    """Settings of ``planner_node``; times in s, stamps judged in ROS time."""

    bundle: str = _structural("nano", "name of a shipped bundle, or a bundle's folder")
    rig: str = _structural("", "rig file: which camera fills which slot, and where it is mounted")
    backend: str = _structural("auto", "onnxruntime, torch, or auto")
    threads: int = _structural(0, "compute threads of the backend; 0: all cores but one")
    output_frame: str = _structural(
        "", "frame of the trajectory; empty: the odometry's own; another one needs TF"
    )
    command_source: str = _structural("topic", "topic (~/input/command) or route (~/input/route)")
    sync_tolerance_s: float = _structural(
        0.05, "cameras of one moment may differ from the reference frame by this much"
    )
    sync_wait_s: float = _structural(0.03, "longest wait for the other cameras, steady time")
    odometry_wait_s: float = _structural(
        0.0, "longest wait for odometry of a frame's time, steady time; 0: extrapolate at once"
    )
    max_input_age_s: float = _structural(0.5, "an image older than this at receipt is refused")
    future_tolerance_s: float = _structural(
        0.1, "a stamp this far ahead of the clock is still taken for clock granularity"
    )
    image_timeout_s: float = _structural(
        0.5, "without a required camera's image for this long (steady time) the input is lost"
    )
    odometry_timeout_s: float = _structural(
        0.3, "without odometry for this long (steady time) the input is lost"
    )
    diagnostics_period_s: float = _structural(0.5, "of ~/status and /diagnostics, steady time")
    allow_hot_reload: bool = _structural(False, "take ~/reload_bundle while active, too")
    max_plan_age_s: float = _live(0.5, "a plan older than this (now - t0) is not published")
    command_timeout_s: float = _live(
        2.0, "a command or route older than this has expired; 0: it holds until the next one"
    )
    require_command: bool = _live(False, "make no plan while the command is unknown")
    speed_limit_mps: float = _live(
        13.9, "how far ahead a route is read for its command: 3 s at this speed"
    )
    publish_candidates: bool = _live(True, "fill the trajectory's candidates and their scores")
    publish_markers: bool = _live(True, "publish ~/debug/markers when somebody listens")

    def __post_init__(self) -> None:
        if not self.bundle:
            raise ContractError("bundle", self.bundle, "a bundle's name or folder")
        if self.command_source not in ("topic", "route"):
            raise ContractError("command_source", self.command_source, "'topic' or 'route'")
        if self.threads < 0:
            raise ContractError("threads", self.threads, "0 (all cores but one) or more")
        _check_positive(
            self,
            "sync_tolerance_s",
            "max_input_age_s",
            "image_timeout_s",
            "odometry_timeout_s",
            "diagnostics_period_s",
            "max_plan_age_s",
            "speed_limit_mps",
        )
        _check_not_negative(
            self, "sync_wait_s", "odometry_wait_s", "future_tolerance_s", "command_timeout_s"
        )


@dataclass(frozen=True)
class GateParameters:
    """Settings of ``gate``; times in s."""

    timeout_s: float = _structural(
        0.5, "without a fresh, valid plan for this long (steady time) the gate has timed out"
    )
    max_plan_age_s: float = _structural(0.5, "a plan older than this (now - t0) is not fresh")
    stop_on_timeout: bool = _structural(
        False, "publish stop trajectories after a time-out; for vehicles where nothing else does"
    )
    emergency_after_s: float = _structural(
        2.5, "without a plan for this long the comfortable stop becomes an emergency stop"
    )
    comfortable_deceleration_mps2: float = _structural(1.5, "of the comfortable stop")
    emergency_deceleration_mps2: float = _structural(5.0, "of the emergency stop")
    stop_period_s: float = _structural(0.1, "of stop trajectories, steady time")
    diagnostics_period_s: float = _structural(0.5, "of ~/status and /diagnostics, steady time")

    def __post_init__(self) -> None:
        _check_positive(
            self, "timeout_s", "max_plan_age_s", "stop_period_s", "diagnostics_period_s"
        )
        self.stop_settings()

    def stop_settings(self) -> StopSettings:
        """Return when and how hard to stop; raises ContractError for values not allowed."""
        return StopSettings(
            comfortable_after_s=self.timeout_s,
            emergency_after_s=self.emergency_after_s,
            comfortable_deceleration_mps2=self.comfortable_deceleration_mps2,
            emergency_deceleration_mps2=self.emergency_deceleration_mps2,
        )


Parameters = TypeVar("Parameters", PlannerParameters, GateParameters)


def declare(node: Node, kind: type[Parameters]) -> Parameters:
    """Declare every field of ``kind`` on ``node`` and return what launch files and users set.

    Raises:
        ContractError: a parameter of another type, or a value that is not allowed.
    """
    return kind(
        **{
            entry.name: _declared(
                node,
                entry.name,
                entry.default,
                entry.metadata["description"],
                entry.metadata["read_only"],
            )
            for entry in fields(kind)
        }
    )


def declare_limits(node: Node, deadline_s: float) -> PlanLimits:
    """Declare ``limits.<name>`` for every bound of ``PlanLimits`` but the deadline, and read them.

    Raises:
        ContractError: a bound of another type, or one that is not allowed.
    """
    values: dict[str, float] = {}
    for entry in fields(PlanLimits):
        if entry.name != "deadline_s":
            description = f"a plan beyond this is not published; see PlanLimits.{entry.name}"
            values[entry.name] = _declared(
                node, f"limits.{entry.name}", entry.default, description, read_only=True
            )
    return PlanLimits(deadline_s=deadline_s, **values)


def updated(current: Parameters, changes: list[Parameter]) -> Parameters:
    """Return ``current`` with the node's changed parameters; foreign names are left to others.

    Raises:
        ContractError: a value that is not allowed.
    """
    known = {entry.name for entry in fields(current)}
    return replace(current, **{p.name: p.value for p in changes if p.name in known})


def refused(error: ContractError) -> SetParametersResult:
    """Return the answer to a setting that broke a rule."""
    return SetParametersResult(successful=False, reason=str(error))


def _declared(node: Node, name: str, default: Any, description: str, read_only: bool) -> Any:
    descriptor = ParameterDescriptor(description=description, read_only=read_only)
    try:
        return node.declare_parameter(name, default, descriptor).value
    except (InvalidParameterTypeException, ParameterException) as error:
        raise ContractError(name, str(error), f"a {type(default).__name__}") from None


def _check_positive(record: PlannerParameters | GateParameters, *names: str) -> None:
    for name in names:
        value = getattr(record, name)
        if not (math.isfinite(value) and value > 0):
            raise ContractError(name, value, "a finite value above 0")


def _check_not_negative(record: PlannerParameters | GateParameters, *names: str) -> None:
    for name in names:
        value = getattr(record, name)
        if not (math.isfinite(value) and value >= 0):
            raise ContractError(name, value, "a finite value, 0 or above")
