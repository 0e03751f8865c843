"""Planner and gate in processes of their own with a player beside them: started, used, stopped."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from latentvla_ros.cli.dds_profile import VARIABLES, profile_variable
from latentvla_ros.cli.errors import CommandError
from latentvla_ros.cli.node_process import NodeProcess
from latentvla_ros.data import data_path

if TYPE_CHECKING:
    from latentvla_ros.nodes.recording import Recording
    from latentvla_ros.nodes.replay_player import ReplayPlayer, Stream, TimedMessage

PLANNER, GATE = "/planner_node", "/gate"
#: Starting a node imports ONNX Runtime and loads a model: patience for a machine under load.
_START_TIMEOUT_S = 120.0
_LOAD_TIMEOUT_S = 240.0
_MATCH_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0
#: A clock that stands still is a fault, and so is one that leaps by a second when the play starts.
_CLOCK_LEAD_NS = 900_000_000
#: Domains that the default port mapping allows next to Linux's ephemeral ports.
_DOMAINS = range(10, 100)


@dataclass(frozen=True)
class NodeSettings:
    """How the nodes of a session are started.

    Attributes:
        bundle, rig: as parameters of the planner.
        remaps: (private name, topic) of the planner's inputs.
        parameters, gate_parameters: further parameters of the nodes, as YAML scalars.
        simulated_time: nodes run on /clock; otherwise on the system clock.
        log_folder: for planner.log and gate.log; ros_log_folder: for ROS's own log files.
        domain_id: ROS domain, None for one by our process id.
        publisher_profile: Fast DDS profile of this process, which publishes the images; the nodes
            run without it, as on a vehicle. None for Fast DDS's defaults.
        gate: whether to start the gate.
    """

    bundle: str
    rig: str
    remaps: tuple[tuple[str, str], ...]
    log_folder: Path
    ros_log_folder: Path
    parameters: Mapping[str, str] = field(default_factory=dict)
    gate_parameters: Mapping[str, str] = field(default_factory=dict)
    simulated_time: bool = True
    domain_id: int | None = None
    publisher_profile: Path | None = field(default_factory=lambda: data_path("fastdds.xml"))
    gate: bool = True

    @property
    def domain(self) -> int:
        """The ROS domain of the session."""
        if self.domain_id is not None:
            return self.domain_id
        return _DOMAINS[os.getpid() % len(_DOMAINS)]


class ReplaySession:
    """Runs the nodes and the player; use it as a context manager.

    ``finish`` is the orderly end; leaving the context stops whatever still runs, for any reason.
    """

    def __init__(self, settings: NodeSettings, streams: Sequence[Stream]) -> None:
        self._settings = settings
        self._streams = streams
        self._stack = ExitStack()
        self._player: ReplayPlayer | None = None
        self.planner = NodeProcess(
            "planner",
            "latentvla_ros.nodes.planner_node",
            planner_arguments(settings),
            node_environment(settings),
            settings.log_folder / "planner.log",
        )
        self.gate = NodeProcess(
            "gate",
            "latentvla_ros.nodes.gate_node",
            gate_arguments(settings),
            node_environment(settings),
            settings.log_folder / "gate.log",
        )

    def __enter__(self) -> ReplaySession:
        _check_ros(self._settings.publisher_profile)
        with ExitStack() as stack:  # undone when anything below fails
            # The nodes first: a process with threads of its own should not fork.
            stack.enter_context(self.planner)
            if self._settings.gate:
                stack.enter_context(self.gate)
            self._player = stack.enter_context(self._create_player())
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _create_player(self) -> ReplayPlayer:
        settings = self._settings
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        os.environ["ROS_LOG_DIR"] = str(settings.ros_log_folder)
        for variable in VARIABLES:
            os.environ.pop(variable, None)
        if settings.publisher_profile is not None:
            os.environ[profile_variable()] = str(settings.publisher_profile)
        from latentvla_ros.nodes.replay_player import PlayerError, ReplayPlayer

        try:
            return ReplayPlayer(
                self._streams,
                PLANNER,
                GATE if settings.gate else None,
                settings.simulated_time,
                settings.domain,
            )
        except PlayerError as error:
            raise CommandError(
                error.name,
                str(error),
                "run `latentvla doctor`; build the messages with `make setup`",
            ) from None

    @property
    def player(self) -> ReplayPlayer:
        """The player; raises RuntimeError outside the ``with`` block."""
        if self._player is None:
            raise RuntimeError("the session was not entered")
        return self._player

    def check(self) -> None:
        """Raise CommandError when a node has ended."""
        self.planner.check()
        if self._settings.gate:
            self.gate.check()

    def get_ready(self, start_ns: int) -> None:
        """Configure the planner, wait until every input is matched, and activate it.

        Args:
            start_ns: what /clock shows when the play starts; until then it creeps towards it.

        Raises:
            CommandError: a node ended, refused or did not answer.
        """
        from latentvla_ros.nodes.replay_player import PlayerError

        began_s = time.monotonic()

        def alive() -> None:
            self.check()
            share = min((time.monotonic() - began_s) / _LOAD_TIMEOUT_S, 1.0)
            self.player.publish_clock(start_ns - round((1.0 - share) * _CLOCK_LEAD_NS))

        try:
            if not self.player.change_state(PLANNER, "configure", _START_TIMEOUT_S, alive):
                raise self._refusal("configure")
            # Matched first: an active planner that hears nothing soon complains, and rightly.
            self.player.wait_for_subscribers(_MATCH_TIMEOUT_S, alive)
            self._activate(alive)
        except PlayerError as error:
            raise CommandError(error.name, str(error), f"see {self.planner.log_path}") from None

    def _activate(self, alive: Callable[[], None]) -> None:
        """Activate once the bundle is loaded; until then the node refuses."""
        deadline = time.monotonic() + _LOAD_TIMEOUT_S
        while not self.player.change_state(PLANNER, "activate", _START_TIMEOUT_S, alive):
            if self.player.planner_has_failed() or time.monotonic() > deadline:
                raise self._refusal("activate")
            self._let_load(alive)

    def _let_load(self, alive: Callable[[], None]) -> None:
        for _ in range(20):
            alive()
            time.sleep(0.01)

    def _refusal(self, transition: str) -> CommandError:
        time.sleep(0.3)  # its status and its log arrive a little later
        cause = self.player.planner_cause() or " | ".join(self.planner.last_lines(3))
        return CommandError(
            "planner-refused",
            f"the planner refused to {transition}: {cause or 'no reason given'}",
            f"see {self.planner.log_path}",
        )

    def play(
        self,
        messages: Iterable[TimedMessage],
        start_ns: int,
        rate: float,
        on_progress: Callable[[float, int], None] | None = None,
    ) -> None:
        """Play; ``on_progress`` gets the seconds played and the plans received.

        Raises:
            CommandError: a node ended meanwhile, or the bag cannot be read.
        """

        def progress(played_s: float) -> None:
            if on_progress is not None:
                on_progress(played_s, self.player.plans_heard)

        self.player.play(messages, start_ns, rate, self.check, progress)

    def settle(self, rate: float) -> None:
        """Let the last plans and one more status arrive."""
        self.player.run_clock(1.1, rate, self.check)

    def finish(self) -> Recording:
        """Deactivate the planner, stop everything and return what was recorded."""
        from latentvla_ros.nodes.replay_player import PlayerError

        recording = self.player.recording()
        try:
            self.player.change_state(PLANNER, "deactivate", _STOP_TIMEOUT_S, self.check)
        except PlayerError as error:
            raise CommandError(error.name, str(error), f"see {self.planner.log_path}") from None
        self._stack.close()
        nodes = [self.planner, self.gate] if self._settings.gate else [self.planner]
        recording.exit_codes = {node.name: node.exit_code for node in nodes}
        return recording


def _check_ros(profile: Path | None) -> None:
    """Raise CommandError when this process cannot play over ROS 2."""
    import importlib.util

    for name in ("rclpy", "latentvla_msgs"):
        if importlib.util.find_spec(name) is None:
            raise CommandError(
                "no-ros",
                f"the Python package {name!r} is not importable",
                "run `make setup`, or source your ROS 2 workspace; `latentvla doctor` says more",
            )
    if profile is not None and not profile.is_file():
        raise CommandError(
            "no-dds-profile", f"{profile} is not installed", "reinstall latentvla_ros"
        )


def planner_arguments(settings: NodeSettings) -> list[str]:
    """Return the command line of the planner's process."""
    parameters = {"bundle": settings.bundle, "rig": settings.rig, **settings.parameters}
    arguments = _ros_arguments("planner_node", settings, parameters)
    for private, topic in settings.remaps:
        arguments += ["-r", f"{private}:={topic}"]
    return arguments


