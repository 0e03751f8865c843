"""A planner's image trunk, pre-trained self-supervised on the unlabelled pictures of all drives.

VICReg place by place, as the codebook's own frame encoder learns (``latent_action.pretraining``): a
picture in other colours and with other blocks erased has the same features at the same place. What
a host gains from pictures alone is the row that every other use of them is compared with
(experiments.md section 6). Nothing but pictures is read: no odometry, no label.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from latentvla_ros.contract import ContractError
from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.model.image_encoder import ImageEncoder
from latentvla_training.data.shards import ShardReader, load_split
from latentvla_training.engine.checkpoint import load_checkpoint, weights_below
from latentvla_training.engine.loop import run_training
from latentvla_training.engine.recipe import (
    DataSettings,
    LoopSettings,
    OptimizerSettings,
    build,
    load_record,
)
from latentvla_training.latent_action.pretraining import change_colours, vicreg
from latentvla_training.planner.dataset import Item, collate, evenly, run_batches, scenes_recorded

RECIPES = "trunk"
#: Part of a picture that is erased, and the side of what is erased at once, pixels.
_ERASED, _BLOCK_PX = 0.3, 16


@dataclass(frozen=True)
class TrunkRecipe:
    """Everything that decides a trunk.

    Attributes:
        name: of the recipe. model: of the planner that it is for. data: whose pictures.
        optimizer, run: settings; a Scene counts as a pass.
    """

    name: str
    model: PlannerConfig = field(default_factory=PlannerConfig)
    data: DataSettings = field(default_factory=DataSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    run: LoopSettings = field(default_factory=LoopSettings)


def load_trunk_recipe(name_or_path: str) -> TrunkRecipe:
    """Read a recipe that ships (by name) or any YAML file (by path)."""
    return load_record(TrunkRecipe, name_or_path, RECIPES)


class Pictures(Dataset[Item]):
    """Views of Scenes twice, in other colours and with other blocks grey; nothing else is read.

    Args:
        seed: of what is changed, with the position in the run.
    """

    def __init__(self, reader: ShardReader, config: PlannerConfig, seed: int) -> None:
        self.reader, self.config, self.seed = reader, config, seed

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, address: int | tuple[int, int]) -> Item:
        """Return ``first`` and ``second`` (V, H, W, 3) uint8 of a Scene."""
        position, index = address if isinstance(address, tuple) else (int(address), int(address))
        views = self.reader.views(index, self.config.image_width, self.config.image_height)
        rng = np.random.default_rng((self.seed, position))
        return {name: self._changed(views, rng) for name in ("first", "second")}

    @staticmethod
    def _changed(views: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        random = torch.Generator().manual_seed(int(rng.integers(2**31)))
        pixels = change_colours(torch.from_numpy(views), random).round().numpy().astype(np.uint8)
        count, height, width, _ = pixels.shape
        grid = rng.random((count, -(-height // _BLOCK_PX), -(-width // _BLOCK_PX))) < _ERASED
        erased = grid.repeat(_BLOCK_PX, axis=1).repeat(_BLOCK_PX, axis=2)[:, :height, :width]
        pixels[erased] = 128
        return pixels


class TrunkPretraining(nn.Module):
    """An image encoder and a projection that ends with training; maps two views to losses."""

    def __init__(self, config: PlannerConfig) -> None:
        super().__init__()
        self.image_encoder = ImageEncoder(config.backbone, config.image_channels)
        self.projection = nn.Conv2d(config.image_channels, config.image_channels, 1)
        self.image_encoder.to(memory_format=torch.channels_last)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the losses of ``first`` and ``second`` (B, V, H, W, 3) uint8, a mean over views.

        Features have to vary within a view: which camera it is, or that two views of one camera
        are half a second apart, satisfies nothing.
        """
        both = torch.cat([batch["first"].flatten(0, 1), batch["second"].flatten(0, 1)])
        features = self.projection(self.image_encoder(both)).float()
        views = batch["first"].shape[1]
        first, second = (half.unflatten(0, (-1, views)) for half in features.chunk(2))
        losses = [vicreg(first[:, view], second[:, view]) for view in range(views)]
        return {name: sum(loss[name] for loss in losses) / views for name in losses[0]}


class TrunkTask:
    """``engine.loop.Task`` over the pictures of a split."""

    def __init__(self, recipe: TrunkRecipe, train: ShardReader, val: ShardReader) -> None:
        torch.manual_seed(recipe.run.seed)
        self.run = recipe.run
        self.module: nn.Module = TrunkPretraining(recipe.model)
        self.train = Pictures(train, recipe.model, recipe.run.seed)
        chosen = evenly(np.arange(len(val)), self.run.validate_scenes)
        self.val = Subset(Pictures(val, recipe.model, 0), chosen.tolist())

    def batches(self, start_step: int, process: int, processes: int) -> Iterable[dict[str, Tensor]]:
        """Yield the batches of this process; each takes its share of every step's Scenes."""
        scenes = scenes_recorded(self.train.reader)
        return run_batches(self.train, scenes, self.run, start_step, process, processes)

    @torch.no_grad()
    def validate(self, averaged: nn.Module, device: torch.device) -> dict[str, float]:
        """Return the losses of validation pictures, a mean over batches."""
        averaged.eval()
        found: dict[str, list[float]] = {}
        for batch in DataLoader(self.val, batch_size=16, collate_fn=collate):
            moved = {name: value.to(device) for name, value in batch.items()}
            with torch.autocast(device.type, torch.bfloat16, self.run.mixed_precision == "bf16"):
                losses = averaged(moved)
            for name, loss in losses.items():
                found.setdefault(name, []).append(float(loss))
        return {name: float(np.mean(values)) for name, values in found.items()}


def pretrain_trunk(
    recipe: TrunkRecipe, folder: Path, stop_after_steps: int | None = None, progress: bool = True
) -> nn.Module:
    """Pre-train a trunk in ``folder`` (or continue there); returns the averaged module."""
    data = recipe.data
    train = load_split(data.train_split).part(
        data.max_shards, data.labelled_share, data.odometry_share
    )
    task = TrunkTask(recipe, train, load_split(data.val_split))
    return run_training(task, recipe, folder, stop_after_steps, progress)


def take_trunk(encoder: ImageEncoder, folder: Path) -> None:
    """Give a planner's image encoder the averaged weights of a finished run.

    Raises:
        FileNotFoundError: there is no run, or it is not finished.
        ContractError: it is of another encoder.
    """
    path, state = folder / "recipe.yaml", load_checkpoint(folder)
    unfinished = f"trunk_from: no finished run in {folder}; see latentvla-train pretrain-trunk"
    if state is None or not path.is_file():
        raise FileNotFoundError(unfinished)
    recipe = build(TrunkRecipe, yaml.safe_load(path.read_text(encoding="utf-8")), str(path))
    if int(state["step"]) < recipe.run.steps:
        raise FileNotFoundError(unfinished)
    try:
        encoder.load_state_dict(weights_below(state["averaged"], "image_encoder."))
    except RuntimeError as error:
        found = " ".join(str(error).split())[:200]
        raise ContractError(
            f"trunk_from {folder.name}", found, "the planner's own trunk"
        ) from error
