"""What the long-tail events share: where they are planned, what they see, how they act.

An event is planned on the ego's route before the drive, staged before the first logged step, and
from then on triggered by where the ego is and how fast, whoever drives it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from latentvla_training.world.episode import AgentModel, EgoVehicle, Event, EventName
from latentvla_training.world.road_map import Lane, RoadMap
from latentvla_training.world.route import Crossing, Route
from latentvla_training.world.traffic import Snapshot, TrafficSession
from latentvla_training.world.vehicle_models import Looks

Array = NDArray[np.float64]

#: Longest drive before the first logged step.
WARM_UP_S = 3.0
#: Braking that every event must be avoidable with, after the time it takes to see and react.
AVOIDING_BRAKING, REACTION_S = 6.0, 0.7
#: SUMO's speed and lane-change modes: everything obeyed; nothing obeyed.
OBEY_SPEED, OBEY_LANES, IGNORE = 31, 1621, 0
#: Keeps its distance to those ahead, but neither gives way nor stops at red, whoever is inside.
RUN_RED = 39


def stopping_distance(speed: float) -> float:
    """Return the way to a standstill with ``AVOIDING_BRAKING`` after ``REACTION_S``, m."""
    return speed * REACTION_S + speed**2 / (2.0 * AVOIDING_BRAKING)


@dataclass(frozen=True)
class Setting:
    """The moment before the drive, for planning.

    Attributes:
        road_map, route: of the episode. front: arc length of the ego's bumper. speed: of the ego.
        room: free path ahead of the bumper, m. traffic: everybody else.
    """

    road_map: RoadMap
    route: Route
    front: float
    speed: float
    room: float
    traffic: Snapshot

    def reach(self, seconds: float) -> float:
        """Return the arc length of the ego's bumper after a free drive of ``seconds``."""
        s, speed, step = self.front, self.speed, 0.25
        for _ in range(round(seconds / step)):
            target = float(np.interp(s, self.route.s, self.route.target_speed))
            speed = min(speed + 1.5 * step, target)
            s += speed * step
        return s


@dataclass(frozen=True)
class Moment:
    """One step of the drive.

    Attributes:
        step: of the episode, negative before it is logged.
        s, front, speed: of the ego along its route: rear axle, bumper, m/s.
        snapshot: the traffic at this moment. traffic: to act on.
    """

    step: int
    s: float
    front: float
    speed: float
    snapshot: Snapshot
    traffic: TrafficSession


class LongTailEvent(ABC):
    """One kind of event; an instance is one event in one episode.

    Attributes:
        name: which. parameters: frozen dataclass of what was drawn, SI units.
        started, ended: steps between which it matters to the ego, None until then.
    """

    name: ClassVar[EventName]

    def __init__(self, parameters: Any) -> None:
        self.parameters = parameters
        self.started: int | None = None
        self.ended: int | None = None

    @classmethod
    @abstractmethod
    def plan(cls, setting: Setting, rng: np.random.Generator) -> LongTailEvent | None:
        """Draw the event for this route; None when the route cannot host it."""

    @abstractmethod
    def stage(self, traffic: TrafficSession) -> None:
        """Put what must be there beforehand into the world."""

    @abstractmethod
    def advance(self, moment: Moment) -> None:
        """Act on the coming step."""

    def begin(self, moment: Moment) -> None:
        """Mark the step from which the event matters."""
        if self.started is None:
            self.started = max(moment.step, 0)

    def finish(self, moment: Moment) -> None:
        """Mark the step from which it no longer matters."""
        if self.ended is None:
            self.ended = moment.step

    def record(self, num_steps: int) -> Event | None:
        """Return what happened in an episode of ``num_steps``; None if it was never triggered."""
        if self.started is None or self.started >= num_steps:
            return None
        end = num_steps if self.ended is None else min(max(self.ended, 1), num_steps)
        if end <= self.started:
            return None
        values = {name: round(float(value), 3) for name, value in asdict(self.parameters).items()}
        return Event(self.name, self.started, end, values)


