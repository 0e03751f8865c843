"""The code finds its data under every kind of installation: pip, pip -e, colcon, with links too."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = (
    "latentvla_ros",
    "latentvla_msgs",
    "launch",
    "config",
    "resource",
    "colcon.pkg",
    "package.xml",
    "setup.py",
    "setup.cfg",
    "pyproject.toml",
)
PROBE = """
import json, pathlib
import latentvla_ros
from latentvla_ros.data import data_path
root = data_path()
print(json.dumps({
    "code": str(pathlib.Path(latentvla_ros.__file__).resolve()),
    "files": sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()),
}))
"""


def data_files(folder: Path) -> list[str]:
    """Return the data files below a latentvla_ros/data folder."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a copy of what makes the packages, so that nothing is written into the repository."""
    copy = tmp_path / "source"
    copy.mkdir()
    for part in PARTS:
        path = ROOT / part
        if path.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(path, copy / part, symlinks=True, ignore=ignored)
        else:
            shutil.copy2(path, copy / part)
    return copy


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """Return a virtual environment that sees this one's libraries, but none of our packages."""
    folder = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    # A plain path entry, unlike site.addsitedir, does not run the other environment's .pth files:
    # its editable installation of this package stays out.
    (Path(site) / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python


def installed(python: Path, *arguments: str) -> None:
    """Run pip without network, build isolation or dependencies."""
    command = [python, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--no-index", *arguments], check=True, timeout=300)


def probe(python: Path, folder: Path, environment: dict[str, str] | None = None) -> dict[str, str]:
    """Return where the package lies and which data it finds, asked from another folder."""
    ended = subprocess.run(
        [python, "-c", PROBE],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return dict(json.loads(ended.stdout.splitlines()[-1]))


def found_data(files: object) -> list[str]:
    """Return the data among the files that a probe found."""
    assert isinstance(files, list)
    return [name for name in files if not name.endswith((".py", ".pyc"))]


def test_pip(source: Path, environment: Path, tmp_path: Path) -> None:
    installed(environment, "--ignore-installed", str(source))
    found = probe(environment, tmp_path)
    assert str(tmp_path / "venv") in found["code"]
    assert found_data(found["files"]) == data_files(ROOT / "latentvla_ros" / "data")
    share = tmp_path / "venv" / "share" / "latentvla_ros"
    assert (share / "launch" / "planner.launch.py").is_file()
    assert (share / "config" / "fastdds.xml").read_text().startswith("<?xml")
    assert (share / "config" / "rig" / "world.yaml").is_file()
    ended = subprocess.run(
        [tmp_path / "venv" / "bin" / "latentvla", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.startswith("latentvla ")


def test_pip_editable(source: Path, environment: Path, tmp_path: Path) -> None:
    installed(environment, "--ignore-installed", "-e", str(source))
    found = probe(environment, tmp_path)
    assert found["code"] == str(source / "latentvla_ros" / "__init__.py")
    assert found_data(found["files"]) == data_files(ROOT / "latentvla_ros" / "data")


def test_one_version_everywhere() -> None:
    import latentvla_ros

    package = (ROOT / "package.xml").read_text()
    messages = (ROOT / "latentvla_msgs" / "package.xml").read_text()
    versions = {
        re.search(r"<version>(.*)</version>", text).group(1) for text in (package, messages)
    }  # type: ignore[union-attr]
    assert versions == {latentvla_ros.__version__}


def test_every_pin_is_met_by_one_line() -> None:
    lines = (ROOT / "constraints.txt").read_text().split()
    assert "torch==2.13.0" in lines
    assert all("==" in line and "+" not in line for line in lines)
    assert len({line.partition("==")[0].lower() for line in lines}) == len(lines)


def colcon(source: Path, *arguments: str) -> dict[str, str]:
    """Build with colcon in ``source`` and return the environment of its install/setup.sh."""
    prefix = sys.prefix
    environment = {
        **os.environ,
        "AMENT_PREFIX_PATH": prefix,
        "CMAKE_PREFIX_PATH": prefix,
        "PATH": f"{prefix}/bin:{os.environ['PATH']}",
        "COLCON_LOG_PATH": str(source / "log"),
    }
    subprocess.run(
        [
            sys.executable,
            "-m",
            "colcon",
            "build",
            "--base-paths",
            ".",
            "latentvla_msgs",
            *arguments,
        ],
        cwd=source,
        env=environment,
        check=True,
        timeout=600,
        capture_output=True,
    )
    ended = subprocess.run(
        ["sh", "-c", ". install/setup.sh && env -0"],
        cwd=source,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split("=", 1) for line in ended.stdout.split("\0") if "=" in line)


@pytest.mark.slow
@pytest.mark.ros
@pytest.mark.parametrize("linked", [False, True])
def test_colcon(source: Path, tmp_path: Path, linked: bool) -> None:
    if importlib.util.find_spec("colcon") is None:
        pytest.skip("colcon is not installed")
    arguments = ["--cmake-args", f"-DPython3_EXECUTABLE={sys.executable}", "-DBUILD_TESTING=OFF"]
    if linked:
        # The messages of this environment do: building them again would tell nothing new.
        arguments = ["--symlink-install", "--packages-ignore", "latentvla_msgs"]
    environment = colcon(source, *arguments)
    found = probe(Path(sys.executable), tmp_path, environment)
    assert found["code"].startswith(str(source))
    assert linked or "/install/" in found["code"]
    assert found_data(found["files"]) == data_files(ROOT / "latentvla_ros" / "data")

    prefix = source / "install" / "latentvla_ros"
    for name in ("planner_node", "gate"):
        node = prefix / "lib" / "latentvla_ros" / name
        ended = subprocess.run(
            [node, "--ros-args", "-p", "limits.max_speed_mps:=-1.0"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 2 and "max_speed_mps" in ended.stderr
    assert shutil.which("latentvla", path=environment["PATH"]) == str(
        prefix / "lib" / "latentvla_ros" / "latentvla"
    )
    share = prefix / "share" / "latentvla_ros"
    assert (share / "package.xml").is_file() and (share / "launch" / "planner.launch.py").is_file()
    assert (share / "config" / "planner.param.yaml").read_text().startswith("# Parameters")
    assert (prefix / "share" / "ament_index/resource_index/packages/latentvla_ros").is_file()
    if not linked:
        assert (source / "install/latentvla_msgs/share/latentvla_msgs/msg/Trajectory.msg").is_file()
