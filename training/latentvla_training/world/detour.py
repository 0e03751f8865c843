"""Sideways moves: a little aside within the lane, or round an obstacle by a free neighbour lane.

What is in the way and will stay there is passed: parked cars, cones, barriers, vehicles that stand
without reason, bicycles. The move is a quintic of the distance travelled; the neighbour lane must
run in the same direction, be long enough to come back, and have gaps in front and behind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentvla_training.world.episode import EgoVehicle
from latentvla_training.world.lateral_shift import LATERAL_ACCELERATION, PEAK_BEND, Shift
from latentvla_training.world.path_frame import PathFrame, RoadUsers
from latentvla_training.world.right_of_way import Zebra
from latentvla_training.world.route import Route
from latentvla_training.world.traffic import EGO_FRONT_M

Array = NDArray[np.float64]

HALF_WIDTH_M = EgoVehicle().width_m / 2
REAR_M = EgoVehicle().length_m - EGO_FRONT_M
LANE_M = 3.5
#: How far the ego may go aside within its own lane.
ASIDE_M = LANE_M / 2 - HALF_WIDTH_M - 0.18
#: Tightest bend of a pull-out, 1/m.
MAX_CURVATURE = 0.14
#: Length of a move per metre sideways at which the front swings less than 0.5 m too far.
SWING = 5.5


@dataclass(frozen=True)
class _Group:
    """Obstacles passed in one go.

    Attributes:
        members: indices of the users. s_low, s_high: extent along the path. d_low, d_high: extent
            beside the undisturbed path, which is at ``base``.
        speed: of the slowest, along the path. margin: to be left beside them.
        blocking: whether the ego cannot just drive on.
    """

    members: tuple[int, ...]
    s_low: float
    s_high: float
    d_low: float
    d_high: float
    speed: float
    margin: float
    blocking: bool
    base: float


class Detour:
    """The ego's present sideways move; remembers whom it is passing.

    Attributes:
        shift: the offset from the path as a function of arc length.
        waiting: a detour would help but has no gap yet: stop where pulling out is possible.
        limit_s: the ego must not go beyond this before it is back, inf when it is in its lane.
    """

    def __init__(self, route: Route) -> None:
        self._route = route
        self._stops = np.array([crossing.stop_s for crossing in route.crossings])
        self.shift = Shift(-1.0, 1.0, 0.0, 0.0, 0.0)
        self.waiting = False
        self.limit_s = math.inf
        self._passing: set[str] = set()
        self._held = 0

    @property
    def active(self) -> bool:
        """Whether the ego is, or is going to be, beside its path."""
        return self.shift.target != 0.0

    @property
    def _within_lane(self) -> bool:
        return abs(self.shift.target) <= 2 * ASIDE_M

    def update(
        self,
        s: float,
        speed: float,
        target_speed: float,
        users: RoadUsers,
        ids: tuple[str, ...],
        zebras: tuple[Zebra, ...],
        base: Array,
        frame: PathFrame,
    ) -> None:
        """Begin, continue or end a sideways move.

        Args:
            s, speed: of the rear axle. target_speed: that the ego would drive on a free road.
            ids: of the agents. base: (M,) offset of the undisturbed path at ``frame.s``.
        """
        self.waiting = False
        if not len(users):
            if self.active:
                self._return(s, speed)
            return
        group = self._obstacles(s, speed, users, zebras, base, frame)
        if self.active and not (group is not None and group.blocking and self._within_lane):
            self._continue(s, speed, users, ids, group)
        elif group is not None:
            self._begin(s, speed, target_speed, users, ids, group)

    def _obstacles(
        self,
        s: float,
        speed: float,
        users: RoadUsers,
        zebras: tuple[Zebra, ...],
        base: Array,
        frame: PathFrame,
    ) -> _Group | None:
        """Return the nearest obstacles ahead that stay in the way of the undisturbed path."""
        front = s + EGO_FRONT_M
        along = np.abs(users.relative_yaw) < 0.6
        oncoming = users.cycle & (np.abs(users.relative_yaw) > 2.5) & (users.speed > 0.5)
        slow = users.fixed | oncoming
        slow |= users.cycle & along & (users.speed < 8.0)
        slow |= users.pedestrian & (np.abs(users.d_dot) < 0.25) & (users.speed > 0.3)
        slow |= users.standing_s > 2.0
        middle = np.interp(users.s, frame.s, base)
        clearance = np.maximum(users.d_low - middle, middle - users.d_high) - HALF_WIDTH_M
        margin = np.where(users.cycle | users.pedestrian, 0.9, 0.4)
        reach = max(30.0, 5.0 * speed + 15.0)
        candidates = np.flatnonzero(slow & (clearance < margin) & (users.s_high > front))
        order = candidates[np.argsort(users.s_low[candidates], kind="stable")]
        if not len(order) or users.s_low[order[0]] > front + reach:
            return None
        members = [int(order[0])]
        end = float(users.s_high[order[0]])
        for other in order[1:]:
            if users.s_low[other] < end + 16.0 + 1.5 * speed:
                members.append(int(other))
                end = max(end, float(users.s_high[other]))
        if self._queueing(members, users, clearance, zebras):
            return None
        chosen = np.array(members)
        hard = np.where(users.cycle | users.pedestrian, 0.45, 0.3)
        return _Group(
            members=tuple(members),
            s_low=float(users.s_low[chosen].min()),
            s_high=end,
            d_low=float((users.d_low - middle)[chosen].min()),
            d_high=float((users.d_high - middle)[chosen].max()),
            speed=float(users.s_dot[chosen].min()),
            margin=float(margin[chosen].max()),
            blocking=bool((clearance[chosen] < hard[chosen]).any()),
            base=float(np.mean(middle[chosen])),
        )

    def _queueing(
        self,
        members: list[int],
        users: RoadUsers,
        clearance: Array,
        zebras: tuple[Zebra, ...],
    ) -> bool:
        """Whether standing vehicles wait for something and will go on."""
        vehicles = [
            i for i in members if not (users.fixed[i] or users.cycle[i] or users.pedestrian[i])
        ]
        if not vehicles:
            return False
        head = max(float(users.s_high[i]) for i in vehicles)
        stops = [*self._stops, *(zebra.enter_s for zebra in zebras)]
        if any(-8.0 < stop - head < 14.0 for stop in stops):
            return True
        ahead = (users.s_low > head - 1.0) & (users.s_low < head + 14.0) & (clearance < 0.3)
        return bool((ahead & ~users.fixed & (users.standing_s < 2.0)).any())

    def _begin(
        self,
        s: float,
        speed: float,
        target_speed: float,
        users: RoadUsers,
        ids: tuple[str, ...],
        group: _Group,
    ) -> None:
        left = group.d_high + HALF_WIDTH_M + group.margin
        right = group.d_low - HALF_WIDTH_M - group.margin
        aside = left if left < -right else right
        names = {ids[users.index[i]] for i in group.members}
        slack = group.margin - (0.4 if group.blocking else 0.0)
        if abs(aside) <= ASIDE_M + max(slack, 0.0) and (
            not group.blocking or abs(aside) - ASIDE_M < group.margin - 0.45
        ):
            self._aside(s, speed, aside, group, names)
            return
        if group.speed < -0.5:  # who comes towards us is not overtaken
            self._aside(s, speed, math.copysign(ASIDE_M, aside), group, names)
            return
        if not group.blocking or target_speed - group.speed < 3.0:
            return
        for side, need in ((1.0, left), (-1.0, -right)):
            if need > LANE_M + 0.3:
                continue
            if self._try_lane(s, speed, target_speed, users, group, side, need):
                self._passing = names
                return

    def _aside(self, s: float, speed: float, aside: float, group: _Group, names: set[str]) -> None:
        """Move over within the lane, of which the undisturbed path may use a part already."""
        target = float(np.clip(aside, -ASIDE_M - group.base, ASIDE_M - group.base))
        if abs(target) < 0.08 or target * aside < 0.0 or abs(target - self.shift.target) < 0.1:
            return
        self._move(s, speed, target, None)
        self._passing = names

    def _try_lane(
        self,
        s: float,
        speed: float,
        target_speed: float,
        users: RoadUsers,
        group: _Group,
        side: float,
        need: float,
    ) -> bool:
        """Begin to pass by the neighbour lane on ``side`` (1 left, -1 right) if that works.

        Args:
            need: sideways distance from the path at which the group is passed.
        """
        end_s = self._room_end(s, side)
        passing = max(min(target_speed, group.speed + 6.0), 3.0)
        distance = group.s_high - s + REAR_M + 2.0
        if group.speed > 0.5:
            distance *= passing / (passing - group.speed)
        back = self._length(passing, LANE_M)
        if s + distance + min(back, 30.0) + 5.0 > end_s:
            return False
        self.waiting = group.speed < 0.5
        target = side * LANE_M
        if not self._gap(s, speed, users, target, set(group.members)):
            return False
        if group.speed > 0.5:
            if not self._worthwhile(s, speed, users, target, group):
                return False
            self._move(s, speed, target, None)
        else:
            moves = ((aim, self._fitting(s, speed, group, aim)) for aim in (target, side * need))
            fitting = next((move for move in moves if move[1] is not None), None)
            if fitting is None:
                return False
            self._move(s, speed, *fitting)
        self.waiting = False
        self.limit_s = end_s - 1.0
        return True

    def _worthwhile(
        self, s: float, speed: float, users: RoadUsers, target: float, group: _Group
    ) -> bool:
        """Whether, beyond a slow rider, both lanes flow faster than the rider."""
        front = s + EGO_FRONT_M
        ahead = (users.s > front) & (users.s_low < front + 40.0 + 3.0 * speed)
        ahead[list(group.members)] = False
        middle = (group.d_low + group.d_high) / 2
        for lane in (target, middle):
            there = ahead & (users.d_low < lane + 1.2) & (users.d_high > lane - 1.2)
            if (there & (users.s_dot < group.speed + 2.5)).any():
                return False
        return True

    def _continue(
        self,
        s: float,
        speed: float,
        users: RoadUsers,
        ids: tuple[str, ...],
        group: _Group | None,
    ) -> None:
        """Go on passing; return to the path when everybody is behind."""
        rear = s - REAR_M
        if group is not None and group.s_low < s + EGO_FRONT_M + 18.0 + 2.0 * speed:
            self._passing |= {ids[users.index[i]] for i in group.members}
        place = {ids[agent]: number for number, agent in enumerate(users.index)}
        beside = [place[name] for name in self._passing if name in place]
        room = 1.5 if not any(users.s_dot[i] > 0.5 for i in beside) else 4.0
        if any(
            users.s_high[i] > rear - room and users.s_low[i] < s + 120.0 for i in beside
        ) and not self._stale(s, users, beside):
            return
        if not self._within_lane and not self._gap(s, speed, users, 0.0, set()):
            return
        self._return(s, speed)

    def _stale(self, s: float, users: RoadUsers, beside: list[int]) -> bool:
        """Whether those to be passed have moved on, faster than the ego would pass them."""
        ahead = [i for i in beside if users.s_low[i] > s + EGO_FRONT_M]
        return len(ahead) == len(beside) and all(
            users.s_dot[i] > 8.0 or users.s_low[i] > s + 90.0 for i in ahead
        )

    def _return(self, s: float, speed: float) -> None:
        self._move(s, speed, 0.0, None)
        self._passing = set()

    def _move(self, s: float, speed: float, target: float, length: float | None) -> None:
        at = np.array([s])
        offset, slope = float(self.shift.at(at)[0]), float(self.shift.slope_at(at)[0])
        if length is None:
            length = self._length(max(speed, 3.0), target - offset)
            if target == 0.0 and math.isfinite(self.limit_s):
                length = min(length, max(self.limit_s - EGO_FRONT_M - s, self._shortest(offset)))
        self.shift = Shift(s, length, offset, slope, target)
        if target == 0.0:
            self.limit_s = math.inf

    def _length(self, speed: float, delta: float) -> float:
        comfortable = speed * math.sqrt(PEAK_BEND * abs(delta) / LATERAL_ACCELERATION)
        return max(comfortable, SWING * abs(delta), 8.0)

    def _shortest(self, delta: float) -> float:
        return math.sqrt(PEAK_BEND * max(abs(delta), 0.05) / MAX_CURVATURE)

    def _fitting(self, s: float, speed: float, group: _Group, target: float) -> float | None:
        """Longest comfortable move that ends up clear of a standing group, None when none does."""
        wanted, shortest = self._length(max(speed, 3.0), target), self._shortest(target)
        lengths = sorted({max(wanted * f, shortest) for f in (1.0, 0.75, 0.55, 0.4, 0.0)})[::-1]
        for length in lengths:
            shift = Shift(s, length, 0.0, 0.0, target)
            places = np.arange(s, group.s_high + REAR_M + 0.5, 0.5)
            offset, slope = shift.at(places), shift.slope_at(places)
            side = -math.copysign(HALF_WIDTH_M, target)  # of the body, towards the obstacle
            edge = group.d_high if target > 0 else group.d_low
            near = bool((np.abs(offset + EGO_FRONT_M * slope) < LANE_M + 0.5).all())
            for along in np.linspace(-REAR_M, EGO_FRONT_M, 7):
                point_s, point_d = places + along, offset + along * slope + side
                beside = (point_s > group.s_low - 0.4) & (point_s < group.s_high + 0.4)
                gap = (point_d - edge) * math.copysign(1.0, target)
                near &= not bool((beside & (gap < 0.3)).any())
            if near:
                return length
        return None

    def _room_end(self, s: float, side: float) -> float:
        """Arc length at which the neighbour lane ends; ``s`` when there is none."""
        route = self._route
        room = route.left_room if side > 0 else route.right_room
        first = int(np.searchsorted(route.s, s))
        short = np.flatnonzero(room[first:] < LANE_M + HALF_WIDTH_M)
        return float(route.s[first + short[0]]) if len(short) else float(route.s[-1])

    def _gap(
        self, s: float, speed: float, users: RoadUsers, target: float, ignored: set[int]
    ) -> bool:
        """Whether the lane ``target`` m to the left has room for the ego, in front and behind."""
        rear, front = s - REAR_M, s + EGO_FRONT_M
        reach = HALF_WIDTH_M + 0.35
        # Somebody who is moving over into that lane counts as being there.
        d_low = np.minimum(users.d_low, users.d_low + 1.5 * users.d_dot)
        d_high = np.maximum(users.d_high, users.d_high + 1.5 * users.d_dot)
        there = (d_high > target - reach) & (d_low < target + reach)
        if ignored:
            there[list(ignored)] = False
        own = float(self.shift.at(np.array([s]))[0])
        behind_us = (users.s_high < rear) & (users.d_low < own + 1.2) & (users.d_high > own - 1.2)
        there &= ~behind_us  # who follows us is no obstacle
        assumed = max(speed, 3.0)
        closing_front = np.maximum(assumed - users.s_dot, 0.0)
        closing_rear = np.maximum(users.s_dot - assumed, 0.0)
        ahead = users.s >= s + EgoVehicle().rear_axle_to_center_m
        gap = np.where(ahead, users.s_low - front, rear - users.s_high)
        closing = np.where(ahead, closing_front, closing_rear)
        pace = np.where(ahead, assumed, np.maximum(users.s_dot, 0.0))
        needed = 1.5 + 0.5 * pace + closing**2 / (2.0 * 2.0)
        moving_on = users.s_dot > -0.5
        needed = np.where(ahead & ~moving_on, 100.0, needed)
        relevant = there & (ahead | (users.s_dot > 0.3) | (gap < 1.0))
        return bool((gap[relevant] > needed[relevant]).all())
