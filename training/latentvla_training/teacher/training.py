"""Training of the teacher on the ego codes: next-token loss on those 12 places alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Subset

from latentvla_ros.contract import ContractError
from latentvla_training.data.shards import ShardReader, load_split
from latentvla_training.engine.checkpoint import checkpoint_step, load_checkpoint
from latentvla_training.engine.loop import run_training
from latentvla_training.engine.recipe import DataSettings, build
from latentvla_training.latent_action.codes import MISSING, LatentCodes, load_codes
from latentvla_training.planner.dataset import collate, evenly, run_batches, scenes_to_learn_from
from latentvla_training.teacher.baselines import train_net
from latentvla_training.teacher.dataset import TeacherDataset, check_codes, scenes_with_codes
from latentvla_training.teacher.model import Teacher, make_teacher
from latentvla_training.teacher.processor import TeacherProcessor, load_processor
from latentvla_training.teacher.settings import TeacherRecipe, vision_recipe
from latentvla_training.teacher.vision_pretraining import (
    is_pretrained,
    pretrain_vision,
    start_from_vision,
)

_IGNORED = -100


@dataclass(frozen=True)
class CodedSplit:
    """Scenes of a split and their codes."""

    reader: ShardReader
    codes: LatentCodes


def open_coded_split(
    split: str, codes_folder: Path, data: DataSettings | None = None
) -> CodedSplit:
    """Open a split with its codes ``<split>.safetensors``; of one to train on, what ``data`` says.

    Raises:
        FileNotFoundError: there are no Scenes or no codes.
        ContractError: the codes are of other Scenes, or of a codebook that was told more odometry;
            names both.
    """
    reader = load_split(split)
    codes = load_codes(codes_folder / f"{split}.safetensors")
    check_codes(reader, codes)
    if data is None:
        return CodedSplit(reader, codes)
    codes.check_told(data.odometry_share)
    reader = reader.part(data.max_shards, data.labelled_share, data.odometry_share)
    return CodedSplit(reader, codes.of_scenes(reader))


def with_codes(recipe: TeacherRecipe, train: CodedSplit, val: CodedSplit) -> TeacherRecipe:
    """Return the recipe with the identities of what it learns from.

    Raises:
        ContractError: the splits' codes are of two codebooks, or of another than the recipe's.
    """
    found = train.codes.codebook_id
    if val.codes.codebook_id != found:
        raise ContractError(f"codebook of {val.codes.split}", val.codes.codebook_id, found)
    for name, here in (("codebook", found), ("scenes", train.codes.scenes_id)):
        wanted = getattr(recipe, name)
        if wanted and wanted != here:
            raise ContractError(f"{name} of the codes", here, f"{wanted}, as the recipe says")
    return replace(recipe, codebook=found, scenes=train.codes.scenes_id)


def code_loss(logits: Tensor, codes: Tensor, teacher: Teacher) -> Tensor:
    """Return the mean negative log-likelihood of codes, nats a code; missing ones do not count.

    Args:
        logits: (B, 12, V) over the whole vocabulary. codes: (B, 12).
    """
    target = teacher.actions.encode(codes).masked_fill(codes == MISSING, _IGNORED)
    total = functional.cross_entropy(
        logits.flatten(0, 1), target.flatten(), ignore_index=_IGNORED, reduction="sum"
    )
    return total / (codes != MISSING).sum().clamp(min=1)


class TrainedTeacher(nn.Module):
    """The teacher as the loop trains it: maps a batch to its loss, or to the codes' logits.

    Both come from ``forward``, which is what FSDP gathers weights for.
    """

    def __init__(self, recipe: TeacherRecipe, processor: TeacherProcessor) -> None:
        super().__init__()
        self.blank = recipe.blank_images
        self.teacher = make_teacher(recipe.model, processor, recipe.run.seed)
        self.learning_rate_factors = {"teacher.ego.": recipe.model.new_factor}

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss ``nll`` in training, otherwise ``logits`` (B, 12, 16) of the codes."""
        if self.blank:  # all alike: seen once
            names = ("pixel_values", "pixel_values_videos")
            batch = {**batch, **{name: batch[name][:1] for name in names}}
        states = self.teacher.read(batch, batch["codes"])
        if not self.training:
            return {"logits": self.teacher.logits(states)}
        return {
            "nll": code_loss(self.teacher.vocabulary_logits(states), batch["codes"], self.teacher)
        }


