"""What this room needs of the machine, said in one line where it is missing; imports no ROS."""

from __future__ import annotations

import importlib.util

from latentvla_ros.contract import ContractError


def require_ros() -> None:
    """Raise ContractError when rclpy or our messages are not importable."""
    for package in ("rclpy", "latentvla_msgs"):
        if importlib.util.find_spec(package) is None:
            raise ContractError(
                "ROS 2", f"no Python package {package}", "run `make setup`, or source a workspace"
            )
