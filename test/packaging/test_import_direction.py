"""Who may enter which room: shown by importing, and by reading every import statement."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ONBOARD = ROOT / "latentvla_ros"
TRAINING = ROOT / "training" / "latentvla_training"

#: Room: the other rooms it may import. ``data`` holds files and one function that finds them.
MAY_ENTER = {
    "contract": set(),
    "data": set(),
    "geometry": {"contract"},
    "model": {"contract", "geometry"},
    "runtime": {"contract", "geometry", "model", "data"},
    "sensing": {"contract", "geometry"},
    "safety": {"contract", "geometry"},
    "nodes": {"contract", "geometry", "model", "runtime", "sensing", "safety", "data"},
    "cli": {"contract", "geometry", "model", "runtime", "sensing", "safety", "data", "nodes"},
}
TRAINING_MAY_ENTER = {"contract", "geometry", "model", "runtime", "sensing", "safety", "data"}
#: A ROS 2 peer of the nodes: it starts them, and speaks their messages.
TRAINING_ROS_ROOM = "ros"
NEVER_ONBOARD = {"transformers", "accelerate", "latentvla_training"}
TORCH_ROOMS = {"model"}


def is_ros(module: str) -> bool:
    """Whether a top-level module is rclpy or a message package."""
    return module in ("rclpy", "tf2_ros", "cv_bridge") or module.endswith(("_msgs", "_interfaces"))


def imported_by(path: Path) -> set[str]:
    """Return every absolute module that a file imports anywhere, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            if node.module == "latentvla_ros":
                found |= {f"latentvla_ros.{alias.name}" for alias in node.names}
    return found


def rooms(modules: set[str]) -> set[str]:
    """Return the rooms of the onboard package among modules."""
    parts = [module.split(".") for module in modules if module.startswith("latentvla_ros.")]
    return {part[1] for part in parts if part[1] in MAY_ENTER}


def files(folder: Path) -> list[Path]:
    """Return every Python file below a folder."""
    return sorted(folder.rglob("*.py"))


def test_every_room_is_listed() -> None:
    found = {path.parent.name for path in ONBOARD.glob("*/__init__.py")}
    assert found == set(MAY_ENTER)


@pytest.mark.parametrize("room", MAY_ENTER)
def test_onboard_rooms_enter_only_where_they_may(room: str) -> None:
    for path in files(ONBOARD / room):
        modules = imported_by(path)
        assert rooms(modules) <= MAY_ENTER[room] | {room}, path
        tops = {module.split(".")[0] for module in modules}
        assert not tops & NEVER_ONBOARD, path
        if room != "nodes":
            assert not {top for top in tops if is_ros(top)}, path
        if room not in TORCH_ROOMS and path.name != "torch_backend.py":
            assert "torch" not in tops, path


def test_training_never_enters_nodes_and_cli_and_keeps_ros_in_its_room() -> None:
    for path in files(TRAINING):
        modules = imported_by(path)
        if path.relative_to(TRAINING).parts[0] == TRAINING_ROS_ROOM:
            assert rooms(modules) <= TRAINING_MAY_ENTER | {"nodes", "cli"}, path
        else:
            assert rooms(modules) <= TRAINING_MAY_ENTER, path
            assert not {m for m in modules if is_ros(m.split(".")[0])}, path


def loaded_after(code: str) -> set[str]:
    """Run code in a fresh interpreter; return the modules it has loaded."""
    program = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    return set(json.loads(ended.stdout.splitlines()[-1]))


@pytest.mark.parametrize("room", ["contract", "geometry", "runtime", "sensing", "safety"])
def test_importing_a_room_loads_nothing_it_may_not_have(room: str) -> None:
    modules = [
        f"latentvla_ros.{room}" if path.stem == "__init__" else f"latentvla_ros.{room}.{path.stem}"
        for path in files(ONBOARD / room)
        if path.stem != "torch_backend"
    ]
    loaded = loaded_after("\n".join(f"import {module}" for module in modules))
    assert rooms(loaded) <= MAY_ENTER[room] | {room}
    tops = {module.split(".")[0] for module in loaded}
    assert not tops & (NEVER_ONBOARD | {"torch", "timm", "rclpy"})


def test_the_default_backend_and_the_nodes_need_no_torch() -> None:
    loaded = loaded_after(
        "from latentvla_ros.runtime.backend import create_backend\n"
        "create_backend('onnxruntime', 1)\n"
        "import latentvla_ros.runtime.planner, latentvla_ros.runtime.bundle"
    )
    assert "torch" not in loaded and "latentvla_ros.model" not in loaded


@pytest.mark.ros
def test_the_nodes_need_no_torch() -> None:
    pytest.importorskip("rclpy")
    loaded = loaded_after("import latentvla_ros.nodes.planner_node, latentvla_ros.nodes.gate_node")
    assert "rclpy" in loaded and "torch" not in loaded and "latentvla_ros.cli" not in loaded


def test_help_is_quick_to_load() -> None:
    loaded = loaded_after(
        "import contextlib, io, latentvla_ros.cli.main as m\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "    m.main(['--help'])"
    )
    tops = {module.split(".")[0] for module in loaded}
    assert not tops & {"numpy", "cv2", "rclpy", "torch", "onnxruntime", "rosbags"}