class TeacherTask:
    """``engine.loop.Task`` of a recipe over splits with codes."""

    def __init__(
        self, recipe: TeacherRecipe, train: CodedSplit, val: CodedSplit, vision: Path | None
    ) -> None:
        self.recipe = recipe
        self.processor = load_processor(recipe.model, recipe.pictures)
        module = TrainedTeacher(recipe, self.processor)
        if vision is not None:
            start_from_vision(module.teacher.vlm.model.visual, vision)
        self.module: nn.Module = module
        run = recipe.run
        self.train = TeacherDataset(
            train.reader,
            self.processor,
            train.codes,
            recipe.augmentation,
            recipe.blank_images,
            run.seed,
        )
        if not recipe.blank_images:
            train.reader.preload()  # before loader processes start: they share it
        self.scenes = scenes_with_codes(train.codes, scenes_to_learn_from(train.reader))
        known = scenes_with_codes(val.codes, np.arange(len(val.reader)))
        self.val = Subset(
            TeacherDataset(val.reader, self.processor, val.codes, blank=recipe.blank_images),
            evenly(known, run.validate_scenes).tolist(),
        )

    def batches(self, start_step: int, process: int, processes: int) -> Iterable[dict[str, Tensor]]:
        """Yield the batches of this process; each takes its share of every step's Scenes."""
        run = self.recipe.run
        return run_batches(self.train, self.scenes, run, start_step, process, processes)

    @torch.no_grad()
    def validate(self, averaged: nn.Module, device: torch.device) -> dict[str, float]:
        """Return NLL (nats a code, among 16), its perplexity, and the accuracy of codes."""
        assert isinstance(averaged, TrainedTeacher)
        averaged.eval()
        surprise, right = [], []
        for batch in DataLoader(self.val, batch_size=32, collate_fn=collate):
            moved = {name: value.to(device) for name, value in batch.items()}
            mixed = self.recipe.run.mixed_precision == "bf16"
            with torch.autocast(device.type, torch.bfloat16, mixed):
                logits = averaged(moved)["logits"]
            known = moved["codes"] != MISSING
            codes = moved["codes"].clamp(min=0)
            chances = logits.log_softmax(dim=-1).gather(-1, codes[..., None])[..., 0]
            surprise.append(-chances[known])
            right.append((logits.argmax(dim=-1) == codes)[known])
        nll = float(torch.cat(surprise).mean())
        accuracy = float(torch.cat(right).float().mean())
        return {"nll": nll, "perplexity": float(np.exp(nll)), "accuracy": accuracy}


