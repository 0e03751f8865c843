"""The expert on a hand-made straight road with one junction: what it must and must not do."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latentvla_training.world.episode import STEP_S, EgoVehicle
from latentvla_training.world.expert import EgoState, Expert, ExpertSettings, step_bicycle
from latentvla_training.world.layers import RightOfWay
from latentvla_training.world.road_map import Lane, RoadMap, SignalState
from latentvla_training.world.route import Route, make_route
from latentvla_training.world.traffic import EGO_FRONT_M, Snapshot

from latentvla_ros.contract import ContractError

STOP_X = 100.0


def _lane(name: str, points: list[tuple[float, float]], after: str, signal: int = -1) -> Lane:
    return Lane(
        name, name.rsplit("_", 1)[0], name[0] == ":", np.array(points), 3.5, 13.9,
        (after,) if after else (), None, None, signal, "s" if name[0] == ":" else "",
    )  # fmt: skip


@pytest.fixture
def route() -> Route:
    """East along y = 0 with a junction at 100 ... 124 m; a main road crosses it from the south."""
    lanes = [
        _lane("a_0", [(0.0, 0.0), (STOP_X, 0.0)], ":j_0_0"),
        _lane(":j_0_0", [(STOP_X, 0.0), (124.0, 0.0)], "b_0", signal=0),
        _lane("b_0", [(124.0, 0.0), (500.0, 0.0)], ""),
        _lane("c_0", [(112.0, -120.0), (112.0, -12.0)], ":j_1_0"),
        _lane(":j_1_0", [(112.0, -12.0), (112.0, 12.0)], "d_0", signal=1),
        _lane("d_0", [(112.0, 12.0), (112.0, 120.0)], ""),
    ]
    road_map = RoadMap("hand", (), {lane.lane_id: lane for lane in lanes}, (), (), (), np.zeros(4))
    rules = RightOfWay(
        yields_to={":j_0_0": (":j_1_0",)}, foes={":j_0_0": (":j_1_0",), ":j_1_0": (":j_0_0",)}
    )
    return make_route(road_map, rules, ("a_0", ":j_0_0", "b_0"))


def traffic(
    *agents: tuple[float, float, float, float, str, float], light: int = 2, cross_light: int = 2
) -> Snapshot:
    """Agents as x, y, yaw, speed, lane, position on the lane."""
    return Snapshot(
        ids=tuple(f"v{index}" for index in range(len(agents))),
        center=np.array([agent[:2] for agent in agents]).reshape(-1, 2),
        yaw=np.array([agent[2] for agent in agents]),
        speed=np.array([agent[3] for agent in agents]),
        size=np.tile([4.5, 1.8, 1.5], (len(agents), 1)),
        model=np.zeros(len(agents), np.uint8),
        lane_ids=tuple(agent[4] for agent in agents),
        lane_position=np.array([agent[5] for agent in agents]),
        braking=np.zeros(len(agents), bool),
        signals=np.array([light, cross_light], np.uint8),
    )


def at(x: float, speed: float, y: float = 0.0, yaw: float = 0.0) -> EgoState:
    return EgoState(x, y, yaw, speed, 0.0, 0.0)


def drive(route: Route, state: EgoState, scene: Snapshot, steps: int) -> list[EgoState]:
    expert = Expert(route, state.x)
    states = [state]
    for _ in range(steps):
        states.append(expert.drive(states[-1], scene))
    return states


@pytest.mark.parametrize("speed", [3.0, 8.0, 13.0])
def test_stops_before_the_line_at_red(route: Route, speed: float) -> None:
    states = drive(route, at(20.0, speed), traffic(light=SignalState.RED), 250)
    front = states[-1].x + EGO_FRONT_M
    assert states[-1].speed == 0.0
    assert STOP_X - 4.0 < front < STOP_X - 0.3
    assert min(state.acceleration for state in states) > -4.0


def test_passes_at_green_and_reaches_the_limit(route: Route) -> None:
    states = drive(route, at(20.0, 8.0), traffic(), 200)
    assert states[-1].x > 160.0
    assert 13.0 < max(state.speed for state in states) < 14.0


@pytest.mark.parametrize(("front_to_line", "stops"), [(45.0, True), (8.0, False)])
def test_yellow_stops_who_can_stop_in_comfort(
    route: Route, front_to_line: float, stops: bool
) -> None:
    start = at(STOP_X - front_to_line - EGO_FRONT_M, 12.0)
    states = drive(route, start, traffic(light=SignalState.YELLOW), 60)
    assert (states[-1].x + EGO_FRONT_M < STOP_X) == stops


def test_follows_a_slower_leader_and_stops_behind_a_standing_one(route: Route) -> None:
    leader = (60.0, 0.2, 0.0, 0.0, "a_0", 62.25)
    states = drive(route, at(5.0, 12.0), traffic(leader), 200)
    gap = leader[0] - 2.25 - (states[-1].x + EGO_FRONT_M)
    assert states[-1].speed == 0.0
    assert 0.5 < gap < 5.0


@pytest.mark.parametrize("side", [3.5, -3.5])
def test_a_car_in_the_next_lane_is_no_leader(route: Route, side: float) -> None:
    scene = traffic((30.0, side, 0.0, 0.0, "x_0", 30.0))
    states = drive(route, at(5.0, 10.0), scene, 40)
    assert min(state.acceleration for state in states) > -0.1


def test_lets_a_crossing_car_with_priority_pass(route: Route) -> None:
    crossing = (112.0, -40.0, math.pi / 2, 10.0, "c_0", 82.25)
    states = drive(route, at(60.0, 10.0), traffic(crossing), 120)
    assert states[-1].x + EGO_FRONT_M < STOP_X


def test_does_not_wait_for_a_crossing_car_that_has_red(route: Route) -> None:
    crossing = (112.0, -40.0, math.pi / 2, 10.0, "c_0", 82.25)
    scene = traffic(crossing, cross_light=SignalState.RED)
    states = drive(route, at(60.0, 10.0), scene, 120)
    assert states[-1].x > 124.0


def test_leaves_the_junction_free_when_the_exit_is_full(route: Route) -> None:
    queue = (128.0, 0.0, 0.0, 0.0, "b_0", 6.25)
    states = drive(route, at(60.0, 10.0), traffic(queue), 200)
    assert states[-1].x + EGO_FRONT_M < STOP_X


@settings(deadline=None, max_examples=30)
@given(offset=st.floats(-1.0, 1.0), yaw=st.floats(-0.15, 0.15), speed=st.floats(2.0, 13.0))
def test_returns_to_the_route(offset: float, yaw: float, speed: float) -> None:
    lane = _lane("a_0", [(0.0, 0.0), (400.0, 0.0)], "")
    road_map = RoadMap("hand", (), {"a_0": lane}, (), (), (), np.zeros(4))
    route = make_route(road_map, RightOfWay({}, {}), ("a_0",))
    states = drive(route, at(20.0, speed, offset, yaw), traffic(), 120)
    assert abs(states[-1].y) < 0.1
    assert abs(states[-1].yaw) < 0.03
    assert max(abs(state.y) for state in states) < 2.0


def test_sees_nothing_but_the_present(route: Route) -> None:
    """What the traffic does next cannot matter: one call gets one snapshot, and keeps none."""
    scene = traffic((60.0, 0.0, 0.0, 8.0, "a_0", 62.25))
    later = replace(scene, speed=np.array([0.0]))
    first, second = Expert(route, 20.0), Expert(route, 20.0)
    second.drive(at(20.0, 9.0), later)
    assert first.drive(at(20.0, 9.0), scene) == second.drive(at(20.0, 9.0), scene)


def test_bicycle_drives_the_circle_of_its_wheel_angle() -> None:
    state = EgoState(0.0, 0.0, 0.0, 5.0, 0.0, 0.3)
    radius = EgoVehicle().wheelbase_m / math.tan(0.3)
    for _ in range(40):
        state = step_bicycle(state, 0.0, 0.3)
    assert math.hypot(state.x, state.y - radius) == pytest.approx(radius, abs=0.01)
    assert state.yaw == pytest.approx(math.remainder(5.0 * 40 * STEP_S / radius, 2 * math.pi))
    assert state.yaw_rate == pytest.approx(5.0 / radius)


def test_never_reverses() -> None:
    state = step_bicycle(EgoState(0.0, 0.0, 0.0, 0.2, 0.0, 0.0), -5.0, 0.0)
    assert state.speed == 0.0
    assert state.x >= 0.0


@pytest.mark.parametrize("field", ["jerk", "time_headway_s"])
def test_settings_are_checked(field: str) -> None:
    with pytest.raises(ContractError, match=rf"expert\.{field}"):
        ExpertSettings(**{field: 0.0})
