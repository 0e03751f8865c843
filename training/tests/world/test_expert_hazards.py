"""The expert among others on hand-made roads: nobody is hit, and nobody is feared without cause."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import shapely
from latentvla_training.world.episode import STEP_S, AgentModel, EgoVehicle
from latentvla_training.world.expert import EgoState, Expert
from latentvla_training.world.lateral_shift import Shift
from latentvla_training.world.layers import RightOfWay
from latentvla_training.world.racing_line import racing_line
from latentvla_training.world.road_map import Lane, RoadMap
from latentvla_training.world.route import Route, make_route
from latentvla_training.world.traffic import EGO_FRONT_M, Snapshot

EGO = EgoVehicle()


@dataclass(frozen=True)
class Other:
    """Somebody who keeps his velocity; ``speed_at`` (s) overrides it."""

    x: float
    y: float
    yaw: float
    speed: float
    lane: str = "a_0"
    model: AgentModel = AgentModel.CAR
    size: tuple[float, float, float] = (4.5, 1.8, 1.5)
    speed_at: Callable[[float], float] | None = None


def walker(x: float, y: float, yaw: float, speed: float = 1.5) -> Other:
    return Other(x, y, yaw, speed, ":w", AgentModel.PEDESTRIAN, (0.6, 0.6, 1.75))


def cyclist(x: float, y: float, speed: float = 4.0, yaw: float = 0.0) -> Other:
    return Other(x, y, yaw, speed, "a_0", AgentModel.BICYCLE, (1.8, 0.6, 1.7))


def road(lanes: int = 1, speed: float = 13.9, length: float = 700.0) -> Route:
    """East along y = 0, further lanes to the left."""
    parallel = {
        f"a_{i}": Lane(
            f"a_{i}", "a", False, np.array([(0.0, 3.5 * i), (length, 3.5 * i)]), 3.5, speed, (),
            f"a_{i + 1}" if i + 1 < lanes else None, f"a_{i - 1}" if i else None, -1, "",
        )
        for i in range(lanes)
    }  # fmt: skip
    road_map = RoadMap("hand", (), parallel, (), (), (), np.zeros(4))
    return make_route(road_map, RightOfWay({}, {}), ("a_0",))


def snapshot(others: Sequence[Other], speeds: Sequence[float] | None = None) -> Snapshot:
    count = len(others)
    return Snapshot(
        ids=tuple(f"v{number}" for number in range(count)),
        center=np.array([(one.x, one.y) for one in others]).reshape(-1, 2),
        yaw=np.array([one.yaw for one in others]),
        speed=np.array([one.speed for one in others] if speeds is None else speeds, float),
        size=np.array([one.size for one in others]).reshape(-1, 3),
        model=np.array([one.model for one in others], np.uint8),
        lane_ids=tuple(one.lane for one in others),
        lane_position=np.zeros(count),
        braking=np.zeros(count, bool),
        signals=np.zeros(0, np.uint8),
    )


def box(x: float, y: float, yaw: float, length: float, width: float) -> shapely.Polygon:
    half = np.array([(1, 1), (1, -1), (-1, -1), (-1, 1)]) * (length / 2, width / 2)
    turn = np.array([(math.cos(yaw), math.sin(yaw)), (-math.sin(yaw), math.cos(yaw))])
    return shapely.Polygon(half @ turn + (x, y))


@dataclass
class Drive:
    """States of the ego and the smallest distance between its box and anybody's."""

    states: list[EgoState]
    distance: float
    others: list[Other]

    @property
    def hardest(self) -> float:
        return -min(state.acceleration for state in self.states)


def drive(route: Route, start: EgoState, others: Sequence[Other], steps: int) -> Drive:
    expert, state, states, distance = Expert(route, start.x), start, [start], math.inf
    now = list(others)
    for step in range(steps):
        time = step * STEP_S
        speeds = [one.speed_at(time) if one.speed_at else one.speed for one in now]
        state = expert.drive(state, snapshot(now, speeds))
        states.append(state)
        now = [
            replace(
                one,
                x=one.x + speed * math.cos(one.yaw) * STEP_S,
                y=one.y + speed * math.sin(one.yaw) * STEP_S,
            )
            for one, speed in zip(now, speeds, strict=True)
        ]
        offset = EGO.rear_axle_to_center_m
        ego = box(
            state.x + offset * math.cos(state.yaw), state.y + offset * math.sin(state.yaw),
            state.yaw, EGO.length_m, EGO.width_m,
        )  # fmt: skip
        for one in now:
            distance = min(distance, ego.distance(box(one.x, one.y, one.yaw, *one.size[:2])))
    return Drive(states, distance, now)