class StagedVehicle:
    """A vehicle of the event in SUMO, put on the ego's route or beside it."""

    def __init__(
        self, name: str, kind: str, looks: Looks, edges: tuple[str, ...], lane_index: int,
        front_m: float, speed: float,
    ) -> None:  # fmt: skip
        self.name = name
        self._arguments = (name, kind, looks, edges, lane_index, front_m, speed)
        self.gone = False
        self._was_there = False

    @classmethod
    def adopt(cls, name: str) -> StagedVehicle:
        """Take one that is in the traffic already."""
        adopted = cls.__new__(cls)
        adopted.name, adopted.gone, adopted._was_there = name, False, True
        return adopted

    def place(self, traffic: TrafficSession) -> bool:
        """Put it there if it has not been yet; whether it is there."""
        if self.gone:
            return False
        if self.name in traffic.sumo.vehicle.getIDList():
            self._was_there = True
            return True
        if self._was_there:
            self.gone = True
            return False
        self._was_there = traffic.add_vehicle(*self._arguments)
        return self._was_there


def set_speed(traffic: TrafficSession, name: str, speed: float, mode: int) -> None:
    """Give a vehicle its speed from the coming step on; it stays in its lane."""
    vehicle = traffic.sumo.vehicle
    vehicle.setSpeedMode(name, mode)
    vehicle.setLaneChangeMode(name, IGNORE)
    vehicle.setSpeed(name, max(speed, 0.0))


def release(traffic: TrafficSession, name: str) -> None:
    """Let a vehicle drive by SUMO's rules again."""
    vehicle = traffic.sumo.vehicle
    traffic.brake_lights.discard(name)
    if name in vehicle.getIDList():
        vehicle.setSpeed(name, -1.0)
        vehicle.setSpeedMode(name, OBEY_SPEED)
        vehicle.setLaneChangeMode(name, OBEY_LANES)


def stretch(route: Route, s: float) -> tuple[float, float]:
    """Return the arc lengths between which ``s`` lies on one road: junction exit to stop line."""
    start = max((c.exit_s for c in route.crossings if c.exit_s <= s), default=0.0)
    end = min((c.stop_s for c in route.crossings if c.stop_s > s), default=float(route.s[-1]))
    return start, end


def stretches(route: Route) -> list[tuple[float, float]]:
    """Return every piece of road of the route between junctions, in order."""
    edges = [0.0, *(value for c in route.crossings for value in (c.stop_s, c.exit_s))]
    edges.append(float(route.s[-1]))
    return list(zip(edges[::2], edges[1::2], strict=True))


def inside_junction(route: Route, s: float) -> Crossing | None:
    """Return the junction that ``s`` lies in."""
    return next((c for c in route.crossings if c.stop_s <= s < c.exit_s), None)


def lane_at(road_map: RoadMap, route: Route, s: float) -> tuple[Lane, float]:
    """Return the route's lane at ``s`` and the arc length on it."""
    index = min(int(np.searchsorted(route.lane_ends, s)), len(route.lane_ids) - 1)
    start = float(route.lane_ends[index - 1]) if index else 0.0
    return road_map.lanes[route.lane_ids[index]], s - start


def point_at(route: Route, s: float, right_m: float = 0.0) -> tuple[Array, float]:
    """Return the point (2,) ``right_m`` to the right of the route at ``s``, and the route's yaw."""
    x, y = np.interp(s, route.s, route.xy[:, 0]), np.interp(s, route.s, route.xy[:, 1])
    yaw = float(np.interp(s, route.s, route.yaw))
    return np.array([x + right_m * math.sin(yaw), y - right_m * math.cos(yaw)]), yaw


