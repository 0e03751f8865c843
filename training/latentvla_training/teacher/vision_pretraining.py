"""Pre-training of the vision tower on unlabelled frames: hidden patches are to be painted.

SimMIM (Xie et al., CVPR 2022): a learned vector stands for the patches of hidden places, a linear
layer paints them from the tower's outputs, the error counts at hidden places alone. Ours: a place
is what becomes one token of the language model (28 x 28 pixels, both frames of a clip), so that the
tower's merger is trained with it, and pixels are normalised by patch (MAE, He et al. 2022).

Nothing but pictures is read: no odometry, no command, no code.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from latentvla_ros.contract import ContractError
from latentvla_training.data.shards import ShardReader, load_split
from latentvla_training.engine.checkpoint import (
    checkpoint_step,
    load_checkpoint,
    weights_below,
)
from latentvla_training.engine.loop import run_recipe, run_training
from latentvla_training.engine.recipe import different_settings
from latentvla_training.latent_action.codes import scenes_identity
from latentvla_training.planner.augmentation import AugmentationSettings, change_colours
from latentvla_training.planner.dataset import (
    Item,
    collate,
    evenly,
    run_batches,
    scenes_recorded,
)
from latentvla_training.teacher.dataset import TeacherDataset
from latentvla_training.teacher.processor import TeacherProcessor, load_processor
from latentvla_training.teacher.settings import VisionRecipe
from latentvla_training.teacher.vlm import build_vlm

_VALIDATION_BATCH = 16


class HiddenPatches(nn.Module):
    """A vision tower and what paints from it; maps a batch of pictures to the loss.

    Args:
        tower: of a Qwen2.5-VL. hidden_share: of the places.
    """

    def __init__(self, tower: nn.Module, hidden_share: float) -> None:
        super().__init__()
        config = tower.config
        self.tower, self.hidden_share = tower, hidden_share
        self.merged = int(config.spatial_merge_size**2)
        pixels = int(config.in_channels * config.temporal_patch_size * config.patch_size**2)
        self.paint = nn.Linear(config.out_hidden_size, self.merged * pixels)
        self.unseen = nn.Parameter(torch.zeros(config.hidden_size))

    def painted_error(self, pixels: Tensor, grid: Tensor, hidden: Tensor) -> Tensor:
        """Return the mean squared error at hidden places; 1 is that of painting patches grey.

        Args:
            pixels: (N, 1176) patches of pictures one after the other. grid: (pictures, 3).
            hidden: (N / 4,) bool, places that the tower does not see.
        """
        rows = hidden.repeat_interleave(self.merged)[:, None]

        def hide(_module: nn.Module, _inputs: tuple[Tensor, ...], embedded: Tensor) -> Tensor:
            return torch.where(rows, self.unseen.to(embedded.dtype), embedded)

        handle = self.tower.patch_embed.register_forward_hook(hide)
        try:
            seen = self.tower(pixels, grid_thw=grid).pooler_output
        finally:
            handle.remove()
        frames = pixels.unflatten(1, (3, 2, -1)).transpose(1, 2).flatten(2)  # (N, 2, 588)
        frames = frames - frames.mean(dim=2, keepdim=True)
        # Patches of one colour (sky) have no contrast that could be told.
        target = frames / (frames.square().mean(dim=2, keepdim=True) + 1e-2).sqrt()
        target = target.flatten(1).unflatten(0, (-1, self.merged)).flatten(1)[hidden]
        return (self.paint(seen[hidden]).float() - target).square().mean()

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss of a batch; places are hidden at random."""
        return {"painted": self.error(batch)}

    def error(self, batch: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        """Return ``painted_error`` of a batch with places hidden by a generator."""
        clips, images = batch["pixel_values_videos"], batch["pixel_values"]
        pixels = torch.cat([clips.flatten(0, 1), images.flatten(0, 1)])
        grid = torch.cat([batch["video_grid"].flatten(0, 1), batch["image_grid"].flatten(0, 1)])
        chance = torch.rand(len(pixels) // self.merged, generator=generator)
        return self.painted_error(pixels, grid, (chance < self.hidden_share).to(pixels.device))


class PictureDataset(TeacherDataset):
    """Pictures of Scenes under other colours; nothing else of a Scene is read."""

    def __getitem__(self, address: int | tuple[int, int]) -> Item:
        """Return Scene ``index``, or (position in the run, index) for an augmented sample."""
        position, index = address if isinstance(address, tuple) else (0, int(address))
        views = self.views(index)
        if self.augmentation is not None:
            rng = np.random.default_rng((self.seed, position))
            if rng.random() < self.augmentation.photometric:
                views = change_colours(views, self.augmentation, rng)
        layout = self.processor.layout
        return {
            **self.processor.pictures(views),
            "video_grid": layout.video_grid,
            "image_grid": layout.image_grid,
        }


class VisionTask:
    """``engine.loop.Task`` of the vision stage."""

    def __init__(
        self,
        recipe: VisionRecipe,
        processor: TeacherProcessor,
        train: ShardReader,
        val: ShardReader,
    ) -> None:
        self.run = recipe.run
        torch.manual_seed(recipe.run.seed)
        vlm = build_vlm(recipe.model, processor)
        vlm.set_attn_implementation("sdpa" if torch.cuda.is_available() else "eager")
        self.module: nn.Module = HiddenPatches(vlm.model.visual, recipe.hidden_share)
        self.train = PictureDataset(
            train, processor, augmentation=AugmentationSettings(), seed=recipe.run.seed
        )
        train.preload()  # before loader processes start: they share it
        chosen = evenly(np.arange(len(val)), recipe.run.validate_scenes)
        self.val = Subset(PictureDataset(val, processor), chosen.tolist())

    def batches(self, start_step: int, process: int, processes: int) -> Iterable[dict[str, Tensor]]:
        """Yield the batches of this process; each takes its share of every step's Scenes."""
        own = torch.Generator()  # else it takes from the numbers that hide places
        scenes = scenes_recorded(self.train.reader)
        return run_batches(self.train, scenes, self.run, start_step, process, processes, own)

    @torch.no_grad()
    def validate(self, averaged: nn.Module, device: torch.device) -> dict[str, float]:
        """Return the error at hidden places, the same ones every time."""
        assert isinstance(averaged, HiddenPatches)
        averaged.eval()
        generator = torch.Generator().manual_seed(0)
        found = []
        for batch in DataLoader(self.val, batch_size=_VALIDATION_BATCH, collate_fn=collate):
            moved = {name: value.to(device) for name, value in batch.items()}
            with torch.autocast(device.type, torch.bfloat16, self.run.mixed_precision == "bf16"):
                found.append(averaged.error(moved, generator))
        return {"painted": float(torch.stack(found).mean())}


def pretrain_vision(
    recipe: VisionRecipe, folder: Path, stop_after_steps: int | None = None, progress: bool = True
) -> nn.Module:
    """Train a vision tower in ``folder`` (or continue there); returns the averaged module.

    Raises:
        ContractError: the folder holds a tower of another recipe or of other Scenes; names both.
    """
    data = recipe.data
    train = load_split(data.train_split).part(
        data.max_shards, data.labelled_share, data.odometry_share
    )
    recipe = replace(recipe, scenes=scenes_identity(train))
    processor = load_processor(recipe.model, recipe.pictures)
    task = VisionTask(recipe, processor, train, load_split(data.val_split))
    return run_training(task, recipe, folder, stop_after_steps, progress)


def is_pretrained(recipe: VisionRecipe, folder: Path) -> bool:
    """Return whether the stage in ``folder`` has come to its end.

    It may be the stage of a recipe of another name, where all that decides the tower is the same.

    Raises:
        ContractError: it is of another recipe or of other Scenes; names what differs.
    """
    step = checkpoint_step(folder)
    if not step:
        return False
    found = run_recipe(VisionRecipe, folder)
    if found is None:
        raise ContractError(
            f"vision tower of {folder}", "no recipe.yaml", "one, beside the weights"
        )
    different = different_settings(replace(found, name=recipe.name), recipe)
    if different:
        expected = "a tower of the same recipe and Scenes, or a new folder (--vision-run)"
        raise ContractError(f"vision tower of {folder}", different, expected)
    return step >= recipe.run.steps


def start_from_vision(tower: nn.Module, folder: Path) -> None:
    """Give a tower the averaged weights of a vision stage.

    Raises:
        FileNotFoundError: there is no such run.
        ContractError: it is of another model; names what differs.
    """
    state = load_checkpoint(folder)
    if state is None:
        raise FileNotFoundError(f"{folder} has no checkpoint; pre-train the vision tower first")
    weights = weights_below(state["averaged"], "tower.")
    here = {name: tuple(value.shape) for name, value in tower.state_dict().items()}
    there = {name: tuple(value.shape) for name, value in weights.items()}
    if here != there:
        name = sorted(set(here.items()) ^ set(there.items()))[0][0]
        raise ContractError(
            f"vision tower of {folder}", f"{name}: {there.get(name)}", f"{here.get(name)}"
        )
    tower.load_state_dict(weights)
