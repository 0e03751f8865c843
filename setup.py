"""The only metadata of the onboard package: pip, pip -e and colcon all read it."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "latentvla_ros"
HERE = Path(__file__).resolve().parent

ROS_RUN = (
    "rclpy[fastrtps]",
    "sensor-msgs",
    "nav-msgs",
    "visualization-msgs",
    "diagnostic-msgs",
    "lifecycle-msgs",
    "rosgraph-msgs",
)
ROS_BUILD = (
    "rosidl-default-generators",
    "rosidl-core-generators",
    "ament-cmake",
    "ament-cmake-ros-core",
    "ament-cmake-include-directories",
    "ament-package",
)


def version() -> str:
    """Return the version that package.xml states, so that the two cannot differ."""
    found = re.search(r"<version>([^<]+)</version>", (HERE / "package.xml").read_text())
    if found is None:
        raise RuntimeError("package.xml: no <version>")
    return found.group(1)


def share_files(folder: str) -> list[tuple[str, list[str]]]:
    """Return every file below ``folder`` as (install folder, [file]) for share/latentvla_ros."""
    entries: dict[str, list[str]] = {}
    for path in sorted((HERE / folder).rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            relative = path.relative_to(HERE)
            entries.setdefault(f"share/{PACKAGE}/{relative.parent}", []).append(str(relative))
    return sorted(entries.items())


def package_data() -> list[str]:
    """Return every file below latentvla_ros/data, relative to the package (symlinks resolved)."""
    data = HERE / PACKAGE / "data"
    return [
        str(path.relative_to(HERE / PACKAGE))
        for path in sorted(data.rglob("*"))
        if path.is_file() and path.suffix not in (".py", ".pyc")
    ]


setup(
    name=PACKAGE,
    version=version(),
    description="Plans trajectories from camera images and odometry with a distilled network",
    license="Apache-2.0",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={PACKAGE: [*package_data(), "py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        # colcon.pkg names it: puts `latentvla` on the PATH of a sourced workspace.
        (f"share/{PACKAGE}/hook", ["resource/path.dsv"]),
        *share_files("launch"),
        *share_files("config"),
    ],
    zip_safe=False,
    python_requires=">=3.10",
    install_requires=[
        "numpy>=1.23",
        "opencv-python-headless>=4.5",
        "PyYAML>=5.4",
        "onnxruntime>=1.18",
    ],
    extras_require={
        "torch": ["torch>=2.4", "safetensors>=0.4", "timm>=1.0"],
        "demo": ["rosbags>=0.10", "psutil>=5", "av>=12", "pillow>=10"],
        # ROS 2 itself, where no distribution is installed, and what builds our messages on it.
        "ros": [*(f"ros-{name}" for name in (*ROS_RUN, *ROS_BUILD)), "catkin_pkg>=1.0"],
        "test": [
            "pytest>=8",
            "pytest-rerunfailures>=14",
            "pytest-xdist>=3",
            "hypothesis>=6",
            "mypy>=1.10",
            "types-PyYAML",
            "ruff>=0.5",
            "colcon-common-extensions",
            "setuptools<80",
        ],
    },
    entry_points={
        "console_scripts": [
            "latentvla = latentvla_ros.cli.main:main",
            "planner_node = latentvla_ros.nodes.planner_node:main",
            "gate = latentvla_ros.nodes.gate_node:main",
        ]
    },
)
