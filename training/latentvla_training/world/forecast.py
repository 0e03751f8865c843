"""Who is in the ego's corridor, and who will be if everybody keeps the present velocity.

Road users that move along the road are forecast at constant velocity in path coordinates (they
follow the bend), all others straight on in the plane, turning on if they have been turning.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentvla_training.world.episode import EgoVehicle
from latentvla_training.world.path_frame import PathFrame, RoadUsers
from latentvla_training.world.traffic import EGO_FRONT_M, Snapshot

Array = NDArray[np.float64]

HORIZON_S = 4.0
STEP_S = 0.25
TIMES = np.arange(STEP_S, HORIZON_S + STEP_S / 2, STEP_S)
#: Within this heading of the path somebody drives along it.
ALONG_RAD = 0.6
#: Sideways speed from which somebody is leaving its place in the lane, m/s.
DRIFT_MPS = 0.3
#: A driver who could still stop short of the corridor with this is trusted to, m/s^2.
TRUSTED_BRAKING = 3.0
_VEHICLE = EgoVehicle()


@dataclass(frozen=True)
class Corridor:
    """What the ego's body will sweep: ``low`` ... ``high`` of d at arc lengths ``s``, all (M,)."""

    s: Array
    low: Array
    high: Array

    def clearance(self, s_low: Array, s_high: Array, d_low: Array, d_high: Array) -> Array:
        """Return the sideways distance between boxes in path coordinates and the corridor."""
        low, high = np.full_like(d_low, np.inf), np.full_like(d_low, -np.inf)
        for place in (s_low, (s_low + s_high) / 2, s_high):
            low = np.minimum(low, np.interp(place, self.s, self.low))
            high = np.maximum(high, np.interp(place, self.s, self.high))
        return np.maximum(d_low - high, low - d_high)


@dataclass(frozen=True)
class Leader:
    """Somebody ahead in the corridor: gap from the front bumper, speed along the path, user."""

    gap: float
    speed: float
    user: int


def leaders_in(
    corridor: Corridor, users: RoadUsers, front: float, speed: float, length: float
) -> list[Leader]:
    """Return everybody ahead whose box is in the corridor now, nearest first.

    Who crosses it and will have left long before the ego comes is not counted.

    Args:
        front: arc length of the ego's front bumper. speed: of the ego. length: how far along the
            path to look, m.
    """
    gap = users.s_low - front
    ahead = (gap > -3.5) & (users.s > front - 1.0) & (gap < length)
    oncoming = np.abs(users.relative_yaw) > np.pi - ALONG_RAD
    margin = np.where((users.speed < 0.5) | oncoming, 0.15, 0.3)
    margin = np.where(users.pedestrian | users.cycle, 0.45, margin)
    margin = np.where(users.pedestrian & (users.standing_s > 2.0), 0.2, margin)
    clearance = corridor.clearance(users.s_low, users.s_high, users.d_low, users.d_high)
    middle = np.interp(users.s, corridor.s, (corridor.low + corridor.high) / 2)
    half = np.interp(users.s, corridor.s, (corridor.high - corridor.low) / 2) + margin
    way_out = np.where(users.d_dot > 0.0, middle + half - users.d_low, users.d_high - middle + half)
    out = way_out / np.maximum(np.abs(users.d_dot), 0.1)
    across = np.abs(np.abs(users.relative_yaw) - np.pi / 2) < np.pi / 4
    leaves = across & (np.abs(users.d_dot) > 0.5) & (out + 1.0 < gap / max(speed, 3.0))
    blocking = np.flatnonzero(ahead & (clearance < margin) & ~leaves)
    return [
        Leader(float(gap[i]), float(users.s_dot[i]), int(i))
        for i in blocking[np.argsort(gap[blocking], kind="stable")]
    ]


def drifting_in(
    corridor: Corridor, users: RoadUsers, front: float, horizon_s: float = 2.5
) -> list[Leader]:
    """Return those who drive along the road and come into the corridor ahead of the ego.

    They are leaders already: braking makes room for them.
    """
    along = (np.abs(users.relative_yaw) < ALONG_RAD) & (users.speed > 0.5)
    clearance = corridor.clearance(users.s_low, users.s_high, users.d_low, users.d_high)
    middle = (corridor.low[0] + corridor.high[0]) / 2
    inward = -np.sign(users.d - middle)[:, None] * users.sideways(TIMES[horizon_s >= TIMES])
    gap = users.s_low - front
    coming = along & (-np.sign(users.d - middle) * users.d_dot > DRIFT_MPS) & (clearance > 0.0)
    coming &= inward.max(axis=1, initial=0.0) > clearance
    found = coming & (users.s > front - _VEHICLE.length_m / 2) & (gap < 60.0)
    return [
        Leader(max(float(gap[i]), 0.5), float(users.s_dot[i]), int(i))
        for i in np.flatnonzero(found)
    ]


