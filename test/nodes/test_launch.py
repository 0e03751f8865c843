"""The launch files, run for real where ``launch`` is installed: remaps, autostart, orderly end."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vehicle import Bench

ROOT = Path(__file__).parents[2]


def installed(module: str) -> bool:
    """Whether a module can be imported; our own launch/ folder is an empty namespace package."""
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


pytestmark = [
    pytest.mark.ros,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (installed("launch.actions") and installed("launch_ros.actions")),
        reason="launch and launch_ros are not installed",
    ),
]

RUNNER = """
import sys
from launch import LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description import LaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
arguments = [tuple(entry.split(":=", 1)) for entry in sys.argv[2:]]
source = PythonLaunchDescriptionSource(sys.argv[1])
service = LaunchService()
service.include_launch_description(
    LaunchDescription([IncludeLaunchDescription(source, launch_arguments=arguments)])
)
sys.exit(service.run())
"""


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """Return an ament prefix with the two executables, as colcon would make it."""
    folder = tmp_path / "prefix"
    index = folder / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "latentvla_ros").touch()
    programs = folder / "lib" / "latentvla_ros"
    programs.mkdir(parents=True)
    for name, module in (("planner_node", "planner_node"), ("gate", "gate_node")):
        program = programs / name
        program.write_text(
            f'#!/bin/sh\nexec {sys.executable} -m latentvla_ros.nodes.{module} "$@"\n'
        )
        program.chmod(0o755)
    return folder


class Launched:
    """A launch file in a process group of its own."""

    def __init__(self, prefix: Path, file: str, *arguments: str, path: str = "") -> None:
        environment = {
            **os.environ,
            "AMENT_PREFIX_PATH": f"{prefix}:{os.environ.get('AMENT_PREFIX_PATH', '')}",
            "PATH": f"{path}:{os.environ['PATH']}",
            "ROS_LOG_DIR": str(prefix / "log"),
        }
        self._log = prefix / "launch.log"
        with self._log.open("wb") as log:
            # A handled SIGINT is reset by exec: the child of a background shell would ignore it.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._process = subprocess.Popen(
                [sys.executable, "-c", RUNNER, str(ROOT / "launch" / file), *arguments],
                cwd=prefix,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def output(self) -> str:
        """Return what it has printed so far."""
        return self._log.read_text(errors="replace")

    def wait(self, seconds: float) -> int:
        """Wait for its end; fails the test when it does not come."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running: {self.output()}")

    def stop(self) -> int:
        """Send SIGINT once, to launch alone, and return its exit status."""
        self._process.send_signal(signal.SIGINT)
        return self.wait(120)

    def kill(self) -> None:
        """End whatever is left of it."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(5)


@pytest.fixture
def launched(prefix: Path) -> Iterator[list[Launched]]:
    """Collect what a test launches, so that it ends in any case."""
    started: list[Launched] = []
    yield started
    for entry in started:
        entry.kill()


def world_rig() -> str:
    return str(ROOT / "config" / "rig" / "world.yaml")


def test_planner_launch_starts_both_and_activates(
    bench: Bench, bundle: Path, prefix: Path, launched: list[Launched]
) -> None:
    from vehicle import LATCHED

    from latentvla_msgs.msg import GateStatus, PlannerStatus

    statuses: list[PlannerStatus] = []
    gates: list[GateStatus] = []
    bench.vehicle.create_subscription(
        PlannerStatus, "/car/planner_node/status", statuses.append, LATCHED
    )
    bench.vehicle.create_subscription(GateStatus, "/car/gate/status", gates.append, LATCHED)
    launched.append(
        Launched(
            prefix,
            "planner.launch.py",
            f"bundle:={bundle}",
            "namespace:=car",
            "odometry:=/odom",
        )
    )
    bench.until(lambda: statuses and statuses[-1].lifecycle_state == "active", 120)
    bench.until(lambda: gates)
    names = [f"/sensing/camera/{slot}/image/compressed" for slot in ("front", "left", "right")]
    for name in (*names, "/odom", "/planning/driving_command"):
        bench.until(lambda name=name: bench.vehicle.count_subscribers(name))
    bench.until(lambda: bench.vehicle.count_publishers("/car/planner_node/output/trajectory"))
    bench.until(lambda: bench.vehicle.count_subscribers("/car/planner_node/output/trajectory"))
    assert launched[0].stop() == 0, launched[0].output()
    assert "Traceback" not in launched[0].output()


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("rig:=/nowhere.yaml", "/nowhere.yaml"),
        ("params:=/nowhere.yaml", "launch argument params"),
        ("autostart:=perhaps", "autostart"),
    ],
)
def test_a_wrong_argument_is_named(
    prefix: Path, launched: list[Launched], argument: str, words: str
) -> None:
    launched.append(Launched(prefix, "planner.launch.py", argument))
    assert launched[0].wait(120) != 0
    assert words in launched[0].output()


def test_replay_launch_plays_when_the_planner_is_active_and_ends_with_the_player(
    bundle: Path, prefix: Path, launched: list[Launched], tmp_path: Path
) -> None:
    bag, programs = tmp_path / "bag", tmp_path / "programs"
    bag.mkdir()
    programs.mkdir()
    (bag / "rig.yaml").write_text(Path(world_rig()).read_text())
    player = programs / "ros2"
    player.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/played\n'
        f'echo "$FASTDDS_DEFAULT_PROFILES_FILE" >> {tmp_path}/played\n'
    )
    player.chmod(0o755)
    launched.append(
        Launched(prefix, "replay.launch.py", f"bag:={bag}", f"bundle:={bundle}", path=str(programs))
    )
    assert launched[0].wait(180) == 0, launched[0].output()
    command, profile = (tmp_path / "played").read_text().splitlines()
    assert command == f"bag play {bag} --rate 1.0 --clock 200"
    assert Path(profile).name == "fastdds.xml" and Path(profile).is_file()
    assert "is ready" in launched[0].output()
