"""A cyclist comes towards the ego on the ego's side of the road."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from latentvla_training.world.episode import STEP_S, AgentModel, EventName
from latentvla_training.world.events.base import (
    WARM_UP_S,
    Guard,
    LongTailEvent,
    Moment,
    Setting,
    lane_at,
    point_at,
    stretches,
)
from latentvla_training.world.events.lights import hurry_light, open_way
from latentvla_training.world.road_map import RoadMap
from latentvla_training.world.route import Route
from latentvla_training.world.street_furniture import is_kerb_lane
from latentvla_training.world.traffic import Puppet, TrafficSession
from latentvla_training.world.vehicle_models import MODEL_BY_NAME, Looks, draw_looks

_NAME = "event_cyclist"
_LIMIT_MPS = 17.0
#: How fast the cyclist moves aside, m/s; within how many metres of the ego.
_ASIDE_MPS, _YIELD_M = 0.9, 15.0


@dataclass(frozen=True)
class CyclistParameters:
    """How the cyclist rides.

    Attributes:
        distance_m: from the ego's bumper at the start to where the cyclist waits.
        riding_speed: m/s. from_kerb_m: of the bicycle's middle, from the carriageway's edge.
        warning_s: until they would meet when the cyclist sets off.
    """

    distance_m: float
    riding_speed: float
    from_kerb_m: float
    warning_s: float


class WrongWayCyclist(LongTailEvent):
    """Waits on the verge, rides against the traffic, keeps to the kerb when the ego is near."""

    name = EventName.WRONG_WAY_CYCLIST

    def __init__(
        self, parameters: CyclistParameters, road_map: RoadMap, route: Route, start_s: float,
        end_s: float, kerb_m: float, looks: Looks,
    ) -> None:  # fmt: skip
        super().__init__(parameters)
        self._road_map, self._route = road_map, route
        self._kerb_m, self._looks = kerb_m, looks
        self._s, self._end_s = start_s, end_s
        self._right = kerb_m + 1.3
        self._guard = Guard()

    @classmethod
    def plan(cls, setting: Setting, rng: np.random.Generator) -> LongTailEvent | None:
        """Draw a place at a kerb of the route; None where it never runs along one."""
        looks = draw_looks(MODEL_BY_NAME["bicycle"], rng)
        riding, warning = float(rng.uniform(3.0, 5.0)), float(rng.uniform(4.0, 6.0))
        from_kerb, share = float(rng.uniform(0.3, 0.8)), float(rng.random())
        for start, end in stretches(setting.route):
            lane, _ = lane_at(setting.road_map, setting.route, (start + end) / 2)
            low = max(start + 35.0, setting.reach(WARM_UP_S + 1.0) + 35.0)
            high = min(end - 6.0, setting.front + 180.0)
            if high <= low or not is_kerb_lane(setting.road_map, lane):
                continue
            if lane.speed_limit_mps > _LIMIT_MPS:
                continue
            place = low + share * (high - low)
            values = CyclistParameters(place - setting.front, riding, from_kerb, warning)
            return cls(
                values, setting.road_map, setting.route, place, start + 4.0, lane.width_m / 2, looks
            )
        return None

    def stage(self, traffic: TrafficSession) -> None:
        """Clear the kerb along the way and put the cyclist beside the road."""
        places = np.arange(self._end_s, self._s + 4.0, 4.0)
        kerb = [point_at(self._route, s, self._kerb_m + 1.0)[0] for s in places]
        traffic.clear_standing(np.array(kerb), 4.5)
        open_way(traffic, self._road_map, self._route, self._s)
        center, yaw = point_at(self._route, self._s, self._right)
        assert self._looks.model is AgentModel.BICYCLE
        traffic.add_puppet(_NAME, self._looks, Puppet(center, yaw + math.pi, 0.0))

    def advance(self, moment: Moment) -> None:
        """Set off when the ego is ``warning_s`` away, make room when it is near."""
        puppet = moment.traffic.puppets[_NAME]
        gap = self._s - moment.front
        riding = self.parameters.riding_speed
        if self.started is None:
            hurry_light(moment, self._road_map, self._route, self._s)
            due = gap < (moment.speed + riding) * self.parameters.warning_s
            if moment.step < 5 or not due or gap < 20.0 or moment.speed < 2.5:
                return
            self.begin(moment)
        if self._s <= self._end_s:
            puppet.speed = 0.0
            self.finish(moment)
            self._guard.hold(moment.traffic, moment.snapshot, [])
            return
        near_ego = -8.0 < gap < _YIELD_M
        aside = near_ego or self._s < self._end_s + 8.0
        wanted = self._kerb_m + (0.6 if near_ego else 1.3) if aside else None
        if wanted is None:
            wanted = self._kerb_m - self.parameters.from_kerb_m
        step = float(np.clip(wanted - self._right, -_ASIDE_MPS * STEP_S, _ASIDE_MPS * STEP_S))
        self._right += step
        self._s -= riding * STEP_S
        puppet.speed = riding
        puppet.center, yaw = point_at(self._route, self._s, self._right)
        puppet.yaw = yaw + math.pi + math.atan2(-step, riding * STEP_S) * -1.0
        self._guard.hold(moment.traffic, moment.snapshot, [_NAME])
        if gap < -8.0:
            self.finish(moment)
