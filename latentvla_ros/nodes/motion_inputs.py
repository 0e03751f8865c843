"""Odometry and the driving command on arrival: checked, put into the ego frame, buffered."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from nav_msgs.msg import Odometry, Path
from numpy.typing import NDArray
from rclpy.node import Node

from latentvla_msgs.msg import DrivingCommand
from latentvla_ros.contract import Command, EgoMotion, Rig
from latentvla_ros.geometry import se2
from latentvla_ros.nodes import conversions, qos
from latentvla_ros.nodes.parameters import PlannerParameters
from latentvla_ros.nodes.topic_problems import why_silent
from latentvla_ros.sensing.ego_motion_buffer import (
    EgoMotionBuffer,
    EgoMotionSettings,
    in_base_frame,
)
from latentvla_ros.sensing.route_command import route_command

#: Called with (cause, detail).
OnProblem = Callable[[str, str], None]

_EXPLANATIONS = {
    "not_finite": "pose or twist is not finite",
    "implausible": "pose or twist is beyond what a road vehicle does",
    "zero_stamp": "the stamp is zero",
    "future_stamp": "the stamp is ahead of the clock",
    "stamp_repeated": "the stamp repeats the one before it",
    "stamp_backwards": "the stamp is older than the one before it",
}
_RATE_WINDOW_S = 3.0


class OdometryInput:
    """Subscribes to the odometry and fills the ego-motion buffer; owned by the executor thread.

    Attributes:
        buffer: poses and twists of ``base_frame``; the inference thread reads it.
        frame: the odometry's own frame, empty before the first usable message.
        received: messages.
    """

    def __init__(
        self,
        node: Node,
        rig: Rig,
        parameters: PlannerParameters,
        on_message: OnProblem,
        on_warning: OnProblem,
    ) -> None:
        """Subscribe.

        Args:
            on_message: called for every message, with empty texts when it was good.
            on_warning: called for what does not make a message unusable.
        """
        self._node, self._rig = node, rig
        self._on_message, self._on_warning = on_message, on_warning
        self.buffer = EgoMotionBuffer(
            EgoMotionSettings(future_tolerance_s=parameters.future_tolerance_s)
        )
        self.frame = ""
        self.received = 0
        self._arrivals: deque[float] = deque(maxlen=2048)
        self._started_s = time.monotonic()
        self._subscription = node.create_subscription(
            Odometry,
            "~/input/odometry",
            self._on_odometry,
            qos.ODOMETRY,
            event_callbacks=qos.no_events(),
        )

    def close(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)

    def clear(self) -> None:
        """Forget all odometry."""
        self.buffer.clear()

    def silent_s(self, steady_s: float) -> float | None:
        """Return the steady time since the newest message, None before the first."""
        return steady_s - self._arrivals[-1] if self._arrivals else None

    def rate_hz(self, steady_s: float) -> float:
        """Return the rate of receipt over the last seconds."""
        span_s = min(_RATE_WINDOW_S, max(steady_s - self._started_s, 1e-3))
        while self._arrivals and len(self._arrivals) > 1 and steady_s - self._arrivals[0] > span_s:
            self._arrivals.popleft()
        return sum(1 for arrival in self._arrivals if steady_s - arrival <= span_s) / span_s

    def why_silent(self) -> str:
        """Return why odometry cannot arrive, "" where the graph shows no reason."""
        topic = self._node.resolve_topic_name("~/input/odometry")
        return why_silent(self._node, topic, "nav_msgs/msg/Odometry", qos.ODOMETRY)

    def _on_odometry(self, message: Odometry) -> None:
        self.received += 1
        self._arrivals.append(time.monotonic())
        expected = self._rig.odometry_child_frame
        if message.child_frame_id != expected:
            self._on_message(
                "wrong_twist_frame",
                f"odometry's child_frame_id is {message.child_frame_id!r}, expected {expected!r}; "
                "set odometry.child_frame and odometry.base_from_twist in the rig file",
            )
            return
        if not message.header.frame_id:
            self._on_message("wrong_odometry_frame", "odometry's header.frame_id is empty")
            return
        now_ns = self._node.get_clock().now().nanoseconds
        if now_ns == 0:
            self._on_message("clock_silent", "use_sim_time is set and nothing was heard on /clock")
            return
        if self.frame and message.header.frame_id != self.frame:
            self._on_warning(
                "odometry_frame_changed",
                f"odometry's frame went from {self.frame!r} to {message.header.frame_id!r}",
            )
            self.buffer.clear()
        self.frame = message.header.frame_id
        planar = conversions.planar_odometry(message)
        pose, twist = in_base_frame(*planar, self._rig.base_from_twist)
        jumps, rejected = self.buffer.jumps, self.buffer.rejected.copy()
        stamp_ns = conversions.stamp_to_ns(message.header.stamp)
        if not self.buffer.add(stamp_ns, pose, twist, now_ns=now_ns):
            cause = next(iter(self.buffer.rejected - rejected))
            report = self._on_warning if cause == "stamp_repeated" else self._on_message
            report(f"odometry_{cause}", f"odometry: {_EXPLANATIONS.get(cause, cause)}")
            return
        self._on_message("", "")
        if self.buffer.jumps > jumps:
            self._on_warning(
                "odometry_jump",
                "an odometry pose disagrees with its twist; history goes on by the twist",
            )


@dataclass(frozen=True)
class CommandInput:
    """What is known about the command at one moment, before the route is looked at.

    Attributes:
        command: as it was received, UNKNOWN where it was not.
        route: (N, 2) points in ``route_frame``, m, where the command comes from a route.
        problem: why the command is unknown, empty where it is not.
    """

    command: Command = Command.UNKNOWN
    route: NDArray[np.float64] | None = None
    route_frame: str = ""
    problem: str = ""

    def resolve(
        self, ego: EgoMotion, odometry_frame: str, speed_limit_mps: float
    ) -> tuple[Command, str]:
        """Return the command at the ego's pose and, where it is unknown, why."""
        if self.problem:
            return Command.UNKNOWN, self.problem
        if self.route is None:
            problem = "command_unknown" if self.command is Command.UNKNOWN else ""
            return self.command, problem
        if self.route_frame != odometry_frame:
            return Command.UNKNOWN, "route_wrong_frame"
        route_ego = se2.transform_points(se2.inverse(ego.pose), self.route)
        command = route_command(route_ego, speed_limit_mps)
        return command, "route_unknown" if command is Command.UNKNOWN else ""