def at(x: float, speed: float) -> EgoState:
    return EgoState(x, 0.0, 0.0, speed, 0.0, 0.0)


@pytest.mark.parametrize("ahead", [18.0, 28.0, 45.0])
def test_lets_a_pedestrian_who_steps_out_cross(ahead: float) -> None:
    steps_out = walker(20.0 + EGO_FRONT_M + ahead, -5.0, math.pi / 2)
    result = drive(road(), at(20.0, 9.0), [steps_out], 120)
    assert result.distance > 0.4
    assert result.hardest <= 7.6
    assert result.states[-1].x > steps_out.x


def test_does_not_brake_for_who_walks_along_the_road() -> None:
    beside = [walker(60.0 + 4 * k, -2.8, math.pi * (k % 2)) for k in range(10)]
    result = drive(road(), at(20.0, 12.0), beside, 60)
    assert result.hardest < 0.5


def test_brakes_for_who_runs_a_red_light_but_not_for_who_can_stop() -> None:
    runner = Other(70.0, -28.0, math.pi / 2, 11.0, "c_0")
    result = drive(road(), at(20.0, 12.0), [runner], 80)
    assert result.distance > 0.5
    assert result.hardest > 2.0
    stopping = replace(runner, y=-22.0, speed_at=lambda time: max(8.0 - 2.5 * time, 0.0))
    assert drive(road(), at(20.0, 12.0), [stopping], 80).hardest < 1.0


@pytest.mark.parametrize(("speed", "gap"), [(12.0, 18.0), (25.0, 36.0)])
def test_leader_brakes_hard(speed: float, gap: float) -> None:
    leader = Other(20.0 + EGO_FRONT_M + gap + 2.25, 0.0, 0.0, speed)
    braking = replace(leader, speed_at=lambda time: max(speed - 7.0 * max(time - 2.0, 0.0), 0.0))
    result = drive(road(speed=27.8), at(20.0, speed), [braking], 120)
    assert result.distance > 0.5
    assert result.states[-1].speed < 0.1


def test_stops_behind_a_queue_from_100_kmh_in_comfort() -> None:
    queue = [Other(400.0 + 7 * k, 0.0, 0.0, 0.0) for k in range(4)]
    result = drive(road(speed=27.8), at(20.0, 27.5), queue, 300)
    assert 0.5 < result.distance < 4.0
    assert result.hardest < 4.0


def test_makes_room_for_a_cut_in() -> None:
    cutting = Other(20.0 + EGO_FRONT_M + 6.0, 3.5, -0.12, 10.0, "a_1")
    expert, state = Expert(road(lanes=2), 20.0), at(20.0, 12.0)
    for _ in range(8):
        state = expert.drive(state, snapshot([cutting]))
    assert state.acceleration < -1.0
    assert drive(road(lanes=2), at(20.0, 12.0), [cutting], 25).distance > 0.3


@pytest.mark.parametrize("lane", ["", "a_0"])
def test_goes_round_what_blocks_the_lane_and_comes_back(lane: str) -> None:
    blocker = Other(150.0, 0.0, 0.0, 0.0, lane)
    result = drive(road(lanes=2), at(20.0, 12.0), [blocker], 220)
    assert result.distance > 0.3
    assert min(state.speed for state in result.states) > 4.0
    assert result.states[-1].x > 250.0
    assert abs(result.states[-1].y) < 0.05
    assert max(state.speed * abs(state.yaw_rate) for state in result.states) < 2.5


def test_waits_for_a_gap_and_then_goes_round() -> None:
    blocker = Other(90.0, 0.0, 0.0, 0.0, "")
    busy = [Other(120.0 - 13.0 * k, 3.5, 0.0, 8.0, "a_1") for k in range(16)]
    result = drive(road(lanes=2), at(20.0, 10.0), [blocker, *busy], 420)
    assert result.distance > 0.3
    assert min(state.speed for state in result.states) < 0.5
    assert result.states[-1].x > 130.0


