"""Planner and gate in processes of their own beside the world, ready for lock-step on /clock."""

from __future__ import annotations

import fcntl
import math
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing.util import Finalize
from pathlib import Path

from latentvla_ros.cli.errors import CommandError
from latentvla_ros.cli.node_process import NodeProcess
from latentvla_ros.cli.replay_session import (
    GATE,
    PLANNER,
    NodeSettings,
    gate_arguments,
    node_environment,
    planner_arguments,
)
from latentvla_ros.contract import ContractError, Rig
from latentvla_ros.nodes.conversions import stamp_to_ns
from latentvla_ros.nodes.lifecycle_client import LifecycleClient
from latentvla_ros.nodes.remaps import rig_remaps
from latentvla_ros.sensing.rig_file import save_rig
from latentvla_training.data.bag_messages import COMMAND_TOPIC, ODOMETRY_TOPIC
from latentvla_training.ros.world_peer import WorldPeer

#: Starting a node imports ONNX Runtime and loads a model: patience for a machine under load.
_START_TIMEOUT_S = 180.0
_LOAD_TIMEOUT_S = 240.0
_MATCH_TIMEOUT_S = 120.0
_STATUS_PERIOD_S = 0.05
#: Domains that the default port mapping allows next to Linux's ephemeral ports.
_DOMAINS = range(10, 100)
#: The nodes wait this share of ``plan_timeout_s`` for what of a frame is still under way.
_PATIENCE = 0.3
#: An answer is looked for so often; /clock, which is best effort for the nodes, is repeated then.
LOOK_S = 0.1
#: The world stands still while it is rendered: silence of an input is no fault here.
_PARAMETERS = {
    "future_tolerance_s": "0.3",
    "image_timeout_s": "60.0",
    "odometry_timeout_s": "60.0",
    "command_timeout_s": "0.0",
    "diagnostics_period_s": str(_STATUS_PERIOD_S),
}


class NodeProblem(OSError):
    """A node ended, refused, or did not answer; the text says which, with its last words."""


@dataclass(frozen=True)
class RosDriverSettings:
    """How the nodes of a ``RosDriver`` run.

    Attributes:
        backend: of the planner node. threads: likewise; one, as the direct call has by default.
        plan_timeout_s: steady time that a frame may take, loading of the machine included.
        domain_id: ROS domain; None for one that no other drive on this machine uses.
        log_folder: for planner.log and gate.log; None for a temporary one.
    """

    backend: str = "auto"
    threads: int = 1
    plan_timeout_s: float = 30.0
    domain_id: int | None = None
    log_folder: Path | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.plan_timeout_s) and self.plan_timeout_s > 0):
            raise ContractError("plan_timeout_s", self.plan_timeout_s, "seconds above 0")
        if self.threads < 0:
            raise ContractError("threads", self.threads, "0 (all cores but one) or more")
        if self.domain_id is not None and not 0 <= self.domain_id <= 232:
            raise ContractError("domain_id", self.domain_id, "0 to 232")


