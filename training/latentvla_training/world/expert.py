"""The privileged, not clairvoyant driver of the ego (experiments.md section 2).

It knows the map, its route and the present state of agents and lights. It forecasts agents at
constant speed along the connectors they may take and takes every light as it is now.

Lateral: curvature feed-forward with feedback on the offset from the route, by distance travelled.
Longitudinal: the intelligent driver model (Treiber et al. 2000, eq. 3 and 4) behind the nearest of
the leader, a stop line that must not be crossed, and the route's speed profile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import ContractError
from latentvla_training.world.episode import STEP_S, EgoVehicle
from latentvla_training.world.road_map import SignalState
from latentvla_training.world.route import Conflict, Crossing, Route
from latentvla_training.world.traffic import EGO_FRONT_M, Snapshot

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ExpertSettings:
    """How the expert drives; SI units.

    Attributes:
        max_acceleration, comfortable_braking, hard_braking: m/s^2.
        time_headway_s, standstill_gap_m: of the intelligent driver model.
        stop_margin_m: from the front bumper to a stop line.
        yellow_braking: stop at yellow when this deceleration suffices, or 1.4 times it when the
            junction cannot be left within yellow_s.
        gap_margin_s: between leaving a conflict zone and the next vehicle's arrival.
        lookahead_m: agents farther along the route are not looked at.
        jerk: limit on the change of acceleration, m/s^3; three times that in strong braking.
        settling_m: length over which a lateral offset is taken back.
    """

    max_acceleration: float = 2.0
    comfortable_braking: float = 2.0
    hard_braking: float = 6.0
    time_headway_s: float = 1.2
    standstill_gap_m: float = 2.5
    stop_margin_m: float = 1.0
    yellow_braking: float = 3.0
    yellow_s: float = 4.0
    gap_margin_s: float = 1.2
    lookahead_m: float = 80.0
    jerk: float = 3.5
    settling_m: float = 4.5

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0.0:
                raise ContractError(f"expert.{name}", value, "a positive number")


@dataclass(frozen=True)
class EgoState:
    """Rear axle in the map frame, speed, acceleration, wheel angle; SI units."""

    x: float
    y: float
    yaw: float
    speed: float
    acceleration: float
    wheel_angle: float

    @property
    def yaw_rate(self) -> float:
        """Of the kinematic bicycle, rad/s."""
        return self.speed * math.tan(self.wheel_angle) / EgoVehicle().wheelbase_m


def step_bicycle(state: EgoState, acceleration: float, wheel_angle: float) -> EgoState:
    """Advance the kinematic bicycle by ``STEP_S``, with the step's mean speed and wheel angle."""
    speed = max(0.0, state.speed + acceleration * STEP_S)
    mean_speed = (speed + state.speed) / 2
    mean_angle = (wheel_angle + state.wheel_angle) / 2
    turn = mean_speed * math.tan(mean_angle) / EgoVehicle().wheelbase_m * STEP_S
    heading = state.yaw + turn / 2
    return EgoState(
        x=state.x + mean_speed * math.cos(heading) * STEP_S,
        y=state.y + mean_speed * math.sin(heading) * STEP_S,
        yaw=math.remainder(state.yaw + turn, 2 * math.pi),
        speed=speed,
        acceleration=(speed - state.speed) / STEP_S,
        wheel_angle=wheel_angle,
    )


