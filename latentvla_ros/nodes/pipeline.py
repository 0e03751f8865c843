"""From messages to published plans: what the planner node runs between configure and cleanup.

Everything here happens on the executor thread except ``PlanMaker.make``, which the inference thread
runs. The path of one frame is that of architecture.md section 4.
"""

from __future__ import annotations

import gc
import time
from collections import Counter, deque
from contextlib import ExitStack
from functools import partial

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode

from latentvla_ros.contract import ContractError, Rig
from latentvla_ros.nodes.camera_inputs import CameraInputs, Payload
from latentvla_ros.nodes.inference_worker import InferenceWorker
from latentvla_ros.nodes.motion_inputs import CommandSource, OdometryInput
from latentvla_ros.nodes.output_frame import NoTransform, OutputFrame
from latentvla_ros.nodes.parameters import PlannerParameters
from latentvla_ros.nodes.plan_maker import CommandRequest, MadePlan, NoPlan, PlanJob, PlanMaker
from latentvla_ros.nodes.plan_publisher import PlanPublisher
from latentvla_ros.runtime.bundle import Bundle
from latentvla_ros.runtime.planner import Planner
from latentvla_ros.safety.health import HealthMonitor, HealthState
from latentvla_ros.safety.plan_checks import PlanLimits
from latentvla_ros.sensing.camera_synchronizer import FrameSet

#: A backend call that lasts longer than this has hung.
STALL_S = 2.0
#: After the first plan, so long a pause is a fault by itself, whatever the reason: longer than
#: warming up anew takes (1.5 s), or a hung backend to be found out.
_NO_PLAN_S = 3.0
_FOREVER_S = float("inf")
#: Frames between collections of young garbage, and between full ones.
_COLLECT_EVERY, _COLLECT_ALL_EVERY = 16, 1024