class NodePair:
    """Planner and gate in processes of their own, and the world beside them."""

    def __init__(self, bundle: str, rig: Rig, settings: RosDriverSettings) -> None:
        self._configured = False
        with ExitStack() as stack:  # undone when anything below fails
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="latentvla-")))
            self._rig_path = folder / "rig.yaml"
            node_settings = NodeSettings(
                bundle=bundle,
                rig=str(self._rig_path),
                remaps=(*_remaps(rig),),
                parameters={
                    "backend": settings.backend,
                    "threads": str(settings.threads),
                    "sync_wait_s": str(_PATIENCE * settings.plan_timeout_s),
                    "odometry_wait_s": str(_PATIENCE * settings.plan_timeout_s),
                    **_PARAMETERS,
                },
                gate_parameters={"diagnostics_period_s": str(_STATUS_PERIOD_S)},
                log_folder=settings.log_folder or folder,
                ros_log_folder=folder,
                domain_id=(
                    stack.enter_context(free_domain())
                    if settings.domain_id is None
                    else settings.domain_id
                ),
            )
            self._remaps = node_settings.remaps
            environment = node_environment(node_settings)
            self.planner, self.gate = (
                NodeProcess(
                    name,
                    f"latentvla_ros.nodes.{module}",
                    arguments(node_settings),
                    environment,
                    node_settings.log_folder / f"{name}.log",
                )
                for name, module, arguments in (
                    ("planner", "planner_node", planner_arguments),
                    ("gate", "gate_node", gate_arguments),
                )
            )
            # The nodes first: a process with threads of its own should not fork.
            stack.enter_context(self.planner)
            stack.enter_context(self.gate)
            self.world = stack.enter_context(
                WorldPeer(rig, f"{GATE}/output/trajectory", PLANNER, GATE, node_settings.domain)
            )
            self._lifecycle = LifecycleClient(self.world.node)
            self._stack = stack.pop_all()
        # A worker of a pool ends without a call of close.
        self._at_exit = Finalize(self, self._stack.close, exitpriority=10)

    def can_use(self, rig: Rig) -> bool:
        """Whether another rig has the topics that these nodes listen to."""
        return (*_remaps(rig),) == self._remaps

    def begin_route(self, rig: Rig) -> None:
        """Configure and activate, afresh."""
        if self._configured:
            self._change("deactivate")
            self._change("cleanup")
        # Nothing may be lost on the way: in lock-step nothing comes after it.
        reliable = tuple(replace(camera, reliability="reliable") for camera in rig.cameras)
        save_rig(replace(rig, cameras=reliable), self._rig_path)
        self.world.rig = rig
        self.world.forget()
        self._change("configure")
        self._configured = True
        missing = self.world.wait_until_matched(_MATCH_TIMEOUT_S, self.check, clocks=2)
        if missing:
            raise NodeProblem(f"not matched by the nodes: {', '.join(missing)}")
        deadline = time.monotonic() + _LOAD_TIMEOUT_S
        while not self._made("activate"):  # it refuses until the bundle is loaded
            if time.monotonic() > deadline:
                raise self._refusal("activate")
            time.sleep(0.1)

    def begin_time(self, stamp_ns: int) -> None:
        """Set the clock and wait until both nodes have it: a jump clears what they have heard."""
        world = self.world

        def have_it() -> bool:
            statuses = (world.planner_status, world.gate_status)
            return all(s and stamp_to_ns(s.header.stamp) == stamp_ns for s in statuses)

        deadline = time.monotonic() + _MATCH_TIMEOUT_S
        world.publish_clock(stamp_ns)
        while not world.wait_for(have_it, LOOK_S):
            self.check()
            world.publish_clock(stamp_ns)
            if time.monotonic() > deadline:
                raise NodeProblem("the nodes do not take over /clock")

    def check(self) -> None:
        """Raise NodeProblem when a node has ended."""
        try:
            self.planner.check()
            self.gate.check()
        except CommandError as error:
            raise NodeProblem(str(error)) from None

    def last_lines(self) -> str:
        """Return the newest lines that the planner has logged."""
        return " | ".join(self.planner.last_lines(3)) or "none"

    def close(self) -> None:
        """End the nodes; also when they hang."""
        self._at_exit.cancel()
        self._stack.close()

    def _made(self, transition: str) -> bool:
        try:
            return self._lifecycle.change_state(PLANNER, transition, _START_TIMEOUT_S, self.check)
        except TimeoutError as error:
            raise NodeProblem(f"{error}; its last lines: {self.last_lines()}") from None

    def _change(self, transition: str) -> None:
        if not self._made(transition):
            raise self._refusal(transition)

    def _refusal(self, transition: str) -> NodeProblem:
        time.sleep(0.3)  # its status and its log arrive a little later
        status = self.world.planner_status
        # Before the first frame there is no /clock, which is no reason to refuse.
        known = status is not None and status.cause not in ("", "clock_silent")
        cause = f"{status.cause}: {status.detail}" if known else self.last_lines()
        return NodeProblem(f"the planner refused to {transition}: {cause}")


@contextmanager
def free_domain() -> Iterator[int]:
    """Hold a ROS domain that no other process of this machine holds by this function.

    Raises:
        NodeProblem: all are taken.
    """
    for turn in range(len(_DOMAINS)):
        domain = _DOMAINS[(os.getpid() + turn) % len(_DOMAINS)]
        with ExitStack() as stack:
            path = Path(tempfile.gettempdir()) / f"latentvla-domain-{domain}.lock"
            try:
                lock = stack.enter_context(path.open("w"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # held, or somebody else's file
                continue
            yield domain
            return
    raise NodeProblem(f"ROS domains {_DOMAINS[0]} to {_DOMAINS[-1]} are all in use")


def _remaps(rig: Rig) -> list[tuple[str, str]]:
    return [
        *rig_remaps(rig),
        ("~/input/odometry", ODOMETRY_TOPIC),
        ("~/input/command", COMMAND_TOPIC),
    ]