def train_teacher(
    recipe: TeacherRecipe,
    folder: Path,
    vision_folder: Path,
    codes_folder: Path,
    stop_after_steps: int | None = None,
    progress: bool = True,
) -> nn.Module:
    """Train a recipe in ``folder`` (or continue there); returns the averaged ``TrainedTeacher``.

    Args:
        vision_folder: of the run that pre-trains the vision tower, shared by all seeds; it is
            brought to its end first, if the recipe has such a stage and the teacher has no
            checkpoint yet.
        codes_folder: of ``<split>.safetensors``.

    Raises:
        ContractError: codes of another codebook or other Scenes than the run's, or a vision tower
            of another recipe or other Scenes.
    """
    data = recipe.data
    train = open_coded_split(data.train_split, codes_folder, data)
    val = open_coded_split(data.val_split, codes_folder)
    recipe = with_codes(recipe, train, val)
    begun = checkpoint_step(folder) > 0
    vision = None
    if recipe.vision.enabled and not begun:
        stage = vision_recipe(recipe)
        if not is_pretrained(stage, vision_folder):
            pretrain_vision(stage, vision_folder, progress=progress)
        vision = vision_folder
    task = TeacherTask(recipe, train, val, vision)
    if recipe.ego_steps and not begun:
        assert isinstance(task.module, TrainedTeacher)
        start_from_ego_net(task.module.teacher, recipe, train, progress)
    if recipe.start_from and not begun:
        before = teacher_before(folder.parent, recipe.start_from)
        check_same_model(before.recipe, recipe)
        task.module.teacher.load_state_dict(before.teacher.state_dict())
    return run_training(task, recipe, folder, stop_after_steps, progress)


def teacher_before(runs: Path, name: str) -> TeacherRun:
    """Return what a run goes on from: a run of that name in a folder, or a released teacher.

    Raises:
        FileNotFoundError: there is neither.
    """
    from latentvla_training.teacher.release import load_teacher

    beside = runs / name
    return load_teacher(beside if (beside / "recipe.yaml").is_file() else name)


def check_same_model(before: TeacherRecipe, recipe: TeacherRecipe) -> None:
    """Check that a recipe can go on from the run of another.

    Raises:
        ContractError: it is of another model, other pictures, codes or Scenes, or was told more of
            them; names both.
    """
    recipe.data.check_told(f"start_from {recipe.start_from}", before.data)
    for name in ("model", "pictures", "codebook", "scenes"):
        found, wanted = getattr(before, name), getattr(recipe, name)
        if found != wanted:
            raise ContractError(f"start_from {recipe.start_from}: {name}", found, wanted)


def start_from_ego_net(
    teacher: Teacher, recipe: TeacherRecipe, train: CodedSplit, progress: bool = False
) -> None:
    """Give the teacher the ego encoder of a net that has learned codes from ego state alone."""
    settings = replace(recipe.baseline, width=teacher.width, steps=recipe.ego_steps)
    hidden, seed = recipe.augmentation.drop_ego_state, recipe.run.seed
    net = train_net(train.reader, train.codes, settings, False, hidden, seed, progress)
    teacher.ego.load_state_dict(net.ego.state_dict())


@dataclass(frozen=True)
class TeacherRun:
    """A finished or unfinished run: its recipe, processor, averaged teacher and steps."""

    recipe: TeacherRecipe
    processor: TeacherProcessor
    teacher: Teacher
    steps: int

    @property
    def mixed(self) -> bool:
        """Whether it computes in bf16, as it was trained."""
        return self.recipe.run.mixed_precision == "bf16"


def load_teacher_run(folder: Path) -> TeacherRun:
    """Load the averaged teacher of a run folder.

    Raises:
        FileNotFoundError: the folder holds no run with a checkpoint.
        ContractError: its weights are not those of its recipe.
    """
    path = folder / "recipe.yaml"
    state = load_checkpoint(folder)
    if not path.is_file() or state is None:
        raise FileNotFoundError(f"{folder} holds no teacher with a checkpoint; train it first")
    recipe = build(TeacherRecipe, yaml.safe_load(path.read_text(encoding="utf-8")), str(path))
    processor = load_processor(recipe.model, recipe.pictures)
    module = TrainedTeacher(recipe, processor)
    try:
        module.load_state_dict(state["averaged"])
    except RuntimeError as error:
        found = str(error).splitlines()[1].strip()
        raise ContractError(f"checkpoint of {folder}", found, f"{recipe.name}'s weights") from error
    module.teacher.vlm.set_attn_implementation("sdpa")  # quicker where nothing is trained
    return TeacherRun(recipe, processor, module.teacher.eval(), int(state["step"]))
