"""Reads the ego motion off a pair of frames' features: the judge of the swap test.

Fitted on true pairs of training networks alone. Shown the earlier frame and what a decoder
predicted after it, it says which motion the prediction depicts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from latentvla_training.latent_action.stages import PairData


@dataclass(frozen=True)
class ReaderSettings:
    """Size and training of a motion reader."""

    width: int = 64
    steps: int = 300
    batch_size: int = 128
    learning_rate: float = 2e-3
    seed: int = 0


class MotionReader(nn.Module):
    """Convolutions over the places of both frames; returns scaled motion (B, 3) x, y, yaw."""

    def __init__(self, grid: tuple[int, int], channels: int, settings: ReaderSettings) -> None:
        super().__init__()
        self.grid = grid
        width = settings.width
        half = (-(-grid[0] // 2), -(-grid[1] // 2))
        self.layers = nn.Sequential(
            nn.Conv2d(2 * channels, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(width * half[0] * half[1], 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, 3),
        )

    def forward(self, earlier: Tensor, later: Tensor) -> Tensor:
        """Return motion (B, 3) of features (B, places, C)."""
        both = torch.cat([earlier, later], dim=2).transpose(1, 2).unflatten(2, self.grid)
        motion: Tensor = self.layers(both.contiguous())
        return motion


def fit_motion_reader(
    data: PairData,
    chosen: NDArray[np.int64],
    grid: tuple[int, int],
    channels: int,
    settings: ReaderSettings | None = None,
) -> MotionReader:
    """Fit a reader on true pairs.

    Args:
        data: of training networks. chosen: pairs to use, of one interval.
        grid, channels: of the features.
    """
    from tqdm import tqdm

    settings = settings or ReaderSettings()
    torch.manual_seed(settings.seed)
    reader = MotionReader(grid, channels, settings)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.steps
    )
    random = np.random.default_rng(settings.seed)
    for _ in tqdm(range(settings.steps), desc="motion reader", leave=False):
        batch = data.batch(random.choice(chosen, settings.batch_size))
        with torch.autocast("cpu", torch.bfloat16):
            predicted = reader(batch["earlier"], batch["later"])
        loss = nn.functional.smooth_l1_loss(predicted.float(), batch["motion"])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return reader.eval().requires_grad_(False)
