"""``planner_node``: a lifecycle node that turns camera images and odometry into trajectories.

It detects and reports; it never repeats an old plan as new. One single-threaded executor, one
inference thread. ``Pipeline`` is what runs between configure and cleanup.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps

from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from latentvla_msgs.srv import ReloadBundle
from latentvla_ros.contract import ContractError
from latentvla_ros.nodes import parameters as node_parameters
from latentvla_ros.nodes.bundle_loader import BundleLoader
from latentvla_ros.nodes.clock_watch import ClockWatch
from latentvla_ros.nodes.diagnostics import StatusPublisher
from latentvla_ros.nodes.parameters import PlannerParameters
from latentvla_ros.nodes.pipeline import Pipeline
from latentvla_ros.nodes.process import run_node
from latentvla_ros.runtime.bundle import Bundle, BundleError, load_bundle
from latentvla_ros.safety.health import HealthMonitor, HealthState
from latentvla_ros.sensing.rig_file import load_rig

_TICK_S = 0.2
_FOREVER_S = float("inf")


_Transition = Callable[["PlannerNode", LifecycleState], TransitionCallbackReturn]


def _said(transition: _Transition) -> _Transition:
    """Report what a transition raises: rclpy swallows it, and nobody would learn why it failed."""

    @wraps(transition)
    def reporting(node: PlannerNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except Exception as error:  # a defect of ours, by definition of every unforeseen kind
            node.report_internal_error(transition.__name__, error)
            return TransitionCallbackReturn.ERROR

    return reporting


class PlannerNode(LifecycleNode):
    """See the module; raises ContractError for parameters that are not allowed."""

    def __init__(self, name: str = "planner_node", **options: object) -> None:
        super().__init__(name, **options)
        self.parameters = node_parameters.declare(self, PlannerParameters)
        self._limits = node_parameters.declare_limits(self, self.parameters.max_plan_age_s)
        self.add_on_set_parameters_callback(self._on_parameters)
        self.pipeline: Pipeline | None = None
        self._lifecycle_state = "unconfigured"
        self._internal_error = ""
        self._health = HealthMonitor()
        self._shown: tuple[object, ...] = ()
        self._status = StatusPublisher(self)
        self._clock_watch = ClockWatch(self, self._on_clock_jump)
        self._loaded = self.create_guard_condition(self._on_loaded)
        self._loader = BundleLoader(self._loaded.trigger)
        self.create_service(ReloadBundle, "~/reload_bundle", self._on_reload)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_TICK_S, self._on_tick, clock=steady)
        self.create_timer(self.parameters.diagnostics_period_s, self._on_period, clock=steady)
        self._publish_status()

    def close(self) -> None:
        """End every thread of the node; call it before ``destroy_node``."""
        self._loader.close()
        if self.pipeline is not None:
            self.pipeline.close()
            self.pipeline = None

    # Lifecycle.

    @_said
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Verify rig and bundle, subscribe, and start loading the bundle in a worker."""
        self._health.unconfigure()
        try:
            if not self.parameters.rig:
                raise ContractError("rig", "", "the path of a rig file (parameter rig)")
            rig = load_rig(self.parameters.rig)
            bundle = load_bundle(self.parameters.bundle)
            self.pipeline = Pipeline(self, bundle, rig, self.parameters, self._limits, self._health)
        except (ContractError, OSError) as error:
            cause = "bundle_error" if isinstance(error, BundleError) else "configuration_error"
            self._fault_forever(cause, str(error))
            self._publish_status()
            return TransitionCallbackReturn.FAILURE
        self._health.configure()
        self._load(bundle)
        return self._enter("inactive", super().on_configure(state))

    @_said
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to plan; fails while the bundle is not loaded or a camera was not accepted."""
        if self.pipeline is None or self.pipeline.planner is None:
            why = "the bundle is still being loaded" if self._loader.loading else "no bundle"
            self.get_logger().warning(f"cannot activate yet: {why}", throttle_duration_sec=1.0)
            return TransitionCallbackReturn.FAILURE
        for slot in self.pipeline.cameras.uncalibrated:
            if slot in self.pipeline.cameras.rejected:
                self.get_logger().error(self.pipeline.cameras.rejected[slot])
                return TransitionCallbackReturn.FAILURE
        self._health.reset()
        result = super().on_activate(state)
        self.pipeline.activate()
        return self._enter("active", result)

    @_said
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop planning; inputs stay subscribed."""
        if self.pipeline is not None:
            self.pipeline.deactivate()
        return self._enter("inactive", super().on_deactivate(state))

    @_said
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the bundle and unsubscribe."""
        result = super().on_cleanup(state)
        self.close()
        self._health.unconfigure()
        return self._enter("unconfigured", result)

    @_said
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything for good."""
        result = super().on_shutdown(state)
        self.close()
        self._health.unconfigure()
        return self._enter("finalized", result)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Come back to unconfigured after a transition that failed in an unforeseen way."""
        result = self.on_cleanup(state)
        if self._internal_error:
            self._fault_forever("internal_error", self._internal_error)
            self._internal_error = ""
            self._publish_status()
        return result

    def report_internal_error(self, where: str, error: Exception) -> None:
        """Say in log and status what went wrong in a way that nobody foresaw."""
        self._internal_error = f"{where}: {type(error).__name__}: {error}"
        trace = "".join(traceback.format_exception(error))
        self.get_logger().error(f"internal_error: {self._internal_error}; please report\n{trace}")
        self._fault_forever("internal_error", self._internal_error)
        self._publish_status()

    def _enter(
        self, lifecycle_state: str, result: TransitionCallbackReturn
    ) -> TransitionCallbackReturn:
        if result == TransitionCallbackReturn.SUCCESS:
            self._lifecycle_state = lifecycle_state
            self._publish_status()
        return result

    # Bundles.

    def _load(self, bundle: Bundle) -> None:
        self._loader.start(bundle, self.parameters.backend, self.parameters.threads)
        if self._lifecycle_state != "active":
            self._health.fault(
                "loading",
                HealthState.WARMING_UP,
                f"bundle {bundle.manifest.bundle_id} is being loaded",
                time.monotonic(),
                hold_s=_FOREVER_S,
            )

    def _on_loaded(self) -> None:
        loaded = self._loader.take()
        if loaded is None or self.pipeline is None:
            return
        self._health.end("loading")
        error = loaded.error
        if loaded.planner is not None:
            try:
                self.pipeline.use(loaded.planner)
            except ContractError as problem:
                error = str(problem)
        if error:
            self._fault_forever("bundle_error", error)
        else:
            self._health.end("bundle_error")
            self.get_logger().info(f"bundle {loaded.bundle.manifest.bundle_id} is ready")
        self._publish_status()

    def _on_reload(
        self, request: ReloadBundle.Request, response: ReloadBundle.Response
    ) -> ReloadBundle.Response:
        name = request.bundle or self.parameters.bundle
        if self.pipeline is None:
            response.message = "configure the node first"
        elif self._lifecycle_state == "active" and not self.parameters.allow_hot_reload:
            response.message = "the node is active and allow_hot_reload is false: deactivate first"
        elif self._loader.loading:
            response.message = "a bundle is already being loaded"
        else:
            if not request.bundle:
                name = str(self.pipeline.bundle.path)
            try:
                bundle = load_bundle(name)
            except (ContractError, OSError) as error:
                response.message = str(error)
                return response
            self._load(bundle)
            response.success = True
            response.bundle_id = bundle.manifest.bundle_id
            response.message = "verified; being loaded"
        return response

    # Watching.

    def _on_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        try:
            self.parameters = node_parameters.updated(self.parameters, changes)
        except ContractError as error:
            return node_parameters.refused(error)
        self._limits = replace(self._limits, deadline_s=self.parameters.max_plan_age_s)
        if self.pipeline is not None:
            self.pipeline.parameters, self.pipeline.limits = self.parameters, self._limits
        return SetParametersResult(successful=True)

    def _on_clock_jump(self, words: str) -> None:
        self.get_logger().warning(f"clock jump: {words}; every buffered input is forgotten")
        if self.pipeline is not None:
            self.pipeline.clear()
            self._health.fault("clock_jump", HealthState.DEGRADED, words, time.monotonic())

    def _on_tick(self) -> None:
        still_s = self._clock_watch.check()
        if still_s and self.pipeline is not None:
            self._health.fault(
                "clock_silent",
                HealthState.ERROR,
                f"use_sim_time is set and /clock has not moved for {still_s:.1f} s",
                time.monotonic(),
                hold_s=2 * _TICK_S,
            )
        health = self._health.status(time.monotonic())
        shown = (self._lifecycle_state, health.state, *(cause.name for cause in health.active[:1]))
        if shown != self._shown:
            self._shown = shown
            self._publish_status()
            if health.active and health.state >= HealthState.DEGRADED:
                cause = health.active[0]
                # Two calls: a call site of rclpy's logger keeps the severity of its first use.
                if cause.severity is HealthState.ERROR:
                    self.get_logger().error(f"{cause.name}: {cause.detail}")
                else:
                    self.get_logger().warning(f"{cause.name}: {cause.detail}")

    def _on_period(self) -> None:
        if self.pipeline is not None:
            self.pipeline.tick()
        self._publish_status()

    def _publish_status(self) -> None:
        health = self._health.status(time.monotonic())
        self._status.publish(self._lifecycle_state, health, self.pipeline)

    def _fault_forever(self, cause: str, detail: str) -> None:
        self._health.fault(cause, HealthState.ERROR, detail, time.monotonic(), hold_s=_FOREVER_S)


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; returns the exit status."""
    return run_node("planner_node", PlannerNode, args)


if __name__ == "__main__":
    sys.exit(main())
