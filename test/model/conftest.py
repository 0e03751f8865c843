"""A small planner and inputs as its cameras would give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from latentvla_ros.geometry import se3
from latentvla_ros.model.config import PlannerConfig

TINY = PlannerConfig(
    view_time_offsets_s=(0.0, 0.0, -0.5),
    image_width=64,
    image_height=32,
    image_channels=16,
    width=32,
    bev_cells=(8, 8),
    bev_blocks=1,
    context_tokens=3,
    context_layers=1,
    reasoner_layers=1,
    proposals=6,
    rounds=2,
)


def make_inputs(batch: int = 2, seed: int = 0) -> tuple[Tensor, ...]:
    """Return inputs of ``TINY`` in the order of ``Observation.INPUTS``."""
    generator = torch.Generator().manual_seed(seed)
    views = len(TINY.view_time_offsets_s)
    intrinsics = torch.tensor([[55.0, 0.0, 31.5], [0.0, 55.0, 15.5], [0.0, 0.0, 1.0]])
    mounts = [((1.8, 0.0, 1.6), 0.0), ((1.6, 0.5, 1.6), 55.0), ((-3.0, 0.0, 1.6), 0.0)]
    poses = np.stack([se3.camera_mount(xyz, np.radians(yaw)) for xyz, yaw in mounts])
    images = torch.randint(0, 256, (batch, views, 32, 64, 3), generator=generator)
    return (
        images.to(torch.uint8),
        torch.ones(batch, views, dtype=torch.bool),
        intrinsics.expand(batch, views, 3, 3).contiguous(),
        torch.from_numpy(poses).float().expand(batch, views, 4, 4).contiguous(),
        torch.randn(batch, 4, 3, generator=generator),
        torch.ones(batch, 4, dtype=torch.bool),
        torch.tensor([6.0, 0.0, 0.05, 0.5, 0.0, 0.0]).expand(batch, 6).contiguous(),
        torch.ones(batch, 6, dtype=torch.bool),
        torch.eye(4)[torch.arange(batch) % 4],
    )


@pytest.fixture
def inputs() -> tuple[Tensor, ...]:
    return make_inputs()


@pytest.fixture
def tiny() -> PlannerConfig:
    return TINY
