"""Something stands in the ego's lane: a vehicle to go round, or a queue hidden by a bend."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from latentvla_training.world.episode import STEP_S, EventName
from latentvla_training.world.events.base import (
    OBEY_SPEED,
    WARM_UP_S,
    LongTailEvent,
    Moment,
    Setting,
    StagedVehicle,
    along_route,
    lane_at,
    point_at,
    release,
    set_speed,
    stopping_distance,
    stretches,
)
from latentvla_training.world.events.lights import hurry_light, open_way
from latentvla_training.world.road_map import RoadMap
from latentvla_training.world.route import Route
from latentvla_training.world.sight import Occluders, prop_occluders
from latentvla_training.world.traffic import TrafficSession
from latentvla_training.world.vehicle_models import MODEL_BY_NAME, draw_looks

#: Nearer than this a standing vehicle matters to the ego.
_SIGHT_M = 70.0
#: Half of the front camera's angle of view, less a margin.
_HALF_VIEW = math.radians(28.0)


@dataclass(frozen=True)
class BlockedParameters:
    """distance_m: from the ego's bumper at the start to the vehicle's rear."""

    distance_m: float
    length_m: float


class BlockedLane(LongTailEvent):
    """A vehicle has broken down in the ego's lane; the next lane leads past it."""

    name = EventName.BLOCKED_LANE

    def __init__(
        self, parameters: BlockedParameters, road_map: RoadMap, route: Route, rear_s: float,
        staged: StagedVehicle,
    ) -> None:  # fmt: skip
        super().__init__(parameters)
        self._road_map, self._route = road_map, route
        self._rear_s = rear_s
        self._staged = staged
        self._stopped = False

    @classmethod
    def plan(cls, setting: Setting, rng: np.random.Generator) -> LongTailEvent | None:
        """Draw a vehicle on a road with a second lane in the ego's direction."""
        kind = str(rng.choice(("saloon", "van", "truck")))
        looks = draw_looks(MODEL_BY_NAME[kind], rng)
        route, road_map = setting.route, setting.road_map
        for start, end in stretches(route):
            fast = float(np.interp((start + end) / 2, route.s, route.target_speed))
            way = stopping_distance(fast) + 25.0  # others may be queueing behind it
            low = max(start + 22.0, setting.reach(WARM_UP_S) + way)
            high = min(end - 45.0, setting.front + 190.0)
            lane, _ = lane_at(road_map, route, (start + end) / 2)
            free = {lane.left_neighbor, lane.right_neighbor} & set(road_map.lanes)
            if high <= low or not free:
                continue
            rear = float(rng.uniform(low, high))
            if not _free(setting, rear - 10.0, rear + looks.size[0] + 10.0):
                continue
            position = lane_at(road_map, route, rear + looks.size[0])[1]
            index = int(lane.lane_id.rsplit("_", 1)[1])
            edges = route.edge_ids[route.edge_ids.index(lane.edge_id) :]
            staged = StagedVehicle("event_blocker", kind, looks, edges, index, position, 0.0)
            return cls(
                BlockedParameters(rear - setting.front, looks.size[0]),
                road_map,
                route,
                rear,
                staged,
            )
        return None

    def stage(self, traffic: TrafficSession) -> None:
        """Put the vehicle there."""
        open_way(traffic, self._road_map, self._route, self._rear_s)
        self._staged.place(traffic)

    def advance(self, moment: Moment) -> None:
        """Keep it there; it matters once the ego is near and until the ego is past."""
        if self.started is None:
            hurry_light(moment, self._road_map, self._route, self._rear_s)
        if not self._stopped:
            if moment.front > self._rear_s - 40.0 or not self._staged.place(moment.traffic):
                return
            set_speed(moment.traffic, self._staged.name, 0.0, OBEY_SPEED)
            moment.traffic.brake_lights.add(self._staged.name)
            self._stopped = True
        if self._rear_s - moment.front < max(_SIGHT_M, 5.0 * moment.speed):
            self.begin(moment)
        if moment.s > self._rear_s + self.parameters.length_m + 12.0:
            self.finish(moment)


@dataclass(frozen=True)
class QueueParameters:
    """Of the queue: distance_m from the ego's bumper at the start, bend_rad before it, vehicles,
    hold_s from the moment the ego has come near until it dissolves."""

    distance_m: float
    bend_rad: float
    vehicles: int
    hold_s: float


