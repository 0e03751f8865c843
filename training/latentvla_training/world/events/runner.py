"""Somebody on the crossing road ignores the red light while the ego has green."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latentvla_training.world.episode import STEP_S, AgentModel, EventName
from latentvla_training.world.events.base import (
    RUN_RED,
    WARM_UP_S,
    Guard,
    LongTailEvent,
    Moment,
    Setting,
    StagedVehicle,
    release,
    set_speed,
)
from latentvla_training.world.events.lights import hurry_light, open_way
from latentvla_training.world.polyline import polyline_length
from latentvla_training.world.road_map import RoadMap, SignalState
from latentvla_training.world.route import Conflict, Crossing, Route
from latentvla_training.world.traffic import TrafficSession
from latentvla_training.world.vehicle_models import MODEL_BY_NAME, Looks, draw_looks

#: How fast one starts who stands first at the light.
_STARTS_MPS2 = 2.2
#: The runner appears this long before the ego would meet it, and keeps its speed from the second.
_APPEARS_S, _COMMITS_S = (3.6, 7.0), 3.0


@dataclass(frozen=True)
class RunnerParameters:
    """speed of the runner, m/s; offset_s of its arrival after the ego's at constant speed."""

    speed: float
    offset_s: float


class RedLightRunner(LongTailEvent):
    """Crosses the ego's way at red, timed by how fast the ego comes."""

    name = EventName.RED_LIGHT_RUNNER

    def __init__(
        self, parameters: RunnerParameters, road_map: RoadMap, route: Route, kind: str, looks: Looks
    ) -> None:
        super().__init__(parameters)
        self._road_map, self._route, self._kind, self._looks = road_map, route, kind, looks
        self._conflict: Conflict | None = None
        self._lit: Crossing | None = None
        self._sent = 0
        self._stalled_s = 0.0
        self._committed: float | None = None
        self._vehicle: StagedVehicle | None = None
        self._ego_speed = 0.0
        self._guard = Guard()

    @classmethod
    def plan(cls, setting: Setting, rng: np.random.Generator) -> LongTailEvent | None:
        """Draw a runner; None when no light with a long crossing road comes soon."""
        values = RunnerParameters(float(rng.uniform(8.0, 12.0)), float(rng.uniform(-0.2, 0.5)))
        kind = str(rng.choice(("hatchback", "saloon", "suv", "van", "motorcycle")))
        looks = draw_looks(MODEL_BY_NAME[kind], rng)
        event = cls(values, setting.road_map, setting.route, kind, looks)
        low, high = setting.reach(WARM_UP_S + _APPEARS_S[0]), setting.front + 220.0
        for crossing in setting.route.crossings:
            if low < crossing.stop_s < high and event._conflicts(crossing):
                event._lit = crossing
                return event
        return None

    def stage(self, traffic: TrafficSession) -> None:
        """Give the ego green where it shall meet the runner; nobody else is there yet."""
        if self._lit is not None:
            open_way(traffic, self._road_map, self._route, self._lit.stop_s + 1.0)

    def advance(self, moment: Moment) -> None:
        """Find a light ahead, let the ego have green there, send the runner, let it go."""
        if self.ended is not None:
            return
        if self._vehicle is None:
            self._approach(moment)
            return
        traffic, name = moment.traffic, self._vehicle.name
        assert self._conflict is not None
        if not self._vehicle.place(traffic):
            self._give_up(moment)
            return
        vehicle = traffic.sumo.vehicle
        along = self._along(vehicle.getLaneID(name), vehicle.getLanePosition(name))
        if along is None or along > self._conflict.foe_interval[1] + 8.0:
            self._give_up(moment)
            return
        if along > self._conflict.foe_interval[0]:
            self.begin(moment)
        self._stalled_s = self._stalled_s + STEP_S if vehicle.getSpeed(name) < 1.0 else 0.0
        if self._stalled_s > 1.5:  # somebody walks in its way
            self._give_up(moment)
            return
        enter = self._conflict.route_interval[0] - moment.front
        left = self._conflict.foe_interval[0] - along
        eta = enter / max(moment.speed, 2.0) + self.parameters.offset_s
        if self._committed is None:
            wanted = float(np.clip(left / max(eta, 0.5), 5.0, 14.0))
            if min(eta, left / wanted) < _COMMITS_S:
                self._committed = wanted
            elif moment.speed < 0.6 * self._ego_speed:  # the ego has seen it and waits
                self._committed = self.parameters.speed
        else:
            wanted = self._committed
            self.begin(moment)
        set_speed(traffic, name, wanted, RUN_RED)
        self._guard.hold(traffic, moment.snapshot, [name] if along > -10.0 else [])

    def _give_up(self, moment: Moment) -> None:
        """Let the runner drive on as it likes; another comes if this one has not run."""
        assert self._vehicle is not None
        release(moment.traffic, self._vehicle.name)
        self._guard.hold(moment.traffic, moment.snapshot, [])
        self._vehicle, self._committed, self._stalled_s = None, None, 0.0
        if self.started is not None:
            self.finish(moment)

    def _along(self, lane: str, position: float) -> float | None:
        """Arc length along the runner's connector chain, negative before the stop line."""
        assert self._conflict is not None
        if lane == self._conflict.approach_lane:
            return position - self._conflict.approach_length
        if lane in self._conflict.lane_ids:
            return position + self._conflict.start_offset[self._conflict.lane_ids.index(lane)]
        return None

    def _approach(self, moment: Moment) -> None:
        crossing = next((c for c in self._route.crossings if c.stop_s > moment.front), None)
        if crossing is None or crossing.signal < 0 or moment.step < 0:
            return
        conflicts = self._conflicts(crossing)
        hurry_light(moment, self._road_map, self._route, np.inf)
        light = moment.snapshot.signals[crossing.signal]
        if light != SignalState.GREEN or moment.speed < 5.0:
            return
        for conflict in conflicts if self._sent < 4 else ():
            eta = (conflict.route_interval[0] - moment.front) / moment.speed
            if moment.snapshot.signals[conflict.signal] != SignalState.RED:
                continue
            waiting = self._first_in_line(moment, conflict, eta)
            if waiting is not None:
                self._conflict, self._committed = conflict, self.parameters.speed
                self._vehicle, self._ego_speed = StagedVehicle.adopt(waiting), moment.speed
                return
            if not _APPEARS_S[0] < eta < _APPEARS_S[1]:
                continue
            way = self.parameters.speed * (eta + self.parameters.offset_s)
            position = conflict.approach_length - (way - conflict.foe_interval[0])
            if position < self._looks.size[0] + 1.0:
                position = self._looks.size[0] + 1.0
                if (conflict.approach_length - position + conflict.foe_interval[0]) / eta < 6.0:
                    continue
            elif position > conflict.approach_length - 12.0:
                continue
            if not self._free(moment, conflict, position):
                continue
            self._conflict = conflict
            lane = self._road_map.lanes[conflict.approach_lane]
            target = self._road_map.lanes[conflict.lane_ids[-1]].successors
            edges = (lane.edge_id, self._road_map.lanes[target[0]].edge_id)
            index = int(lane.lane_id.rsplit("_", 1)[1])
            self._sent += 1
            name = f"event_runner{self._sent}"
            vehicle = StagedVehicle(
                name, self._kind, self._looks, edges, index, position, self.parameters.speed
            )
            if vehicle.place(moment.traffic):
                self._vehicle, self._ego_speed = vehicle, moment.speed
                return

    def _conflicts(self, crossing: Crossing) -> list[Conflict]:
        """Ways straight across the ego's, with road enough before them to come fast."""
        found = []
        for conflict in crossing.conflicts:
            first = self._road_map.lanes[conflict.lane_ids[0]]
            crosses = crossing.signal >= 0 and conflict.signal >= 0 and first.turn == "s"
            target = self._road_map.lanes[conflict.lane_ids[-1]].successors
            if not (crosses and conflict.approach_length > 40.0 and target):
                continue
            if polyline_length(self._road_map.lanes[target[0]].centerline) > 20.0:
                found.append(conflict)
        return found

    def _first_in_line(self, moment: Moment, conflict: Conflict, eta: float) -> str | None:
        """Return who is first at the red light, if starting now it would just meet the ego."""
        snapshot = moment.snapshot
        line = [
            index
            for index, lane in enumerate(snapshot.lane_ids)
            if lane == conflict.approach_lane and snapshot.model[index] <= AgentModel.MOTORCYCLE
        ]
        if not line:
            return None
        first = max(line, key=lambda index: float(snapshot.lane_position[index]))
        if not self._goes_straight(moment.traffic, snapshot.ids[first], conflict):
            return None
        left = conflict.foe_interval[0] + conflict.approach_length - snapshot.lane_position[first]
        speed, top = float(snapshot.speed[first]), self.parameters.speed
        ramp = max(top**2 - speed**2, 0.0) / (2.0 * _STARTS_MPS2)
        if left < ramp:
            needed = (np.sqrt(speed**2 + 2.0 * _STARTS_MPS2 * left) - speed) / _STARTS_MPS2
        else:
            needed = max(top - speed, 0.0) / _STARTS_MPS2 + (left - ramp) / top
        meets = needed - 0.3 < eta - self.parameters.offset_s < needed + 0.4
        return snapshot.ids[first] if meets and eta > 2.8 else None

    def _goes_straight(self, traffic: TrafficSession, name: str, conflict: Conflict) -> bool:
        """Whether a vehicle's route takes the way that crosses the ego's."""
        vehicle = traffic.sumo.vehicle
        following = vehicle.getRoute(name)[vehicle.getRouteIndex(name) + 1 :][:1]
        target = self._road_map.lanes[conflict.lane_ids[-1]].successors
        return list(following) == [self._road_map.lanes[target[0]].edge_id]

    def _free(self, moment: Moment, conflict: Conflict, position: float) -> bool:
        """Whether nobody is on the runner's lane near or ahead of where it appears."""
        snapshot = moment.snapshot
        for lane, where in zip(snapshot.lane_ids, snapshot.lane_position, strict=True):
            if lane == conflict.approach_lane and where > position - 20.0:
                return False
        return True
