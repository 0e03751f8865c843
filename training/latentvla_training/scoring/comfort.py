"""Comfort: v1 "C", v2 history comfort "HC" and the two-frame extended comfort "EC".

Source: design/metrics.md sections 4.8 and 4.9. A Savitzky-Golay filter is linear, so each is one
matrix, made by scipy itself and applied to the whole batch at once. Unusual: v2's longitudinal
acceleration is "moved to the box centre" as NAVSIM codes it (yaw acceleration leaks into it, the
lateral one is untouched), and its history lacks the sample at -0.1 s.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from scipy.signal import savgol_filter
from torch import Tensor

from latentvla_training.scoring.reference_trajectory import unwrap_angle
from latentvla_training.scoring.vehicle import PACIFICA, STATE_SIZE, STEP_S, StateIndex

BOUND_NAMES = (
    "longitudinal_acceleration",
    "lateral_acceleration",
    "jerk",
    "longitudinal_jerk",
    "yaw_acceleration",
    "yaw_rate",
)
LOWER_BOUNDS = (-4.05, -4.89, -8.37, -4.13, -1.93, -0.95)
UPPER_BOUNDS = (2.40, 4.89, 8.37, 4.13, 1.93, 0.95)
EXTENDED_NAMES = ("acceleration", "jerk", "yaw_rate", "yaw_acceleration")
EXTENDED_BOUNDS = (0.7, 0.5, 0.1, 0.1)
HISTORY_TIMES = (-1.5, -1.0, -0.5, 0.0)
PADDED_HISTORY_STEPS = 14  # -1.5 ... -0.2 s; -0.1 s is missing


@lru_cache(maxsize=64)
def _filter_matrix(length: int, window: int, order: int, derivative: int) -> np.ndarray:
    """(length, length) so that filtered = samples @ matrix (Savitzky-Golay, mode 'interp')."""
    window = min(window, length)
    return np.ascontiguousarray(
        savgol_filter(
            np.eye(length), window, order, deriv=derivative, delta=STEP_S, axis=0, mode="interp"
        ).T
    )


def _smooth(samples: Tensor, window: int, order: int, derivative: int) -> Tensor:
    matrix = _filter_matrix(samples.shape[-1], window, order, derivative)
    return torch.round(samples @ torch.from_numpy(matrix).to(samples), decimals=8)


def _magnitude(states: Tensor) -> Tensor:
    return torch.hypot(states[..., StateIndex.AX], states[..., StateIndex.AY])


def _within(signals: list[Tensor]) -> Tensor:
    """Return (..., 6) bool: each signal strictly inside its bounds at every sample."""
    checks = [
        ((signal > low) & (signal < high)).all(-1)
        for signal, low, high in zip(signals, LOWER_BOUNDS, UPPER_BOUNDS, strict=True)
    ]
    return torch.stack(checks, dim=-1)


def comfort_bits_v1(states: Tensor) -> Tensor:
    """Which of the six bounds of ``BOUND_NAMES`` hold (..., 6) over states (..., T, 11)."""
    length = states.shape[-2]
    longitudinal = states[..., StateIndex.AX]
    heading = unwrap_angle(states[..., StateIndex.HEADING])
    return _within(
        [
            _smooth(longitudinal, length, 2, 0),
            _smooth(states[..., StateIndex.AY], length, 2, 0),
            _smooth(_smooth(_magnitude(states), 8, 2, 0), length, 2, 1),
            _smooth(_smooth(longitudinal, 8, 2, 0), length, 2, 1),
            _smooth(heading, 5, 3, 2),
            _smooth(heading, 5, 2, 1),
        ]
    )


def comfort_bits_v2(states: Tensor) -> Tensor:
    """As ``comfort_bits_v1`` with v2's windows and its acceleration "at the box centre"."""
    yaw_rate, yaw_acc = states[..., StateIndex.YAW_RATE], states[..., StateIndex.YAW_ACC]
    offset = PACIFICA.center_offset
    longitudinal = states[..., StateIndex.AX] + offset * yaw_rate**2 + offset * yaw_acc
    heading = unwrap_angle(states[..., StateIndex.HEADING])
    smooth_longitudinal = _smooth(longitudinal, 8, 2, 0)
    return _within(
        [
            smooth_longitudinal,
            _smooth(states[..., StateIndex.AY], 8, 2, 0),
            _smooth(_smooth(_magnitude(states), 8, 2, 0), 15, 2, 1),
            _smooth(smooth_longitudinal, 15, 2, 1),
            _smooth(heading, 5, 3, 2),
            _smooth(heading, 5, 2, 1),
        ]
    )


def padded_history(history: Tensor) -> Tensor:
    """Sample the past (S, 4, 11) at -1.5 ... 0 s to (S, 14, 11) at -1.5 ... -0.2 s.

    Steering rate, yaw rate and yaw acceleration become 0, as NAVSIM's interpolation makes them.
    """
    samples = history.clone()
    heading = StateIndex.HEADING
    samples[..., heading] = unwrap_angle(history[..., heading])
    samples[..., StateIndex.STEER_RATE : STATE_SIZE] = 0.0
    time = HISTORY_TIMES[0] + STEP_S * np.arange(PADDED_HISTORY_STEPS)
    knots = np.array(HISTORY_TIMES)
    index = np.clip(np.searchsorted(knots, time + 1e-9, side="right") - 1, 0, len(knots) - 2)
    fraction = (time - knots[index]) / (knots[index + 1] - knots[index])
    weight = torch.from_numpy(fraction).to(history)[:, None]
    begin = torch.from_numpy(index).to(history.device)
    return samples[:, begin] + (samples[:, begin + 1] - samples[:, begin]) * weight


def history_comfort_bits(states: Tensor, history: Tensor) -> Tensor:
    """v2 bits (S, B, 6) of states (S, B, 41, 11) after their past (S, 4, 11), 55 samples."""
    past = padded_history(history)[:, None].expand(-1, states.shape[1], -1, -1)
    return comfort_bits_v2(torch.cat([past, states], dim=2))


def extended_comfort(now: Tensor, previous: Tensor, interval_steps: int) -> tuple[Tensor, Tensor]:
    """EC of two frames' simulated states.

    Args:
        now, previous: (..., 41, 11); previous starts ``interval_steps`` * 0.1 s earlier.
        interval_steps: 1 ... 5 (0 compares them sample by sample).

    Returns:
        (...) bool, and (..., 4) RMS differences in the order of ``EXTENDED_NAMES``.
    """
    length = now.shape[-2] - interval_steps
    first, second = now[..., :length, :], previous[..., interval_steps:, :]
    differences = []
    for one, other in zip(_extended_signals(first), _extended_signals(second), strict=True):
        differences.append(torch.sqrt(((one - other) ** 2).mean(-1)))
    rms = torch.stack(differences, dim=-1)
    return (rms <= torch.tensor(EXTENDED_BOUNDS).to(rms)).all(-1), rms


def _extended_signals(states: Tensor) -> list[Tensor]:
    heading = unwrap_angle(states[..., StateIndex.HEADING])
    acceleration = _smooth(_magnitude(states), 8, 2, 0)
    return [
        acceleration,
        _smooth(acceleration, 15, 2, 1),
        _smooth(heading, 5, 2, 1),
        _smooth(heading, 5, 2, 2),  # order 2 here, 3 in HC
    ]
