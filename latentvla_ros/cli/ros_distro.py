"""Which ROS 2 distribution this is, whether from apt, from source or from PyPI; rclpy stays out."""

from __future__ import annotations

import os
from importlib import metadata

#: rclpy's major version in each distribution that we aim at.
_BY_RCLPY_MAJOR = {3: "humble", 7: "jazzy", 9: "kilted", 10: "lyrical"}


def rclpy_version() -> str:
    """Return the version of the installed rclpy, empty when its metadata are not to be found."""
    for name in ("rclpy", "ros-rclpy"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ""


def ros_distro() -> str:
    """Return ``kilted`` or the like: what a setup file says, else by rclpy; may be empty."""
    named = os.environ.get("ROS_DISTRO", "")
    if named:
        return named
    major = rclpy_version().partition(".")[0]
    return _BY_RCLPY_MAJOR.get(int(major), "") if major.isdigit() else ""
