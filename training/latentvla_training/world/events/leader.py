"""The vehicle ahead stops where nobody expects it: hard on the open road, or inside a junction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latentvla_training.world.episode import STEP_S, EventName
from latentvla_training.world.events.base import (
    AVOIDING_BRAKING,
    IGNORE,
    OBEY_SPEED,
    REACTION_S,
    LongTailEvent,
    Moment,
    Setting,
    StagedVehicle,
    inside_junction,
    leader_of,
    release,
    set_speed,
    slow_traffic,
    stretch,
)
from latentvla_training.world.events.lights import hurry_light, open_way
from latentvla_training.world.road_map import RoadMap
from latentvla_training.world.route import Route
from latentvla_training.world.traffic import TrafficSession
from latentvla_training.world.vehicle_models import MODEL_BY_NAME, draw_looks

#: Where a queue is near the leader never gets going.
_AHEAD_M = 120.0
_LEADERS = ("hatchback", "saloon", "suv", "van")


@dataclass(frozen=True)
class StopParameters:
    """How the leader stops.

    Attributes:
        headway_s: that it keeps before the ego until then. deceleration: m/s^2.
        hold_s: how long it stands. not_before_s: earliest moment of the episode.
    """

    headway_s: float
    deceleration: float
    hold_s: float
    not_before_s: float


class StoppingLeader(LongTailEvent):
    """A leader staged ahead of the ego that at some moment brakes to a standstill."""

    def __init__(
        self, parameters: StopParameters, road_map: RoadMap, route: Route, staged: StagedVehicle
    ) -> None:
        super().__init__(parameters)
        self._road_map, self._route = road_map, route
        self._staged = staged
        self._leader: str | None = None
        self._speed = 0.0
        self._stood_s = 0.0
        self._released = False

    @classmethod
    def plan(cls, setting: Setting, rng: np.random.Generator) -> LongTailEvent | None:
        """Draw a leader on the ego's lane; None without room for one before the first junction."""
        parameters = cls._draw(rng)
        kind = str(rng.choice(_LEADERS))
        looks = draw_looks(MODEL_BY_NAME[kind], rng)
        gap = 4.0 + parameters.headway_s * setting.speed
        front = setting.front + gap + looks.size[0]
        route, end = setting.route, stretch(setting.route, setting.front)[1]
        if setting.room < gap + looks.size[0] + 12.0 or front > end - 8.0:
            return None
        if not cls._suits(setting) or slow_traffic(setting, _AHEAD_M):
            return None
        index = int(route.lane_ids[0].rsplit("_", 1)[1])
        staged = StagedVehicle(
            "event_leader", kind, looks, route.edge_ids, index, front, setting.speed
        )
        return cls(parameters, setting.road_map, route, staged)

    @classmethod
    def _draw(cls, rng: np.random.Generator) -> StopParameters:
        return StopParameters(
            headway_s=float(rng.uniform(1.1, 1.7)),
            deceleration=float(rng.uniform(4.0, 6.5)),
            hold_s=float(rng.uniform(1.5, 4.0)),
            not_before_s=float(rng.uniform(0.8, 6.0)),
        )

    @classmethod
    def _suits(cls, setting: Setting) -> bool:
        return len(setting.route.crossings) > 0

    def stage(self, traffic: TrafficSession) -> None:
        """Put the leader ahead of the ego."""
        if self._staged.place(traffic):
            traffic.sumo.vehicle.setLaneChangeMode(self._staged.name, IGNORE)

    def advance(self, moment: Moment) -> None:
        """Keep the leader near until the moment comes, brake, stand, go on."""
        traffic = moment.traffic
        if self._released:
            return
        if self._leader is None:
            self._approach(moment)
            return
        if self._leader not in traffic.sumo.vehicle.getIDList():
            self._let_go(moment)
            return
        if self._speed > 0.0:
            self._speed = max(self._speed - self.parameters.deceleration * STEP_S, 0.0)
            set_speed(traffic, self._leader, self._speed, IGNORE)
            traffic.brake_lights.add(self._leader)
        else:
            self._stood_s += STEP_S
            if self._stood_s >= self.parameters.hold_s:
                self._let_go(moment)

    def _let_go(self, moment: Moment) -> None:
        self._released = True
        if self._leader is not None:
            release(moment.traffic, self._leader)
        self.ended = moment.step + 15

    def _approach(self, moment: Moment) -> None:
        traffic = moment.traffic
        there = self._staged.place(traffic) if moment.step < 5 else not self._staged.gone
        leader = leader_of(self._route, moment)
        if leader is None:
            return
        if there and leader.name == self._staged.name:
            wanted_gap = 4.0 + self.parameters.headway_s * moment.speed
            speed = moment.speed + 0.4 * (wanted_gap - leader.gap)
            limit = float(np.interp(moment.front, self._route.s, self._route.speed_limit))
            floor = 0.65 * limit if leader.gap < 2.0 * wanted_gap else 2.5  # else both would creep
            set_speed(traffic, leader.name, max(speed, floor), OBEY_SPEED)
        hurry_light(moment, self._road_map, self._route, np.inf)
        due = moment.step * STEP_S >= self.parameters.not_before_s
        if due and self._now(moment, leader.gap, leader.speed):
            self._leader, self._speed = leader.name, leader.speed
            self.begin(moment)

    def _now(self, moment: Moment, gap: float, speed: float) -> bool:
        """Whether to brake now; only if braking by ``AVOIDING_BRAKING`` avoids the contact."""
        stops = gap + speed**2 / (2.0 * self.parameters.deceleration)
        needs = moment.speed * REACTION_S + moment.speed**2 / (2.0 * AVOIDING_BRAKING)
        return bool(stops > needs + 1.5)


