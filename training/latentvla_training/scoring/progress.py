"""Progress along the route's centreline and lane keeping.

Source: design/metrics.md sections 4.5 (EP, before normalisation) and 4.7 (LK).
"""

from __future__ import annotations

import torch
from torch import Tensor

from latentvla_training.scoring.geometry import project_onto_polylines
from latentvla_training.scoring.scene_batch import SceneBatch

LANE_KEEPING_DISTANCE_M = 0.5
LANE_KEEPING_STEPS = 20  # ceil(2.0 s / 0.1 s)


def raw_progress(scenes: SceneBatch, center: Tensor) -> Tensor:
    """Metres gained along the centreline (S, B) >= 0 by box centres (S, B, 41, 2)."""
    count, batch = center.shape[:2]
    ends = torch.stack([center[:, :, 0], center[:, :, -1]], dim=2).reshape(count, -1, 2)
    arc, _ = project_onto_polylines(ends, scenes.centerline)
    arc = arc.reshape(count, batch, 2)
    return (arc[..., 1] - arc[..., 0]).clamp(min=0.0)


def lane_keeping(scenes: SceneBatch, center: Tensor, center_in_intersection: Tensor) -> Tensor:
    """LK (S, B) in {0, 1}: never 20 steps in a row beyond 0.5 m of the centreline.

    Steps inside an intersection are skipped: they neither count nor reset.
    """
    count, batch, steps = center.shape[:3]
    _, distance = project_onto_polylines(center.reshape(count, -1, 2), scenes.centerline)
    away = distance.reshape(count, batch, steps) > LANE_KEEPING_DISTANCE_M
    counter = torch.zeros(count, batch, dtype=torch.int64, device=center.device)
    failed = torch.zeros(count, batch, dtype=torch.bool, device=center.device)
    for step in range(steps):
        updated = torch.where(away[..., step], counter + 1, 0)
        counter = torch.where(center_in_intersection[..., step], counter, updated)
        failed |= counter >= LANE_KEEPING_STEPS
    return (~failed).to(torch.float64)
