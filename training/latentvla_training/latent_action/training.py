"""Trains a codebook stage by stage: frames, environment, ego, and the controls of its report.

Every stage is a run of ``engine.loop`` in a folder of its own and is left alone once it is done:
the same command goes on wherever it was killed. What a stage builds on is frozen in half precision,
as it will be released, and named in the stage's recipe by its hash.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import nn

from latentvla_ros.contract import ContractError
from latentvla_training.data.shards import load_split
from latentvla_training.data.whole_file import write_whole
from latentvla_training.engine.checkpoint import load_checkpoint
from latentvla_training.engine.launch import first_process_first
from latentvla_training.engine.loop import check_checkpoint, check_folder, run_training
from latentvla_training.latent_action.codebook import (
    FRAME_WEIGHTS,
    RECIPE,
    codes_device,
    empty_reader,
    load_frame_encoder,
    run_recipe,
    save_frame_encoder,
)
from latentvla_training.latent_action.codes import scenes_identity
from latentvla_training.latent_action.dynamics import (
    CONTROLS,
    EGO,
    ENVIRONMENT,
    ONE_STAGE,
    LatentDynamics,
    weights_hash,
)
from latentvla_training.latent_action.encoding import cached_codes, pair_codes, pair_data
from latentvla_training.latent_action.frame_encoder import FrameEncoder, freeze
from latentvla_training.latent_action.front_camera import keep_front_camera
from latentvla_training.latent_action.picture_reader import (
    PICTURES,
    PictureReader,
    PictureTask,
)
from latentvla_training.latent_action.pretraining import FramePretrainingTask
from latentvla_training.latent_action.scene_set import (
    SceneSet,
    frames_to_learn_from,
    front_frames,
    front_present,
    scenes_with_odometry,
    training_scenes,
)
from latentvla_training.latent_action.settings import FRAMES, OWN, CodebookRecipe
from latentvla_training.latent_action.stages import (
    DynamicsRun,
    DynamicsTask,
    FrameRun,
    PairData,
    load_averaged,
)
from latentvla_training.planner.dataset import evenly

logger = logging.getLogger(__name__)


#: Frames that decide mean and spread of features, and those that stage 0 is validated on.
_STANDARD_FRAMES, _VALIDATION_FRAMES = 2048, 256


class CodebookTraining:
    """The stages of a recipe in a folder: ``frames``, ``environment``, ``ego``, ``one_stage``, ...

    Args:
        recipe: with its seed. folder: of the run; of the same recipe if it exists.
        progress: show bars.
        stages_of: another run's folder; its finished stages are taken, not trained again, where
            what decides them is the same (ablations of stage 2 share what comes before).

    Raises:
        FileNotFoundError: the splits are not there. ContractError: they cannot be used.
    """

    def __init__(
        self,
        recipe: CodebookRecipe,
        folder: Path,
        progress: bool = True,
        stages_of: Path | None = None,
    ) -> None:
        self.recipe, self.folder, self.progress = recipe, folder, progress
        self.stages_of = stages_of
        self.train_scenes = training_scenes(recipe.data)
        self.val_scenes = SceneSet([load_split(recipe.data.val_split, cached_shards=4)])
        self.scenes_id = scenes_identity(self.train_scenes)

    def run(self, controls: bool = False, stop_after_steps: int | None = None) -> None:
        """Train what is not done yet; ``stop_after_steps`` ends the stage at hand early."""
        self._claim()
        encoder = self.frame_encoder(stop_after_steps)
        data = self._data(encoder)
        told = {name: part.with_odometry() for name, part in data.items()}
        environment = self.stage(ENVIRONMENT, encoder, told, stop_after_steps)
        freeze(environment)
        reader: LatentDynamics | PictureReader = environment
        if self.recipe.pictures_alone:
            reader = self.picture_reader(environment, encoder, told, stop_after_steps)
            freeze(reader)
        data = {
            name: replace(part, environment=self._codes(reader, name, part))
            for name, part in data.items()
        }
        for name in (EGO, *(CONTROLS if controls else ())):
            follows = "" if name == ONE_STAGE else weights_hash(reader)
            self.stage(name, encoder, data, stop_after_steps, follows)

    def _claim(self) -> None:
        """Write the recipe into a new folder.

        Raises:
            ContractError: the folder holds a run of another recipe; names what differs.
        """
        if not check_folder(self.folder, self.recipe):
            values = json.loads(json.dumps(asdict(self.recipe)))
            text = yaml.safe_dump(values, sort_keys=False)
            write_whole(self.folder / RECIPE, text.encode())

    def _codes(
        self, stage: LatentDynamics | PictureReader, name: str, data: PairData
    ) -> NDArray[np.int64]:
        scenes = self.train_scenes if name == "train" else self.val_scenes
        return cached_codes(stage, data, scenes_identity(scenes), progress=self.progress)

    def frame_encoder(self, stop_after_steps: int | None = None) -> FrameEncoder:
        """Return the frozen frame encoder, trained first where it is our own."""
        frames = self.recipe.frames
        rows = np.flatnonzero(frames_to_learn_from(self.train_scenes, self.recipe.data))
        trunk = None
        if frames.encoder == OWN:
            trunk = self._own_trunk(rows, stop_after_steps)
        encoder = FrameEncoder(frames, trunk)
        freeze(encoder)
        with first_process_first() as first:
            encoder.to(codes_device())
            # Sums differ in their last bits between processes: all take those of the first.
            if first and not (self.folder / FRAME_WEIGHTS).is_file():
                chosen = evenly(rows, _STANDARD_FRAMES)
                encoder.standardise(front_frames(self.train_scenes, frames, chosen))
                save_frame_encoder(self.folder, encoder)
            else:
                self._take_kept(encoder)
            if first:
                keep_front_camera(self.folder, self.train_scenes, frames)
        return encoder

    def _take_kept(self, encoder: FrameEncoder) -> None:
        """Take the standardisation that the run began with.

        Raises:
            ContractError: the file is damaged, or of another trunk; names both.
        """
        trained = weights_hash(encoder.trunk)
        load_frame_encoder(self.folder, encoder)
        found = weights_hash(encoder.trunk)
        if found != trained:
            expected = f"{trained}, that of stage {FRAMES}; remove the file to have it made again"
            raise ContractError(f"trunk in {self.folder / FRAME_WEIGHTS}", found, expected)

    def _own_trunk(self, rows: np.ndarray, stop_after_steps: int | None) -> nn.Module:
        settings = self.recipe.stage(FRAMES)
        recipe = FrameRun(self.scenes_id, self.recipe.frames, settings.optimizer, settings.run)
        folder = self._folder(FRAMES, recipe, settings.run.steps)
        done = _finished(folder, recipe, settings.run.steps)
        frames = self.recipe.frames
        shown = evenly(rows, 1 if done else settings.run.passes)  # others need no decoding
        few = evenly(np.flatnonzero(front_present(self.val_scenes)), _VALIDATION_FRAMES)
        task = FramePretrainingTask(
            frames,
            settings.run,
            front_frames(self.train_scenes, frames, shown),
            front_frames(self.val_scenes, frames, few),
        )
        if done:
            load_averaged(task.module, folder, recipe)
            return task.module.trunk  # type: ignore[return-value]
        trained = run_training(task, recipe, folder, stop_after_steps, self.progress)
        self._require(folder, settings.run.steps)
        load_averaged(trained, folder, recipe)  # as the first process has it
        return trained.trunk.cpu()  # type: ignore[return-value,operator]

    def _data(self, encoder: FrameEncoder) -> dict[str, PairData]:
        """Return the pairs of both splits; of several processes the first makes what is cached."""
        data = {}
        for name, scenes in (("train", self.train_scenes), ("val", self.val_scenes)):
            with first_process_first():
                found = pair_data(
                    self.recipe.model,
                    encoder,
                    scenes,
                    progress=self.progress,
                    odometry=scenes_with_odometry(scenes, self.recipe.data)
                    if name == "train"
                    else None,
                )
            if not len(found.pairs):
                raise ContractError(
                    f"pairs of {name}", 0, f"frames {self.recipe.model.times_s} s after t0"
                )
            data[name] = found
        return data

    def stage(
        self,
        name: str,
        encoder: FrameEncoder,
        data: Mapping[str, PairData],
        stop_after_steps: int | None = None,
        follows: str = "",
    ) -> LatentDynamics:
        """Return a stage's averaged networks, trained first unless they are."""
        recipe = self._run_of(name, encoder, follows)
        settings, model, loss = self.recipe.stage(name), recipe.model, recipe.loss
        torch.manual_seed(settings.run.seed)
        module = LatentDynamics(
            name,
            model,
            loss,
            encoder.grid,
            encoder.channels,
            settings.run.steps,
            settings.run.batch_size,
        )
        if module.change is not None:
            train = data["train"]
            assert train.change is not None
            interval = torch.from_numpy(train.pairs.interval)
            module.change.standardise(torch.from_numpy(train.change), interval)
        task = DynamicsTask(module, settings.run, data["train"], data["val"])
        trained = self._trained(task, recipe, encoder, stop_after_steps)
        assert isinstance(trained, LatentDynamics)
        return trained

    def picture_reader(
        self,
        environment: LatentDynamics,
        encoder: FrameEncoder,
        data: Mapping[str, PairData],
        stop_after_steps: int | None = None,
    ) -> PictureReader:
        """Return the reader of stage 1's codes off pictures, trained first unless it is."""
        recipe = self._run_of(PICTURES, encoder, weights_hash(environment))
        torch.manual_seed(recipe.run.seed)
        module = empty_reader(self.recipe, encoder)
        told = {
            name: replace(part, environment=pair_codes(environment, part, self.progress))
            for name, part in data.items()
        }
        task = PictureTask(module, recipe.run, told["train"], told["val"])
        trained = self._trained(task, recipe, encoder, stop_after_steps)
        assert isinstance(trained, PictureReader)
        return trained

    def _run_of(self, name: str, encoder: FrameEncoder, follows: str) -> DynamicsRun:
        settings = self.recipe.stage(name)
        model, loss = self.recipe.dynamics(name)
        before = f"{encoder.identity()} {follows}".strip()
        return DynamicsRun(
            name,
            self.scenes_id,
            before,
            model,
            loss,
            settings.optimizer,
            settings.run,
            self.recipe.data.odometry_share,
        )

    def _trained(
        self,
        task: DynamicsTask,
        recipe: DynamicsRun,
        encoder: FrameEncoder,
        stop_after_steps: int | None,
    ) -> nn.Module:
        """Return a stage's averaged networks, trained unless they are done."""
        folder = self._folder(recipe.stage, recipe, recipe.run.steps)
        if _finished(folder, recipe, recipe.run.steps):
            load_averaged(task.module, folder, recipe)
            return task.module.eval().to(encoder.centre.device)
        trained = run_training(task, recipe, folder, stop_after_steps, self.progress)
        self._require(folder, recipe.run.steps)
        load_averaged(trained, folder, recipe)  # as the first process has it
        return trained.eval()

    def _folder(self, name: str, recipe: FrameRun | DynamicsRun, steps: int) -> Path:
        """Return the folder of a stage, taken from the other run if it holds the same one."""
        folder = self.folder / name
        with first_process_first():
            if self.stages_of is None or folder.exists():
                return folder
            source = self.stages_of / name
            try:
                done = _finished(source, recipe, steps)
                if name == FRAMES and done:
                    self._check_shown_as_much(self.stages_of)
            except ContractError as error:
                logger.info("stage %s is trained here: %s", name, error)
                return folder
            if done:
                aside = folder.with_name(f".{name}.part")
                shutil.rmtree(aside, ignore_errors=True)
                shutil.copytree(source, aside)
                aside.replace(folder)
                logger.info("stage %s is that of %s", name, self.stages_of)
        return folder

    def _check_shown_as_much(self, other: Path) -> None:
        """Check that stage 0 of another run was shown the frames that this one may be.

        Raises:
            ContractError: it was not; names both.
        """
        found, own = run_recipe(other).data.odometry_share, self.recipe.data.odometry_share
        if found != own:
            raise ContractError(f"data.odometry_share of {other}", found, str(own))

    def _require(self, folder: Path, steps: int) -> None:
        """Check that a stage is at its end before anything builds on it."""
        state = load_checkpoint(folder)
        if state is None or state["step"] < steps:
            raise StageInterrupted(f"{folder.name} stopped before its end")


class StageInterrupted(RuntimeError):
    """A stage was told to stop early; the same call goes on from its checkpoint."""


def _finished(folder: Path, recipe: FrameRun | DynamicsRun, steps: int) -> bool:
    """Return whether a stage of the same recipe is done; one of another recipe is refused."""
    if not check_folder(folder, recipe):
        return False
    state = load_checkpoint(folder)
    if state is None:
        return False
    check_checkpoint(folder, state, recipe)
    return int(state["step"]) >= steps
