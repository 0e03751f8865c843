"""One node as a process: start, spin until SIGINT or SIGTERM, end in order."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from latentvla_ros.contract import ContractError


class ClosableNode(Protocol):
    """A node whose threads, if any, end with ``close``."""

    def close(self) -> None:
        """End every thread of the node."""

    def destroy_node(self) -> None:
        """Free what rclpy holds."""


def run_node(name: str, make: Callable[[], ClosableNode], args: Sequence[str] | None) -> int:
    """Run the node that ``make`` builds; returns the exit status, 2 for refused parameters."""
    rclpy.init(args=list(args) if args is not None else None)
    try:
        node = make()
    except ContractError as error:
        print(f"{name}: parameter {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        # Launch and the terminal both pass Ctrl-C on: the second must not break the orderly end.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        node.close()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0
