"""Somebody on the next lane changes in front of the ego, closely, and slows down."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latentvla_training.world.episode import STEP_S, AgentModel, EgoVehicle, EventName
from latentvla_training.world.events.base import (
    IGNORE,
    OBEY_SPEED,
    LongTailEvent,
    Moment,
    Setting,
    StagedVehicle,
    along_route,
    lane_at,
    release,
    set_speed,
    stretch,
)
from latentvla_training.world.road_map import RoadMap
from latentvla_training.world.route import Route
from latentvla_training.world.traffic import TrafficSession
from latentvla_training.world.vehicle_models import MODEL_BY_NAME, draw_looks

#: SUMO changes lanes in 3 s; then the newcomer slows down for a while.
_CHANGE_S, _SLOWING_S = 3.0, 2.5
_LEAST_SPEED = 4.0
#: The car stays beside the ego until then.
_GIVE_UP_S = 10.0


@dataclass(frozen=True)
class CutInParameters:
    """How it cuts in: gap_m at which it begins, speed_share of the ego's speed it then takes,
    not_before_s of the episode."""

    gap_m: float
    speed_share: float
    not_before_s: float


class CutIn(LongTailEvent):
    """A car one lane beside and a little ahead of the ego moves over."""

    name = EventName.CUT_IN

    def __init__(
        self, parameters: CutInParameters, road_map: RoadMap, route: Route, staged: StagedVehicle
    ) -> None:
        super().__init__(parameters)
        self._road_map, self._route, self._staged = road_map, route, staged
        self._actor: str | None = None
        self._since_s = 0.0
        self._speed = 0.0

    @classmethod
    def plan(cls, setting: Setting, rng: np.random.Generator) -> LongTailEvent | None:
        """Draw a car on the next lane; None where the road has one lane or the place is taken."""
        parameters = CutInParameters(
            gap_m=float(rng.uniform(5.0, 10.0)),
            speed_share=float(rng.uniform(0.7, 0.95)),
            not_before_s=float(rng.uniform(0.8, 2.5)),
        )
        kind = str(rng.choice(("hatchback", "saloon", "suv", "van")))
        looks = draw_looks(MODEL_BY_NAME[kind], rng)
        route, lanes = setting.route, setting.road_map.lanes
        lane = lanes[route.lane_ids[0]]
        sides = [n for n in (lane.left_neighbor, lane.right_neighbor) if n is not None]
        sides = [name for name in sides if name in lanes]
        end = stretch(route, setting.front)[1]
        if not sides or end - setting.front < 75.0 or setting.speed < 5.0 or setting.room < 40.0:
            return None
        side = sides[int(rng.integers(len(sides)))]
        front = setting.front + parameters.gap_m + looks.size[0]
        traffic = setting.traffic
        for name, position, size in zip(
            traffic.lane_ids, traffic.lane_position, traffic.size, strict=True
        ):
            if name == side and position - size[0] < front + 15.0 and position > front - 25.0:
                return None
        staged = StagedVehicle(
            "event_cut_in", kind, looks, route.edge_ids, int(side.rsplit("_", 1)[1]), front,
            setting.speed,
        )  # fmt: skip
        return cls(parameters, setting.road_map, route, staged)

    def stage(self, traffic: TrafficSession) -> None:
        """Put the car on the next lane."""
        if self._staged.place(traffic):
            traffic.sumo.vehicle.setLaneChangeMode(self._staged.name, IGNORE)

    def advance(self, moment: Moment) -> None:
        """Keep the car beside, let it cut in when both move, slow it, let it go."""
        traffic = moment.traffic
        if self.ended is not None:
            return
        if self._actor is None:
            self._approach(moment)
            return
        self._since_s += STEP_S
        present = self._actor in traffic.sumo.vehicle.getIDList()
        if not present or self._since_s > _CHANGE_S + _SLOWING_S:
            release(traffic, self._actor)
            self.finish(moment)
        elif self._since_s > 0.6:
            wanted = self.parameters.speed_share * self._speed
            current = traffic.sumo.vehicle.getSpeed(self._actor)
            set_speed(traffic, self._actor, max(wanted, current - 2.0 * STEP_S), OBEY_SPEED)

    def _approach(self, moment: Moment) -> None:
        traffic, snapshot = moment.traffic, moment.snapshot
        there = self._staged.place(traffic) if moment.step < 0 else not self._staged.gone
        if not snapshot.ids:
            return
        s, lateral = along_route(
            self._route, snapshot.center, moment.front - 20.0, moment.front + 50.0
        )
        gap = s - snapshot.size[:, 0] / 2 - moment.front
        if there and self._staged.name in snapshot.ids:
            index = snapshot.ids.index(self._staged.name)
            speed = moment.speed + 0.5 * (self.parameters.gap_m - gap[index])
            limit = float(np.interp(moment.front, self._route.s, self._route.speed_limit))
            floor = 0.65 * limit if gap[index] < 2.0 * self.parameters.gap_m else 1.0
            set_speed(traffic, self._staged.name, max(speed, floor), OBEY_SPEED)
        if moment.step * STEP_S > _GIVE_UP_S and there:
            release(traffic, self._staged.name)  # it may be in the wrong lane for its way
            self._staged.gone = True
        lane, position = lane_at(self._road_map, self._route, moment.front)
        end = stretch(self._route, moment.front)[1]
        if lane.is_connector or moment.speed < _LEAST_SPEED:
            return
        if moment.step * STEP_S < self.parameters.not_before_s:
            return
        if end - moment.front < max(25.0, 2.2 * moment.speed) or position < 8.0:
            return
        beside = {lane.left_neighbor, lane.right_neighbor} - {None}
        own = (np.abs(lateral) < (snapshot.size[:, 1] + EgoVehicle().width_m) / 2) & (gap > -2.0)
        ahead = float(gap[own].min()) if own.any() else np.inf
        for index in np.argsort(gap):
            slower = moment.speed - snapshot.speed[index]
            fits = max(2.5, 2.2 * slower) < gap[index] < 13.0 and abs(slower) < 3.0
            car = snapshot.model[index] <= AgentModel.TRUCK and snapshot.speed[index] > 3.0
            if not (fits and car and snapshot.lane_ids[index] in beside):
                continue
            if ahead < gap[index] + snapshot.size[index, 0] + 5.0:
                continue
            self._actor = snapshot.ids[index]
            self._speed = moment.speed
            traffic.sumo.vehicle.setLaneChangeMode(self._actor, IGNORE)
            target = int(lane.lane_id.rsplit("_", 1)[1])
            traffic.sumo.vehicle.changeLane(self._actor, target, _CHANGE_S + _SLOWING_S)
            self.begin(moment)
            return
