"""One frame set to one plan, or to a named reason why not. No ROS: the inference thread runs it.

decode, rectify, resize -> observation -> backend -> resampled trajectory -> checks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import Command, EgoMotion, Observation, Plan, Rig, View
from latentvla_ros.geometry.trajectory import Trajectory
from latentvla_ros.nodes.overlay import draw_latent_actions, draw_plan
from latentvla_ros.nodes.raw_images import understood
from latentvla_ros.runtime.planner import Planner
from latentvla_ros.safety.health import HealthState
from latentvla_ros.safety.plan_checks import PlanLimits, check_plan
from latentvla_ros.sensing.camera_synchronizer import FrameSet
from latentvla_ros.sensing.ego_motion_buffer import EgoMotionBuffer, OdometryStale, WarmingUp
from latentvla_ros.sensing.image_decoding import CompressedImage, ImageError, RawImage
from latentvla_ros.sensing.observation_builder import CameraFrame, ObservationBuilder
from latentvla_ros.sensing.preprocessing import ViewPreprocessor

#: A past view may be missing for so long after the first frame without being a fault.
PAST_WARM_UP_S = 1.0


@dataclass(frozen=True)
class CommandRequest:
    """How to get the command of one plan.

    Attributes:
        resolve: from the ego's state at t0 to the command and, where it is unknown, the cause.
        required: whether an unknown command means no plan.
    """

    resolve: Callable[[EgoMotion], tuple[Command, str]]
    required: bool


@dataclass(frozen=True)
class PlanJob:
    """What one plan is made from, and held against.

    ``generation`` changes when buffers were cleared; ``with_overlay`` asks for a picture.
    """

    frames: FrameSet[CompressedImage | RawImage]
    command: CommandRequest
    limits: PlanLimits
    generation: int
    with_overlay: bool = False


@dataclass(frozen=True)
class Notice:
    """Something worth a diagnostic that did not prevent the plan."""

    cause: str
    severity: HealthState
    detail: str


@dataclass(frozen=True)
class MadePlan:
    """A plan that passed the checks.

    Attributes:
        plan: of the network. trajectory: its 41 points, ego frame of t0.
        ego: state at t0, its pose in the odometry frame.
        command: that was used.
        inputs_ns: exposure stamps by view, ``front`` or, for a past view, ``front@-0.5``.
        stages_s: steady seconds per stage: ``observation``, ``backend``, ``checks``.
        notices: what to warn about.
        overlay: (H, W, 3) RGB, the plan drawn into the reference camera's view, where asked for.
    """

    job: PlanJob
    plan: Plan
    trajectory: Trajectory
    ego: EgoMotion
    command: Command
    inputs_ns: dict[str, int]
    stages_s: dict[str, float]
    notices: tuple[Notice, ...] = ()
    overlay: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class NoPlan:
    """Why a frame set made no plan."""

    job: PlanJob
    cause: str
    severity: HealthState
    detail: str
    notices: tuple[Notice, ...] = field(default=())


class PlanMaker:
    """Makes plans with one loaded bundle and one rig; owned by the inference thread."""

    def __init__(
        self,
        planner: Planner,
        rig: Rig,
        preprocessors: Mapping[str, ViewPreprocessor],
        ego_motion: EgoMotionBuffer,
        now_ns: Callable[[], int],
    ) -> None:
        """Prepare buffers; raises ContractError as ``ObservationBuilder`` does."""
        self._planner, self._ego_motion, self._now_ns = planner, ego_motion, now_ns
        self._builder = ObservationBuilder(planner.bundle.manifest, rig, preprocessors)
        self._slots = frozenset(preprocessors)
        self._generation = -1
        self._first_t0_ns = 0

    def make(self, job: PlanJob) -> MadePlan | NoPlan:
        """Make the plan of one frame set."""
        t0_ns = job.frames.stamp_ns
        if job.generation != self._generation:
            self._builder.clear()
            self._generation, self._first_t0_ns = job.generation, t0_ns
        started_s = time.monotonic()
        frames = {
            slot: CameraFrame(frame.stamp_ns, understood(frame.payload))
            for slot, frame in job.frames.frames.items()
        }
        masked = self._builder.drops.copy()
        try:
            ego = self._ego_motion.at(t0_ns)
            command, problem = job.command.resolve(ego)
            if problem and job.command.required:
                return self._none(
                    job, problem, HealthState.ERROR, "the command is unknown and required"
                )
            observation = self._builder.build(frames, self._ego_motion, t0_ns, command)
        except WarmingUp as error:
            self._remember(frames)
            return self._none(job, "warming_up", HealthState.WARMING_UP, str(error))
        except OdometryStale as error:
            self._remember(frames)
            return self._none(job, "odometry_stale", HealthState.ERROR, str(error))
        except ImageError as error:
            named = [slot for slot in frames if f"camera {slot!r}" in error.detail]
            cause = "_".join(["image", error.cause, *named[:1]])
            return self._none(job, cause, HealthState.ERROR, error.detail)
        notices = self._masked_views(job, masked)
        if problem:
            notices.append(Notice(problem, HealthState.DEGRADED, "planning with command unknown"))
        built_s = time.monotonic()
        plan = self._planner.plan(observation)
        planned_s = time.monotonic()
        if not np.isfinite(plan.scores).all():
            return self._none(job, "plan_not_finite", HealthState.ERROR, "a score", notices)
        check = check_plan(
            plan.poses, float(ego.dynamics[0]), (self._now_ns() - t0_ns) * 1e-9, job.limits
        )
        if check.trajectory is None or check.violations:
            worst = check.violations[0]
            detail = "; ".join(str(violation) for violation in check.violations)
            return self._none(job, f"plan_{worst.name}", HealthState.ERROR, detail, notices)
        return MadePlan(
            job=job,
            plan=plan,
            trajectory=check.trajectory,
            ego=ego,
            command=command,
            inputs_ns=self._inputs_ns(),
            stages_s={
                "observation": built_s - started_s,
                **plan.timings_s,
                "checks": time.monotonic() - planned_s,
            },
            notices=tuple(notices),
            overlay=self._overlay(observation, plan, check.trajectory)
            if job.with_overlay
            else None,
        )

    def _overlay(
        self, observation: Observation, plan: Plan, trajectory: Trajectory
    ) -> NDArray[np.uint8]:
        """Return the reference camera's current view with the plan drawn into it."""
        view = self._builder.manifest.views.index(View(self._builder.rig.reference_camera))
        picture = draw_plan(
            observation.images[view],
            observation.intrinsics[view],
            observation.ego_from_camera[view],
            trajectory,
        )
        names = self._builder.manifest.latent_action_names
        if names is not None:
            draw_latent_actions(picture, plan, names)
        return picture

    def _none(
        self,
        job: PlanJob,
        cause: str,
        severity: HealthState,
        detail: str,
        notices: list[Notice] | None = None,
    ) -> NoPlan:
        return NoPlan(job, cause, severity, detail, tuple(notices or ()))

    def _remember(self, frames: Mapping[str, CameraFrame]) -> None:
        """Keep frames for the past views of the first plans; a bad one shows when it is current."""
        for slot, frame in frames.items():
            if slot in self._slots:
                try:
                    self._builder.remember(slot, frame)
                except ImageError:
                    continue

    def _masked_views(self, job: PlanJob, before: Mapping[str, int]) -> list[Notice]:
        """Return a notice per optional or past view that the last observation went without."""
        young = job.frames.stamp_ns - self._first_t0_ns < PAST_WARM_UP_S * 1e9
        notices = []
        for name, count in self._builder.drops.items():
            if count == before.get(name, 0):
                continue
            if name.startswith("no_past_"):
                severity = HealthState.WARMING_UP if young else HealthState.DEGRADED
                detail = f"no frame near the time of a past view of {name.removeprefix('no_past_')}"
                notices.append(Notice(name, severity, detail))
            else:
                detail = "an optional camera's image cannot be used; its view is masked"
                notices.append(Notice(f"image_{name}", HealthState.DEGRADED, detail))
        return notices

    def _inputs_ns(self) -> dict[str, int]:
        views = self._builder.manifest.views
        names = [
            view.slot if view.time_offset_s == 0 else f"{view.slot}@{view.time_offset_s:g}"
            for view in views
        ]
        stamps = self._builder.view_stamps_ns
        return {name: stamp for name, stamp in zip(names, stamps, strict=True) if stamp is not None}
