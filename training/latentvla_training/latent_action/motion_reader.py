"""Reads motion off a pair of frames' features: a judge, told labels, of what frames and codes say.

Fitted on training networks alone. Shown the earlier frame and what a decoder predicted after it, it
says which ego motion the prediction depicts; shown true pairs, how much of a road user's motion can
be read off them at all.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from latentvla_training.latent_action.stages import PairData


@dataclass(frozen=True)
class ReaderSettings:
    """Size and training of a motion reader.

    Attributes:
        check_steps: a reader with Scenes held out is judged so often, and the best one is kept.
    """

    width: int = 64
    steps: int = 300
    batch_size: int = 128
    learning_rate: float = 2e-3
    check_steps: int = 20
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
        with_later: False hides the later frame: the earlier one is shown twice.
    """

    data: PairData
    pairs: NDArray[np.int64]
    targets: NDArray[np.float32]
    with_later: bool = True

    def read(self, reader: MotionReader, rows: NDArray[np.integer]) -> Tensor:
        """Return what ``reader`` says (len(rows), T) of some of the pairs."""
        batch = self.data.batch(self.pairs[rows])
        later = batch["later"] if self.with_later else batch["earlier"]
        with torch.autocast("cpu", torch.bfloat16):
            return reader(batch["earlier"], later).float()

    @torch.no_grad()
    def r2(
        self, reader: MotionReader, rows: NDArray[np.integer] | None = None
    ) -> NDArray[np.float64]:
        """Return the share (T,) of the targets that ``reader`` tells; they have mean zero."""
        rows = np.arange(len(self.pairs)) if rows is None else rows
        said = [
            self.read(reader, part).numpy() for part in np.array_split(rows, len(rows) // 256 + 1)
        ]
        error = ((np.concatenate(said) - self.targets[rows]) ** 2).sum(axis=0)
        share: NDArray[np.float64] = 1.0 - error / np.maximum(
            (self.targets[rows] ** 2).sum(axis=0), 1e-12
        )
        return share


def fit_motion_reader(
    task: ReadingTask,
    grid: tuple[int, int],
    channels: int,
    held_out: NDArray[np.bool_] | None = None,
    settings: ReaderSettings | None = None,
) -> MotionReader:
    """Fit a reader on true pairs of training networks.

    Args:
        grid, channels: of the features.
        held_out: (n,) pairs that are not fitted on; the weights that read them best are kept, those
            of the start among them. None: all are fitted on, and the last weights are kept.
    """
    from tqdm import tqdm

    settings = settings or ReaderSettings()
    torch.manual_seed(settings.seed)
    reader = MotionReader(grid, channels, task.targets.shape[1], settings)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.steps
    )
    random = np.random.default_rng(settings.seed)
    held = np.zeros(len(task.pairs), np.bool_) if held_out is None else held_out
    fitted, checked = np.flatnonzero(~held), np.flatnonzero(held)
    best, kept = -np.inf, reader.state_dict()
    for step in tqdm(range(settings.steps), desc="motion reader", leave=False):
        if len(checked) and step % settings.check_steps == 0:
            best, kept = _better(task, reader, checked, best, kept)
        rows = random.choice(fitted, settings.batch_size)
        target = torch.from_numpy(task.targets[rows])
        loss = nn.functional.smooth_l1_loss(task.read(reader, rows), target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    if len(checked):
        reader.load_state_dict(_better(task, reader, checked, best, kept)[1])
    return reader.eval().requires_grad_(False)


def _better(
    task: ReadingTask,
    reader: MotionReader,
    checked: NDArray[np.int64],
    best: float,
    kept: dict[str, Tensor],
) -> tuple[float, dict[str, Tensor]]:
    found = float(task.r2(reader, checked).mean())
    return (found, copy.deepcopy(reader.state_dict())) if found > best else (best, kept)