def gate_arguments(settings: NodeSettings) -> list[str]:
    """Return the command line of the gate's process."""
    return [
        *_ros_arguments("gate", settings, settings.gate_parameters),
        "-r",
        f"~/input/trajectory:={PLANNER}/output/trajectory",
        "-r",
        f"~/input/odometry:={dict(settings.remaps)['~/input/odometry']}",
    ]


def _ros_arguments(name: str, settings: NodeSettings, parameters: Mapping[str, str]) -> list[str]:
    simulated = "true" if settings.simulated_time else "false"
    arguments = ["--ros-args", "-r", f"__node:={name}", "-p", f"use_sim_time:={simulated}"]
    for parameter, value in parameters.items():
        arguments += ["-p", f"{parameter}:={value}"]
    return arguments


def node_environment(settings: NodeSettings) -> dict[str, str | None]:
    """Return what a node's process needs on top of our environment; None removes a variable."""
    return {
        "ROS_DOMAIN_ID": str(settings.domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_LOG_DIR": str(settings.ros_log_folder),
        **dict.fromkeys(VARIABLES),
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",  # a crash in native code then says where, in the log
        # The ROS wheels re-exec Python once to set the library path; a leaked mark prevents it.
        "_ROS_WHEELS_BOOTSTRAP_COMPLETE": None,
    }
