"""From path increments and curvatures to poses: every candidate is a path that a car can follow."""

from __future__ import annotations

import torch
from torch import Tensor

#: Tightest curvature (1/m) that a candidate can have, a radius of 3.3 m.
MAX_CURVATURE = 0.3


def rollout(steps: Tensor, curvature: Tensor) -> Tensor:
    """Integrate arcs of ``steps`` m with ``curvature`` 1/m, both (..., K), from the origin.

    Returns:
        poses (..., K, 3): x, y in m, yaw in (-pi, pi]. A zero step keeps the pose.
    """
    turn = steps * curvature
    yaw = torch.cumsum(turn, dim=-1)
    heading = yaw - 0.5 * turn  # of the chord
    x = torch.cumsum(steps * torch.cos(heading), dim=-1)
    y = torch.cumsum(steps * torch.sin(heading), dim=-1)
    wrapped = torch.atan2(torch.sin(yaw), torch.cos(yaw))
    return torch.stack([x, y, wrapped], dim=-1)


def bounded_curvature(raw: Tensor) -> Tensor:
    """Squash raw curvature smoothly into +-``MAX_CURVATURE``; close to identity near zero."""
    return MAX_CURVATURE * torch.tanh(raw / MAX_CURVATURE)