def crossing_stop(
    corridor: Corridor,
    frame: PathFrame,
    users: RoadUsers,
    traffic: Snapshot,
    s: float,
    speed: float,
    ceiling: float,
    zebras: tuple[tuple[float, float], ...],
) -> float | None:
    """Return where the ego must stop for somebody whose forecast crosses its corridor, or None.

    Args:
        s, speed: of the ego's rear axle. ceiling: speed that it may reach within the horizon.
        zebras: arc lengths between which pedestrians may cross.
    """
    front = s + EGO_FRONT_M
    reach = (users.speed + max(speed, 5.0)) * HORIZON_S + 10.0
    # Who comes towards us along the road is a matter for ``leaders_in`` once it is in our way.
    turned = np.abs(np.abs(users.relative_yaw) - np.pi / 2) < np.pi / 2 - ALONG_RAD
    # Who comes towards us on a lane keeps to it unless it is nearly on ours already.
    now = corridor.clearance(users.s_low, users.s_high, users.d_low, users.d_high)
    free = np.array([not traffic.lane_ids[i] for i in users.index], bool)
    oncoming = (np.abs(users.relative_yaw) >= np.pi - ALONG_RAD) & (np.abs(users.d_dot) > DRIFT_MPS)
    oncoming &= free | (now < 0.6)
    moving = (users.speed > 0.3) & ~users.fixed & (turned | oncoming | users.pedestrian)
    moving &= (users.s > front - 12.0) & (np.abs(users.d) < reach) & (users.s - front < reach)
    chosen = np.flatnonzero(moving)
    if not len(chosen):
        return None
    at = users.index[chosen]
    turn = np.where(users.pedestrian, 0.0, users.yaw_rate)[chosen]
    turned_by = turn[:, None] * np.minimum(TIMES, 2.0)
    heading = traffic.yaw[at][:, None] + turned_by / 2
    path = traffic.center[at][:, None] + (users.speed[chosen][:, None] * TIMES)[
        ..., None
    ] * np.stack([np.cos(heading), np.sin(heading)], axis=2)
    place_s, place_d, path_yaw = frame.project(path)
    relative = traffic.yaw[at][:, None] + turned_by - path_yaw
    # Who keeps to the road follows its bends.
    follows = (oncoming & ~turned & ~users.pedestrian)[chosen]
    steady = chosen[follows]
    place_s[follows] = users.s[steady][:, None] + users.s_dot[steady][:, None] * TIMES
    place_d[follows] = users.d[steady][:, None] + users.sideways(TIMES)[steady]
    askew = np.pi - np.abs(users.relative_yaw[steady][:, None])
    relative[follows] = askew * np.maximum(1.0 - TIMES / users.settling_s()[steady][:, None], 0.0)
    cos, sin = np.abs(np.cos(relative)), np.abs(np.sin(relative))
    length, width = traffic.size[at, 0][:, None] / 2, traffic.size[at, 1][:, None] / 2
    half_s, half_d = length * cos + width * sin, length * sin + width * cos
    person = (users.pedestrian | users.cycle)[chosen]
    margin = np.where(person, 0.5, 0.25)[:, None]
    low = np.interp(place_s, corridor.s, corridor.low) - margin
    high = np.interp(place_s, corridor.s, corridor.high) + margin
    inside = (place_d + half_d > low) & (place_d - half_d < high)
    # Where the ego will be at the same time, whether it speeds up or holds its speed.
    top = max(ceiling, speed)
    ramp = np.minimum(TIMES + 0.5, (top - speed) / 1.3)
    farthest = front + speed * ramp + 0.65 * ramp**2 + top * (TIMES + 0.5 - ramp)
    # Nobody who would walk into our side is helped by braking.
    back = np.where(users.pedestrian[chosen], 0.5, 2.5)[:, None]
    nearest = front - back + speed * np.maximum(TIMES - 0.4, 0.0)
    together = inside & (place_s + half_s > nearest) & (place_s - half_s < farthest)
    meets = together.any(axis=1)
    enters = np.where(inside.any(axis=1), TIMES[np.argmax(inside, axis=1)], np.inf) - STEP_S
    within = np.where(now[chosen] < 0.0, 0.0, np.maximum(enters, 0.0))
    trusted = np.where(users.cycle[chosen], 2.5, TRUSTED_BRAKING)
    cannot_stop = within < users.speed[chosen] / (2.0 * trusted) + 0.3
    patience = np.full(len(chosen), 2.2)
    for enter_s, exit_s in zebras:
        on_zebra = (users.s[chosen] > enter_s - 1.5) & (users.s[chosen] < exit_s + 1.5)
        patience = np.where(on_zebra, HORIZON_S, patience)
    counts = np.where(users.pedestrian[chosen], within < patience, cannot_stop)
    stops = np.where(together, place_s - half_s, np.inf).min(axis=1) - margin[:, 0]
    stops = stops[meets & counts]
    stops = stops[stops > front - 0.8]
    return float(stops.min()) if len(stops) else None


class Watch:
    """What has been seen of the agents so far: how long they stand, how fast they turn."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, float]] = {}

    def update(self, traffic: Snapshot, interval_s: float) -> tuple[Array, Array]:
        """Return (A,) standing time in s and (A,) yaw rate in rad/s; a newcomer has neither."""
        count = len(traffic.ids)
        before = [self._seen.get(name) for name in traffic.ids]
        yaw = np.array([old[0] if old else np.nan for old in before]).reshape(count)
        stood = np.array([old[1] if old else 0.0 for old in before]).reshape(count)
        turned = np.remainder(traffic.yaw - yaw + np.pi, 2 * np.pi) - np.pi
        yaw_rate = np.where(np.isfinite(turned), turned / interval_s, 0.0)
        standing = np.where(traffic.speed < 0.15, stood + interval_s, 0.0)
        self._seen = dict(
            zip(traffic.ids, zip(traffic.yaw.tolist(), standing.tolist(), strict=True), strict=True)
        )
        return standing, yaw_rate
