"""Each infraction is seen when it happens, once, and not when it does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from latentvla_training.closed_loop.infractions import InfractionMonitor, watched_road
from latentvla_training.world.crossroads import crossroads_map
from latentvla_training.world.episode import AgentModel
from latentvla_training.world.expert import EgoState
from latentvla_training.world.road_map import Prop, SignalState
from latentvla_training.world.traffic import Snapshot

MAP = crossroads_map()
ROAD = watched_road(MAP)
GREEN, YELLOW, RED = SignalState.GREEN, SignalState.YELLOW, SignalState.RED


def ego(x: float, y: float, yaw: float = 0.0, speed: float = 5.0) -> EgoState:
    return EgoState(x, y, yaw, speed, 0.0, 0.0)


def traffic(
    center: tuple[float, float] | None = None,
    yaw: float = 0.0,
    speed: float = 0.0,
    model: AgentModel = AgentModel.CAR,
    light: SignalState = GREEN,
) -> Snapshot:
    count = 0 if center is None else 1
    return Snapshot(
        ids=("other",)[:count],
        center=np.array([center] if count else [], float).reshape(-1, 2),
        yaw=np.full(count, yaw),
        speed=np.full(count, speed),
        size=np.tile([4.6, 1.9, 1.5], (count, 1)),
        model=np.full(count, model, np.uint8),
        lane_ids=("",) * count,
        lane_position=np.zeros(count),
        braking=np.zeros(count, bool),
        signals=np.full(len(MAP.signals), light, np.uint8),
    )


def lane_start(lane_id: str, back_m: float) -> tuple[np.ndarray, float]:
    """Pose on a lane, ``back_m`` before its end: point and heading."""
    line = MAP.lanes[lane_id].centerline
    forward = line[-1] - line[-2]
    forward = forward / np.linalg.norm(forward)
    return line[-1] - back_m * forward, float(np.arctan2(forward[1], forward[0]))


def drive(states: list[EgoState], seen: Snapshot | list[Snapshot]) -> InfractionMonitor:
    monitor = InfractionMonitor(ROAD, states[0])
    for step, state in enumerate(states):
        monitor.watch(step, state, seen[step] if isinstance(seen, list) else seen)
    return monitor


def along(lane_id: str, distances: np.ndarray, lateral: float = 0.0) -> list[EgoState]:
    """Rear-axle states on a lane, ``distances`` before its end."""
    states = []
    for back in distances:
        point, yaw = lane_start(lane_id, float(back))
        point = point + lateral * np.array([-np.sin(yaw), np.cos(yaw)])
        states.append(ego(float(point[0]), float(point[1]), yaw))
    return states


APPROACH = along("west_in_0", np.linspace(30.0, -2.0, 65))


def test_driving_in_the_lane_at_green_is_no_infraction() -> None:
    monitor = drive(APPROACH, traffic())
    assert monitor.events == [] and monitor.outside_percent == 0.0
    assert monitor.driven_m == pytest.approx(32.0)


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (AgentModel.BUS, "collision_vehicle"),
        (AgentModel.BICYCLE, "collision_vehicle"),
        (AgentModel.MOTORCYCLE, "collision_vehicle"),
        (AgentModel.PEDESTRIAN, "collision_pedestrian"),
        (AgentModel.CONE, "collision_static"),
        (AgentModel.BARRIER, "collision_static"),
    ],
)
def test_a_collision_counts_once_by_what_was_hit(model: AgentModel, kind: str) -> None:
    point, yaw = lane_start("west_in_0", 12.0)
    monitor = drive(APPROACH, traffic((point[0], point[1]), yaw, 0.0, model))
    assert [event.kind for event in monitor.events] == [kind]
    assert monitor.events[0].fault == "stopped_track" and monitor.events[0].at_fault


@pytest.mark.parametrize(
    ("ahead", "speed", "ego_speed", "fault", "at_fault"),
    [
        (6.0, 2.0, 5.0, "front", True),
        (-3.0, 9.0, 5.0, "rear", False),
        (6.0, 2.0, 0.0, "stopped_ego", False),
        (6.0, 0.0, 5.0, "stopped_track", True),
    ],
)
def test_fault_follows_navsim(
    ahead: float, speed: float, ego_speed: float, fault: str, at_fault: bool
) -> None:
    point, yaw = lane_start("west_in_0", 25.0)
    forward = np.array([np.cos(yaw), np.sin(yaw)])
    other = point + ahead * forward
    monitor = drive([ego(*point, yaw, ego_speed)], traffic((other[0], other[1]), yaw, speed))
    (event,) = monitor.events
    assert (event.fault, event.at_fault) == (fault, at_fault)
    assert event.counts == (fault != "stopped_ego")


def test_who_ran_into_the_standing_ego_may_be_hit_later_and_that_counts() -> None:
    point, yaw = lane_start("west_in_0", 25.0)
    forward = np.array([np.cos(yaw), np.sin(yaw)])

    def seen(ahead: float, speed: float) -> Snapshot:
        other = point + ahead * forward
        return traffic((other[0], other[1]), yaw, speed)

    stands, drives = ego(*point, yaw, 0.0), ego(*point, yaw, 5.0)
    touching, away = seen(6.0, 2.0), seen(12.0, 2.0)
    lasting = drive([stands, stands, drives], [touching] * 3)  # it drives off in the same contact
    assert [event.counts for event in lasting.events] == [False]
    for gap in (away, traffic()):
        parted = drive([stands, stands, drives, drives], [touching, gap, touching, touching])
        assert [event.fault for event in parted.events] == ["stopped_ego", "front"]
        assert [event.counts for event in parted.events] == [False, True]


def test_a_neighbour_that_scrapes_the_side_in_the_ego_s_lane_is_not_the_ego_s_fault() -> None:
    point, yaw = lane_start("west_in_0", 25.0)
    left = np.array([-np.sin(yaw), np.cos(yaw)])
    other = point + 1.4 * np.array([np.cos(yaw), np.sin(yaw)]) + 2.0 * left
    monitor = drive([ego(*point, yaw)], traffic((other[0], other[1]), yaw, 6.0))
    assert [(e.fault, e.at_fault) for e in monitor.events] == [("lateral", False)]


@pytest.mark.parametrize(("light", "count"), [(RED, 1), (YELLOW, 0), (GREEN, 0)])
def test_the_front_wheels_over_the_line_at_red(light: SignalState, count: int) -> None:
    monitor = drive(APPROACH, traffic(light=light))
    assert [event.kind for event in monitor.events] == ["red_light"] * count


def test_what_counts_is_the_light_at_the_line_not_before_or_behind_it() -> None:
    over = next(i for i, back in enumerate(np.linspace(30.0, -2.0, 65)) if back < 3.089)
    lights = [RED if index < over - 1 else GREEN for index in range(65)]
    assert not drive(APPROACH, [traffic(light=light) for light in lights]).events
    lights = [GREEN if index <= over else RED for index in range(65)]
    assert not drive(APPROACH, [traffic(light=light) for light in lights]).events


def test_stopping_before_the_line_or_coming_out_of_the_junction_is_fine() -> None:
    stopped = along("west_in_0", np.linspace(30.0, 4.2, 50))  # bumper over the line, wheels not
    assert not drive(stopped, traffic(light=RED)).events
    out = MAP.lanes["east_out_0"].centerline
    yaw = float(np.arctan2(*(out[1] - out[0])[::-1]))
    leaving = [ego(float(p[0]), float(p[1]), yaw) for p in out[:8]]
    assert not drive(leaving, traffic(light=RED)).events


def test_off_the_road_and_back_is_one_event_with_its_share_of_the_way() -> None:
    states = [
        *along("west_in_0", np.linspace(30.0, 20.0, 11)),
        *along("west_in_0", np.linspace(20.0, 10.0, 11)[1:], lateral=-12.0),
        *along("west_in_0", np.linspace(10.0, 5.0, 6)[1:]),
    ]
    monitor = drive(states, traffic())
    assert [(e.kind, e.what) for e in monitor.events] == [("off_road", "off the road")]
    assert 0.0 < monitor.outside_percent < 100.0
    assert monitor.outside_m == pytest.approx(9.0 + np.hypot(12.0, 1.0), rel=1e-3)


def test_the_oncoming_lane_is_outside() -> None:
    states = along("west_in_0", np.linspace(30.0, 20.0, 11), lateral=4.0)
    line = MAP.lanes["west_out_0"].centerline
    assert np.linalg.norm(line - [states[0].x, states[0].y], axis=1).min() < 3.5
    monitor = drive(states, traffic())
    assert [(e.kind, e.what) for e in monitor.events] == [("off_road", "oncoming lane")]
    assert monitor.outside_percent == pytest.approx(100.0)


def test_a_pole_in_the_way_is_a_static_collision_and_a_beam_overhead_is_none() -> None:
    point, yaw = lane_start("west_in_0", 12.0)
    color = np.zeros(3, np.uint8)
    pole = Prop("pole", np.array([*point, 3.0]), np.array([0.2, 0.2, 6.0]), yaw, color)
    beam = Prop("gantry", np.array([*point, 6.0]), np.array([0.2, 8.0, 0.3]), yaw, color)
    for prop, count in ((pole, 1), (beam, 0)):
        monitor = InfractionMonitor(watched_road(replace(MAP, props=(prop,))), APPROACH[0])
        for step, state in enumerate(APPROACH):
            monitor.watch(step, state, traffic())
        assert [event.kind for event in monitor.events] == ["collision_static"] * count
