"""Traffic lights are kept out of an event's way: the ego comes to its place while it can happen."""

from __future__ import annotations

from latentvla_training.world.events.base import Moment
from latentvla_training.world.road_map import RoadMap, SignalState
from latentvla_training.world.route import Route
from latentvla_training.world.traffic import TrafficSession

#: The ego's next light counts within the first, m; within the second it is left alone.
_REACH_M, _LEAVE_M = 140.0, 25.0
_SLOWEST_MPS = 4.0
#: Of a light switched before the drive; ``hurry_light`` prolongs it.
_GREEN_S = 15.0


def hurry_light(moment: Moment, road_map: RoadMap, route: Route, until_s: float) -> None:
    """Hold the ego's next light before ``until_s`` at green, or end another's green early.

    Yellow and all-red keep their lengths, so nobody sees anything but a well-timed light.
    """
    crossing = next((c for c in route.crossings if c.stop_s > moment.front), None)
    if crossing is None or crossing.signal < 0 or crossing.stop_s >= until_s:
        return
    distance = crossing.stop_s - moment.front
    if distance > _REACH_M:
        return
    tls = road_map.signals[crossing.signal].tls_id
    light = moment.snapshot.signals[crossing.signal]
    lights = moment.traffic.sumo.trafficlight
    rest = lights.getNextSwitch(tls) - moment.traffic.sumo.simulation.getTime()
    needed = distance / max(moment.speed, _SLOWEST_MPS) + 3.0
    if light == SignalState.GREEN and rest < needed:
        lights.setPhaseDuration(tls, needed)
    elif light == SignalState.RED and rest > 1.0:
        green = "G" in lights.getRedYellowGreenState(tls)
        if (green and distance > _LEAVE_M) or moment.speed < 0.5:
            lights.setPhaseDuration(tls, 0.5)


def open_way(traffic: TrafficSession, road_map: RoadMap, route: Route, until_s: float) -> None:
    """Switch the ego's lights before ``until_s`` to green at once, before anything is logged."""
    for crossing in route.crossings:
        if crossing.signal >= 0 and crossing.stop_s < until_s:
            _show_green(traffic, road_map, crossing.signal, _GREEN_S)


def _show_green(traffic: TrafficSession, road_map: RoadMap, signal: int, seconds: float) -> None:
    head = road_map.signals[signal]
    lights = traffic.sumo.trafficlight
    program = lights.getProgram(head.tls_id)
    for logic in lights.getAllProgramLogics(head.tls_id):
        if logic.programID != program:
            continue
        for index, phase in enumerate(logic.phases):
            if phase.state[head.link_indices[0]] in "Gg":
                lights.setPhase(head.tls_id, index)
                lights.setPhaseDuration(head.tls_id, seconds)
                return