class TrafficBehindCurve(LongTailEvent):
    """A queue stands just behind a bend of a road with one lane in the ego's direction."""

    name = EventName.TRAFFIC_BEHIND_CURVE

    def __init__(
        self, parameters: QueueParameters, road_map: RoadMap, route: Route, rear_s: float,
        staged: list[StagedVehicle],
    ) -> None:  # fmt: skip
        super().__init__(parameters)
        self._road_map, self._route = road_map, route
        self._rear_s = rear_s
        self._staged = staged
        self._held: set[str] = set()
        self._near_s = 0.0

    @classmethod
    def plan(cls, setting: Setting, rng: np.random.Generator) -> LongTailEvent | None:
        """Draw a queue behind the route's first bend that leaves way enough to brake."""
        route, count = setting.route, int(rng.integers(2, 5))
        kinds = [str(rng.choice(("hatchback", "saloon", "suv", "van"))) for _ in range(count)]
        looks = [draw_looks(MODEL_BY_NAME[kind], rng) for kind in kinds]
        hold_s, back = float(rng.uniform(5.0, 9.0)), float(rng.uniform(0.0, 8.0))
        length = sum(one.size[0] + 2.5 for one in looks)
        occluders: Occluders | None = None
        for start, end in stretches(route):
            lane, _ = lane_at(setting.road_map, route, (start + end) / 2)
            if {lane.left_neighbor, lane.right_neighbor} & set(setting.road_map.lanes):
                continue
            place = _behind_bend(route, start, end - length - 6.0, setting.reach(WARM_UP_S) + 40.0)
            if place is None or place[0] > setting.front + 210.0:
                continue
            occluders = occluders or prop_occluders(setting.road_map)
            rear = _seen_in_time(route, occluders, place[0] + back, end - length - 6.0)
            if rear is None or not _free(setting, rear - 12.0, rear + length + 5.0):
                continue
            staged, s = [], rear
            edges = route.edge_ids[route.edge_ids.index(lane.edge_id) :]
            for number, (kind, one) in enumerate(zip(kinds, looks, strict=True)):
                s += one.size[0]
                position = lane_at(setting.road_map, route, s)[1]
                index = int(lane.lane_id.rsplit("_", 1)[1])
                name = f"event_queue{number}"
                staged.append(StagedVehicle(name, kind, one, edges, index, position, 0.0))
                s += 2.5
            values = QueueParameters(rear - setting.front, place[1], count, hold_s)
            return cls(values, setting.road_map, route, rear, staged)
        return None

    def stage(self, traffic: TrafficSession) -> None:
        """Put the queue there, its head first."""
        open_way(traffic, self._road_map, self._route, self._rear_s)
        for vehicle in reversed(self._staged):
            vehicle.place(traffic)

    def advance(self, moment: Moment) -> None:
        """Hold the queue until the ego has stood behind it for a while."""
        if self.ended is not None:
            return
        if self.started is None:
            hurry_light(moment, self._road_map, self._route, self._rear_s)
        near = moment.front > self._rear_s - 40.0
        for vehicle in reversed(self._staged):
            if vehicle.name not in self._held and not near and vehicle.place(moment.traffic):
                set_speed(moment.traffic, vehicle.name, 0.0, OBEY_SPEED)
                moment.traffic.brake_lights.add(vehicle.name)
                self._held.add(vehicle.name)
        if not self._held:
            return
        distance = self._rear_s - moment.front
        if distance < max(_SIGHT_M, 1.6 * stopping_distance(moment.speed) + 20.0):
            self.begin(moment)
            self._near_s += STEP_S if moment.speed < 3.0 else 0.0
        if self._near_s > self.parameters.hold_s:
            for name in sorted(self._held):
                release(moment.traffic, name)
            self.finish(moment)


def _behind_bend(
    route: Route, start: float, end: float, after: float
) -> tuple[float, float] | None:
    """Return where a bend of at least 25 degrees within 45 m has just ended, and its angle."""
    for s in np.arange(max(start + 50.0, after), end, 3.0):
        before, here = (float(np.interp(value, route.s, route.yaw)) for value in (s - 45.0, s))
        if abs(here - before) > np.radians(25.0):
            return float(s), abs(here - before)
    return None


def _seen_in_time(route: Route, occluders: Occluders, low: float, high: float) -> float | None:
    """Return the nearest place past ``low`` whose rear is seen while there is way to stop."""
    for rear in np.arange(low, high, 3.0):
        around = slice(*np.searchsorted(route.s, (rear - 60.0, rear)))
        distance = stopping_distance(float(route.target_speed[around].max())) + 8.0
        eye, yaw = point_at(route, rear - distance)
        target, _ = point_at(route, rear)
        bearing = math.atan2(target[1] - eye[1], target[0] - eye[0])
        in_view = abs(math.remainder(bearing - yaw, 2 * math.pi)) < _HALF_VIEW
        if in_view and occluders.clear(eye, target):
            return float(rear)
    return None


def _free(setting: Setting, low: float, high: float) -> bool:
    """Whether nobody is on the route's lane between two arc lengths."""
    if not setting.traffic.ids:
        return True
    s, lateral = along_route(setting.route, setting.traffic.center, low, high)
    return not ((np.abs(lateral) < 1.6) & (s > low) & (s < high)).any()
