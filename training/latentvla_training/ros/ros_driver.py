"""Drives with a bundle through the real planner node and gate, over DDS, in lock-step on /clock.

The nodes run as processes of their own, exactly as on a vehicle. Time stands still from the moment
a frame's sensors are published until the gate has passed its plan, or the planner has said why
there is none: what a machine's load does to timing cannot change a plan.
"""

from __future__ import annotations

import time
from collections import Counter

from latentvla_ros.cli.replay_session import PLANNER
from latentvla_ros.contract import ContractError, Plan, Rig
from latentvla_ros.runtime.bundle import load_bundle
from latentvla_ros.sensing.rig_file import check_rig
from latentvla_training.ros import sensor_messages
from latentvla_training.ros.node_pair import LOOK_S, NodePair, NodeProblem, RosDriverSettings
from latentvla_training.ros.world_peer import CLOCK_STEP_NS
from latentvla_training.world.drivers import SensorFrame


class RosDriver:
    """A ``Driver`` whose plans come from the planner node, through the gate.

    Args:
        bundle: name or path. settings: of the nodes.

    Attributes:
        refused: frames after the warm-up that planner or gate gave no plan for, by cause.
        masked: plans that were made without a camera of the rig, by slot.

    Raises:
        BundleError: the bundle is absent or damaged.
    """

    name = "bundle_ros"
    uses_cameras = True

    def __init__(self, bundle: str = "nano", settings: RosDriverSettings | None = None) -> None:
        self.bundle = load_bundle(bundle)
        self.settings = settings or RosDriverSettings()
        self.refused: Counter[str] = Counter()
        self.masked: Counter[str] = Counter()
        self._nodes: NodePair | None = None
        self._stamp_ns = 0
        self._sent = self._planned = self._gate_rejected = 0
        self._drops: dict[str, int] = {}

    def start(self, rig: Rig) -> None:
        """Configure and activate the nodes for a route, with nothing left of the one before.

        Raises:
            ContractError: the rig does not fit the bundle.
            NodeProblem: a node ended, refused or did not answer.
        """
        check_rig(rig, self.bundle.manifest)
        if self._nodes is not None and not self._nodes.can_use(rig):
            self.close()
        try:
            if self._nodes is None:
                self._nodes = NodePair(str(self.bundle.path), rig, self.settings)
            self._nodes.begin_route(rig)
        except BaseException:
            self.close()
            raise
        self._stamp_ns = self._sent = self._planned = 0
        self._drops = {}

    def plan(self, frame: SensorFrame) -> Plan | None:
        """Return the plan of a frame; None while warming up, and where it was refused.

        Raises:
            ContractError: a picture is missing, or the frame is not newer than the one before.
            NodeProblem: a node ended, or nothing came within ``plan_timeout_s``.
        """
        if self._nodes is None:
            raise RuntimeError("plan before start")
        if frame.stamp_ns <= self._stamp_ns:
            raise ContractError("frame.stamp_ns", frame.stamp_ns, f"more than {self._stamp_ns}")
        nodes, world = self._nodes, self._nodes.world
        if self._stamp_ns == 0:
            nodes.begin_time(frame.stamp_ns - CLOCK_STEP_NS)
            assert world.gate_status is not None
            self._gate_rejected = int(world.gate_status.rejected)
        self._stamp_ns = frame.stamp_ns
        world.advance_clock(frame.stamp_ns)
        world.publish(frame)
        self._sent += 1
        began = time.monotonic()
        while not world.wait_for(self._is_answered, LOOK_S):
            nodes.check()
            world.publish_clock(frame.stamp_ns)
            if time.monotonic() - began > self.settings.plan_timeout_s:
                raise NodeProblem(self._what_is_missing())
        return self._answer()

    def close(self) -> None:
        """End both nodes."""
        if self._nodes is not None:
            self._nodes.close()
            self._nodes = None

    def _is_answered(self) -> bool:
        assert self._nodes is not None
        world = self._nodes.world
        if world.trajectory(self._stamp_ns) is not None:
            return True
        status, gate = world.planner_status, world.gate_status
        if status is None or gate is None or status.plans + sum(status.drop_counts) < self._sent:
            return False
        # All frames are accounted for: this one was dropped, or its plan is on its way to the gate.
        return status.plans == self._planned or gate.rejected > self._gate_rejected

    def _answer(self) -> Plan | None:
        assert self._nodes is not None
        world = self._nodes.world
        message = world.trajectory(self._stamp_ns)
        if message is None:
            self._note_refusal()
            return None
        self._planned += 1
        expected = self.bundle.manifest.bundle_id
        if message.bundle_id != expected:
            raise ContractError("trajectory.bundle_id", message.bundle_id, expected)
        used = {entry.name for entry in message.inputs}
        for view in self.bundle.manifest.views:
            if view.time_offset_s == 0 and view.slot not in used:
                self.masked[view.slot] += 1
        return sensor_messages.plan_from_message(message)

    def _note_refusal(self) -> None:
        assert self._nodes is not None
        status, gate = self._nodes.world.planner_status, self._nodes.world.gate_status
        assert status is not None and gate is not None
        drops = dict(zip(status.drop_causes, map(int, status.drop_counts), strict=True))
        causes = [cause for cause, count in drops.items() if count > self._drops.get(cause, 0)]
        self._drops = drops
        if int(gate.rejected) > self._gate_rejected:
            self._gate_rejected = int(gate.rejected)
            self._planned += 1
            causes.append(f"gate: {gate.first_cause}")
        self.refused.update(cause for cause in causes if cause != "warming_up")

    def _what_is_missing(self) -> str:
        """Say, in one line, what of the newest frame did not come."""
        assert self._nodes is not None
        world, sent = self._nodes.world, self._sent
        words = [f"no plan of frame {sent} within {self.settings.plan_timeout_s:g} s"]
        status = world.planner_status
        if status is None:
            words.append(f"nothing was heard on {PLANNER}/status")
        else:
            few = [f"{c.slot} {c.received}" for c in status.cameras if c.received < sent]
            if few:
                words.append(f"the planner has received of {sent} images: {', '.join(few)}")
            if unheard := world.unmatched_inputs(2):
                words.append(f"nobody listens to {', '.join(unheard)}")
            if status.plans > self._planned:
                gate = world.gate_status
                words.append(f"the planner has planned, the gate says {gate and gate.cause!r}")
            words.append(f"planner: {status.lifecycle_state}, {status.cause} {status.detail}")
        words.append(f"its last lines: {self._nodes.last_lines()}")
        return "; ".join(words)
