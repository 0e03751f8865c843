"""Bench2Drive's driving score, success, efficiency and smoothness by hand."""

from __future__ import annotations

import numpy as np
import pytest
from latentvla_training.scoring.bench2drive import (
    RouteResult,
    driving_smoothness,
    summarise,
)

from latentvla_ros.contract import ContractError


def test_each_event_multiplies_again() -> None:
    route = RouteResult(
        "a",
        "Completed",
        80.0,
        {"collision_vehicle": 2, "red_light": 1, "vehicle_blocked": 1},
        off_lane_percents=(10.0,),
    )
    assert route.penalty == pytest.approx(0.6 * 0.6 * 0.7 * 0.9)
    assert route.driving_score == pytest.approx(80.0 * 0.6 * 0.6 * 0.7 * 0.9)


@pytest.mark.parametrize(
    ("kind", "factor"),
    [
        ("collision_pedestrian", 0.5),
        ("collision_vehicle", 0.6),
        ("collision_static", 0.65),
        ("red_light", 0.7),
        ("stop_sign", 0.8),
        ("scenario_timeout", 0.7),
        ("yield_to_emergency_vehicle", 0.7),
        ("route_timeout", 1.0),
    ],
)
def test_penalties_and_success(kind: str, factor: float) -> None:
    assert RouteResult("a", "Completed", 100.0, {kind: 1}).driving_score == pytest.approx(
        100.0 * factor
    )
    assert not RouteResult("a", "Completed", 100.0, {kind: 1}).success
    assert RouteResult("a", "Completed", 100.0, {kind: 0}).success


def test_minimum_speed_neither_costs_nor_denies_success() -> None:
    route = RouteResult("a", "Perfect", 100.0, min_speed_percents=(20.0, 80.0, 4000.0))
    assert route.driving_score == 100.0
    assert route.success
    assert route.efficiency == 50.0
    assert RouteResult("a", "Perfect", 100.0).efficiency is None
    assert not RouteResult("a", "Failed", 100.0).success
    assert not RouteResult("a", "Completed", 100.0, off_lane_percents=(1.0,)).success


def test_missing_routes_count_zero() -> None:
    routes = [
        RouteResult("a", "Perfect", 100.0, min_speed_percents=(60.0,)),
        RouteResult("b", "Failed", 50.0, {"red_light": 1}),
    ]
    summary = summarise(routes, expected_routes=4)
    assert summary.driving_score == pytest.approx((100.0 + 35.0) / 4)
    assert summary.success_rate == 0.25
    assert summary.efficiency == 60.0
    assert summarise(routes).driving_score == pytest.approx(135.0 / 220)
    assert summarise([], 1).driving_score == 0.0


def test_bad_results_name_the_field() -> None:
    with pytest.raises(ContractError, match="completion_percent"):
        RouteResult("a", "Perfect", 101.0)
    with pytest.raises(ContractError, match="red_lights"):
        RouteResult("a", "Perfect", 100.0, {"red_lights": 1})
    with pytest.raises(ContractError, match="off_lane_percents"):
        RouteResult("a", "Perfect", 100.0, off_lane_percents=(-1.0,))
    with pytest.raises(ContractError, match="results"):
        summarise([RouteResult("a", "Perfect", 1.0)] * 2)
    with pytest.raises(ContractError, match="results"):
        summarise([RouteResult("a", "Perfect", 1.0), RouteResult("b", "Perfect", 1.0)], 1)


def test_smoothness_counts_full_segments() -> None:
    calm = np.zeros(70)
    assert driving_smoothness(calm, calm, calm) == 1.0
    harsh = calm.copy()
    harsh[20:40] = 3.0  # the second of three full segments
    assert driving_smoothness(harsh, calm, calm) == pytest.approx(2 / 3)
    tail = calm.copy()
    tail[60:] = 9.0  # the remainder is dropped
    assert driving_smoothness(tail, calm, calm) == 1.0
    # A short log is one segment; yaw rate is bounded at 0.95 rad/s.
    assert driving_smoothness(calm[:5], calm[:5], np.full(5, 0.96)) == 0.0
    assert driving_smoothness(calm[:5], calm[:5], np.full(5, 0.94)) == 1.0
    with pytest.raises(ContractError, match="signals"):
        driving_smoothness(calm, calm[:3], calm)
