"""A reader that is told the answers finds what frames show, and is the same again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from latentvla_training.latent_action.motion_reader import (
    ReaderSettings,
    ReadingTask,
    fit_motion_reader,
)

GRID, CHANNELS, PAIRS = (4, 6), 3, 600
SETTINGS = ReaderSettings(width=16, steps=240, batch_size=64, learning_rate=5e-3)


class Frames:
    """Noise, but the later frame is brighter by what is to be read."""

    def __init__(self, told: np.ndarray) -> None:
        noise = torch.Generator().manual_seed(0)
        shape = (len(told), GRID[0] * GRID[1], CHANNELS)
        self.earlier = torch.randn(shape, generator=noise)
        self.later = self.earlier + torch.from_numpy(told)[:, :1, None]

    def batch(self, chosen: np.ndarray) -> dict[str, torch.Tensor]:
        return {"earlier": self.earlier[chosen], "later": self.later[chosen]}


def task() -> ReadingTask:
    targets = np.random.default_rng(0).standard_normal((PAIRS, 1)).astype(np.float32)
    frames: Any = Frames(targets)
    return ReadingTask(frames, np.arange(PAIRS), targets)


def test_what_the_later_frame_shows_is_read() -> None:
    whole = task()
    fitted = replace(whole, pairs=whole.pairs[:400], targets=whole.targets[:400])
    reader = fit_motion_reader(fitted, GRID, CHANNELS, SETTINGS)
    judged = np.arange(400, PAIRS)
    error = whole.read(reader, judged).numpy() - whole.targets[judged]
    assert (error**2).mean() < 0.2 * whole.targets[judged].var()


def test_reading_is_the_same_again() -> None:
    short = replace(SETTINGS, steps=30)
    one, two = (fit_motion_reader(task(), GRID, CHANNELS, short) for _ in range(2))
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name])
