"""The privileged, not clairvoyant driver of the ego (experiments.md section 2).

It knows the map, its route and the present state of agents and lights, and remembers what it has
seen. It forecasts agents at constant velocity and takes every light as it is now.

Lateral: along the route, a little to the inside in bends so that the swept box stays in its lane,
aside or round obstacles as ``detour`` finds; curvature feed-forward with feedback by distance.
Longitudinal: the intelligent driver model (Treiber et al. 2000, eq. 3 and 4) behind the nearest of
leaders, stop lines, crosswalks and forecast conflicts, never faster than the speed profile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from latentvla_ros.contract import ContractError
from latentvla_training.world.detour import Detour
from latentvla_training.world.ego_state import EgoState, step_bicycle
from latentvla_training.world.episode import STEP_S, EgoVehicle
from latentvla_training.world.forecast import (
    Corridor,
    Leader,
    Watch,
    crossing_stop,
    drifting_in,
    leaders_in,
)
from latentvla_training.world.path_frame import PathFrame, RoadUsers, road_users
from latentvla_training.world.racing_line import RacingLine, racing_line
from latentvla_training.world.right_of_way import (
    Junctions,
    JunctionSettings,
    Zebra,
    zebra_stop,
)
from latentvla_training.world.route import Route
from latentvla_training.world.traffic import EGO_FRONT_M, Snapshot

__all__ = ["EgoState", "Expert", "ExpertSettings", "step_bicycle"]

Array = NDArray[np.float64]

#: Path looked at behind the ego, for whoever comes from there in the next lane.
BEHIND_M, BEHIND_S = 30.0, 1.5


@dataclass(frozen=True)
class ExpertSettings:
    """How the expert drives; SI units.

    Attributes:
        max_acceleration, comfortable_braking, hard_braking: m/s^2.
        time_headway_s, standstill_gap_m: of the intelligent driver model.
        stop_margin_m: from the front bumper to a stop line or crosswalk.
        crossing_margin_m: to the place where somebody is going to cross.
        pull_out_gap_m: kept to a standing obstacle that is to be passed, beside standstill_gap_m.
        jerk: limit on the change of acceleration, m/s^3; three times that in strong braking.
        emergency_jerk: when braking beyond emergency_braking (m/s^2) is needed.
        lateral_acceleration: in bends, m/s^2. curvature_rate: into and out of them, 1/(m s): the
            tracker of the scores follows no faster one. approach_braking: ahead of them, m/s^2.
        unwinding_acceleration: while the path bends more than straight_curvature (1/m), m/s^2.
        settling_m, settling_s: length over which a lateral offset is taken back, at least and by
            speed.
        junctions: behaviour at junctions.
    """

    max_acceleration: float = 2.0
    comfortable_braking: float = 2.0
    hard_braking: float = 7.5
    time_headway_s: float = 1.2
    standstill_gap_m: float = 2.5
    stop_margin_m: float = 2.0
    crossing_margin_m: float = 1.5
    pull_out_gap_m: float = 5.5
    jerk: float = 3.5
    emergency_jerk: float = 25.0
    emergency_braking: float = 3.5
    lateral_acceleration: float = 1.7
    curvature_rate: float = 0.12
    approach_braking: float = 1.5
    unwinding_acceleration: float = 1.0
    straight_curvature: float = 0.03
    settling_m: float = 4.5
    settling_s: float = 0.8
    junctions: JunctionSettings = field(default_factory=JunctionSettings)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "junctions" and not value > 0.0:
                raise ContractError(f"expert.{name}", value, "a positive number")


class Expert:
    """Drives along ``route``; remembers how far it has come, whom it saw and how long it waited.

    Args:
        route: to follow. start_s: arc length of the rear axle at the start.
    """

    def __init__(
        self, route: Route, start_s: float = 0.0, settings: ExpertSettings | None = None
    ) -> None:
        self._route = route
        self._settings = settings or ExpertSettings()
        self._index = int(np.searchsorted(route.s, start_s))
        self._waited_s = 0.0
        self._line = racing_line(route)
        self._target = _target_speed(route, self._line, self._settings)
        self._junctions = Junctions(route, self._target, self._settings.junctions)
        self._zebras = _zebras(route)
        self._watch = Watch()
        self._detour = Detour(route)

    def locate(self, state: EgoState) -> float:
        """Return the ego's arc length on the route; it only moves forward."""
        window = slice(max(self._index - 3, 0), self._index + 25)
        points = self._route.xy[window]
        nearest = int(np.argmin(np.hypot(points[:, 0] - state.x, points[:, 1] - state.y)))
        self._index = window.start + nearest
        yaw = self._route.yaw[self._index]
        dx, dy = state.x - self._route.xy[self._index, 0], state.y - self._route.xy[self._index, 1]
        return float(self._route.s[self._index] + dx * math.cos(yaw) + dy * math.sin(yaw))

    def drive(self, state: EgoState, traffic: Snapshot) -> EgoState:
        """Return the ego's state one step later."""
        s = self.locate(state)
        standing_s, yaw_rate = self._watch.update(traffic, STEP_S)
        lookahead = 40.0 + 2.5 * state.speed + state.speed**2 / 4.0
        free_speed = float(np.interp(s + 0.3 * state.speed, self._route.s, self._target))
        behind = BEHIND_M + BEHIND_S * max(state.speed, free_speed)
        frame = PathFrame(self._route, s - behind, s + EGO_FRONT_M + lookahead)
        users = road_users(frame, traffic, standing_s, yaw_rate)
        zebras = tuple(z for z in self._zebras if s - 5.0 < z.exit_s and z.enter_s < s + lookahead)
        base = self._line.middle[frame.window]
        self._detour.update(s, state.speed, free_speed, users, traffic.ids, zebras, base, frame)
        wheel_angle = self._steer(state, s)
        corridor = self._corridor(state, s, frame)
        acceleration = self._accelerate(
            state, s, free_speed, frame, corridor, users, traffic, zebras, lookahead
        )
        return step_bicycle(state, acceleration, wheel_angle)

    def _offset(self, state: EgoState, s: float) -> float:
        """Distance of the rear axle to the left of the route."""
        route = self._route
        x, y = np.interp(s, route.s, route.xy[:, 0]), np.interp(s, route.s, route.xy[:, 1])
        yaw = float(np.interp(s, route.s, route.yaw))
        return float(-(state.x - x) * math.sin(yaw) + (state.y - y) * math.cos(yaw))

    def _corridor(self, state: EgoState, s: float, frame: PathFrame) -> Corridor:
        """What the body sweeps from where it is, back on the wanted path soon."""
        shift = self._detour.shift
        middle = self._line.middle[frame.window] + shift.at(frame.s)
        wanted = float(np.interp(s, self._route.s, self._line.offset)) + float(
            shift.at(np.array([s]))[0]
        )
        settling = self._settling(state.speed)
        middle = middle + (self._offset(state, s) - wanted) * np.exp(
            -np.maximum(frame.s - s - EGO_FRONT_M, 0.0) / settling
        )
        half = self._line.half_width[frame.window]
        return Corridor(frame.s, middle - half, middle + half)

    def _settling(self, speed: float) -> float:
        return max(self._settings.settling_m, self._settings.settling_s * speed)

    def _steer(self, state: EgoState, s: float) -> float:
        route, line, shift = self._route, self._line, self._detour.shift
        settling = self._settling(state.speed)
        preview = s + state.speed * STEP_S
        place = np.array([s])
        wanted = float(np.interp(s, route.s, line.offset)) + float(shift.at(place)[0])
        slope = float(np.interp(s, route.s, line.slope)) + float(shift.slope_at(place)[0])
        offset = self._offset(state, s) - wanted
        yaw = float(np.interp(s, route.s, route.yaw)) + math.atan(slope)
        heading_error = math.remainder(state.yaw - yaw, 2 * math.pi)
        feedback = float(np.clip(offset, -1.5, 1.5)) / settling**2 + 1.6 * heading_error / settling
        along = float(np.interp(preview, route.s, line.curvature))
        along = along / max(1.0 - along * float(shift.at(place)[0]), 0.5)
        curvature = along + shift.curvature_at(preview) - feedback
        angle = math.atan(EgoVehicle().wheelbase_m * curvature)
        step = 0.7 * STEP_S
        return float(
            np.clip(np.clip(angle, state.wheel_angle - step, state.wheel_angle + step), -0.6, 0.6)
        )

    def _accelerate(
        self,
        state: EgoState,
        s: float,
        free_speed: float,
        frame: PathFrame,
        corridor: Corridor,
        users: RoadUsers,
        traffic: Snapshot,
        zebras: tuple[Zebra, ...],
        lookahead: float,
    ) -> float:
        settings, speed = self._settings, state.speed
        front = s + EGO_FRONT_M
        target = min(free_speed, self._detour.shift.speed_cap(s))
        options = [self._follow_profile(speed, target)]
        leaders = leaders_in(corridor, users, front, speed, lookahead)
        for leader in (*leaders[:3], *drifting_in(corridor, users, front)):
            gap = leader.gap
            if self._detour.waiting and users.standing_s[leader.user] > 0.5:
                gap -= settings.pull_out_gap_m
            options.append(self._interact(speed, gap, leader.speed))
        # Who crosses or comes towards us in the junction does not fill the lane behind it.
        nearest: Leader | None = next(
            (
                leader
                for leader in leaders
                if not users.pedestrian[leader.user]
                and (
                    abs(users.relative_yaw[leader.user]) < 1.0
                    or users.standing_s[leader.user] > 1.0
                )
            ),
            None,
        )
        for stop_s, margin in (
            (
                self._junctions.stop_line(
                    s, speed, traffic, nearest, self._waited_s, lookahead, zebras, corridor, users
                ),
                settings.stop_margin_m,
            ),
            (
                zebra_stop(zebras, corridor, users, front, speed, self._waited_s),
                settings.stop_margin_m,
            ),
            (
                crossing_stop(
                    corridor, frame, users, traffic, s, speed, free_speed,
                    tuple((zebra.enter_s, zebra.exit_s) for zebra in zebras),
                ),
                settings.crossing_margin_m,
            ),
            (self._detour.limit_s, 1.0),
        ):  # fmt: skip
            if stop_s is not None and math.isfinite(stop_s):
                gap = stop_s - margin - front + settings.standstill_gap_m
                options.append(self._interact(speed, gap, 0.0))
        return self._limited(state, max(min(options), -settings.hard_braking))

    def _limited(self, state: EgoState, wanted: float) -> float:
        """Limit the jerk of a wanted acceleration; come to rest for good."""
        settings = self._settings
        strongest = min(wanted, state.acceleration)
        jerk = settings.jerk * (3.0 if strongest < -settings.comfortable_braking else 1.0)
        if strongest < -settings.emergency_braking:
            jerk = settings.emergency_jerk
        change = jerk * STEP_S
        limited = float(np.clip(wanted, state.acceleration - change, state.acceleration + change))
        if state.speed < 0.3 and wanted <= 0.05:
            self._waited_s += STEP_S
            return -state.speed / STEP_S if state.speed < 0.1 else limited
        self._waited_s = self._waited_s if state.speed < 0.3 else 0.0
        return limited

    def _follow_profile(self, speed: float, target: float) -> float:
        if speed > target:
            return max((target - speed) / 0.8, -3.5)
        return float(self._settings.max_acceleration * (1.0 - (speed / max(target, 0.5)) ** 4))

    def _interact(self, speed: float, gap: float, other_speed: float) -> float:
        """Intelligent driver model's braking for a gap of ``gap`` m to something ahead.

        Where the model would brake in panic though less is enough, a third more than is needed.
        """
        settings = self._settings
        a, b = settings.max_acceleration, settings.comfortable_braking
        difference = speed - other_speed
        closing = speed * difference / (2.0 * math.sqrt(a * b))
        wanted_gap = settings.standstill_gap_m + max(0.0, speed * settings.time_headway_s + closing)
        model = float(a * (1.0 - (wanted_gap / max(gap, 0.1)) ** 2))
        room = max(gap - 0.4 * settings.standstill_gap_m, 0.2)
        needed = max(difference, 0.0) ** 2 / (2.0 * room)
        return max(model, -max(3.5, 1.35 * needed + 0.5))


