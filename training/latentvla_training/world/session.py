"""An episode while it is driven: reactive SUMO traffic around an ego that any driver moves.

``simulate_episode`` lets the expert drive in it, the closed loop a bundle; both meet the same
traffic, route and lights for the same episode name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import ContractError
from latentvla_ros.geometry import se2
from latentvla_training.world.demand import Density
from latentvla_training.world.episode import EgoVehicle, Event, EventName, Weather
from latentvla_training.world.events import LongTailEvent, Moment, Setting, kinds_for
from latentvla_training.world.expert import EgoState, Expert
from latentvla_training.world.networks import build_road_map, network_seed, right_of_way
from latentvla_training.world.road_map import RoadMap
from latentvla_training.world.route import Route, draw_route
from latentvla_training.world.traffic import EGO_FRONT_M, Snapshot, TrafficSession
from latentvla_training.world.weather import draw_weather

Array = NDArray[np.float64]

MAX_EPISODES = 100
#: Traffic of networks whose junctions would jam, relative to a city's.
_DENSITY_OF_KIND = {"rural": 0.5, "roundabout": 0.6}
#: Routes drawn for a start, and for one that can host an event of a kind.
_TRIES, _EVENT_TRIES = 400, 60


class NoStartError(RuntimeError):
    """Nowhere on the network is room for the ego to start, or no route hosts the event."""


def episode_seed(name: str) -> tuple[str, int]:
    """Return the network and the seed of an episode ``<network>-<nn>``.

    Raises:
        ContractError: the name is no episode of a known network.
    """
    match = re.fullmatch(r"(.+)-(\d{2})", name)
    if not match or not match[1]:
        raise ContractError("episode", name, "<network>-<nn>, e.g. train-0007-02")
    return match[1], network_seed(match[1]) * MAX_EPISODES + int(match[2])


@dataclass(frozen=True)
class _Start:
    """A route and where on it the ego begins."""

    route: Route
    s: float
    speed: float
    event: LongTailEvent | None = None


class EpisodeSession:
    """One episode being driven; use it in a ``with`` block, one at a time in a process.

    After entering, the expert has driven for a few seconds, so that the traffic has settled around
    the ego, and step 0 is next::

        with EpisodeSession("test-0001-00") as session:
            state = session.state
            for _ in range(301):
                snapshot = session.observe(state)   # the world while the ego is at ``state``
                state = ...                         # the ego 0.1 s later, by whoever drives

    Attributes:
        name, network, seed, road_map, route, weather: of the episode. ``longtail`` episodes and
            some of ``train`` have one long-tail event, which ``observe`` drives on by where the ego
            is; ``events`` says what has happened, ``staged_event`` what is planned: it is the same
            for every driver, and None where no route could host one.
        state: the ego at step 0. expert: has driven until then and may go on.
        traffic: for the looks of agents by id.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.network, self.seed = episode_seed(name)
        self.road_map = build_road_map(self.network)
        split = self.network.split("-")[0]
        self.weather: Weather = draw_weather(split, np.random.default_rng((self.seed, 2)))
        self._rng = np.random.default_rng((self.seed, 0))
        rng = self._rng
        density = Density(
            vehicles_per_km=float(rng.choice((4.0, 8.0, 13.0, 18.0)) * rng.uniform(0.8, 1.2))
            * _DENSITY_OF_KIND.get(self.road_map.kind, 1.0),
            persons_per_km=float(rng.choice((4.0, 15.0, 35.0, 60.0)) * rng.uniform(0.8, 1.2)),
        )
        self._warm_up_steps = int(rng.integers(250, 500))
        self.traffic = TrafficSession(self.road_map, self.seed, density)
        kinds = kinds_for(
            split,
            int(self.network[-4:]),
            int(name[-2:]),
            np.random.default_rng((self.seed, 5)),
        )
        self._event_kinds = tuple(kinds)
        self._event: LongTailEvent | None = None
        self._step = 0
        self._last: Snapshot | None = None
        self.route: Route
        self.expert: Expert
        self.state: EgoState

    def __enter__(self) -> EpisodeSession:
        self.traffic.__enter__()
        try:
            self._begin()
        except BaseException:
            self.traffic.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.traffic.__exit__(kind, error, trace)

    def observe(self, state: EgoState) -> Snapshot:
        """Advance the world to the moment at which the ego is at ``state``; return its traffic."""
        s = self.expert.locate(state)
        front = s + EGO_FRONT_M
        pose = np.array([state.x, state.y, state.yaw])
        self.traffic.move_ego(pose, *_lane_at(self.route, front))
        if self._event is not None and self._last is not None:
            self._event.advance(Moment(self._step, s, front, state.speed, self._last, self.traffic))
        self.traffic.step()
        self._last = self.traffic.snapshot()
        self._step += 1
        return self._last

    @property
    def events(self) -> tuple[Event, ...]:
        """The long-tail events that have begun by now."""
        happened = None if self._event is None else self._event.record(self._step)
        return () if happened is None else (happened,)

    @property
    def staged_event(self) -> EventName | None:
        """The long-tail event that is planned, whoever drives and whether or not it is met."""
        return None if self._event is None else self._event.name

    def _begin(self) -> None:
        for _ in range(self._warm_up_steps):
            self.traffic.step()
        start = self._choose_start()
        route = self.route = start.route
        state = EgoState(
            x=float(np.interp(start.s, route.s, route.xy[:, 0])),
            y=float(np.interp(start.s, route.s, route.xy[:, 1])),
            yaw=float(se2.wrap_angle(np.interp(start.s, route.s, route.yaw))),
            speed=start.speed,
            acceleration=0.0,
            wheel_angle=float(
                np.arctan(EgoVehicle().wheelbase_m * np.interp(start.s, route.s, route.curvature))
            ),
        )
        self.expert = Expert(route, start.s)
        lane_index = int(route.lane_ids[0].rsplit("_", 1)[1])
        self.traffic.add_ego(route.edge_ids, lane_index, start.s + EGO_FRONT_M)
        warm_up = int(self._rng.integers(20, 90))
        self._event = start.event
        if self._event is not None:
            self._event.stage(self.traffic)
            warm_up = 20 + warm_up % 10  # what is staged beside the ego soon drifts away
        self._step = -warm_up
        for _ in range(warm_up):
            state = self.expert.drive(state, self.observe(state))
        self.state = state

    def _choose_start(self) -> _Start:
        """Draw a start that can host the episode's event, if it is to have one."""
        traffic = self.traffic.snapshot()
        rng = np.random.default_rng((self.seed, 6))
        for kind in self._event_kinds:
            try:
                return _find_start(self.road_map, self._rng, traffic, kind, rng)
            except NoStartError:
                continue
        try:
            return _find_start(self.road_map, self._rng, traffic)
        except NoStartError as error:
            raise NoStartError(f"episode {self.name}: {error}") from error


