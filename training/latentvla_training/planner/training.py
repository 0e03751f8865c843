"""Imitation training of the student planner, with images or blank."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from latentvla_ros.contract import ContractError, Observation
from latentvla_ros.model.planner import Encoded, StudentPlanner
from latentvla_training.data.shards import ShardReader, load_split
from latentvla_training.engine.checkpoint import load_checkpoint
from latentvla_training.engine.loop import run_training
from latentvla_training.engine.recipe import DataSettings, Recipe, build
from latentvla_training.planner.auxiliary import AuxiliaryHeads, auxiliary_loss
from latentvla_training.planner.baselines import EgoStatusSettings, train_ego_prior
from latentvla_training.planner.dataset import (
    SceneDataset,
    collate,
    evenly,
    run_batches,
    scenes_to_imitate,
)
from latentvla_training.planner.losses import imitation_loss, selected_ade
from latentvla_training.planner.plan_quality import PlanQuality
from latentvla_training.planner.trunk_pretraining import take_trunk

DECISION_ADE_M = 2.0


class TrainedPlanner(nn.Module):
    """The planner with its auxiliary heads; maps a batch to weighted losses.

    The latent reasoner has no codebook to learn yet: it is frozen and its gate stays at zero, so it
    is left out of the computation, which changes nothing.

    Args:
        recipe: of the run.
        quality: tells the PDM scores of proposals where ``recipe.loss.pdm`` asks for them.
    """

    def __init__(self, recipe: Recipe, quality: PlanQuality | None = None) -> None:
        super().__init__()
        self.recipe, self.quality = recipe, quality
        self.planner = StudentPlanner(recipe.model)
        self.heads = AuxiliaryHeads(recipe.model)
        self.planner.reasoner.requires_grad_(False)
        self.planner.ego_prior.requires_grad_(False)  # trained beforehand, see PlannerTask
        if self.planner.head.fusion is not None:
            self.planner.head.fusion.requires_grad_(False)
        if recipe.blank_images:  # nothing to see, nothing to learn from pixels
            for unused in (self.heads.look, self.heads.seen_light, self.heads.lamps):
                unused.requires_grad_(False)
            # Whatever an encoder makes of images that are all zero, it is one constant map.
            self.planner.image_encoder.requires_grad_(False)
            height, width = recipe.model.image_height // 8, recipe.model.image_width // 8
            self.blank_map = nn.Parameter(torch.zeros(recipe.model.image_channels, height, width))
        self.planner.image_encoder.to(memory_format=torch.channels_last)

    def image_features(self, images: Tensor) -> Tensor:
        """Return stride-8 features (B, V, C, h, w); of blank images one map that is learned."""
        if not self.recipe.blank_images:
            return self.planner.encode_images(images)
        return self.blank_map.expand(*images.shape[:2], *self.blank_map.shape)

    def encode(self, batch: dict[str, Tensor]) -> Encoded:
        """Return what the planner knows of a batch."""
        inputs = [batch[name] for name in Observation.INPUTS if name != "images"]
        return self.planner.encode(self.image_features(batch["images"]), *inputs)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the losses of a batch."""
        encoded = self.encode(batch)
        rounds, scores = self.planner.decode(encoded, None)
        settings = self.recipe.loss
        quality = None
        if settings.pdm > 0:
            if self.quality is None:
                raise ContractError("loss.pdm", settings.pdm, "0 without labels to score plans by")
            quality = self.quality(batch["index"], rounds[-1])
        losses = imitation_loss(
            rounds, scores, batch["future"], batch["future_mask"], settings, quality
        )
        if settings.auxiliary > 0:
            predicted = self.heads(encoded, with_images=not self.recipe.blank_images)
            targets = batch
            if not self.recipe.blank_images:
                logits, classes = self.heads.read_lamps(encoded, batch, self.recipe.model)
                predicted["lamps"], targets = logits, {**batch, "lamp_classes": classes}
            auxiliary = auxiliary_loss(self.heads, predicted, targets)
            losses |= {name: settings.auxiliary * loss for name, loss in auxiliary.items()}
        return losses