def test_stops_where_no_lane_leads_past() -> None:
    result = drive(road(lanes=1), at(20.0, 12.0), [Other(150.0, 0.0, 0.0, 0.0, "")], 220)
    assert result.states[-1].speed == 0.0
    assert result.distance > 0.5


def test_a_queue_at_a_stop_line_is_no_obstacle_to_pass() -> None:
    lanes = {
        "a_0": Lane("a_0", "a", False, np.array([(0.0, 0.0), (160.0, 0.0)]), 3.5, 13.9,
                    (":j_0_0",), "a_1", None, -1, ""),
        "a_1": Lane("a_1", "a", False, np.array([(0.0, 3.5), (160.0, 3.5)]), 3.5, 13.9,
                    (), None, "a_0", -1, ""),
        ":j_0_0": Lane(":j_0_0", ":j_0", True, np.array([(160.0, 0.0), (180.0, 0.0)]), 3.5, 13.9,
                       ("b_0",), None, None, -1, "s"),
        "b_0": Lane("b_0", "b", False, np.array([(180.0, 0.0), (400.0, 0.0)]), 3.5, 13.9,
                    (), None, None, -1, ""),
    }  # fmt: skip
    road_map = RoadMap("hand", (), lanes, (), (), (), np.zeros(4))
    route = make_route(road_map, RightOfWay({}, {}), ("a_0", ":j_0_0", "b_0"))
    queue = [Other(156.0 - 7.0 * k, 0.0, 0.0, 0.0) for k in range(8)]
    result = drive(route, at(10.0, 10.0), queue, 250)
    assert max(abs(state.y) for state in result.states) < 0.1
    assert result.states[-1].speed == 0.0


def test_overtakes_a_bicycle_by_a_free_lane_and_follows_it_without() -> None:
    result = drive(road(lanes=2), at(20.0, 10.0), [cyclist(60.0, 0.0)], 200)
    assert result.states[-1].x > result.others[0].x + 20.0
    assert result.distance > 0.8
    result = drive(road(lanes=1), at(20.0, 10.0), [cyclist(60.0, 0.0)], 200)
    assert result.states[-1].x < result.others[0].x - 5.0
    assert result.states[-1].speed == pytest.approx(4.0, abs=0.3)


def test_moves_aside_for_what_reaches_into_the_lane() -> None:
    beside = Other(90.0, -2.2, 0.0, 0.0, "")
    result = drive(road(), at(20.0, 10.0), [beside], 130)
    assert result.distance > 0.3
    assert result.states[-1].x > 120.0
    assert 0.1 < max(state.y for state in result.states) < 0.6


def test_stands_when_a_cyclist_on_the_wrong_side_arrives() -> None:
    result = drive(road(), at(20.0, 12.0), [cyclist(110.0, -0.9, 4.0, math.pi)], 80)
    met = [
        state
        for step, state in enumerate(result.states)
        if 110.0 - 0.4 * step - 0.9 < state.x + EGO_FRONT_M + 0.5
    ]
    assert met and met[0].speed < 0.5


def test_waits_at_a_crosswalk_while_somebody_walks_there() -> None:
    route = replace(road(), zebras=((80.0, 84.0, 0),))
    result = drive(route, at(20.0, 10.0), [walker(82.0, 6.0, -math.pi / 2, 1.3)], 60)
    assert result.distance > 0.8
    stopping = [state.x + EGO_FRONT_M for state in result.states if state.speed < 4.0]
    assert stopping and max(stopping[:5]) < 80.0
    assert drive(route, at(20.0, 10.0), [walker(82.0, 6.0, 0.0, 1.3)], 60).hardest < 0.5


