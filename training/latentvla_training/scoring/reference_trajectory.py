"""From a plan of eight poses to the 41 poses that the tracker follows.

Source: design/metrics.md section 1 (NAVSIM ``transform_trajectory`` and
``get_trajectory_as_array``). NAVSIM goes through integer microseconds with truncation on both
sides, so a query may fall 1 us before its sample; the same truncation is made here.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from latentvla_training.scoring.vehicle import NUM_STATES, STEP_S

PLAN_STEPS = 8
PLAN_INTERVAL_S = 0.5


def wrap_angle(angle: Tensor) -> Tensor:
    """Wrap angles (rad) to [-pi, pi)."""
    return torch.remainder(angle + math.pi, 2.0 * math.pi) - math.pi


def unwrap_angle(angle: Tensor) -> Tensor:
    """Remove jumps of 2 pi along the last axis (nuPlan ``_phase_unwrap``)."""
    turns = torch.round(torch.diff(angle, dim=-1) / (2.0 * math.pi))
    unwrapped = angle.clone()
    unwrapped[..., 1:] -= 2.0 * math.pi * torch.cumsum(turns, dim=-1)
    return unwrapped


def global_plan(origin: Tensor, plan: Tensor) -> Tensor:
    """Express plans (S, B, T, 3) in the frames of ``origin`` (S, >= 3) in the global frame."""
    x0, y0, h0 = (origin[:, None, None, i] for i in range(3))
    cos, sin = torch.cos(h0), torch.sin(h0)
    x = x0 + cos * plan[..., 0] - sin * plan[..., 1]
    y = y0 + sin * plan[..., 0] + cos * plan[..., 1]
    return torch.stack([x, y, wrap_angle(h0 + plan[..., 2])], dim=-1)


def sample_times(start_time_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each 10 Hz query falls among the knots at 0, 0.5 ... 4 s.

    Args:
        start_time_s: (S,) absolute time of the initial state; only its rounding matters.

    Returns:
        (S, 41) index of the knot at or before each query, and (S, 41) fraction of the interval.
    """
    start = np.asarray(start_time_s, np.float64).reshape(-1, 1)
    start_us = np.floor(start * 1e6)
    knots_s = np.arange(0.0, PLAN_STEPS * PLAN_INTERVAL_S, PLAN_INTERVAL_S) + PLAN_INTERVAL_S
    knots_us = np.concatenate([start_us, np.floor((knots_s + start) * 1e6)], axis=1)
    queries_us = np.floor((np.arange(NUM_STATES) * STEP_S + start) * 1e6)
    queries_us = np.clip(queries_us, knots_us[:, :1], knots_us[:, -1:])
    index = np.empty(queries_us.shape, np.int64)
    for row in range(len(start)):
        index[row] = np.searchsorted(knots_us[row], queries_us[row], side="right") - 1
    index = np.clip(index, 0, PLAN_STEPS - 1)
    begin = np.take_along_axis(knots_us, index, axis=1)
    end = np.take_along_axis(knots_us, index + 1, axis=1)
    return index, (queries_us - begin) / (end - begin)


def reference_poses(initial: Tensor, plan: Tensor, start_time_s: np.ndarray) -> Tensor:
    """Sample plans at 10 Hz in the global frame.

    Args:
        initial: (S, >= 3) initial rear-axle pose, global frame.
        plan: (S, B, 8, 3) x, y, heading at 0.5 ... 4 s in the frame of the initial pose.
        start_time_s: (S,) absolute time of the initial state.

    Returns:
        (S, B, 41, 3) poses at 0, 0.1 ... 4 s; row 0 is the initial pose.
    """
    scenes, batch = plan.shape[:2]
    poses = global_plan(initial, plan)
    knots = torch.cat([initial[:, None, None, :3].expand(scenes, batch, 1, 3), poses], dim=2)
    knots[..., 2] = unwrap_angle(knots[..., 2])
    index_array, fraction_array = sample_times(start_time_s)
    index = torch.from_numpy(index_array).to(plan.device)[:, None, :, None]
    index = index.expand(scenes, batch, NUM_STATES, 3)
    fraction = torch.from_numpy(fraction_array).to(plan)[:, None, :, None]
    begin = torch.gather(knots, 2, index)
    end = torch.gather(knots, 2, index + 1)
    sampled = begin + (end - begin) * fraction
    return torch.cat([sampled[..., :2], wrap_angle(sampled[..., 2:])], dim=-1)
