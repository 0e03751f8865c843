"""One route driven in the closed loop: reactive traffic, a driver at 10 Hz, what came of it.

The expert drives the first two seconds, in which the driver only watches. A plan is driven at once,
as if it took no time, and refused by the checks that the planner node makes; without a new one the
last is followed to its end, then the vehicle brakes.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import ContractError, Plan, Rig
from latentvla_ros.safety.plan_checks import check_plan
from latentvla_training.closed_loop.expert_drivers import ExpertDriver, ExpertPlanDriver
from latentvla_training.closed_loop.infractions import (
    Infraction,
    InfractionMonitor,
    WatchedRoad,
    watched_road,
)
from latentvla_training.closed_loop.progress import RouteProgress, TrafficSpeed, goal_of
from latentvla_training.closed_loop.sensors import Eyes, log_row
from latentvla_training.closed_loop.tracking import TrackedVehicle
from latentvla_training.scoring.bench2drive import RouteResult, driving_smoothness
from latentvla_training.world.drivers import Driver
from latentvla_training.world.episode import STEP_S, Episode
from latentvla_training.world.expert import EgoState
from latentvla_training.world.networks import build_road_map
from latentvla_training.world.session import EpisodeSession, NoStartError
from latentvla_training.world.simulation import log_episode
from latentvla_training.world.traffic import Snapshot

Array = NDArray[np.float64]

#: Steps of a plan: past them there is nothing left to follow.
_PLAN_STEPS = 40


@dataclass(frozen=True)
class RouteSettings:
    """What a route is.

    Attributes:
        warm_up_s: the expert drives so long while the driver watches.
        free_flow_s: the route ends where someone alone on the road, at its limits and at the speed
            that bends allow, would come in this time after the warm-up.
        timeout_s: the route is given up after this time.
        blocked_s, blocked_mps: so long slower than this is "blocked".
        deviation_m: farther than this from the route has left it (there the route-to-command rule
            says "unknown" too).
    """

    warm_up_s: float = 2.0
    free_flow_s: float = 25.0
    timeout_s: float = 120.0
    blocked_s: float = 60.0
    blocked_mps: float = 0.1
    deviation_m: float = 10.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (math.isfinite(value) and value > 0.0):
                raise ContractError(f"route.{name}", value, "a positive number")


@dataclass(frozen=True)
class FollowedPlan:
    """A plan that was driven: the step it was made at and its pose in the map frame."""

    step: int
    pose: Array
    plan: Plan


@dataclass
class DrivenRoute:
    """What happened on a route.

    Attributes:
        name, network, weather: of the episode.
        events, events_met: long-tail events that are planned on the route, the same whoever drives,
            and those that the drive has come to.
        event_before_takeover: whether one began while the expert still drove.
        result: Bench2Drive's record. infractions: events in order.
        seconds: from the take-over to the end. driven_m, route_m: way, and length of the route.
        mean_speed: m/s. smoothness: share of comfortable two-second segments.
        plans: made, refused by cause, and steps without a plan to follow.
        episode: the state log from step 0, warm-up included. followed: plans for a film.
    """

    name: str
    network: str
    weather: str
    events: list[str]
    events_met: list[str]
    event_before_takeover: bool
    result: RouteResult
    infractions: list[Infraction]
    seconds: float
    driven_m: float
    route_m: float
    mean_speed: float
    smoothness: float
    plans_made: int
    plans_refused: dict[str, int]
    steps_braking: int
    episode: Episode
    followed: list[FollowedPlan] = field(default_factory=list)


def drive_route(
    name: str,
    driver: Driver,
    rig: Rig,
    settings: RouteSettings | None = None,
    keep_plans: bool = False,
) -> DrivenRoute:
    """Drive episode ``name`` with ``driver`` from its start to its end, time-out or failure.

    Args:
        keep_plans: keep every followed plan in the result, for a film.

    Raises:
        ContractError: no such episode, or the driver cannot use the rig.
        NetworkBuildError: the network cannot be built.
        NoStartError: there is no place to start, or in ``longtail`` none with an event ahead.
            Whether the event is then met has no say: that depends on the driver.
    """
    settings = settings or RouteSettings()
    driver.start(rig)
    with EpisodeSession(name) as session:
        if session.network.startswith("longtail-") and session.staged_event is None:
            raise NoStartError(f"episode {name}: no route here hosts a long-tail event")
        return _Drive(session, driver, rig, settings, keep_plans).run()


class _Drive:
    """The loop over one route's steps."""

    def __init__(
        self,
        session: EpisodeSession,
        driver: Driver,
        rig: Rig,
        settings: RouteSettings,
        keep_plans: bool,
    ) -> None:
        self._session, self._driver, self._settings = session, driver, settings
        self._keep_plans = keep_plans
        self._eyes = Eyes(session, rig)
        self._states: list[EgoState] = []
        self._snapshots: list[Snapshot] = []
        self._refused: Counter[str] = Counter()
        self._followed: list[FollowedPlan] = []
        self._plans = 0
        self._braking = 0
        self._failure = ""

    def run(self) -> DrivenRoute:
        """Drive to the end."""
        session, settings = self._session, self._settings
        state = session.state
        warm_up = round(settings.warm_up_s / STEP_S)
        expert = isinstance(self._driver, ExpertDriver)
        for step in range(warm_up):
            snapshot = self._record(state)
            self._plan(step, state, snapshot)
            state = session.expert.drive(state, snapshot)
        self._plans = 0
        self._refused.clear()
        progress = RouteProgress(session.route, state)
        start_s = progress.s
        goal_s = goal_of(session.route, start_s, settings.free_flow_s)
        vehicle = TrackedVehicle(state)
        monitor = InfractionMonitor(_road(session.network), state)
        speed_of_traffic = TrafficSpeed(start_s, goal_s)
        standing_s, step, status = 0.0, warm_up, ""
        while True:
            snapshot = self._record(state)
            monitor.watch(step, state, snapshot)
            progress.update(state)
            speed_of_traffic.add(progress.s, state, snapshot)
            slow = abs(state.speed) < settings.blocked_mps
            standing_s = standing_s + STEP_S if slow else 0.0
            seconds = (step - warm_up) * STEP_S
            status = self._ended(progress, goal_s, seconds, standing_s)
            if status:
                break
            plan = self._plan(step, state, snapshot)
            if self._failure:
                status = self._failure
                break
            if expert:
                state = session.expert.drive(state, snapshot)
            else:
                if plan is not None:
                    vehicle.follow(plan.poses)
                age = vehicle.plan_age_steps
                self._braking += age is None or age >= _PLAN_STEPS
                vehicle.step()
                state = vehicle.ego
            step += 1
        completion = 100.0 * min(max((progress.s - start_s) / (goal_s - start_s), 0.0), 1.0)
        infractions = list(monitor.events)
        if status in _ENDINGS:
            infractions.append(Infraction(_ENDINGS[status], step, status))
        counted = Counter(
            event.kind for event in infractions if event.counts and event.kind != "off_road"
        )
        result = RouteResult(
            route=session.name,
            status=status,
            completion_percent=100.0 if status == "Completed" else completion,
            infractions=dict(sorted(counted.items())),
            off_lane_percents=(monitor.outside_percent,) if monitor.outside_m > 0.0 else (),
            min_speed_percents=speed_of_traffic.percents(),
        )
        return self._driven(result, infractions, monitor, goal_s - start_s, warm_up)

    def _record(self, state: EgoState) -> Snapshot:
        snapshot = self._session.observe(state)
        self._states.append(state)
        self._snapshots.append(snapshot)
        return snapshot

    def _plan(self, step: int, state: EgoState, snapshot: Snapshot) -> Plan | None:
        """Return the driver's plan if it may be driven."""
        if isinstance(self._driver, ExpertDriver):
            return None
        frame = self._eyes.frame(step, state, snapshot, self._driver.uses_cameras)
        if isinstance(self._driver, ExpertPlanDriver):
            session = self._session
            self._driver.see(session.expert, session.route, state, snapshot)
        plan = self._driver.plan(frame)
        if plan is None:
            return None
        self._plans += 1
        check = check_plan(plan.poses, state.speed, 0.0)
        if not np.isfinite(plan.scores).all() or any(
            violation.name == "not_finite" for violation in check.violations
        ):
            self._failure = "Failed - plan not finite"
            return None
        if not check.valid:
            self._refused.update(violation.name for violation in check.violations)
            return None
        if self._keep_plans:
            self._followed.append(FollowedPlan(step, frame.pose, plan))
        return plan

    def _ended(
        self, progress: RouteProgress, goal_s: float, seconds: float, standing_s: float
    ) -> str:
        """Return why the route is over, "" while it is not."""
        settings = self._settings
        if progress.s >= goal_s:
            return "Completed"
        if progress.distance_m > settings.deviation_m:
            return "Failed - left the route"
        if standing_s > settings.blocked_s:
            return "Failed - blocked"
        return "Failed - time-out" if seconds > settings.timeout_s else ""

    def _driven(
        self,
        result: RouteResult,
        infractions: list[Infraction],
        monitor: InfractionMonitor,
        route_m: float,
        warm_up: int,
    ) -> DrivenRoute:
        session = self._session
        ego = np.array([log_row(state) for state in self._states])
        driven = ego[warm_up:]
        seconds = (len(driven) - 1) * STEP_S
        speed, acceleration, yaw_rate = driven[:, 3], driven[:, 4], driven[:, 6]
        smooth = len(driven) >= 3
        episode = log_episode(session, ego, self._snapshots)
        return DrivenRoute(
            name=session.name,
            network=session.network,
            weather=session.weather.value,
            events=[session.staged_event.value] if session.staged_event else [],
            events_met=sorted({event.name.value for event in episode.events}),
            event_before_takeover=any(event.start_step < warm_up for event in episode.events),
            result=result,
            infractions=infractions,
            seconds=seconds,
            driven_m=monitor.driven_m,
            route_m=route_m,
            mean_speed=float(speed.mean()),
            smoothness=driving_smoothness(acceleration, speed * yaw_rate, yaw_rate)
            if smooth
            else math.nan,
            plans_made=self._plans,
            plans_refused=dict(sorted(self._refused.items())),
            steps_braking=self._braking,
            episode=episode,
            followed=self._followed,
        )


_ENDINGS = {
    "Failed - left the route": "route_deviation",
    "Failed - blocked": "vehicle_blocked",
    "Failed - time-out": "route_timeout",
}


@lru_cache(maxsize=1)
def _road(network: str) -> WatchedRoad:
    return watched_road(build_road_map(network))
