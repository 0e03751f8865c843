"""Comfort filters: scipy's even-window quirk, bounds, the history's hole."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from latentvla_training.scoring.comfort import (
    BOUND_NAMES,
    _smooth,
    comfort_bits_v1,
    comfort_bits_v2,
    extended_comfort,
    padded_history,
)
from latentvla_training.scoring.vehicle import StateIndex


def steady(**columns: float) -> torch.Tensor:
    states = torch.zeros(41, 11, dtype=torch.float64)
    for name, value in columns.items():
        states[:, StateIndex[name]] = value
    return states


def test_even_window_leads_by_half_a_sample() -> None:
    ramp = torch.arange(20, dtype=torch.float64)
    smooth = _smooth(ramp, 8, 2, 0)
    np.testing.assert_allclose(smooth[4:-4], ramp[4:-4] + 0.5, atol=1e-7)
    np.testing.assert_allclose(smooth[:4], ramp[:4], atol=1e-7)
    np.testing.assert_allclose(smooth[-4:], ramp[-4:], atol=1e-7)


def test_results_are_rounded_to_eight_decimals() -> None:
    assert _smooth(torch.full((41,), 1.0 + 3e-9).double(), 41, 2, 0).tolist() == [1.0] * 41


@pytest.mark.parametrize(
    ("columns", "failing"),
    [
        ({"AX": 2.39}, set()),
        ({"AX": 2.40}, {"longitudinal_acceleration"}),
        ({"AX": -4.04}, set()),
        ({"AX": -4.05}, {"longitudinal_acceleration"}),
        ({"AY": -4.89}, {"lateral_acceleration"}),
    ],
)
def test_bounds_are_strict(columns: dict[str, float], failing: set[str]) -> None:
    for bits in (comfort_bits_v1(steady(**columns)), comfort_bits_v2(steady(**columns))):
        assert {n for n, ok in zip(BOUND_NAMES, bits.tolist(), strict=True) if not ok} == failing


def test_yaw_acceleration_leaks_into_v2s_longitudinal_acceleration() -> None:
    states = steady(YAW_ACC=1.7)  # 1.461 * 1.7 = 2.48 m/s^2 > 2.40
    assert comfort_bits_v1(states).all()
    assert comfort_bits_v2(states).tolist() == [False, True, True, True, True, True]


def test_yaw_rate_crosses_pi_without_a_jump() -> None:
    states = steady()
    turn = 3.0 + 0.09 * torch.arange(41, dtype=torch.float64)  # 0.9 rad/s
    states[:, StateIndex.HEADING] = torch.remainder(turn + math.pi, 2 * math.pi) - math.pi
    assert comfort_bits_v1(states).all()
    states[:, StateIndex.HEADING] = 0.096 * torch.arange(41, dtype=torch.float64)
    assert comfort_bits_v1(states).tolist() == [True] * 5 + [False]


def test_padded_history_ends_at_minus_two_tenths() -> None:
    history = torch.zeros(1, 4, 11, dtype=torch.float64)
    history[0, :, StateIndex.X] = torch.tensor([-15.0, -10.0, -5.0, 0.0])
    history[0, :, StateIndex.HEADING] = torch.tensor([3.1, -3.1, -3.0, -3.0])
    history[0, :, StateIndex.YAW_RATE] = 1.0
    past = padded_history(history)[0]
    np.testing.assert_allclose(past[:, StateIndex.X], np.arange(-15.0, -1.5, 1.0), atol=1e-12)
    assert float(past[1, StateIndex.HEADING]) == pytest.approx(3.1 + (2 * math.pi - 6.2) / 5)
    assert float(past[:, StateIndex.STEER_RATE :].abs().max()) == 0.0


def test_extended_comfort_aligns_the_two_frames() -> None:
    previous = steady()
    previous[:, StateIndex.AX] = 0.2 * torch.sin(torch.arange(41).double() / 3.0)
    now = steady()
    now[:36, StateIndex.AX] = previous[5:, StateIndex.AX]
    comfortable, rms = extended_comfort(now, previous, interval_steps=5)
    assert bool(comfortable)
    assert float(rms.abs().max()) == 0.0
    other = steady(AX=0.71)
    comfortable, rms = extended_comfort(other, steady(), interval_steps=5)
    assert not bool(comfortable)
    np.testing.assert_allclose(rms, [0.71, 0.0, 0.0, 0.0], atol=1e-7)
    assert bool(extended_comfort(steady(AX=0.699), steady(), interval_steps=5)[0])