@pytest.mark.parametrize("offset", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("yaw_deg", [-8.0, 8.0])
@pytest.mark.parametrize("speed", [4.0, 12.0, 25.0])
def test_returns_from_a_disturbed_state(offset: float, yaw_deg: float, speed: float) -> None:
    expert, states = Expert(road(speed=27.8), 20.0), []
    state = EgoState(20.0, offset, math.radians(yaw_deg), speed, 0.0, 0.0)
    for _ in range(100):
        state = expert.drive(state, snapshot([]))
        states.append(state)
    assert abs(states[-1].y) < 0.1
    assert max(abs(state.y) for state in states) < abs(offset) + 0.035 * speed + 0.4
    late = states[10:]  # the given yaw rate is not the expert's doing
    assert max(state.speed * abs(state.yaw_rate) for state in late) < 4.0


def test_the_line_through_a_bend_keeps_the_swept_box_in_the_lane() -> None:
    angle = np.linspace(0.0, math.pi / 2, 40)
    bend = np.stack([60.0 + 12.0 * np.sin(angle), 12.0 - 12.0 * np.cos(angle)], axis=1)
    points = np.concatenate([[(0.0, 0.0)], bend, [(72.0, 80.0)]])
    lane = Lane("a_0", "a", False, points, 3.5, 13.9, (), None, None, -1, "")
    road_map = RoadMap("hand", (), {"a_0": lane}, (), (), (), np.zeros(4))
    route = make_route(road_map, RightOfWay({}, {}), ("a_0",))
    line = racing_line(route)
    change = [
        np.abs(np.gradient(values, route.s)).max() for values in (line.curvature, route.curvature)
    ]
    assert change[0] < change[1]
    expert = Expert(route, 5.0)
    state = EgoState(5.0, 0.0, 0.0, 8.0, 0.0, 0.0)
    path = shapely.LineString(points).buffer(1.75, cap_style="flat")
    path = shapely.union_all([path, shapely.Point(72.0, 80.0).buffer(20.0)])
    path = shapely.union_all([path, shapely.Point(0.0, 0.0).buffer(8.0)])
    for _ in range(150):
        state = expert.drive(state, snapshot([]))
        offset = EGO.rear_axle_to_center_m
        x, y = state.x + offset * math.cos(state.yaw), state.y + offset * math.sin(state.yaw)
        ego = box(x, y, state.yaw, EGO.length_m, EGO.width_m)
        assert path.buffer(0.05).contains(ego), (state.x, state.y)
    assert state.y > 40.0


def test_a_shift_is_smooth_and_ends_where_it_should() -> None:
    shift = Shift(10.0, 20.0, 0.3, 0.05, 3.5)
    s = np.linspace(9.0, 31.0, 2201)
    offset = shift.at(s)
    assert offset[0] == pytest.approx(0.3) and offset[-1] == pytest.approx(3.5)
    inside = (s > 10.01) & (s < 29.99)
    np.testing.assert_allclose(np.gradient(offset, s)[inside], shift.slope_at(s)[inside], atol=1e-3)
    assert shift.curvature_at(29.999) == pytest.approx(0.0, abs=1e-3)


def test_what_happens_later_cannot_matter() -> None:
    """The same past and another future: the same actions until they part, others afterwards."""

    def drive_until(last: float) -> list[EgoState]:
        expert, state, states = Expert(road(lanes=2), 20.0), at(20.0, 12.0), []
        for step in range(60):
            late = step >= 40
            y = 3.5 if not late else 3.5 - last * (step - 40)
            others = [
                Other(60.0 + step * 1.1, y, -last if late else 0.0, 11.0, "a_1"),
                walker(
                    150.0, -6.0 + (0.15 * (step - 40) if late and last else 0.0), math.pi / 2, 0.0
                ),
                cyclist(90.0 + 0.4 * step, -0.8),
            ]
            state = expert.drive(state, snapshot(others))
            states.append(state)
        return states

    calm, wild = drive_until(0.0), drive_until(0.3)
    assert calm[:40] == wild[:40]
    assert calm[40:] != wild[40:]


def test_two_experts_with_the_same_past_agree() -> None:
    """An expert is a function of what it has seen: no hidden randomness, no shared state."""
    others = [cyclist(70.0, 0.2), Other(110.0, 3.5, 0.0, 9.0, "a_1"), walker(90.0, -4.0, 1.4)]
    first = drive(road(lanes=2), at(20.0, 11.0), others, 80)
    second = drive(road(lanes=2), at(20.0, 11.0), others, 80)
    assert first.states == second.states
