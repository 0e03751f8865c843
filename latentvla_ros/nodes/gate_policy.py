"""What the gate does with a plan and with silence; no ROS, both clocks are arguments.

A plan passes when it is new, finite, fresh and drivable. Nothing old is ever repeated. After a
time-out, and only where it is told to, the gate makes a comfortable and then an emergency stop
along the last plan's path, or from the measured motion where a clock jump has made that path
useless. The first cause of trouble stays visible.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.geometry.trajectory import Trajectory
from latentvla_ros.safety.plan_checks import PlanLimits, check_trajectory
from latentvla_ros.safety.stop_trajectory import (
    StopSettings,
    StopStage,
    stop_along,
    stop_from_motion,
)

#: A t0 this far ahead of the clock is still taken for clock granularity.
FUTURE_TOLERANCE_S = 0.1

Mode = Literal["waiting", "passing", "timed_out", "comfortable_stop", "emergency_stop"]


@dataclass(frozen=True)
class GatedPlan:
    """A plan as the gate sees it.

    Attributes:
        stamp_ns: t0. sequence: the planner's counter. frame: of poses and trajectory.
        ego_pose: (3,) at t0. trajectory: 41 points. base_frame: what the poses are poses of.
    """

    stamp_ns: int
    sequence: int
    frame: str
    ego_pose: NDArray[np.float64]
    trajectory: Trajectory
    base_frame: str = ""


@dataclass(frozen=True)
class MeasuredMotion:
    """What fresh odometry says.

    Attributes:
        frame: of the pose. base_frame: what it is the pose of. pose: (3,).
        speed_mps: along x. yaw_rate_radps: left positive.
    """

    frame: str
    base_frame: str
    pose: NDArray[np.float64]
    speed_mps: float
    yaw_rate_radps: float


@dataclass(frozen=True)
class _BegunStop:
    """A stop as it was begun: its stage, t0 (ns), course, and the frames of that."""

    stage: StopStage
    stamp_ns: int
    trajectory: Trajectory
    frame: str
    base_frame: str


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

    @property
    def stop_frames(self) -> tuple[str, str]:
        """Frame of the stop that was begun, and what its poses are poses of; empty without one."""
        return ("", "") if self._begun is None else (self._begun.frame, self._begun.base_frame)

    def check(self, steady_s: float, motion: MeasuredMotion | None = None) -> StopStage:
        """Update the mode for the silence so far; returns the stop that is asked for now.

        Args:
            motion: measured now, None where it is not known.

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
        if not self._stops or (self.last is None and self._begun is None and motion is None):
            self.mode = "timed_out"
            return "none"
        self.mode = "emergency_stop" if stage == "emergency" else "comfortable_stop"
        return stage

    def stop(
        self, stage: StopStage, now_ns: int, motion: MeasuredMotion | None
    ) -> Trajectory | None:
        """Return the stop from now on along the last plan's path; without one, from the motion.

        None where neither is known.

        A stop goes on from where the stop that was begun has got to, not from where the plan would
        be by now: the vehicle has braked since.

        Args:
            motion: measured, where it is known; otherwise the stop is taken to be followed.
        """
        deceleration = self._stop.deceleration_mps2(stage)
        speed_mps = None if motion is None else motion.speed_mps
        begun = self._begun
        if begun is None or begun.stage != stage:
            before = begun or self.last
            if before is not None:
                elapsed_s = (now_ns - before.stamp_ns) * 1e-9
                trajectory = stop_along(before.trajectory, elapsed_s, deceleration, speed_mps)
                frames = before.frame, before.base_frame
            elif motion is not None:
                trajectory = stop_from_motion(
                    motion.speed_mps, motion.yaw_rate_radps, deceleration
                ).in_frame(motion.pose)
                frames = motion.frame, motion.base_frame
            else:
                return None
            begun = self._begun = _BegunStop(stage, now_ns, trajectory, *frames)
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