class PlannerTask:
    """``engine.loop.Task`` of a recipe over its splits."""

    def __init__(self, recipe: Recipe, train: ShardReader, val: ShardReader) -> None:
        self.recipe = recipe
        hidden = recipe.augmentation
        prior = EgoStatusSettings(
            steps=recipe.run.prior_steps,
            drop_command=hidden.drop_command,
            hide_odometry=recipe.run.hide_odometry,
            seed=recipe.run.seed,
        )
        net = train_ego_prior(train, prior, hidden.drop_ego_state)
        torch.manual_seed(recipe.run.seed)
        module = TrainedPlanner(recipe, PlanQuality(train) if recipe.loss.pdm > 0 else None)
        module.planner.ego_prior.load_state_dict(net.prior.state_dict())
        self.module: nn.Module = module
        self.train = SceneDataset(
            train,
            recipe.model,
            recipe.augmentation,
            True,
            recipe.blank_images,
            recipe.run.seed,
            recipe.run.hide_odometry,
        )
        chosen = evenly(np.arange(len(val)), recipe.run.validate_scenes)
        judged = SceneDataset(val, recipe.model, blank=recipe.blank_images)
        self.val = Subset(judged, chosen.tolist())
        self.val_light = val.columns["own_light"], val.columns["own_light_distance_m"]

    def batches(self, start_step: int, process: int, processes: int) -> Iterable[dict[str, Tensor]]:
        """Yield the batches of this process; each takes its share of every step's scenes."""
        run = self.recipe.run
        scenes = scenes_to_imitate(self.train.reader, run.labelled_repeats)
        return run_batches(self.train, scenes, run, start_step, process, processes)

    @torch.no_grad()
    def validate(self, averaged: nn.Module, device: torch.device) -> dict[str, float]:
        """Return ADE, FDE, oracle ADE (m) over the validation scenes, and the light's accuracy."""
        assert isinstance(averaged, TrainedPlanner)
        averaged.eval()
        ade, fde, oracle, light = [], [], [], []
        for batch in DataLoader(self.val, batch_size=32, collate_fn=collate):
            moved = {name: value.to(device) for name, value in batch.items()}
            with torch.autocast(device.type, torch.bfloat16):
                encoded = averaged.encode(moved)
                rounds, scores = averaged.planner.decode(encoded, None)
                predicted = averaged.heads(encoded, with_images=False)
            candidates, future = rounds[-1], moved["future"]
            ade.append(selected_ade(candidates, scores, future, moved["future_mask"]))
            oracle.append(
                (candidates - future[:, None])[..., :2].norm(dim=-1).mean(-1).min(dim=1).values
            )
            best = candidates[torch.arange(len(scores)), scores.argmax(dim=1)]
            fde.append((best[:, -1, :2] - future[:, -1, :2]).norm(dim=-1))
            states, distances = (column[batch["index"].numpy()] for column in self.val_light)
            seen = predicted["light"][:, :4].argmax(dim=1).cpu().numpy() - 1
            light += list((seen == states)[(states >= 0) & (distances <= 40.0)])
        figures = {
            "ade": float(torch.cat(ade).mean()),
            "fde": float(torch.cat(fde).mean()),
            "oracle_ade": float(torch.cat(oracle).mean()),
        }
        if light:
            figures["light_accuracy"] = float(np.mean(light))
        return figures


def start_from(trained: TrainedPlanner, run: Path) -> None:
    """Give ``trained`` the weights that it begins with.

    Auxiliary heads that are new stay as they are, and so does the ego prior: every run trains its
    own.

    Args:
        run: a run's folder, whose averaged weights are taken. Where there is none, its name is that
            of what ships: the id of a bundle or of a student's host (``nano-3``), or
            ``blank-<first 8 hex of its hash>`` for the planner trained on blank images.

    Raises:
        FileNotFoundError: there is neither such a run nor such a planner.
        ContractError: its planner has other weights.
    """
    state = load_checkpoint(run)
    found = _shipped_weights(run.name, trained) if state is None else state["averaged"]
    own = ("heads.", "planner.ego_prior.")
    weights = {name: value for name, value in found.items() if not name.startswith(own[1])}
    missing, unexpected = trained.load_state_dict(weights, strict=False)
    if trained.recipe.blank_images:
        own += ("planner.image_encoder.",)  # not used
    wrong = [name for name in (*missing, *unexpected) if not name.startswith(own)]
    if wrong:
        raise ContractError("start_from", wrong[:3], f"the planner of {run}")


def _shipped_weights(name: str, trained: TrainedPlanner) -> dict[str, Tensor]:
    """Return the weights of a planner that ships, by the names of ``TrainedPlanner``."""
    from latentvla_ros.runtime.bundle import load_bundle, shipped_bundles
    from latentvla_training.planner.hosts import bundle_planner, released_hosts
    from latentvla_training.planner.released import load_baselines

    offered: list[str] = []
    if trained.recipe.blank_images:
        baselines = load_baselines()
        offered.append(baselines.blank_id)
        if name == baselines.blank_id:
            blank = baselines.blank
            weights = {f"planner.{key}": v for key, v in blank.planner.state_dict().items()}
            return {**weights, "blank_map": blank.features[0]}
    else:
        planners = [load_bundle(shipped) for shipped in shipped_bundles()]
        for bundle in (*released_hosts().values(), *planners):
            offered.append(bundle.manifest.bundle_id)
            if name == bundle.manifest.bundle_id:
                planner = bundle_planner(bundle)
                return {f"planner.{key}": v for key, v in planner.state_dict().items()}
    raise FileNotFoundError(
        f"start_from: no run {name!r} with a checkpoint (train it first); what ships is {offered}"
    )


def train_planner(
    recipe: Recipe, folder: Path, stop_after_steps: int | None = None, progress: bool = True
) -> nn.Module:
    """Train a recipe in ``folder`` (or continue there); returns the averaged ``TrainedPlanner``.

    The run that a recipe starts from is looked up beside ``folder``.

    Raises:
        ContractError: it was told more than the recipe's data allow.
    """
    data = recipe.data
    before = folder.parent / recipe.start_from
    if recipe.start_from:  # what ships was told everything
        path = before / "recipe.yaml"
        told = DataSettings()
        if path.is_file():
            told = build(Recipe, yaml.safe_load(path.read_text(encoding="utf-8")), str(path)).data
        data.check_told(f"start_from {recipe.start_from}", told)
    task = PlannerTask(
        recipe,
        load_split(data.train_split).part(
            data.max_shards, data.labelled_share, data.odometry_share
        ),
        load_split(data.val_split),
    )
    if recipe.start_from and load_checkpoint(folder) is None:
        assert isinstance(task.module, TrainedPlanner)
        start_from(task.module, before)
    if recipe.trunk_from and load_checkpoint(folder) is None:
        assert isinstance(task.module, TrainedPlanner)
        take_trunk(task.module.planner.image_encoder, folder.parent / recipe.trunk_from)
    return run_training(task, recipe, folder, stop_after_steps, progress)
