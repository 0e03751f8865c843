"""The route as coordinates, s along it and d to its left, and the road users in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentvla_training.world.episode import AgentModel
from latentvla_training.world.route import Route
from latentvla_training.world.traffic import Snapshot

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]

#: Road users whose centre is farther to the side than this cannot matter.
REACH_M = 45.0


class PathFrame:
    """A stretch of a route as coordinates.

    Args:
        route: the path. low_m, high_m: arc lengths between which the stretch lies.
    """

    def __init__(self, route: Route, low_m: float, high_m: float) -> None:
        first, last = np.searchsorted(route.s, (low_m, high_m))
        last = max(int(last), int(first) + 2)
        self.window = slice(max(min(int(first), len(route.s) - 2), 0), last)
        self.s = route.s[self.window]
        self.yaw = route.yaw[self.window]
        self._x, self._y = route.xy[self.window].T
        self._cos, self._sin = np.cos(self.yaw), np.sin(self.yaw)

    def project(self, xy: Array) -> tuple[Array, Array, Array]:
        """Return s, d and the path's heading at the nearest place of points (..., 2).

        The stretch goes on straight beyond its ends.
        """
        flat = xy.reshape(-1, 2)
        dx, dy = flat[:, :1] - self._x, flat[:, 1:] - self._y
        rows = np.arange(len(flat))
        nearest = np.argmin(dx * dx + dy * dy, axis=1)
        dx, dy = dx[rows, nearest], dy[rows, nearest]
        cos, sin = self._cos[nearest], self._sin[nearest]
        along, left = dx * cos + dy * sin, -dx * sin + dy * cos
        shape = xy.shape[:-1]
        return (
            (self.s[nearest] + along).reshape(shape),
            left.reshape(shape),
            self.yaw[nearest].reshape(shape),
        )


@dataclass(frozen=True)
class RoadUsers:
    """K road users near the path, in path coordinates.

    Attributes:
        index: (K,) into the snapshot.
        s, d: (K,) of the centres. s_low, s_high, d_low, d_high: (K,) extent of the boxes.
        s_dot, d_dot: (K,) velocity. speed: (K,) its magnitude. yaw_rate: (K,) as seen so far.
        relative_yaw: (K,) heading relative to the path's.
        pedestrian, cycle, fixed: (K,) persons; bicycles and motorcycles; what stands for good
            (``Snapshot.lane_ids`` empty).
        standing_s: (K,) for how long it has been seen to stand.
    """

    index: Index
    s: Array
    d: Array
    s_low: Array
    s_high: Array
    d_low: Array
    d_high: Array
    s_dot: Array
    d_dot: Array
    speed: Array
    yaw_rate: Array
    relative_yaw: Array
    pedestrian: Mask
    cycle: Mask
    fixed: Mask
    standing_s: Array

    def __len__(self) -> int:
        return len(self.index)

    def settling_s(self) -> Array:
        """(K,) time until who is turning back to the path's direction has got there, else 1e6."""
        change = self.s_dot * self.yaw_rate
        back = change * self.d_dot < 0.0
        return np.where(back, -self.d_dot / np.where(back, change, 1.0), 1e6)

    def sideways(self, times: Array) -> Array:
        """Return (K, T) how far each moves to the left of the path within ``times`` (T,).

        At constant velocity along the path; who is turning back to its direction stops drifting
        when it has got there.
        """
        settles = self.settling_s()
        reach = np.minimum(times, settles[:, None])
        turning = np.where(settles < 1e5, self.s_dot * self.yaw_rate, 0.0)[:, None]
        return np.asarray(self.d_dot[:, None] * reach + turning * reach**2 / 2)


def road_users(
    frame: PathFrame, traffic: Snapshot, standing_s: Array, yaw_rate: Array
) -> RoadUsers:
    """Return the agents of ``traffic`` near the stretch of ``frame``.

    Args:
        standing_s: (A,) for how long each agent has been standing. yaw_rate: (A,) rad/s.
    """
    s, d, path_yaw = frame.project(traffic.center)
    half_diagonal = np.hypot(traffic.size[:, 0], traffic.size[:, 1]) / 2
    near = np.abs(d) < REACH_M + half_diagonal
    near &= (s > frame.s[0] - 60.0) & (s < frame.s[-1] + 10.0)
    index = np.flatnonzero(near)
    s, d, relative = s[index], d[index], traffic.yaw[index] - path_yaw[index]
    relative = np.arctan2(np.sin(relative), np.cos(relative))
    cos, sin = np.cos(relative), np.sin(relative)
    length, width = traffic.size[index, 0] / 2, traffic.size[index, 1] / 2
    along, across = (
        length * np.abs(cos) + width * np.abs(sin),
        length * np.abs(sin) + width * np.abs(cos),
    )
    s_low, s_high, d_low, d_high = s - along, s + along, d - across, d + across
    # A long box beside a bend is nearer than its centre's heading says: project its outline.
    close = np.flatnonzero((np.abs(d) < across + 4.0) & (length > 1.0))
    if len(close):
        at = index[close]
        ux = np.array([1.0, 1.0, -1.0, -1.0, 0.0, 0.0])
        uy = np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
        forward = np.stack([np.cos(traffic.yaw[at]), np.sin(traffic.yaw[at])], axis=1)
        left = np.stack([-forward[:, 1], forward[:, 0]], axis=1)
        outline = (
            traffic.center[at, None]
            + (ux * length[close, None])[..., None] * forward[:, None]
            + (uy * width[close, None])[..., None] * left[:, None]
        )
        corner_s, corner_d, _ = frame.project(outline)
        s_low[close], s_high[close] = corner_s.min(axis=1), corner_s.max(axis=1)
        d_low[close], d_high[close] = corner_d.min(axis=1), corner_d.max(axis=1)
    speed, model = traffic.speed[index], traffic.model[index]
    nowhere = np.array([not traffic.lane_ids[i] for i in index], bool)
    return RoadUsers(
        index=index,
        s=s,
        d=d,
        s_low=s_low,
        s_high=s_high,
        d_low=d_low,
        d_high=d_high,
        s_dot=speed * cos,
        d_dot=speed * sin,
        speed=speed,
        yaw_rate=np.clip(yaw_rate[index], -0.8, 0.8),
        relative_yaw=relative,
        pedestrian=model == AgentModel.PEDESTRIAN,
        cycle=(model == AgentModel.BICYCLE) | (model == AgentModel.MOTORCYCLE),
        fixed=nowhere & (speed < 0.1) & (model != AgentModel.PEDESTRIAN),
        standing_s=standing_s[index],
    )
