"""The path that was really driven, from recorded odometry: what a plan is measured against."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latentvla_ros.contract import Rig
from latentvla_ros.geometry import se2
from latentvla_ros.sensing.ego_motion_buffer import in_base_frame

#: Odometry gaps longer than this are not interpolated over, ns.
MAX_GAP_NS = 500_000_000


@dataclass(frozen=True)
class DrivenPath:
    """Poses and speeds of ``base_frame`` over time.

    Attributes:
        stamps_ns: (N,) int64, strictly increasing.
        poses: (N, 3) x, y, yaw in the odometry frame, m and rad.
        twists: (N, 3) vx, vy, yaw rate in ``base_frame``, m/s and rad/s.
    """

    stamps_ns: NDArray[np.int64]
    poses: NDArray[np.float64]
    twists: NDArray[np.float64]

    def _bracket(self, stamps: NDArray[np.int64]) -> tuple[Any, Any, Any, Any]:
        """Return indices before and after, the fraction between them, and where that is allowed."""
        after = np.clip(np.searchsorted(self.stamps_ns, stamps), 1, len(self.stamps_ns) - 1)
        before = after - 1
        gap = (self.stamps_ns[after] - self.stamps_ns[before]).astype(np.float64)
        fraction = (stamps - self.stamps_ns[before]) / gap
        inside = (stamps >= self.stamps_ns[0]) & (stamps <= self.stamps_ns[-1])
        return before, after, fraction, inside & (gap <= MAX_GAP_NS)

    def poses_at(self, stamps_ns: ArrayLike) -> NDArray[np.float64]:
        """Return poses (K, 3) at stamps (K,) ns, interpolated; NaN where none were recorded."""
        stamps = np.atleast_1d(np.asarray(stamps_ns, np.int64))
        if len(self.stamps_ns) < 2:
            return np.full((len(stamps), 3), np.nan)
        before, after, fraction, valid = self._bracket(stamps)
        start, end = self.poses[before], self.poses[after]
        step = end - start
        step[:, 2] = se2.wrap_angle(step[:, 2])
        result = start + fraction[:, None] * step
        result[:, 2] = se2.wrap_angle(result[:, 2])
        result[~valid] = np.nan
        return np.asarray(result)

    def twists_at(self, stamps_ns: ArrayLike) -> NDArray[np.float64]:
        """Return twists (K, 3) at stamps (K,) ns, interpolated; NaN where none were recorded."""
        stamps = np.atleast_1d(np.asarray(stamps_ns, np.int64))
        if len(self.stamps_ns) < 2:
            return np.full((len(stamps), 3), np.nan)
        before, after, fraction, valid = self._bracket(stamps)
        start, end = self.twists[before], self.twists[after]
        result = start + fraction[:, None] * (end - start)
        result[~valid] = np.nan
        return np.asarray(result)

    @property
    def length_m(self) -> float:
        """Length of the path."""
        return float(np.linalg.norm(np.diff(self.poses[:, :2], axis=0), axis=1).sum())


def driven_path(messages: Iterable[Any], rig: Rig | None = None) -> DrivenPath:
    """Collect decoded ``nav_msgs/Odometry`` into the path of the rig's ``base_frame``.

    Messages that are not finite, or not newer than the one before, are left out.
    """
    offset = np.asarray(rig.base_from_twist if rig else (0.0, 0.0, 0.0), np.float64)
    stamps: list[int] = []
    rows: list[NDArray[np.float64]] = []
    for message in messages:
        stamp = message.header.stamp
        stamp_ns = int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
        position, q = message.pose.pose.position, message.pose.pose.orientation
        yaw = np.arctan2(2.0 * (q.w * q.z + q.x * q.y), 1.0 - 2.0 * (q.y * q.y + q.z * q.z))
        twist = message.twist.twist
        moved = in_base_frame(
            (position.x, position.y, yaw), (twist.linear.x, twist.linear.y, twist.angular.z), offset
        )
        row = np.concatenate(moved)
        if np.isfinite(row).all() and (not stamps or stamp_ns > stamps[-1]):
            stamps.append(stamp_ns)
            rows.append(row)
    table = np.asarray(rows, np.float64).reshape(-1, 6)
    return DrivenPath(np.asarray(stamps, np.int64), table[:, :3], table[:, 3:])
