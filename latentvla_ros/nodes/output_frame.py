"""The frame that trajectories are published in: the odometry's own, or another one through TF."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time

from latentvla_ros.contract import ContractError
from latentvla_ros.geometry import se2
from latentvla_ros.nodes import conversions


class NoTransform(RuntimeError):
    """TF cannot bring the odometry's frame into the output frame at t0."""


class OutputFrame:
    """Brings poses of the odometry's frame into the output frame, in the plane.

    Attributes:
        name: the frame asked for; empty for the odometry's own.
    """

    def __init__(self, node: Node, name: str) -> None:
        """Listen to TF where another frame than the odometry's is asked for.

        Raises:
            ContractError: it is, and tf2_ros is not installed.
        """
        self.name = name
        self._buffer: Any = None
        if not name:
            return
        try:
            import tf2_ros
        except ImportError:
            raise ContractError(
                "output_frame",
                name,
                "'' (the odometry's own frame), or tf2_ros to be installed for another one",
            ) from None
        self._buffer = tf2_ros.Buffer(cache_time=Duration(seconds=10))
        self._listener = tf2_ros.TransformListener(self._buffer, node)
        self._errors = tf2_ros.TransformException

    def close(self) -> None:
        """Stop listening to TF."""
        if self._buffer is not None:
            self._listener.unregister()
            self._buffer = None

    def pose(
        self, odometry_frame: str, ego_pose: NDArray[np.float64], stamp_ns: int
    ) -> tuple[str, NDArray[np.float64]]:
        """Return the output frame's name and the pose (3,) of the ego at ``stamp_ns`` in it.

        Raises:
            NoTransform: TF does not know it.
        """
        if self._buffer is None or self.name == odometry_frame:
            return odometry_frame, ego_pose
        try:
            found = self._buffer.lookup_transform(
                self.name, odometry_frame, Time(nanoseconds=stamp_ns)
            )
        except self._errors as error:
            raise NoTransform(
                f"no transform from {odometry_frame!r} to output_frame {self.name!r}: {error}"
            ) from None
        x, y = found.transform.translation.x, found.transform.translation.y
        yaw = conversions.quaternion_yaw(found.transform.rotation)
        return self.name, se2.compose(np.array([x, y, yaw]), ego_pose)
