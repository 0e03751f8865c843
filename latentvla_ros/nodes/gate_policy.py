"""What the gate does with a plan and with silence; no ROS, both clocks are arguments.

A plan passes when it is new, finite, fresh and drivable. Nothing old is ever repeated. After a
time-out, and only where it is told to, the gate makes a comfortable and then an emergency stop
along the last plan's path. The first cause of trouble stays visible.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.geometry.trajectory import Trajectory
from latentvla_ros.safety.plan_checks import PlanLimits, check_trajectory
from latentvla_ros.safety.stop_trajectory import StopSettings, StopStage, stop_along

#: A t0 this far ahead of the clock is still taken for clock granularity.
FUTURE_TOLERANCE_S = 0.1

Mode = Literal["waiting", "passing", "timed_out", "comfortable_stop", "emergency_stop"]


@dataclass(frozen=True)
class GatedPlan:
    """A plan as the gate sees it.

    Attributes:
        stamp_ns: t0. sequence: the planner's counter. frame: of poses and trajectory.
        ego_pose: (3,) at t0. trajectory: 41 points.
    """

    stamp_ns: int
    sequence: int
    frame: str
    ego_pose: NDArray[np.float64]
    trajectory: Trajectory


@dataclass(frozen=True)
class _BegunStop:
    """A stop as it was begun: its stage, t0 (ns) and course."""

    stage: StopStage
    stamp_ns: int
    trajectory: Trajectory


class GatePolicy:
    """Judges plans and silence; owned by the executor thread.

    Attributes:
        mode: now. cause: of a mode that is not ``passing``. first_cause: sticky since the start.
        passed: plans. rejects: by cause. last: the newest plan that passed.
    """

    def __init__(self, limits: PlanLimits, stop: StopSettings, stops: bool) -> None:
        """Judge plans by ``limits``; ``stops`` is whether time-outs are answered with stops."""
        self._limits, self._stop, self._stops = limits, stop, stops
        self.mode: Mode = "waiting"
        self.cause = "no plan yet"
        self.first_cause = ""
        self.passed = 0
        self.rejects: Counter[str] = Counter()
        self.last: GatedPlan | None = None
        self._last_reject = ""
        self._last_s: float | None = None
        self._begun: _BegunStop | None = None

    def offer(self, plan: GatedPlan, now_ns: int, steady_s: float) -> str:
        """Judge a plan.

        Returns:
            "" when it passes, else the cause of rejection, already counted.
        """
        cause = self._problem(plan, now_ns)
        if cause:
            self.reject(cause)
            return cause
        self.passed += 1
        self.last, self._last_s, self._begun = plan, steady_s, None
        self.mode, self.cause, self._last_reject = "passing", "", ""
        return ""

    def reject(self, cause: str) -> None:
        """Count a plan that was refused."""
        self.rejects[cause] += 1
        self.first_cause = self.first_cause or f"rejected: {cause}"
        self._last_reject = cause
        if self._last_s is None:
            self.cause = f"no plan yet; the last one was rejected: {cause}"

    def forget(self) -> None:
        """Forget the last plan, as after a clock jump: t0 and now are no longer of one clock."""
        self.last = self._begun = None

    def silent_s(self, steady_s: float) -> float | None:
        """Return the steady time since the last plan passed, None before the first."""
        return None if self._last_s is None else steady_s - self._last_s

    def check(self, steady_s: float) -> StopStage:
        """Update the mode for the silence so far; returns the stop that is asked for now.

        Before the first plan nothing is asked for: there is nothing to stop along, and the vehicle
        is not ours yet.
        """
        silent_s = self.silent_s(steady_s)
        if silent_s is None:
            return "none"
        stage = self._stop.stage(silent_s)
        if stage == "none":
            return "none"
        because = f"; the last one was rejected: {self._last_reject}" if self._last_reject else ""
        self.cause = f"no plan for {silent_s:.1f} s{because}"
        self.first_cause = self.first_cause or "timed_out"
        if not self._stops or self.last is None:
            self.mode = "timed_out"
            return "none"
        self.mode = "emergency_stop" if stage == "emergency" else "comfortable_stop"
        return stage

    def stop(self, stage: StopStage, now_ns: int, speed_mps: float | None) -> Trajectory | None:
        """Return the stop from now on along the last plan's path; None when there is none.

        A stop goes on from where the stop that was begun has got to, not from where the plan would
        be by now: the vehicle has braked since.

        Args:
            speed_mps: measured, where it is known; otherwise the stop is taken to be followed.
        """
        if self.last is None:
            return None
        deceleration = self._stop.deceleration_mps2(stage)
        begun = self._begun
        if begun is None or begun.stage != stage:
            before, since_ns = (
                (self.last.trajectory, self.last.stamp_ns)
                if begun is None
                else (begun.trajectory, begun.stamp_ns)
            )
            elapsed_s = (now_ns - since_ns) * 1e-9
            trajectory = stop_along(before, elapsed_s, deceleration, speed_mps)
            begun = self._begun = _BegunStop(stage, now_ns, trajectory)
        elapsed_s = (now_ns - begun.stamp_ns) * 1e-9
        return stop_along(begun.trajectory, elapsed_s, deceleration, speed_mps)

    def _problem(self, plan: GatedPlan, now_ns: int) -> str:
        if plan.stamp_ns <= 0:
            return "zero_stamp"
        if not plan.frame:
            return "no_frame"
        if self.last is not None and plan.stamp_ns <= self.last.stamp_ns:
            return "not_newer"
        age_s = (now_ns - plan.stamp_ns) * 1e-9
        if age_s < -FUTURE_TOLERANCE_S:
            return "from_future"
        violations = check_trajectory(
            plan.trajectory,
            float(plan.trajectory.speeds[0]),
            age_s,
            plan.ego_pose,
            self._limits,
        )
        return violations[0].name if violations else ""