def _find_start(
    road_map: RoadMap,
    rng: np.random.Generator,
    traffic: Snapshot,
    kind: type[LongTailEvent] | None = None,
    event_rng: np.random.Generator | None = None,
) -> _Start:
    """Draw routes until one begins where there is room, and can host an event of ``kind``.

    Raises:
        NoStartError: none of many did.
    """
    rules = right_of_way(road_map.name)
    for _ in range(_TRIES if kind is None else _EVENT_TRIES):
        route = draw_route(road_map, rules, rng, length_m=760.0)
        if route is None or len(route.crossings) < 2:
            continue
        first = route.crossings[0].stop_s
        if first < 40.0:
            continue
        front = float(rng.uniform(25.0, first - 8.0 if kind is None else 25.0 + 0.3 * first))
        s = front - EGO_FRONT_M
        ahead = _free_distance(route, front, traffic)
        if ahead is None:
            continue
        target = float(np.interp(s, route.s, route.target_speed))
        room = max(min(ahead - 4.0, first - front - 2.0), 0.0)
        speed = min(target, np.sqrt(2.0 * 1.5 * room)) * rng.uniform(0.6, 1.0)
        if kind is None or event_rng is None:
            return _Start(route, s, float(speed))
        event = kind.plan(Setting(road_map, route, front, float(speed), ahead, traffic), event_rng)
        if event is not None:
            return _Start(route, s, float(speed), event)
    raise NoStartError(f"network {road_map.name}: no free place to start was found")


def _free_distance(route: Route, front: float, traffic: Snapshot) -> float | None:
    """Free path ahead of a bumper at ``front``; None when its place or the road behind is taken."""
    if len(traffic.ids) == 0:
        return 200.0
    path = (route.s > front - 25.0) & (route.s < front + 60.0)
    distance = np.linalg.norm(traffic.center[:, None] - route.xy[path][None], axis=2)
    nearest = np.argmin(distance, axis=1)
    where = route.s[path][nearest] - front
    relative = traffic.yaw - route.yaw[path][nearest]
    cos, sin = np.abs(np.cos(relative)), np.abs(np.sin(relative))
    half = (traffic.size[:, 0] * cos + traffic.size[:, 1] * sin) / 2
    across = (traffic.size[:, 0] * sin + traffic.size[:, 1] * cos) / 2
    on_path = distance.min(axis=1) - across < EgoVehicle().width_m / 2 + 0.3
    taken = on_path & (where + half > -22.0) & (where - half < 4.0)
    if taken.any():
        return None
    ahead = where[on_path & (where > 0.0)] - half[on_path & (where > 0.0)]
    return float(ahead.min()) if len(ahead) else 60.0


def _lane_at(route: Route, front: float) -> tuple[str, int]:
    """SUMO edge and lane index of the front bumper."""
    lane = route.lane_ids[
        min(int(np.searchsorted(route.lane_ends, front)), len(route.lane_ids) - 1)
    ]
    edge, index = lane.rsplit("_", 1)
    return edge, int(index)
