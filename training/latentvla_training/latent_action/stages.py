"""Training one stage on frame pairs: its batches, its validation, and what decides the run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from latentvla_ros.contract import ContractError
from latentvla_training.engine.checkpoint import CHECKPOINT, load_checkpoint
from latentvla_training.engine.loop import check_checkpoint
from latentvla_training.engine.recipe import LoopSettings, OptimizerSettings
from latentvla_training.latent_action.dynamics import Batch, LatentDynamics, gain_over_copy
from latentvla_training.latent_action.feature_store import FeatureStore
from latentvla_training.latent_action.pairs import Pairs, scaled_motion, scaled_poses
from latentvla_training.latent_action.settings import (
    DynamicsLoss,
    DynamicsSettings,
    FrameSettings,
)
from latentvla_training.planner.dataset import RunSampler, evenly


@dataclass(frozen=True)
class FrameRun:
    """What decides stage 0: ``engine.loop.TrainingRecipe``.

    Attributes:
        scenes: identity of the Scenes that it is trained on.
    """

    scenes: str
    frames: FrameSettings
    optimizer: OptimizerSettings
    run: LoopSettings


@dataclass(frozen=True)
class DynamicsRun:
    """What decides stage 1, stage 2 or a control.

    Attributes:
        stage: which. scenes: identity of the Scenes. follows: hash of the frozen weights (frame
            encoder; stage 1 too where its codes are used) that came before.
        odometry_share: of the drives, that come with odometry.
    """

    stage: str
    scenes: str
    follows: str
    model: DynamicsSettings
    loss: DynamicsLoss
    optimizer: OptimizerSettings
    run: LoopSettings
    odometry_share: float = 1.0


def load_averaged(module: nn.Module, folder: Path, record: FrameRun | DynamicsRun) -> None:
    """Fill a module with the averaged weights of a stage.

    Args:
        folder: of the stage. record: of the run that it must be.

    Raises:
        FileNotFoundError: it has no checkpoint.
        ContractError: the checkpoint is damaged, or of another run; names both.
    """
    state = load_checkpoint(folder)
    if state is None:
        raise FileNotFoundError(f"{folder} has no checkpoint")
    check_checkpoint(folder, state, record)
    try:
        module.load_state_dict(state["averaged"])
    except RuntimeError as error:
        found = " ".join(str(error).split())[:300]
        says = "" if "recipe" in state else "; of which run it is it does not say, it is older"
        about = folder / "recipe.yaml"
        expected = f"of seed {record.run.seed} on Scenes {record.scenes}, as {about} says"
        raise ContractError(f"checkpoint {folder / CHECKPOINT}", found + says, expected) from error


@dataclass(frozen=True)
class PairData:
    """Pairs of a set of Scenes with their features, and environment codes once there are some.

    Attributes:
        pairs: of Scenes. features: of the same Scenes. environment: (P, codes) of stage 1.
        change: (P, WIDTH) of ``unexplained_change``, for a stage 1 that reads it.
    """

    pairs: Pairs
    features: FeatureStore
    environment: NDArray[np.int64] | None = None
    change: NDArray[np.float32] | None = None

    def batch(self, chosen: NDArray[np.int64]) -> Batch:
        """Return pairs as tensors; see ``LatentDynamics`` for what is in them."""
        pairs = self.pairs
        found: dict[str, Tensor] = {
            "earlier": self.features.gather(pairs.earlier[chosen]),
            "later": self.features.gather(pairs.later[chosen]),
            "interval": torch.from_numpy(pairs.interval[chosen]),
            "trajectory": torch.from_numpy(scaled_poses(pairs.trajectory[chosen])).flatten(1),
            "state": torch.from_numpy(pairs.state[chosen]),
            "later_state": torch.from_numpy(pairs.later_state[chosen]),
            "motion": torch.from_numpy(scaled_motion(pairs.trajectory[chosen, -1])),
            "unforeseen": torch.from_numpy(pairs.unforeseen[chosen]).flatten(1),
        }
        if not pairs.known.all():
            found["known"] = torch.from_numpy(pairs.known[chosen])
        if self.environment is not None:
            found["environment"] = torch.from_numpy(self.environment[chosen])
        if self.change is not None:
            found["change"] = torch.from_numpy(self.change[chosen])
        return found

    def with_odometry(self) -> PairData:
        """Return the pairs whose odometry is known, without environment codes."""
        rows = np.flatnonzero(self.pairs.known)
        change = None if self.change is None else self.change[rows]
        return PairData(self.pairs.chosen(rows), self.features, change=change)

    def batches(
        self, batch_size: int, chosen: NDArray[np.int64] | None = None
    ) -> Iterator[tuple[NDArray[np.int64], Batch]]:
        """Yield all pairs (or some) in order, with their indices."""
        every = np.arange(len(self.pairs)) if chosen is None else chosen
        for start in range(0, len(every), batch_size):
            rows = every[start : start + batch_size]
            yield rows, self.batch(rows)


def perplexity(codes: NDArray[Any], entries: int) -> float:
    """Return the exponential of the entropy of how often codes are used; 1 for one code alone."""
    share = np.bincount(codes.ravel(), minlength=entries) / max(1, codes.size)
    used = share[share > 0]
    return float(np.exp(-(used * np.log(used)).sum()))


class DynamicsTask:
    """``engine.loop.Task`` of a stage.

    Every sample is a whole pair: a missing future frame never enters a batch.
    """

    def __init__(self, module: nn.Module, run: LoopSettings, train: PairData, val: PairData):
        self.module = module
        self.run, self.train, self.val = run, train, val

    def batches(self, start_step: int, process: int, processes: int) -> Iterable[Batch]:
        """Yield the pairs of this process; each takes its share of every step."""
        run = self.run
        every = np.arange(len(self.train.pairs))
        for batch in RunSampler(every, run.batch_size, run.steps, start_step, run.seed):
            yield self.train.batch(np.array([row for _, row in batch[process::processes]]))

    @torch.no_grad()
    def validate(self, averaged: nn.Module, device: torch.device) -> dict[str, float]:
        """Return gain over copying the frame, and how the codebook is used."""
        assert isinstance(averaged, LatentDynamics)
        averaged.eval()
        errors, copies, codes = 0.0, 0.0, []
        chosen = evenly(np.arange(len(self.val.pairs)), self.run.validate_scenes)
        for _, batch in self.val.batches(128, chosen):
            moved = {name: value.to(device) for name, value in batch.items()}
            with torch.autocast(device.type, torch.bfloat16, self.run.mixed_precision == "bf16"):
                encoded = averaged.encode(moved)
                predicted = averaged.decode(moved, encoded.vectors)
            error, copy = gain_over_copy(predicted.float(), moved["earlier"], moved["later"])
            errors, copies = errors + float(error.sum()), copies + float(copy.sum())
            codes.append(encoded.codes.cpu().numpy())
        figures = {"gain": 1.0 - errors / max(copies, 1e-9)}
        used = np.concatenate(codes)
        if averaged.bottleneck.quantizer is not None:
            size = averaged.settings.codebook_size
            figures["perplexity"] = perplexity(used, size)
            figures["least_position_perplexity"] = min(
                perplexity(used[:, place], size) for place in range(used.shape[1])
            )
        return figures
