"""A point cloud as TransFuser sees it: how many points stand over each cell of the ground.

For training alone: what runs on the car is cameras and odometry.
"""

from __future__ import annotations

import torch
from torch import Tensor

from latentvla_ros.contract import ContractError
from latentvla_ros.model.config import PlannerConfig

#: Points up to this height (m, ego frame: above the ground) are one channel, higher ones the other.
HEIGHT_SPLIT_M = 0.2

#: Counts are cut off here and divided by it.
MOST_POINTS = 5


def lidar_histogram(points: Tensor, config: PlannerConfig) -> Tensor:
    """Count points over cells, near the ground and above it (TransFuser: method.md section 7).

    Args:
        points: (N, 3) m, ego frame. Points that are not finite or outside the BEV are left out.
        config: of the planner; its BEV's extent and ``lidar_cells``.

    Returns:
        (2, X, Y) float32 in 0 ... 1, where 1 stands for ``MOST_POINTS`` and more.

    Raises:
        ContractError: points have another shape.
    """
    if points.ndim != 2 or points.shape[1] != 3:
        raise ContractError("points", tuple(points.shape), "(N, 3)")
    cells = torch.tensor(config.lidar_cells, device=points.device)
    (x_min, x_max), (y_min, y_max) = config.bev_x_m, config.bev_y_m
    low = points.new_tensor([x_min, y_min])
    size = points.new_tensor([x_max - x_min, y_max - y_min])
    points = points[torch.isfinite(points).all(dim=1)]
    index = torch.floor((points[:, :2] - low) / size * cells)
    inside = ((index >= 0) & (index < cells)).all(dim=1)
    column, row = index[inside].long().unbind(dim=1)
    above = (points[inside, 2] > HEIGHT_SPLIT_M).long()
    count_x, count_y = config.lidar_cells
    flat = (above * count_x + column) * count_y + row
    counts = torch.bincount(flat, minlength=2 * count_x * count_y)
    return counts.view(2, count_x, count_y).clamp(max=MOST_POINTS).float() / MOST_POINTS