class Expert:
    """Drives along ``route``; remembers only how far it has come and how long it has waited."""

    def __init__(
        self, route: Route, start_s: float = 0.0, settings: ExpertSettings | None = None
    ) -> None:
        self._route = route
        self._settings = settings or ExpertSettings()
        self._index = int(np.searchsorted(route.s, start_s))
        self._waited_s = 0.0

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
        wheel_angle = self._steer(state, s)
        acceleration = self._accelerate(state, s, traffic)
        return step_bicycle(state, acceleration, wheel_angle)

    def _steer(self, state: EgoState, s: float) -> float:
        route, settling = self._route, self._settings.settling_m
        preview = s + state.speed * STEP_S
        x, y = np.interp(s, route.s, route.xy[:, 0]), np.interp(s, route.s, route.xy[:, 1])
        yaw = float(np.interp(s, route.s, route.yaw))
        offset = -(state.x - x) * math.sin(yaw) + (state.y - y) * math.cos(yaw)
        heading_error = math.remainder(state.yaw - yaw, 2 * math.pi)
        feedback = float(np.clip(offset, -1.5, 1.5)) / settling**2 + 1.6 * heading_error / settling
        curvature = float(np.interp(preview, route.s, route.curvature)) - feedback
        wanted = math.atan(EgoVehicle().wheelbase_m * curvature)
        step = 0.7 * STEP_S
        return float(
            np.clip(np.clip(wanted, state.wheel_angle - step, state.wheel_angle + step), -0.6, 0.6)
        )

    def _accelerate(self, state: EgoState, s: float, traffic: Snapshot) -> float:
        settings, route = self._settings, self._route
        front = s + EGO_FRONT_M
        target = float(np.interp(s + 0.3 * state.speed, route.s, route.target_speed))
        options = [self._follow_profile(state.speed, target)]
        leader_gap, leader_speed = self._leader(s, traffic)
        if math.isfinite(leader_gap):
            options.append(self._interact(state.speed, leader_gap, leader_speed))
        stop_s = self._stop_line(state, s, traffic, leader_gap, leader_speed)
        if stop_s is not None:
            gap = stop_s - settings.stop_margin_m - front + settings.standstill_gap_m
            options.append(self._interact(state.speed, gap, 0.0))
        wanted = max(min(options), -settings.hard_braking)
        strong = min(wanted, state.acceleration) < -settings.comfortable_braking
        jerk = settings.jerk * STEP_S * (3.0 if strong else 1.0)
        limited = float(np.clip(wanted, state.acceleration - jerk, state.acceleration + jerk))
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
        """Intelligent driver model's braking for a gap of ``gap`` m to something ahead."""
        settings = self._settings
        a, b = settings.max_acceleration, settings.comfortable_braking
        closing = speed * (speed - other_speed) / (2.0 * math.sqrt(a * b))
        wanted_gap = settings.standstill_gap_m + max(0.0, speed * settings.time_headway_s + closing)
        return float(a * (1.0 - (wanted_gap / max(gap, 0.1)) ** 2))

    def _leader(self, s: float, traffic: Snapshot) -> tuple[float, float]:
        """Return gap and speed along the route of the nearest agent in the ego's corridor."""
        route, front = self._route, s + EGO_FRONT_M
        low = self._index
        high = int(np.searchsorted(route.s, s + self._settings.lookahead_m))
        path = route.xy[low:high]
        origin = path[0]
        near = np.flatnonzero(
            np.hypot(*(traffic.center - origin).T) < self._settings.lookahead_m + 10.0
        )
        if len(near) == 0:
            return math.inf, 0.0
        delta = traffic.center[near, None] - path[None]
        nearest = np.argmin((delta**2).sum(axis=2), axis=1)
        yaw = route.yaw[low + nearest]
        offset = delta[np.arange(len(near)), nearest]
        along = offset[:, 0] * np.cos(yaw) + offset[:, 1] * np.sin(yaw)
        lateral = -offset[:, 0] * np.sin(yaw) + offset[:, 1] * np.cos(yaw)
        relative = traffic.yaw[near] - yaw
        cos, sin = np.abs(np.cos(relative)), np.abs(np.sin(relative))
        length, width = traffic.size[near, 0] / 2, traffic.size[near, 1] / 2
        clearance = np.abs(lateral) - (length * sin + width * cos) - EgoVehicle().width_m / 2
        ends = (nearest == 0) | (nearest == len(path) - 1)
        gap = route.s[low + nearest] + along - (length * cos + width * sin) - front
        margin = np.where(traffic.speed[near] < 0.5, 0.12, 0.3)
        blocking = (clearance < margin) & (np.abs(along) < np.where(ends, 3.0, 99.0)) & (gap > -4.0)
        if not blocking.any():
            return math.inf, 0.0
        candidates = np.flatnonzero(blocking)
        first = candidates[np.argmin(gap[candidates])]
        speed = traffic.speed[near[first]] * math.cos(relative[first])
        return float(gap[first]), float(max(speed, 0.0))

    def _stop_line(
        self, state: EgoState, s: float, traffic: Snapshot, leader_gap: float, leader_speed: float
    ) -> float | None:
        """Return the arc length of the next stop line if the ego must stop there."""
        front = s + EGO_FRONT_M
        crossing = next((c for c in self._route.crossings if c.stop_s > front - 0.5), None)
        if crossing is None or crossing.stop_s - front > self._settings.lookahead_m:
            return None
        distance = crossing.stop_s - front
        needed = state.speed**2 / (2.0 * max(distance - 0.5, 0.1))
        if crossing.signal >= 0:
            light = traffic.signals[crossing.signal]
            if light == SignalState.RED and needed < self._settings.hard_braking:
                return crossing.stop_s
            if light == SignalState.YELLOW:
                length = crossing.exit_s - front + EgoVehicle().length_m
                late = length > self._settings.yellow_s * min(state.speed, self._slowest(crossing))
                if needed < self._settings.yellow_braking * (1.4 if late else 1.0):
                    return crossing.stop_s
        if needed > 4.0 or distance > 12.0 + 1.2 * state.speed**2 / 4.0:
            return None
        if self._exit_blocked(crossing, front, leader_gap, leader_speed):
            return crossing.stop_s
        patience = self._waited_s > 3.5
        for conflict in crossing.conflicts:
            if self._must_wait(state, front, conflict, traffic, patience):
                return crossing.stop_s
        return None

    def _slowest(self, crossing: Crossing) -> float:
        """Lowest target speed inside a junction."""
        inside = slice(*np.searchsorted(self._route.s, (crossing.stop_s, crossing.exit_s + 1.0)))
        return float(self._route.target_speed[inside].min())

    def _exit_blocked(
        self, crossing: Crossing, front: float, leader_gap: float, leader_speed: float
    ) -> bool:
        """Whether a slow leader leaves no room behind the junction."""
        if not crossing.conflicts or not math.isfinite(leader_gap) or leader_speed > 2.5:
            return False
        leader_rear = front + leader_gap
        room = crossing.exit_s + EgoVehicle().length_m + self._settings.standstill_gap_m
        return crossing.stop_s < leader_rear < room

    def _must_wait(
        self,
        state: EgoState,
        front: float,
        conflict: Conflict,
        traffic: Snapshot,
        patience: bool,
    ) -> bool:
        """Whether some agent that may use ``conflict`` meets the ego there at constant speed."""
        enter = conflict.route_interval[0] - front
        leave = conflict.route_interval[1] - front + EgoVehicle().length_m
        ceiling = float(
            np.interp(conflict.route_interval[0], self._route.s, self._route.target_speed)
        )
        arrives, clears = (_time_to(d, state.speed, ceiling) for d in (enter, leave))
        foe_start, foe_end = conflict.foe_interval
        margin = self._settings.gap_margin_s
        for index, lane_id in enumerate(traffic.lane_ids):
            speed = float(traffic.speed[index])
            if lane_id in conflict.lane_ids:
                offset = conflict.start_offset[conflict.lane_ids.index(lane_id)]
                position = offset + float(traffic.lane_position[index])
                if position - traffic.size[index, 0] > foe_end + 0.5:
                    continue
                waits = speed < 0.5  # a standing one in the way is a leader, see _leader
                if waits and (patience or not conflict.has_priority or position > foe_start):
                    continue
            elif lane_id == conflict.approach_lane and conflict.has_priority:
                if conflict.signal >= 0 and traffic.signals[conflict.signal] == SignalState.RED:
                    continue
                position = float(traffic.lane_position[index]) - conflict.approach_length
                if speed < 0.5 and (position < -12.0 or patience):
                    continue
            else:
                continue
            assumed = max(speed, 2.5)
            foe_arrives = (foe_start - 1.0 - position) / assumed
            foe_clears = (foe_end + 1.0 + traffic.size[index, 0] - position) / assumed
            if foe_arrives < clears + margin and foe_clears > arrives - 0.3:
                return True
        return False


def _time_to(distance: float, speed: float, ceiling: float) -> float:
    """Time to cover ``distance`` when accelerating at 1.3 m/s^2 to ``ceiling`` m/s."""
    if distance <= 0.0:
        return 0.0
    ceiling = max(ceiling, speed, 1.0)
    ramp = (ceiling**2 - speed**2) / 2.6
    if ramp >= distance:
        return (math.sqrt(speed**2 + 2.6 * distance) - speed) / 1.3
    return (ceiling - speed) / 1.3 + (distance - ramp) / ceiling