class LeadHardBrakes(StoppingLeader):
    """The leader brakes hard on the open road, for nothing that can be seen."""

    name = EventName.LEAD_HARD_BRAKES

    def _now(self, moment: Moment, gap: float, speed: float) -> bool:
        start, end = stretch(self._route, moment.front + gap)
        open_road = start + 5.0 < moment.front + gap < end - 12.0
        near = gap < 5.0 + 1.9 * moment.speed
        fast = min(speed, moment.speed) > 5.5
        return open_road and near and fast and super()._now(moment, gap, speed)


class StopInJunction(StoppingLeader):
    """The leader makes an emergency stop in the middle of a junction."""

    name = EventName.STOP_IN_JUNCTION

    @classmethod
    def _draw(cls, rng: np.random.Generator) -> StopParameters:
        return StopParameters(
            headway_s=float(rng.uniform(0.9, 1.5)),
            deceleration=float(rng.uniform(4.5, 7.0)),
            hold_s=float(rng.uniform(4.0, 7.0)),
            not_before_s=0.8,
        )

    @classmethod
    def _suits(cls, setting: Setting) -> bool:
        first = setting.route.crossings[0]
        return first.stop_s - setting.front < 140.0 and first.exit_s - first.stop_s > 12.0

    def stage(self, traffic: TrafficSession) -> None:
        """Put the leader ahead of the ego and let it enter the first junction."""
        super().stage(traffic)
        open_way(traffic, self._road_map, self._route, self._route.crossings[0].stop_s + 1.0)

    def _now(self, moment: Moment, gap: float, speed: float) -> bool:
        rear = moment.front + gap
        junction = inside_junction(self._route, rear + 1.0)
        if junction is None or gap > 8.0 + 2.2 * moment.speed or speed < 2.5:
            return False
        reaches = rear + speed**2 / (2.0 * self.parameters.deceleration)
        deep = rear > junction.stop_s + 0.15 * (junction.exit_s - junction.stop_s)
        return deep and reaches < junction.exit_s and super()._now(moment, gap, speed)
