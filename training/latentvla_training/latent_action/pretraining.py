"""Stage 0: our own frame encoder, self-supervised on unlabelled front frames (ours).

Two views of a frame, in other colours and with other blocks erased, must have the same features at
the same place, while features vary between frames and are not copies of each other: VICReg
(Bardes et al. 2022, eq. 1-6), place by place. Nothing moves between the views, so that places keep
their meaning. What is constant at a place is taken off first; features cannot live on it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from latentvla_training.engine.recipe import LoopSettings
from latentvla_training.latent_action.frame_encoder import OwnTrunk, normalised
from latentvla_training.latent_action.settings import FrameSettings
from latentvla_training.planner.dataset import RunSampler

# Weights of invariance, variance and covariance (VICReg, section 4.2, over 25).
_INVARIANCE, _VARIANCE, _COVARIANCE = 1.0, 1.0, 0.04

#: Part of a frame that is erased, and the side of what is erased at once, pixels.
_ERASED, _BLOCK_PX = 0.3, 8


def change_colours(images: Tensor, random: torch.Generator) -> Tensor:
    """Return float images (B, H, W, 3), 0 to 255, of another exposure, contrast and tint."""
    pixels = images.float()
    count = len(pixels)

    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        drawn = torch.rand(count, 1, 1, channels, generator=random)
        return low + (high - low) * drawn

    mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
    pixels = (pixels - mean) * draw(0.7, 1.4) + mean * draw(0.6, 1.5) * draw(0.9, 1.1, 3)
    return pixels.clamp(0.0, 255.0)


def erase_blocks(pixels: Tensor, random: torch.Generator) -> Tensor:
    """Return normalised images (B, 3, H, W) with some blocks set to zero."""
    count, _, height, width = pixels.shape
    rows, columns = -(-height // _BLOCK_PX), -(-width // _BLOCK_PX)
    keep = (torch.rand(count, 1, rows, columns, generator=random) >= _ERASED).float()
    mask = keep.repeat_interleave(_BLOCK_PX, 2).repeat_interleave(_BLOCK_PX, 3)
    return pixels * mask[..., :height, :width]


def vicreg(first: Tensor, second: Tensor) -> dict[str, Tensor]:
    """Return the weighted terms for features (B, C, h, w) of two views of the same frames."""
    losses = {"invariance": _INVARIANCE * (first - second).square().mean()}
    variance, covariance = [], []
    for features in (first, second):
        centred = features - features.mean(dim=0)
        rows = centred.permute(0, 2, 3, 1).flatten(0, 2)  # (B h w, C)
        variance.append((1.0 - (rows.square().mean(dim=0) + 1e-4).sqrt()).clamp(min=0.0).mean())
        channels = rows.shape[1]
        matrix = rows.T @ rows / len(rows)
        off_diagonal = matrix - torch.diag(torch.diagonal(matrix))
        covariance.append(off_diagonal.square().sum() / channels)
    losses["variance"] = _VARIANCE * (variance[0] + variance[1]) / 2
    losses["covariance"] = _COVARIANCE * (covariance[0] + covariance[1])
    return losses


class FramePretraining(nn.Module):
    """The trunk in training; maps a batch of two views to weighted losses."""

    def __init__(self, settings: FrameSettings) -> None:
        super().__init__()
        self.trunk = OwnTrunk(settings)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the losses of views ``first`` and ``second`` (B, 3, H, W)."""
        both = self.trunk(torch.cat([batch["first"], batch["second"]])).float()
        return vicreg(*both.chunk(2))


class FramePretrainingTask:
    """``engine.loop.Task`` over decoded frames (N, H, W, 3), and others to validate on."""

    def __init__(
        self,
        settings: FrameSettings,
        run: LoopSettings,
        frames: NDArray[np.uint8],
        val_frames: NDArray[np.uint8],
    ) -> None:
        torch.manual_seed(run.seed)
        self.run, self.frames, self.val_frames = run, frames, val_frames
        self.module: nn.Module = FramePretraining(settings)

    def batches(self, start_step: int, process: int, processes: int) -> Iterable[dict[str, Tensor]]:
        """Yield two views of this process's share of every step's frames."""
        run = self.run
        every = np.arange(len(self.frames))
        sampler = RunSampler(every, run.batch_size, run.steps, start_step, run.seed)
        for step, batch in enumerate(sampler, start=start_step):
            rows = np.array([row for _, row in batch[process::processes]])
            yield self._views(self.frames[rows], (run.seed * 1_000_003 + step) * 97 + process)

    def _views(self, frames: NDArray[np.uint8], seed: int) -> dict[str, Tensor]:
        random = torch.Generator().manual_seed(seed)
        images = torch.from_numpy(frames)
        return {
            name: erase_blocks(normalised(change_colours(images, random)), random)
            for name in ("first", "second")
        }

    @torch.no_grad()
    def validate(self, averaged: nn.Module, device: torch.device) -> dict[str, float]:
        """Return the losses on validation frames."""
        averaged.eval()
        views = self._views(self.val_frames, 0)
        with torch.autocast(device.type, torch.bfloat16, self.run.mixed_precision == "bf16"):
            losses = averaged({name: value.to(device) for name, value in views.items()})
        return {name: float(loss) for name, loss in losses.items()}