def _target_speed(route: Route, line: RacingLine, settings: ExpertSettings) -> Array:
    """The route's speeds, lowered in bends, with comfortable braking ahead of slower places."""
    bend = np.maximum(np.abs(gaussian_filter1d(line.curvature, 1.0)), 1e-4)
    change = np.maximum(np.abs(np.gradient(gaussian_filter1d(line.curvature, 1.0), route.s)), 1e-5)
    speed = np.minimum(route.target_speed, np.sqrt(settings.lateral_acceleration / bend))
    speed = np.maximum(np.minimum(speed, settings.curvature_rate / change), 2.0)
    step = np.diff(route.s)
    for index in range(len(speed) - 2, -1, -1):
        reachable = speed[index + 1] ** 2 + 2 * settings.approach_braking * step[index]
        speed[index] = min(speed[index], math.sqrt(reachable))
    for index in np.flatnonzero(bend[:-1] > settings.straight_curvature).tolist():
        reachable = speed[index] ** 2 + 2 * settings.unwinding_acceleration * step[index]
        speed[index + 1] = min(speed[index + 1], math.sqrt(reachable))
    return np.asarray(speed)


def _zebras(route: Route) -> tuple[Zebra, ...]:
    found = []
    for enter_s, exit_s, _ in route.zebras:
        inside = [c for c in route.crossings if c.stop_s - 6.0 < enter_s < c.exit_s + 6.0]
        found.append(Zebra(float(enter_s), float(exit_s), any(c.signal >= 0 for c in inside)))
    return tuple(found)
