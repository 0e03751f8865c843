"""Turns are told from bends, the window ends where the rule says, nonsense is UNKNOWN."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from latentvla_ros.contract import Command
from latentvla_ros.sensing.route_command import route_command


def turning_route(radius: float, before: float, angle_deg: float, step: float = 1.0) -> np.ndarray:
    """A route that is straight for ``before`` m, turns (left: radius > 0), and goes on straight."""
    along = np.arange(-10.0, before, step)
    points = [np.stack([along, np.zeros_like(along)], -1)]
    turned = np.linspace(0.0, np.deg2rad(angle_deg), 40)
    arc = np.stack([before + abs(radius) * np.sin(turned), radius * (1 - np.cos(turned))], axis=-1)
    end = np.array([np.cos(turned[-1]), np.sign(radius) * np.sin(turned[-1])])
    points += [arc, arc[-1] + np.arange(step, 80.0, step)[:, None] * end]
    return np.concatenate(points)


@pytest.mark.parametrize("radius", [6.0, 8.0, 15.0, 22.0])
@pytest.mark.parametrize("before", [0.0, 5.0, 10.0])
def test_junction_turns_are_named(radius: float, before: float) -> None:
    assert route_command(turning_route(radius, before, 90), 8.3) is Command.LEFT
    assert route_command(turning_route(-radius, before, 90), 8.3) is Command.RIGHT


@pytest.mark.parametrize("radius", [40.0, 60.0, 150.0])
def test_bends_of_the_road_are_straight(radius: float) -> None:
    assert route_command(turning_route(radius, 0.0, 90), 13.9) is Command.STRAIGHT


def test_a_lane_change_is_straight() -> None:
    x = np.arange(-10.0, 80.0)
    y = 3.5 / (1 + np.exp(-(x - 20.0) / 4.0))
    assert route_command(np.stack([x, y], -1), 13.9) is Command.STRAIGHT


def test_a_u_turn_to_the_left_is_left() -> None:
    assert route_command(turning_route(5.0, 5.0, 180), 8.3) is Command.LEFT


def test_the_next_turn_decides() -> None:
    first = turning_route(8.0, 5.0, 90)[:60]
    then_right = first[-1] + np.arange(1.0, 30.0)[:, None] * np.array([1.0, 0.0])
    assert route_command(np.concatenate([first, then_right]), 13.9) is Command.LEFT


@pytest.mark.parametrize(("limit", "expected"), [(5.0, Command.STRAIGHT), (13.9, Command.LEFT)])
def test_the_window_grows_with_the_speed_limit(limit: float, expected: Command) -> None:
    """A turn that begins 28 m ahead is outside of 20 m and inside of 3 s at 50 km/h."""
    assert route_command(turning_route(8.0, 28.0, 90), limit) is expected


@given(st.floats(0, 1e6), st.floats(-180, 180))
def test_nothing_beyond_the_window_matters(detour: float, direction_deg: float) -> None:
    straight = np.stack([np.arange(-10.0, 43.0), np.zeros(53)], -1)
    direction = np.deg2rad(direction_deg)
    far = straight[-1] + detour * np.array([[np.cos(direction), np.sin(direction)]])
    assert route_command(np.concatenate([straight, far]), 13.9) is Command.STRAIGHT


@given(st.floats(-0.14, 0.14), st.floats(-1, 1), st.sampled_from([-8.0, 8.0, 60.0]))
def test_a_displaced_ego_hears_the_same(yaw: float, lateral: float, radius: float) -> None:
    """Recovery views shift and turn the ego by 1 m and 8 degrees; the route stays what it is."""
    route = turning_route(radius, 6.0, 90)
    turn = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
    assert route_command((route - [0.0, lateral]) @ turn.T, 8.3) is route_command(route, 8.3)


@pytest.mark.parametrize("step", [0.3, 1.0, 3.0])
def test_point_spacing_does_not_matter(step: float) -> None:
    assert route_command(turning_route(8.0, 8.0, 90, step), 8.3) is Command.LEFT
    assert route_command(turning_route(60.0, 8.0, 90, step), 8.3) is Command.STRAIGHT


@pytest.mark.parametrize(
    "route",
    [
        np.zeros((0, 2)),
        np.zeros((1, 2)),
        np.zeros((5, 2)),
        np.array([[-20.0, 0.0], [4.0, 0.0]]),
        np.array([[0.0, 0.0], [np.nan, 0.0]]),
        np.array([[0.0, 0.0], [np.inf, 0.0]]),
        np.array([[0.0, 30.0], [50.0, 30.0]]),
        np.zeros((4, 3)),
    ],
)
def test_too_little_route_is_unknown(route: np.ndarray) -> None:
    assert route_command(route, 13.9) is Command.UNKNOWN


@given(arrays(np.float64, st.tuples(st.integers(0, 12), st.just(2))), st.floats())
def test_any_numbers_give_some_command(route: np.ndarray, limit: float) -> None:
    assert route_command(route, limit) in Command
