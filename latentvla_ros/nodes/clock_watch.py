"""Notices a ROS clock that jumps, under simulated and under system time, or that stands still."""

from __future__ import annotations

import time
from collections.abc import Callable

from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time_source import USE_SIM_TIME_NAME

#: A step forward of more than this is a jump; so is any step back of simulated time.
FORWARD_JUMP_S = 1.0
#: System time may be slewed; a step of more than this against steady time is a jump.
SYSTEM_JUMP_S = 0.25
#: Simulated time that has not moved for so long stands still.
SILENT_AFTER_S = 1.0
#: Readings of both clocks further apart than this (we were not scheduled) are not compared.
_APART_S = 0.05


class ClockWatch:
    """Owned by the executor thread; ``on_jump`` is called with words for people."""

    def __init__(self, node: Node, on_jump: Callable[[str], None]) -> None:
        self._node, self._on_jump = node, on_jump
        self._clock = node.get_clock()
        self._newest_ns = int(self._clock.now().nanoseconds)
        self._moved_s = self._checked_s = time.monotonic()
        threshold = JumpThreshold(
            min_forward=Duration(seconds=FORWARD_JUMP_S),
            min_backward=Duration(nanoseconds=-1),
            on_clock_change=False,
        )
        self._handle = self._clock.create_jump_callback(threshold, post_callback=self._on_step)

    @property
    def simulated(self) -> bool:
        """Whether time comes from /clock."""
        return bool(self._node.get_parameter(USE_SIM_TIME_NAME).value)

    def check(self) -> float:
        """Compare with steady time; returns for how long simulated time has stood still, else 0."""
        before_s = time.monotonic()
        now_ns, steady_s = int(self._clock.now().nanoseconds), time.monotonic()
        if not self.simulated and steady_s - before_s > _APART_S:
            return 0.0
        elapsed_s, self._checked_s = steady_s - self._checked_s, steady_s
        step_s = (now_ns - self._newest_ns) * 1e-9
        moved = now_ns != self._newest_ns
        self._newest_ns = now_ns
        if not self.simulated:
            if abs(step_s - elapsed_s) > SYSTEM_JUMP_S:
                self._on_jump(f"system time stepped by {step_s - elapsed_s:+.3f} s")
            return 0.0
        if moved:
            self._moved_s = steady_s
        still_s = steady_s - self._moved_s
        return still_s if still_s > SILENT_AFTER_S else 0.0

    def _on_step(self, jump: object) -> None:
        delta_ns = int(jump.delta.nanoseconds)  # type: ignore[attr-defined]
        # Whole ns: a float of today's time is off by a hundred of them.
        if int(self._clock.now().nanoseconds) <= delta_ns:
            return  # the first message on /clock: time begins
        self._on_jump(f"/clock stepped by {delta_ns * 1e-9:+.3f} s")
