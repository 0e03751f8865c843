"""Reads the ego motion off a pair of frames' features: a judge of what a decoder predicts.

Fitted on true pairs of training networks alone; shown the earlier frame and what a decoder
predicted after it, it says which ego motion the prediction depicts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from latentvla_training.latent_action.codebook import codes_device
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
    """Convolutions over the places of both frames; returns a motion (B, outputs)."""

    def __init__(
        self, grid: tuple[int, int], channels: int, outputs: int, settings: ReaderSettings
    ) -> None:
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
            nn.Linear(2 * width, outputs),
        )

    def forward(self, earlier: Tensor, later: Tensor) -> Tensor:
        """Return motion (B, outputs) of features (B, places, C)."""
        both = torch.cat([earlier, later], dim=2).transpose(1, 2).unflatten(2, self.grid)
        motion: Tensor = self.layers(both.contiguous())
        return motion


@dataclass(frozen=True)
class ReadingTask:
    """True pairs and the motion to be read off them.

    Attributes:
        data: pairs with features. pairs: (n,) of them. targets: (n, T) float32, about one in size.
    """

    data: PairData
    pairs: NDArray[np.int64]
    targets: NDArray[np.float32]

    def read(self, reader: MotionReader, rows: NDArray[np.integer]) -> Tensor:
        """Return what ``reader`` says (len(rows), T) of some of the pairs, where it is."""
        batch = self.data.batch(self.pairs[rows])
        device = next(reader.parameters()).device
        with torch.autocast(device.type, torch.bfloat16):
            return reader(batch["earlier"].to(device), batch["later"].to(device)).float()


def fit_motion_reader(
    task: ReadingTask,
    grid: tuple[int, int],
    channels: int,
    settings: ReaderSettings | None = None,
) -> MotionReader:
    """Fit a reader on true pairs of training networks; it is where codebooks are loaded to.

    Args:
        grid, channels: of the features.
    """
    from tqdm import tqdm

    settings = settings or ReaderSettings()
    torch.manual_seed(settings.seed)
    device = codes_device()
    reader = MotionReader(grid, channels, task.targets.shape[1], settings).to(device)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.steps
    )
    random = np.random.default_rng(settings.seed)
    for _ in tqdm(range(settings.steps), desc="motion reader", leave=False):
        rows = random.choice(len(task.pairs), settings.batch_size)
        target = torch.from_numpy(task.targets[rows]).to(device)
        loss = nn.functional.smooth_l1_loss(task.read(reader, rows), target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return reader.eval().requires_grad_(False)