class Pipeline:
    """Inputs, inference thread and outputs of one rig, with one bundle at a time.

    Attributes:
        bundle: verified. planner: it loaded, None while it is not.
        drops: reference frames that made no plan, by cause.
        plans: published. newest: the last of them, None before the first.
        age_s: ROS time from t0 to publication of the newest plan.
        plan_times_s: steady times of publication of the newest plans.
    """

    def __init__(
        self,
        node: LifecycleNode,
        bundle: Bundle,
        rig: Rig,
        parameters: PlannerParameters,
        limits: PlanLimits,
        health: HealthMonitor,
    ) -> None:
        """Subscribe and advertise.

        Raises:
            ContractError: rig and bundle do not fit, or output_frame needs TF and there is none.
        """
        self._node, self._rig, self._health = node, rig, health
        self.parameters, self.limits = parameters, limits
        self.bundle = bundle
        self.planner: Planner | None = None
        self._retired: list[Planner] = []
        self.drops: Counter[str] = Counter()
        self.plans = 0
        self.newest: MadePlan | None = None
        self.age_s = 0.0
        self.plan_times_s: deque[float] = deque(maxlen=512)
        self.decoded: Counter[str] = Counter()
        self._active = False
        self._watching_plans = False
        self._generation = 0
        self._results_seen = 0
        self._maker: PlanMaker | None = None
        self._maker_calibration = -1
        self._absorbed: Counter[str] = Counter()

        self.cameras = self._new_cameras(bundle)
        with ExitStack() as made:  # an exception halfway leaves nothing subscribed
            self._output_frame = OutputFrame(node, parameters.output_frame)
            made.callback(self._output_frame.close)
            # Cameras last: of what arrives together, the executor takes the older subscription
            # first, and a set of frames is planned with what is known when it is complete.
            self.odometry = OdometryInput(
                node, rig, parameters, self._on_odometry, self._on_odometry_warning
            )
            made.callback(self.odometry.close)
            self._command = CommandSource(node, parameters, self._report)
            made.callback(self._command.close)
            made.callback(lambda: self.cameras.close())  # those of a later bundle, too
            self.cameras.subscribe()
            self._publisher = PlanPublisher(node, self._output_frame, rig.base_frame)
            made.callback(self._publisher.close)
            self._guard = node.create_guard_condition(self._on_results)
            made.callback(node.destroy_guard_condition, self._guard)
            self._wake = node.create_timer(
                max(parameters.sync_wait_s, 1e-3),
                self._on_wake,
                clock=Clock(clock_type=ClockType.STEADY_TIME),
            )
            made.callback(node.destroy_timer, self._wake)
            self._wake.cancel()
            self._worker = InferenceWorker(self._guard.trigger)
            self._made = made.pop_all()

    def close(self) -> None:
        """Unsubscribe, and end the inference thread."""
        self.deactivate()
        ended = self._worker.close()
        if ended and self.planner is not None:
            self._close_retired()
            self.planner.backend.close()
            self.planner = None
        self._made.close()

    def use(self, planner: Planner) -> None:
        """Plan with a loaded bundle from now on.

        Raises:
            ContractError: the rig does not fit it; the present bundle stays.
        """
        if planner.bundle.manifest != self.bundle.manifest:
            cameras = self._new_cameras(planner.bundle)
            self._forget_frames()
            self._unwatch_cameras()
            self.cameras.close()
            self.cameras, self._absorbed = cameras, Counter()
            cameras.subscribe()
            cameras.listening = self._active
            self._watch_cameras()
        if self.planner is not None:
            self._retired.append(self.planner)
        self.planner = planner
        self.bundle, self._maker = planner.bundle, None
        self._generation += 1  # a plan of the bundle before must not go out under this one's name
        self._close_retired()

    def activate(self) -> None:
        """Begin to plan."""
        now_s = time.monotonic()
        self._forget_frames()
        self.cameras.restart_health()
        self._generation += 1
        self._active = self.cameras.listening = True
        self._watch_cameras()
        self._health.watch(
            "odometry_silent", self.parameters.odometry_timeout_s, now_s, detail="~/input/odometry"
        )
        self._health.fault(
            "waiting_for_first_plan",
            HealthState.WARMING_UP,
            "active; no plan yet",
            now_s,
            hold_s=_FOREVER_S,
        )
        # What is there now stays: automatic collections would scan it in the middle of a frame.
        gc.collect()
        gc.freeze()
        gc.disable()

    def deactivate(self) -> None:
        """Stop planning; a plan that is still being made is thrown away."""
        if not self._active:
            return
        self._active = self.cameras.listening = False
        self._generation += 1
        self._wake.cancel()
        self._unwatch_cameras()
        self._health.unwatch("odometry_silent")
        self._health.unwatch("plans_stopped")
        self._watching_plans = False
        self._health.end("waiting_for_first_plan")
        gc.enable()
        gc.unfreeze()

    def clear(self) -> None:
        """Forget every buffered input, as after a clock jump."""
        self._generation += 1
        self._forget_frames()
        self.odometry.clear()
        self._command.clear()

    def tick(self) -> None:
        """Look, regularly, at what no message would tell."""
        busy_s = self._worker.busy_for_s()
        if busy_s > STALL_S:
            self._report(
                "inference_stalled",
                f"the backend has been busy for {busy_s:.1f} s",
                HealthState.ERROR,
            )
        if not self._active:
            return
        now_s = time.monotonic()
        for slot, report in self.cameras.health.report(now_s).items():
            if report.starving:
                camera = self.cameras.cameras[slot]
                reason = "" if report.rate_hz else self.cameras.why_silent(slot)
                reason = reason or "is the Fast DDS profile set where its images are published?"
                self._report(
                    f"camera_starving_{slot}",
                    f"camera {slot!r} ({camera.topic}): {report.starving}; {reason}",
                )
        silent_s = self.odometry.silent_s(now_s)
        if silent_s is None or silent_s > self.parameters.odometry_timeout_s:
            self._explain("odometry_unmatched", self.odometry.why_silent(), HealthState.ERROR)
        self._explain("command_unmatched", self._command.why_silent(), HealthState.DEGRADED)

    def _explain(self, cause: str, reason: str, severity: HealthState) -> None:
        """Report why an input cannot arrive, if there is a reason."""
        if reason:
            self._report(cause, reason, severity)

    def _forget_frames(self) -> None:
        """Clear the rings; reference frames that were waiting in them are counted."""
        self._absorb_drops()
        if self.cameras.synchronizer.pending:
            self.drops["cleared"] += self.cameras.synchronizer.pending
        self.cameras.clear()

    def _close_retired(self) -> None:
        """Free the bundles that were in use before, once no plan is being made with one."""
        while self._retired and self._worker.free:
            self._retired.pop().backend.close()

    def _new_cameras(self, bundle: Bundle) -> CameraInputs:
        return CameraInputs(
            self._node,
            self._rig,
            bundle.manifest,
            self.parameters,
            self._on_frame,
            self._on_refused,
        )

    def _watch_cameras(self) -> None:
        if not self._active:
            return
        for slot, camera in self.cameras.cameras.items():
            self._health.watch(
                f"image_silent_{slot}",
                self.parameters.image_timeout_s,
                time.monotonic(),
                self._loss_of(slot),
                f"camera {slot!r} ({camera.topic})",
            )

    def _unwatch_cameras(self) -> None:
        for slot in self.cameras.cameras:
            self._health.unwatch(f"image_silent_{slot}")

    def _loss_of(self, slot: str) -> HealthState:
        """Return how bad it is to lose a camera."""
        synchronizer = self.cameras.synchronizer
        required = slot == synchronizer.reference or slot in synchronizer.required
        return HealthState.ERROR if required else HealthState.DEGRADED

    def _report(
        self, cause: str, detail: str, severity: HealthState = HealthState.DEGRADED
    ) -> None:
        self._health.fault(cause, severity, detail, time.monotonic())

    def _on_odometry(self, problem: str, detail: str) -> None:
        if problem:
            self._report(problem, detail, HealthState.ERROR)
        else:
            self._health.beat("odometry_silent", time.monotonic())
            if self.parameters.odometry_wait_s > 0:
                self._advance()

    def _on_odometry_warning(self, cause: str, detail: str) -> None:
        if cause == "odometry_frame_changed":
            self._generation += 1  # a plan in the making has its poses in the frame before
        self._report(cause, detail)

    def _on_refused(self, slot: str, cause: str, detail: str) -> None:
        self._report(f"image_{cause}_{slot}", detail, self._loss_of(slot))
        if slot == self.cameras.synchronizer.reference:
            self.drops[f"image_{cause}"] += 1

    def _on_frame(self, slot: str) -> None:
        self._health.beat(f"image_silent_{slot}", time.monotonic())
        self._advance()

    def _on_wake(self) -> None:
        self._wake.cancel()
        self._advance()

    def _advance(self) -> None:
        """Give the worker the newest set of frames, if it is free and there is one."""
        if not self._active or self.planner is None or not self._worker.free:
            return
        self._wake.cancel()
        synchronizer = self.cameras.synchronizer
        wait_s = self._odometry_wait_s(time.monotonic())
        if wait_s is None:
            frames = synchronizer.take(time.monotonic())
            self._absorb_drops()
            if frames is not None:
                self._submit(self.planner, frames)
                return
            wait_s = synchronizer.wake_after_s(time.monotonic())
        if wait_s is not None:
            self._wake.timer_period_ns = max(int(wait_s * 1e9), 1_000_000)
            self._wake.reset()

    def _odometry_wait_s(self, steady_s: float) -> float | None:
        """Return how long the newest frame still waits for odometry of its time; None: it does not.

        Without the wait, a frame that overtakes its odometry is planned by extrapolation.
        """
        newest = self.cameras.synchronizer.newest
        if newest is None or self.parameters.odometry_wait_s <= 0:
            return None
        covered_ns = self.odometry.buffer.newest_stamp_ns
        if covered_ns is not None and covered_ns >= newest.stamp_ns:
            return None
        left_s = newest.received_s + self.parameters.odometry_wait_s - steady_s
        return left_s if left_s > 0 else None

    def _absorb_drops(self) -> None:
        """Take over what the synchroniser has dropped since the last look."""
        for cause, count in (self.cameras.synchronizer.drops - self._absorbed).items():
            self._absorbed[cause] += count
            if cause in ("superseded", "overflow"):
                self.drops[cause] += count
            elif cause.startswith("missing_"):
                self.drops[cause] += count
                slot = cause.removeprefix("missing_")
                self._report(
                    cause,
                    f"camera {slot!r} ({self.cameras.cameras[slot].topic}) has no image within "
                    f"{self.parameters.sync_tolerance_s:g} s of the reference camera's",
                    HealthState.ERROR,
                )

    def _submit(self, planner: Planner, frames: FrameSet[Payload]) -> None:
        if self._maker is None or self._maker_calibration != self.cameras.calibration:
            try:
                self._maker = PlanMaker(
                    planner,
                    self._rig,
                    self.cameras.preprocessors,
                    self.odometry.buffer,
                    lambda: int(self._node.get_clock().now().nanoseconds),
                )
            except ContractError as error:
                self.drops["camera_rejected"] += 1
                self._report("camera_rejected", str(error), HealthState.ERROR)
                return
            self._maker_calibration = self.cameras.calibration
        parameters = self.parameters
        command = self._command.at(frames.stamp_ns, parameters.command_timeout_s)
        request = CommandRequest(
            partial(
                command.resolve,
                odometry_frame=self.odometry.frame,
                speed_limit_mps=parameters.speed_limit_mps,
            ),
            parameters.require_command,
        )
        self._worker.submit(
            self._maker,
            PlanJob(frames, request, self.limits, self._generation, self._publisher.wants_overlay),
        )

    def _on_results(self) -> None:
        for result in self._worker.results():
            if result.job.generation != self._generation:
                self.drops["cleared"] += 1
                continue
            for notice in result.notices:
                self._report(notice.cause, notice.detail, notice.severity)
                self._count_image_fault(notice.cause)
            if isinstance(result, NoPlan):
                self.drops[result.cause] += 1
                self._report(result.cause, result.detail, result.severity)
                self._count_image_fault(result.cause)
            else:
                self._publish(result)
        self._close_retired()
        self._advance()
        self._collect()

    def _collect(self) -> None:
        """Collect garbage between frames: automatic collection is off while planning."""
        self._results_seen += 1
        if self._results_seen % _COLLECT_EVERY == 0:
            gc.collect(2 if self._results_seen % _COLLECT_ALL_EVERY == 0 else 1)

    def _publish(self, made: MadePlan) -> None:
        parameters = self.parameters
        age_s = (self._node.get_clock().now().nanoseconds - made.plan.stamp_ns) * 1e-9
        if age_s > parameters.max_plan_age_s:
            detail = f"{age_s:.3f} s since t0, max_plan_age_s is {parameters.max_plan_age_s:g}"
            self.drops["plan_too_old"] += 1
            self._report("plan_too_old", detail, HealthState.ERROR)
            return
        started_s = time.monotonic()
        try:
            self._publisher.publish(made, self.odometry.frame, self.bundle.manifest, parameters)
        except NoTransform as error:
            self.drops["no_transform"] += 1
            self._report("no_transform", str(error), HealthState.ERROR)
            return
        now_s = time.monotonic()
        self.plans += 1
        self.newest, self.age_s = made, age_s
        self.plan_times_s.append(now_s)
        made.stages_s["publish"] = now_s - started_s
        made.stages_s["receipt_to_publish"] = now_s - made.job.frames.received_s
        self.decoded.update(name.partition("@")[0] for name in made.inputs_ns if "@" not in name)
        for cause in ("waiting_for_first_plan", "warming_up"):
            self._health.end(cause)
        if not self._watching_plans:
            self._watching_plans = True
            self._health.watch("plans_stopped", _NO_PLAN_S, now_s, detail="~/output/trajectory")
        self._health.beat("plans_stopped", now_s)

    def _count_image_fault(self, cause: str) -> None:
        """Charge a camera for an image that the worker could not use (``image_<cause>_<slot>``)."""
        if cause.startswith("image_"):
            name, _, slot = cause.removeprefix("image_").rpartition("_")
            if slot in self.cameras.cameras:
                self.cameras.health.refused(slot, name)
