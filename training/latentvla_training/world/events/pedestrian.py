"""A pedestrian steps out from behind a parked car, seen in time by who looks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from latentvla_training.world.episode import STEP_S, AgentModel, EgoVehicle, EventName
from latentvla_training.world.events.base import (
    WARM_UP_S,
    Guard,
    LongTailEvent,
    Moment,
    Setting,
    lane_at,
    point_at,
    stopping_distance,
    stretches,
)
from latentvla_training.world.events.lights import hurry_light, open_way
from latentvla_training.world.road_map import RoadMap
from latentvla_training.world.route import Route
from latentvla_training.world.sight import Occluders, prop_occluders
from latentvla_training.world.street_furniture import StandingAgent, is_kerb_lane
from latentvla_training.world.traffic import Puppet, TrafficSession
from latentvla_training.world.vehicle_models import (
    MODEL_BY_NAME,
    Looks,
    draw_looks,
    draw_person_looks,
)

_NAME = "event_pedestrian"
#: Nobody steps out beside a faster road.
_LIMIT_MPS = 17.0
#: Places tried on a road; what stands nearer than this to the van is taken away.
_PLACES, _CLEARED_M = 6, 5.0
#: Offset from the middle of the lane at which a parked car no longer hides the pedestrian, m.
_SEEN_BEYOND_KERB_M = 0.3


@dataclass(frozen=True)
class PedestrianParameters:
    """How the pedestrian steps out.

    Attributes:
        distance_m: from the ego's bumper at the start to where they cross.
        walking_speed: m/s. warning_s: between coming into view and the ego's arrival at its speed.
        beyond_kerb_m: where they wait, to the right of the carriageway's edge.
    """

    distance_m: float
    walking_speed: float
    warning_s: float
    beyond_kerb_m: float


class OccludedPedestrian(LongTailEvent):
    """Waits in front of a parked van at the right-hand kerb and crosses the road."""

    name = EventName.OCCLUDED_PEDESTRIAN

    def __init__(
        self, parameters: PedestrianParameters, road_map: RoadMap, route: Route, cross_s: float,
        kerb_m: float, far_m: float, van: StandingAgent, looks: Looks,
    ) -> None:  # fmt: skip
        super().__init__(parameters)
        self._road_map, self._route, self._cross_s = road_map, route, cross_s
        self._kerb_m, self._far_m = kerb_m, far_m
        self._van, self._looks = van, looks
        self._right = kerb_m + parameters.beyond_kerb_m
        self._guard = Guard()

    @classmethod
    def plan(cls, setting: Setting, rng: np.random.Generator) -> LongTailEvent | None:
        """Draw a place at a kerb of the route; None where it never runs along one."""
        route, road_map = setting.route, setting.road_map
        van_looks = draw_looks(MODEL_BY_NAME[str(rng.choice(("van", "van", "suv")))], rng)
        person = draw_person_looks(rng)
        walking, warning = float(rng.uniform(1.2, 1.9)), float(rng.uniform(2.4, 3.2))
        beyond = float(rng.uniform(0.6, 1.1))
        share = float(rng.random())
        occluders: Occluders | None = None
        for start, end in stretches(route):
            lane, _ = lane_at(road_map, route, (start + end) / 2)
            low = max(start + 20.0, setting.reach(WARM_UP_S + 1.0 + warning) + 3.0)
            high = min(end - 14.0, setting.front + 150.0)
            if high <= low or not is_kerb_lane(road_map, lane):
                continue
            if lane.speed_limit_mps > _LIMIT_MPS:
                continue
            kerb = lane.width_m / 2
            occluders = occluders or _standing_now(setting)
            for place in range(_PLACES):
                cross = low + (share + place / _PLACES) % 1.0 * (high - low)
                center, yaw = point_at(
                    route, cross - 1.2 - van_looks.size[0] / 2, kerb + van_looks.size[1] / 2 + 0.3
                )
                van = StandingAgent("event_parked", van_looks, center, yaw)
                if not _seen_in_time(setting, cross, kerb, van, occluders):
                    continue
                values = PedestrianParameters(cross - setting.front, walking, warning, beyond)
                far = _road_to_the_left(road_map, lane.edge_id) + 1.2
                return cls(values, road_map, route, cross, kerb, far, van, person)
        return None

    def stage(self, traffic: TrafficSession) -> None:
        """Park the van, clear what stands where they walk, put the pedestrian behind the van."""
        place, yaw = point_at(self._route, self._cross_s, self._right)
        path = [point_at(self._route, self._cross_s, right)[0] for right in (3.0, 0.0, -4.0, -8.0)]
        traffic.clear_standing(np.array([place, self._van.center, *path]), _CLEARED_M)
        traffic.add_standing(self._van)
        open_way(traffic, self._road_map, self._route, self._cross_s)
        traffic.add_puppet(_NAME, self._looks, Puppet(place, yaw + math.pi / 2, 0.0))

    def advance(self, moment: Moment) -> None:
        """Step out when the ego is ``warning_s`` away, cross, stand on the far side."""
        puppet = moment.traffic.puppets[_NAME]
        distance = self._cross_s - moment.front
        if self.started is None:
            hurry_light(moment, self._road_map, self._route, self._cross_s)
            hidden = self.parameters.beyond_kerb_m - _SEEN_BEYOND_KERB_M
            lead_s = self.parameters.warning_s + hidden / self.parameters.walking_speed
            due = distance < moment.speed * lead_s
            if moment.step < 5 or not due or moment.speed < 2.5:
                return
            if distance < stopping_distance(moment.speed) + 2.0:
                return
            self.begin(moment)
        walking = self._right > -self._far_m
        if walking:
            self._right -= self.parameters.walking_speed * STEP_S
        puppet.speed = self.parameters.walking_speed if walking else 0.0
        puppet.center, yaw = point_at(self._route, self._cross_s, self._right)
        puppet.yaw = yaw + math.pi / 2
        self._guard.hold(moment.traffic, moment.snapshot, [_NAME] if walking else [])
        passed = moment.s > self._cross_s + 3.0
        clear = self._right < -(EgoVehicle().width_m / 2 + 1.5)
        if passed or (clear and moment.speed > 4.0) or not walking:
            self.finish(moment)


def _standing_now(setting: Setting) -> Occluders:
    """Props and parked cars of the map."""
    props, traffic = prop_occluders(setting.road_map), setting.traffic
    parked = [
        index
        for index, lane in enumerate(traffic.lane_ids)
        if not lane and traffic.model[index] <= AgentModel.BUS
    ]
    return Occluders(
        np.concatenate([props.center, traffic.center[parked]]),
        np.concatenate([props.yaw, traffic.yaw[parked]]),
        np.concatenate([props.size, traffic.size[parked, :2]]),
    )


def _seen_in_time(
    setting: Setting, cross_s: float, kerb_m: float, van: StandingAgent, occluders: Occluders
) -> bool:
    """Whether who stands at the kerb is seen past the van and all others from where it matters."""
    route = setting.route
    speed = float(np.interp(cross_s - 20.0, route.s, route.target_speed))
    way = max(2.2 * speed, stopping_distance(speed) + 3.0)
    eye, _ = point_at(route, cross_s - way - EgoVehicle().length_m / 2)
    target, _ = point_at(route, cross_s, kerb_m)
    others = np.linalg.norm(occluders.center - van.center, axis=1) > _CLEARED_M
    every = Occluders(
        np.concatenate([occluders.center[others], van.center[None]]),
        np.append(occluders.yaw[others], van.yaw),
        np.concatenate([occluders.size[others], [van.looks.size[:2]]]),
    )
    return every.clear(eye, target)


def _road_to_the_left(road_map: RoadMap, edge_id: str) -> float:
    """Width of the road left of the middle of its rightmost lane, the other direction included."""
    lanes = [lane for lane in road_map.lanes.values() if lane.edge_id == edge_id]
    width = sum(lane.width_m for lane in lanes)
    opposite = [lane for lane in road_map.lanes.values() if lane.edge_id == _opposite(edge_id)]
    return width - lanes[0].width_m / 2 + sum(lane.width_m for lane in opposite)


def _opposite(edge_id: str) -> str:
    """The edge of the same road in the other direction, as our networks name them."""
    return edge_id[:-1] + ("b" if edge_id.endswith("f") else "f")
