"""Junctions and crosswalks ahead: lights, who goes first, gaps, room behind the junction.

Foes are forecast at constant speed along the lanes they are on, lights are taken as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentvla_training.world.episode import EgoVehicle
from latentvla_training.world.forecast import Corridor, Leader
from latentvla_training.world.path_frame import RoadUsers
from latentvla_training.world.road_map import SignalState
from latentvla_training.world.route import Conflict, Crossing, Route
from latentvla_training.world.traffic import EGO_FRONT_M, Snapshot

Array = NDArray[np.float64]

_LENGTH_M = EgoVehicle().length_m
#: Braking of a faster driver behind whom the ego merges, m/s^2.
MERGING_BRAKING = 2.0


@dataclass(frozen=True)
class JunctionSettings:
    """How the ego behaves at junctions; SI units.

    Attributes:
        yellow_braking: stop at yellow when this deceleration suffices, or 1.4 times it when the
            junction cannot be left within yellow_s.
        gap_margin_s: between leaving a conflict zone and the next vehicle's arrival.
        patience_s: after so long a wait the margin has shrunk to a half.
        red_braking: a red light is run when stopping needs more than this.
        standstill_gap_m: room wanted behind the junction.
    """

    yellow_braking: float = 3.0
    yellow_s: float = 4.0
    gap_margin_s: float = 1.2
    patience_s: float = 15.0
    red_braking: float = 7.0
    standstill_gap_m: float = 2.5


class Junctions:
    """The crossings of a route, indexed by the lanes from which somebody may come."""

    def __init__(self, route: Route, target_speed: Array, settings: JunctionSettings) -> None:
        self._route, self._target, self._settings = route, target_speed, settings
        self._inside: list[dict[str, list[tuple[int, float]]]] = []
        self._approach: list[dict[str, list[tuple[int, float]]]] = []
        for crossing in route.crossings:
            inside: dict[str, list[tuple[int, float]]] = {}
            approach: dict[str, list[tuple[int, float]]] = {}
            for number, conflict in enumerate(crossing.conflicts):
                for lane, offset in zip(conflict.lane_ids, conflict.start_offset, strict=True):
                    inside.setdefault(lane, []).append((number, offset))
                if conflict.has_priority:
                    near = (conflict.approach_lane, conflict.approach_length)
                    for lane, distance in (near, *conflict.upstream):
                        approach.setdefault(lane, []).append((number, -distance))
            self._inside.append(inside)
            self._approach.append(approach)

    def stop_line(
        self,
        s: float,
        speed: float,
        traffic: Snapshot,
        leader: Leader | None,
        waited_s: float,
        lookahead_m: float,
        zebras: tuple[Zebra, ...],
        corridor: Corridor,
        users: RoadUsers,
    ) -> float | None:
        """Return the arc length of the next stop line if the ego must stop there.

        Args:
            s, speed: of the rear axle. leader: nearest one that may block the way out.
            waited_s: how long the ego has been standing. lookahead_m: how far to look.
            zebras, corridor, users: what is ahead.
        """
        front, settings = s + EGO_FRONT_M, self._settings
        crossings = self._route.crossings
        number = next((i for i, c in enumerate(crossings) if c.stop_s > front - 0.5), None)
        if number is None or crossings[number].stop_s - front > lookahead_m:
            return None
        crossing = crossings[number]
        distance = crossing.stop_s - front
        needed = speed**2 / (2.0 * max(distance - 0.5, 0.1))
        if crossing.signal >= 0:
            light = traffic.signals[crossing.signal]
            if light == SignalState.RED and needed < settings.red_braking:
                return crossing.stop_s
            if light == SignalState.YELLOW:
                length = crossing.exit_s - front + _LENGTH_M
                late = length > settings.yellow_s * min(speed, self._slowest(crossing))
                if needed < settings.yellow_braking * (1.4 if late else 1.0):
                    return crossing.stop_s
        if needed > 4.0 or distance > 12.0 + 1.2 * speed**2 / 4.0:
            return None
        if self._exit_blocked(crossing, front, leader):
            return crossing.stop_s
        if exit_zebra_taken(zebras, crossing, corridor, users, front, speed):
            return crossing.stop_s
        if self._foe_comes(number, crossing, front, speed, traffic, waited_s):
            return crossing.stop_s
        return None

    def _slowest(self, crossing: Crossing) -> float:
        """Lowest target speed inside a junction."""
        inside = slice(*np.searchsorted(self._route.s, (crossing.stop_s, crossing.exit_s + 1.0)))
        return float(self._target[inside].min())

    def _exit_blocked(self, crossing: Crossing, front: float, leader: Leader | None) -> bool:
        """Whether a slow leader leaves no room behind the junction."""
        if not crossing.conflicts or leader is None or leader.speed > 2.5:
            return False
        room = crossing.exit_s + _LENGTH_M + self._settings.standstill_gap_m
        return crossing.stop_s < front + leader.gap < room

    def _foe_comes(
        self,
        number: int,
        crossing: Crossing,
        front: float,
        speed: float,
        traffic: Snapshot,
        waited_s: float,
    ) -> bool:
        """Whether somebody on a conflicting way meets the ego at constant speed."""
        inside, approach = self._inside[number], self._approach[number]
        for index, lane in enumerate(traffic.lane_ids):
            for conflict_number, offset in inside.get(lane, ()):
                position = offset + float(traffic.lane_position[index])
                conflict = crossing.conflicts[conflict_number]
                if self._meets(
                    conflict, crossing, front, speed, traffic, index, position, waited_s
                ):
                    return True
            for conflict_number, offset in approach.get(lane, ()):
                conflict = crossing.conflicts[conflict_number]
                if conflict.signal >= 0 and traffic.signals[conflict.signal] == SignalState.RED:
                    continue
                position = offset + float(traffic.lane_position[index])
                if traffic.speed[index] < 0.5 and (position < -12.0 or waited_s > 3.5):
                    continue
                if self._meets(
                    conflict, crossing, front, speed, traffic, index, position, waited_s
                ):
                    return True
        return False

    def _meets(
        self,
        conflict: Conflict,
        crossing: Crossing,
        front: float,
        speed: float,
        traffic: Snapshot,
        index: int,
        position: float,
        waited_s: float,
    ) -> bool:
        """Whether agent ``index``, ``position`` m along the conflicting way, meets the ego."""
        foe_speed, length = float(traffic.speed[index]), float(traffic.size[index, 0])
        foe_start, foe_end = conflict.foe_interval
        if position - length > foe_end + 0.5:
            return False
        if (
            foe_speed < 0.5
            and position > 0.0
            and (waited_s > 3.5 or not conflict.has_priority or position > foe_start)
        ):  # in the way it is a leader, not a foe
            return False
        start, end = conflict.route_interval
        ceiling = float(np.interp(start, self._route.s, self._target))
        arrives = _time_to(start - front, speed, ceiling)
        clears = _time_to(end - front + _LENGTH_M, speed, ceiling)
        settings = self._settings
        margin = settings.gap_margin_s * max(1.0 - 0.5 * waited_s / settings.patience_s, 0.4)
        if end > crossing.exit_s - 1.0:  # on the same lane from there on: the faster one must brake
            reached = min(math.hypot(speed, math.sqrt(2.6 * max(end - front, 0.0))), ceiling)
            margin += max(foe_speed - reached, 0.0) / (2.0 * MERGING_BRAKING)
        assumed = max(foe_speed, 2.5)
        foe_arrives = (foe_start - 1.0 - position) / assumed
        foe_clears = (foe_end + 1.0 + length - position) / assumed
        return foe_arrives < clears + margin and foe_clears > arrives - 0.3


@dataclass(frozen=True)
class Zebra:
    """A crosswalk on the route: arc lengths of its edges, whether lights control it."""

    enter_s: float
    exit_s: float
    signalled: bool


def zebra_stop(
    zebras: tuple[Zebra, ...],
    corridor: Corridor,
    users: RoadUsers,
    front: float,
    speed: float,
    waited_s: float,
) -> float | None:
    """Return the near edge of a crosswalk on which, or about to be on which, somebody walks.

    Args:
        zebras: ahead. front, speed: of the ego's bumper. waited_s: how long it has been standing;
            the longer, the nearer a pedestrian must be to be let pass.
    """
    if not users.pedestrian.any():
        return None
    for zebra in zebras:
        distance = zebra.enter_s - front
        if distance < -0.5 or distance > 10.0 + speed**2 / 3.0:
            continue
        arrives = max(distance, 0.0) / max(speed, 2.0)
        patience = max(3.0 - waited_s / 5.0, 0.8)
        taken = _walkers(zebra, corridor, users, 0.0, arrives + patience, waited_s < 4.0)
        if taken and speed**2 / (2.0 * max(distance, 0.1)) < 7.0:
            return zebra.enter_s
    return None


def exit_zebra_taken(
    zebras: tuple[Zebra, ...],
    crossing: Crossing,
    corridor: Corridor,
    users: RoadUsers,
    front: float,
    speed: float,
) -> bool:
    """Whether the ego would have to wait inside a signalled junction for somebody who walks.

    There the light would turn red on it.
    """
    if crossing.signal < 0 or not users.pedestrian.any():
        return False
    for zebra in zebras:
        if not crossing.stop_s + 6.0 < zebra.enter_s < crossing.exit_s + 4.0:
            continue
        arrives = _time_to(zebra.enter_s - front, speed, 8.0)
        if _walkers(zebra, corridor, users, arrives - 1.5, arrives + 2.0, False):
            return True
    return False


def _walkers(
    zebra: Zebra, corridor: Corridor, users: RoadUsers, begin_s: float, end_s: float, wait: bool
) -> bool:
    """Whether somebody on the crosswalk is in the corridor between two times from now.

    Args:
        wait: also for who stands at the kerb of a crosswalk without lights.
    """
    walking = users.pedestrian & (users.s > zebra.enter_s - 1.0) & (users.s < zebra.exit_s + 1.0)
    if not walking.any():
        return False
    middle = np.interp(users.s, corridor.s, (corridor.low + corridor.high) / 2)
    half = np.interp(users.s, corridor.s, (corridor.high - corridor.low) / 2) + 0.5
    beside = np.abs(users.d - middle)
    approach = -np.sign(users.d - middle) * users.d_dot
    pace = np.maximum(np.abs(users.d_dot), 0.3)
    enters = np.where(beside < half, 0.0, np.where(approach > 0.3, (beside - half) / pace, np.inf))
    leaves = (half + 0.3 + np.where(approach > 0.0, beside, -beside)) / pace
    moving = (users.speed > 0.2) & (enters < end_s) & (leaves > begin_s)
    kerb = wait & (not zebra.signalled) & (users.speed <= 0.3) & (beside < half + 3.5)
    return bool((walking & (moving | kerb)).any())


def _time_to(distance: float, speed: float, ceiling: float) -> float:
    """Time to cover ``distance`` when accelerating at 1.3 m/s^2 to ``ceiling`` m/s."""
    if distance <= 0.0:
        return 0.0
    ceiling = max(ceiling, speed, 1.0)
    ramp = (ceiling**2 - speed**2) / 2.6
    if ramp >= distance:
        return (math.sqrt(speed**2 + 2.6 * distance) - speed) / 1.3
    return (ceiling - speed) / 1.3 + (distance - ramp) / ceiling
