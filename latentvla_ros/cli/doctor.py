"""``latentvla doctor``: whether this machine can plan, and what to do where it cannot."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from latentvla_ros.cli.dds_profile import largest_segment, profile_variable
from latentvla_ros.cli.ros_distro import rclpy_version, ros_distro
from latentvla_ros.contract import ContractError
from latentvla_ros.data import data_path

OK, WARNING, FAILED = "ok", "warning", "failed"

#: One image burst of six cameras must fit (ros.md section 4).
_MIN_SEGMENT_BYTES = 16 * 2**20
_MIN_SHARED_MEMORY_BYTES = 192 * 2**20
_PROBE_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        state: ``ok``, ``warning`` (works, with a drawback) or ``failed``.
        found: in words.
        next_step: what to do; empty where all is well.
    """

    name: str
    state: str
    found: str
    next_step: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``latentvla doctor``."""
    parser.add_argument("--bundle", default="nano", help="to verify (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(args: argparse.Namespace) -> int:
    """Check and print; returns 1 when something has to be done first."""
    checks = examine(args.bundle)
    failed = [check for check in checks if check.state == FAILED]
    if args.json:
        print(json.dumps({"ok": not failed, "checks": [asdict(c) for c in checks]}, indent=2))
    else:
        marks = {OK: "ok  ", WARNING: "warn", FAILED: "FAIL"}
        width = max(len(check.name) for check in checks)
        for check in checks:
            print(f"[{marks[check.state]}] {check.name:<{width}}  {check.found}")
            if check.next_step:
                print(f"       {'':<{width}}  -> {check.next_step}")
        print(f"\n{len(failed)} of {len(checks)} checks failed" if failed else "\nready to plan")
    return 1 if failed else 0


def examine(bundle: str) -> list[Check]:
    """Return every finding; nothing here raises for a sick environment."""
    imports = _probe_imports(("rclpy", "latentvla_msgs.msg", "cv2", "onnxruntime"))
    checks: tuple[Callable[[], Check], ...] = (
        _python,
        lambda: _ros(imports["rclpy"]),
        lambda: _messages(imports["latentvla_msgs.msg"], imports["rclpy"]),
        _middleware,
        _publisher_profile,
        _shared_memory,
        lambda: _opencv(imports["cv2"]),
        lambda: _backends(imports["onnxruntime"]),
        lambda: _bundle(bundle),
        _cores,
        _replay_packages,
    )
    return [check() for check in checks]


def _probe_imports(names: tuple[str, ...]) -> dict[str, str]:
    """Import each module in one process of its own; return the error by name, empty where it works.

    Not in this process: a broken binary module may crash, and rclpy belongs to the nodes alone.
    """
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        importlib.import_module(name); print(name, 'fine', flush=True)\n"
        "    except BaseException as error:\n"
        "        text = ' '.join(f'{type(error).__name__}: {error}'.split())\n"
        "        print(name, text, flush=True)\n"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *names],
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        )
        output, ending = done.stdout, f"importing it ended Python with code {done.returncode}"
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode(errors="replace")
        ending = f"importing it took more than {_PROBE_TIMEOUT_S:.0f} s"
    results = dict.fromkeys(names, ending)
    for line in output.splitlines():
        name, _, text = line.partition(" ")
        if name in results:
            results[name] = "" if text == "fine" else text
    return results


def _python() -> Check:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Check("Python", OK, f"{version} in {sys.prefix}")


def _version(*distributions: str) -> str:
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ""


def _ros(problem: str) -> Check:
    if problem:
        leaked = os.environ.get("_ROS_WHEELS_BOOTSTRAP_COMPLETE")
        hint = "unset _ROS_WHEELS_BOOTSTRAP_COMPLETE; it leaked from another environment, or "
        return Check(
            "ROS 2",
            FAILED,
            f"rclpy does not import ({problem})",
            (hint if leaked else "")
            + "source /opt/ros/<distro>/setup.bash, or run `make setup` for ROS 2 from PyPI",
        )
    found = f"{ros_distro() or 'unknown distribution'}, rclpy {rclpy_version() or '?'}"
    return Check("ROS 2", OK, found)


def _messages(problem: str, ros_problem: str) -> Check:
    if not problem:
        return Check("latentvla_msgs", OK, "built and importable")
    if ros_problem:
        return Check("latentvla_msgs", FAILED, problem, "get ROS 2 to import first")
    return Check(
        "latentvla_msgs",
        FAILED,
        problem,
        "run `make setup`, or `colcon build --base-paths . latentvla_msgs` and source install/",
    )


def _middleware() -> Check:
    name = os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp")
    if name.startswith("rmw_fastrtps"):
        return Check("middleware", OK, name)
    return Check(
        "middleware",
        WARNING,
        name,
        "the shipped profile is Fast DDS's; give this middleware a large shared-memory buffer too",
    )


def _publisher_profile() -> Check:
    """Check the Fast DDS profile of this environment, which matters where images are published."""
    shipped = data_path("fastdds.xml")
    name = "Fast DDS profile"
    if not shipped.is_file():
        return Check(name, FAILED, f"{shipped} is not installed", "reinstall latentvla_ros")
    variable = profile_variable()
    setting = f"export {variable}={shipped}"
    chosen = os.environ.get(variable)
    if not chosen:
        return Check(
            name,
            WARNING,
            "not set here: several cameras published by one process would starve each other",
            f"where images are published (camera drivers, bag player): {setting}",
        )
    try:
        largest = largest_segment(Path(chosen))
    except (OSError, ElementTree.ParseError) as error:
        return Check(name, FAILED, f"{variable}={chosen}: {error}", setting)
    if largest < _MIN_SEGMENT_BYTES:
        return Check(
            name,
            WARNING,
            f"{chosen}: shared-memory segment of {largest / 2**20:.1f} MiB",
            f"one of 64 MiB holds the bursts of six cameras: {setting}",
        )
    return Check(name, OK, f"{chosen}, segments of {largest / 2**20:.0f} MiB")


def _shared_memory() -> Check:
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Check("shared memory", OK, "no /dev/shm on this system; Fast DDS falls back to UDP")
    free = shutil.disk_usage(folder).free
    found = f"{free / 2**20:.0f} MiB free in /dev/shm"
    if free < _MIN_SHARED_MEMORY_BYTES:
        return Check(
            "shared memory",
            WARNING,
            found,
            "the profile's segments are 64 MiB a process; in a container: docker run --shm-size=1g",
        )
    return Check("shared memory", OK, found)


def _opencv(problem: str) -> Check:
    if problem:
        return Check(
            "OpenCV", FAILED, problem, "pip install opencv-python-headless, or apt python3-opencv"
        )
    version = _version("opencv-python-headless", "opencv-python", "opencv-contrib-python")
    return Check("OpenCV", OK, version or "from the system")


def _backends(onnxruntime_problem: str) -> Check:
    found = []
    if not onnxruntime_problem:
        found.append(f"onnxruntime {_version('onnxruntime', 'onnxruntime-gpu')}".strip())
    if importlib.util.find_spec("torch"):  # found, not imported: that takes seconds
        found.append(f"torch {_version('torch')}")
    if not found:
        return Check("backends", FAILED, f"none ({onnxruntime_problem})", "pip install onnxruntime")
    if onnxruntime_problem:
        return Check(
            "backends",
            WARNING,
            f"{', '.join(found)}; the default one is missing ({onnxruntime_problem})",
            "pip install onnxruntime",
        )
    return Check("backends", OK, ", ".join(found))


def _bundle(name: str) -> Check:
    from latentvla_ros.runtime.bundle import load_bundle

    try:
        bundle = load_bundle(name)
    except ContractError as error:
        return Check(
            f"bundle {name}", FAILED, str(error), "reinstall latentvla_ros, or export it again"
        )
    return Check(
        f"bundle {name}",
        OK,
        f"{bundle.manifest.bundle_id}, {len(bundle.manifest.files)} files verified, {bundle.path}",
    )


def _cores() -> Check:
    count = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    if count < 2:
        return Check("cores", WARNING, "1", "give it 2: planning and DDS then do not wait in turn")
    return Check("cores", OK, str(count))


def _replay_packages() -> Check:
    missing = [name for name in ("rosbags", "av") if importlib.util.find_spec(name) is None]
    if missing:
        return Check(
            "replay", WARNING, f"without {', '.join(missing)}", f"pip install {' '.join(missing)}"
        )
    return Check("replay", OK, f"rosbags {_version('rosbags')}, av {_version('av')}")
