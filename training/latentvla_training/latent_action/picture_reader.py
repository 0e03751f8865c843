"""Environment codes off two pictures alone, for drives without odometry.

Stage 1 must be told what was driven, or its codes would say that. Where nobody knows it a reader
that has learned stage 1's codes from pictures, on drives with odometry, stands in for it
(experiments.md section 6; ours).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from latentvla_training.latent_action.bottleneck import Encoded
from latentvla_training.latent_action.dynamics import Batch, NoCondition
from latentvla_training.latent_action.networks import InverseDynamics, Patches
from latentvla_training.latent_action.settings import DynamicsSettings
from latentvla_training.latent_action.stages import DynamicsTask
from latentvla_training.planner.dataset import evenly

PICTURES = "pictures"


class PictureReader(nn.Module):
    """Reads the environment codes of pairs; encodes like a stage.

    Args:
        settings: of the stages. grid, channels: of the frame encoder's features.
    """

    stage = PICTURES

    def __init__(self, settings: DynamicsSettings, grid: tuple[int, int], channels: int) -> None:
        super().__init__()
        self.settings = replace(settings, code_width=settings.codebook_size)
        self.condition = NoCondition(settings.width)
        self.encoder = InverseDynamics(self.settings, Patches(grid, settings.patch), channels, 0)

    def encode(self, batch: Batch) -> Encoded:
        """Return the likeliest codes (B, codes) of pairs, and their logits as vectors."""
        logits: Tensor = self.encoder(
            batch["earlier"], batch["later"], batch["interval"], self.condition(batch)
        )
        nothing = logits.new_zeros(())
        return Encoded(logits, logits.argmax(dim=-1), nothing, nothing)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy of ``environment`` (B, codes), that stage 1 says."""
        logits = self.encode(batch).vectors.float()
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch["environment"].flatten())
        return {"codes": loss}


class PictureTask(DynamicsTask):
    """``engine.loop.Task`` of the reader: pairs with odometry, and the codes of stage 1."""

    @torch.no_grad()
    def validate(self, averaged: nn.Module, device: torch.device) -> dict[str, float]:
        """Return the share of codes that are read, and that of the commonest code everywhere."""
        assert isinstance(averaged, PictureReader)
        assert self.val.environment is not None
        averaged.eval()
        chosen = evenly(np.arange(len(self.val.pairs)), self.run.validate_scenes)
        said = []
        for _, batch in self.val.batches(128, chosen):
            moved = {name: value.to(device) for name, value in batch.items()}
            with torch.autocast(device.type, torch.bfloat16, self.run.mixed_precision == "bf16"):
                said.append(averaged.encode(moved).codes.cpu().numpy())
        true = self.val.environment[chosen]
        common = [np.bincount(column).max() / len(column) for column in true.T]
        return {
            "accuracy": float((np.concatenate(said) == true).mean()),
            "commonest": float(np.mean(common)),
        }