class CommandSource:
    """Subscribes to the command or the route; owned by the executor thread."""

    def __init__(self, node: Node, parameters: PlannerParameters, on_warning: OnProblem) -> None:
        self._node, self._on_warning = node, on_warning
        self._tolerance_ns = round(parameters.future_tolerance_s * 1e9)
        self._newest: CommandInput | None = None
        self._stamp_ns = 0
        self._before_jump = False
        self._from_route = parameters.command_source == "route"
        if self._from_route:
            self._subscription = node.create_subscription(
                Path,
                "~/input/route",
                self._on_route,
                qos.COMMAND,
                event_callbacks=qos.no_events(),
            )
        else:
            self._subscription = node.create_subscription(
                DrivingCommand,
                "~/input/command",
                self._on_command,
                qos.COMMAND,
                event_callbacks=qos.no_events(),
            )

    def close(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)

    def clear(self) -> None:
        """Take note of a clock jump: the command's stamp no longer says how old it is."""
        self._before_jump = self._newest is not None

    def at(self, t0_ns: int, timeout_s: float) -> CommandInput:
        """Return what holds at t0; ``timeout_s`` of 0 lets a command hold until the next one.

        After a clock jump a command that may expire has expired, since its age is not known; one
        that holds until the next one, as a latched one does, still holds.

        Stamps are judged here and not on arrival: a latched command may come before the clock does.
        """
        name = "route" if self._from_route else "command"
        if self._newest is None:
            return CommandInput(problem=f"{name}_missing")
        if self._stamp_ns <= 0:
            return CommandInput(problem=f"{name}_zero_stamp")
        if self._before_jump:
            return CommandInput(problem=f"{name}_expired") if timeout_s > 0 else self._newest
        now_ns = self._node.get_clock().now().nanoseconds
        if self._stamp_ns > now_ns + self._tolerance_ns:
            return CommandInput(problem=f"{name}_future_stamp")
        if timeout_s > 0 and t0_ns - self._stamp_ns > timeout_s * 1e9:
            return CommandInput(problem=f"{name}_expired")
        return self._newest

    def why_silent(self) -> str:
        """Return why no command or route can arrive, "" where one has, or no reason shows."""
        if self._newest is not None:
            return ""
        name, kind = "~/input/command", "latentvla_msgs/msg/DrivingCommand"
        if self._from_route:
            name, kind = "~/input/route", "nav_msgs/msg/Path"
        return why_silent(self._node, self._node.resolve_topic_name(name), kind, qos.COMMAND)

    def _on_command(self, message: DrivingCommand) -> None:
        if message.command not in tuple(Command):
            self._on_warning("command_invalid", f"command {message.command}, expected 0 to 3")
            return
        self._newest = CommandInput(Command(message.command))
        self._stamp_ns = conversions.stamp_to_ns(message.header.stamp)
        self._before_jump = False

    def _on_route(self, message: Path) -> None:
        route = conversions.path_points(message)
        if not np.isfinite(route).all():
            self._on_warning("route_invalid", "a point of the route is not finite")
            return
        self._newest = CommandInput(route=route, route_frame=message.header.frame_id)
        self._stamp_ns = conversions.stamp_to_ns(message.header.stamp)
        self._before_jump = False