def along_route(route: Route, centers: Array, low: float, high: float) -> tuple[Array, Array]:
    """Return arc length and offset to the left (A,), (A,) of points next to a piece of the route.

    Points off the ends of the piece get an infinite offset.
    """
    first, last = np.searchsorted(route.s, (low, high))
    path = route.xy[first : max(int(last), int(first) + 2)]
    delta = centers[:, None] - path[None]
    nearest = np.argmin((delta**2).sum(axis=2), axis=1)
    yaw = route.yaw[first + nearest]
    offset = delta[np.arange(len(centers)), nearest]
    along = offset[:, 0] * np.cos(yaw) + offset[:, 1] * np.sin(yaw)
    lateral = -offset[:, 0] * np.sin(yaw) + offset[:, 1] * np.cos(yaw)
    lateral = np.where(np.abs(along) > 3.0, np.inf, lateral)
    return route.s[first + nearest] + along, lateral


@dataclass(frozen=True)
class Leader:
    """The vehicle ahead of the ego: id, free gap between the bumpers, speed."""

    name: str
    gap: float
    speed: float


def leader_of(route: Route, moment: Moment, reach_m: float = 60.0) -> Leader | None:
    """Return the nearest motor vehicle of SUMO in the ego's lane, if nothing is nearer."""
    snapshot = moment.snapshot
    if not snapshot.ids:
        return None
    s, lateral = along_route(route, snapshot.center, moment.front, moment.front + reach_m)
    gap = s - snapshot.size[:, 0] / 2 - moment.front
    half = snapshot.size[:, 1] / 2 + EgoVehicle().width_m / 2
    candidates = np.flatnonzero((np.abs(lateral) < half - 0.2) & (gap > 0.0))
    if len(candidates) == 0:
        return None
    index = int(candidates[np.argmin(gap[candidates])])
    motor = snapshot.model[index] <= AgentModel.MOTORCYCLE
    if not motor or not snapshot.lane_ids[index]:
        return None
    return Leader(snapshot.ids[index], float(gap[index]), float(snapshot.speed[index]))


def slow_traffic(setting: Setting, ahead_m: float, speed: float = 4.0) -> bool:
    """Whether anybody in the ego's lane within ``ahead_m`` is slower than ``speed``."""
    if not setting.traffic.ids:
        return False
    end = setting.front + ahead_m
    s, lateral = along_route(setting.route, setting.traffic.center, setting.front, end)
    slow = setting.traffic.speed < speed
    return bool((slow & (np.abs(lateral) < 1.6) & (s > setting.front)).any())


class Guard:
    """Makes SUMO's drivers brake for actors that they do not know of or do not expect."""

    def __init__(self) -> None:
        self._held: set[str] = set()

    def hold(self, traffic: TrafficSession, snapshot: Snapshot, names: list[str]) -> None:
        """Brake whoever would run into one of the actors; let go who would not any more."""
        braking: set[str] = set()
        vehicles = [
            index
            for index, lane in enumerate(snapshot.lane_ids)
            if lane
            and snapshot.model[index] != AgentModel.PEDESTRIAN
            and snapshot.ids[index] not in names
        ]
        for name in (name for name in names if name in snapshot.ids):
            center = snapshot.center[snapshot.ids.index(name)]
            width = traffic.looks[name].size[1]
            for index in vehicles:
                offset = center - snapshot.center[index]
                if abs(offset[0]) + abs(offset[1]) > 80.0:
                    continue
                cos, sin = math.cos(snapshot.yaw[index]), math.sin(snapshot.yaw[index])
                ahead = offset[0] * cos + offset[1] * sin - snapshot.size[index, 0] / 2
                aside = abs(-offset[0] * sin + offset[1] * cos)
                speed = float(snapshot.speed[index])
                near = 0.0 < ahead < speed**2 / 7.0 + 0.5 * speed + 4.0
                if near and aside < (width + snapshot.size[index, 1]) / 2 + 0.3:
                    braking.add(snapshot.ids[index])
                    traffic.sumo.vehicle.setSpeed(snapshot.ids[index], max(speed - 0.5, 0.0))
        present = set(traffic.sumo.vehicle.getIDList())
        for name in sorted((self._held - braking) & present):
            traffic.sumo.vehicle.setSpeed(name, -1.0)
        self._held = braking
