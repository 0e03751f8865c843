"""Stage by stage: killed at any moment it goes on to the same end; stage 2 cannot move stage 1."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from latentvla_training.data.shards import split_folder, write_shard
from latentvla_training.engine.checkpoint import load_checkpoint
from latentvla_training.latent_action.codebook import load_run, run_recipe
from latentvla_training.latent_action.encoding import pair_codes
from latentvla_training.latent_action.frame_encoder import freeze
from latentvla_training.latent_action.settings import CodebookRecipe, load_codebook_recipe
from latentvla_training.latent_action.training import CodebookTraining, StageInterrupted

from latentvla_ros.contract import ContractError

from .conftest import episode_scenes

STAGES = ("frames", "environment", "ego", "one_stage", "continuous")


def train(recipe: CodebookRecipe, folder: Path, controls: bool = False) -> CodebookTraining:
    training = CodebookTraining(recipe, folder, progress=False)
    training.run(controls)
    return training


def weights(folder: Path, stage: str) -> dict[str, torch.Tensor]:
    state = load_checkpoint(folder / stage)
    assert state is not None
    return {
        f"{part}.{name}": value
        for part in ("module", "averaged")
        for name, value in state[part].items()
    }


def assert_same(first: Path, second: Path, stages: tuple[str, ...]) -> None:
    for stage in stages:
        one, other = weights(first, stage), weights(second, stage)
        assert one.keys() == other.keys()
        different = [name for name, value in one.items() if not torch.equal(value, other[name])]
        assert not different, f"{stage}: {different}"


def test_all_stages_and_controls(splits: Path, recipe: CodebookRecipe) -> None:
    folder = splits / "run"
    training = train(recipe, folder, controls=True)
    for stage in STAGES:
        assert (folder / stage / "checkpoint.pt").is_file()
        assert list((folder / stage).glob("events.*"))
    assert run_recipe(folder) == recipe
    before = {stage: (folder / stage / "checkpoint.pt").stat().st_mtime_ns for stage in STAGES}
    training.run(controls=True)  # nothing is left to do
    after = {stage: (folder / stage / "checkpoint.pt").stat().st_mtime_ns for stage in STAGES}
    assert before == after


def test_stage_2_cannot_move_stage_1(splits: Path, recipe: CodebookRecipe) -> None:
    """Weights and codes of stage 1 are the same bytes before and after stage 2."""
    folder = splits / "run"
    training = CodebookTraining(recipe, folder, progress=False)
    encoder = training.frame_encoder()
    data = training._data(encoder)
    environment = training.stage("environment", encoder, data)
    kept = weights(folder, "environment")
    frames = encoder.state_dict()
    training.run()
    codebook = load_run(folder)
    for name, value in codebook.environment.state_dict().items():
        half = value.to(torch.float16).to(value.dtype) if value.is_floating_point() else value
        assert torch.equal(value, half)  # as it will be released
        assert torch.equal(kept[f"averaged.{name}"].to(torch.float16), value.to(torch.float16))
    assert all(torch.equal(frames[n], v) for n, v in codebook.encoder.state_dict().items())
    assert not any(parameter.requires_grad for parameter in codebook.environment.parameters())
    freeze(environment)
    before = pair_codes(environment, data["train"])
    again = pair_codes(codebook.environment, data["train"])
    assert before.tobytes() == again.tobytes()


def test_ablations_of_stage_2_take_the_stages_before(splits: Path, recipe: CodebookRecipe) -> None:
    train(recipe, splits / "first")
    told = replace(
        recipe,
        model=replace(recipe.model, odometry=not recipe.model.odometry),
        loss=replace(recipe.loss, ego_motion=recipe.loss.ego_motion + 0.5),
    )
    CodebookTraining(told, splits / "told", progress=False, stages_of=splits / "first").run()
    assert_same(splits / "first", splits / "told", ("frames", "environment"))
    first, own = (weights(splits / name, "ego") for name in ("first", "told"))
    assert first.keys() != own.keys()
    # What decides a stage is not the same here: it is trained, and stage 0 alone is taken.
    fewer = replace(recipe, model=replace(recipe.model, codebook_size=8))
    CodebookTraining(fewer, splits / "fewer", progress=False, stages_of=splits / "first").run()
    assert_same(splits / "first", splits / "fewer", ("frames",))
    entries = weights(splits / "fewer", "environment")[
        "averaged.bottleneck.quantizer._codebook.embed"
    ]
    assert entries.shape[1] == 8


def test_interrupted_stages_go_on_to_the_same_end(splits: Path, recipe: CodebookRecipe) -> None:
    train(recipe, splits / "whole")
    interruptions = 0
    while True:
        torch.manual_seed(interruptions)  # whatever happened in between
        try:
            CodebookTraining(recipe, splits / "parts", progress=False).run(stop_after_steps=2)
        except StageInterrupted:
            interruptions += 1
            continue
        break
    assert interruptions >= 5
    assert_same(splits / "whole", splits / "parts", ("frames", "environment", "ego"))


_RUN = """
import sys
from pathlib import Path
from latentvla_training.latent_action.settings import load_codebook_recipe
from latentvla_training.latent_action.training import CodebookTraining
CodebookTraining(load_codebook_recipe(sys.argv[1]), Path(sys.argv[2]), progress=False).run()
"""


def test_killed_in_every_stage(splits: Path, recipe: CodebookRecipe) -> None:
    """kill -9 as soon as a stage has a checkpoint, stage by stage; the end is the same."""
    path, folder = splits / "recipe.yaml", splits / "killed"
    path.write_text(_recipe_text(recipe))
    for stage in ("frames", "environment", "ego"):
        process = subprocess.Popen(
            [sys.executable, "-c", _RUN, str(path), str(folder)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        checkpoint = folder / stage / "checkpoint.pt"
        while not checkpoint.is_file() and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert checkpoint.is_file()
    same = load_codebook_recipe(str(path))
    train(same, folder)
    train(same, splits / "whole")
    assert_same(splits / "whole", folder, ("frames", "environment", "ego"))


def test_two_processes_share_the_batches_of_every_stage(
    splits: Path, recipe: CodebookRecipe
) -> None:
    """The second one goes on from stage to stage only with what the first has kept."""
    path, folder = splits / "recipe.yaml", splits / "shared"
    path.write_text(_recipe_text(recipe))
    command = [sys.executable, "-m", "latentvla_training.cli", "codebook", "train"]
    command += ["--recipe", str(path), "--run", str(folder), "--processes", "2"]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for stage in ("frames", "environment", "ego"):
        assert all(torch.isfinite(value).all() for value in weights(folder, stage).values())
    assert load_run(folder).recipe.name == recipe.name


def _recipe_text(recipe: CodebookRecipe) -> str:
    """Return ``smoke`` with a checkpoint after every step."""
    values = json.loads(json.dumps(asdict(recipe)))
    for stage in ("pretraining", "environment", "ego"):
        values[stage]["run"]["checkpoint_minutes"] = 0.0
        values[stage]["run"]["threads"] = 1  # sums of several threads differ in their last bits
    return yaml.safe_dump(values)


def test_what_has_no_future_contributes_nothing(
    splits: Path, recipe: CodebookRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other pictures and odometry at a start that has no later frame: the same weights."""
    recipe = replace(recipe, frames=replace(recipe.frames, encoder="pixels"))
    train(recipe, splits / "first")
    for number, speed in enumerate((3.0, 7.0)):
        episode = f"train-000{number}-00"
        scenes = episode_scenes(episode, speed)
        other = episode_scenes(episode, 2.0 * speed)[-1]
        scenes[-1] = other
        write_shard(split_folder("train") / f"{episode}.parquet", scenes)
    second = CodebookTraining(recipe, splits / "second", progress=False)
    assert second.scenes_id != run_scenes(splits / "first")
    # Standardised as before: those frames may be looked at, but must not be learned from.
    monkeypatch.setattr(
        CodebookTraining, "frame_encoder", lambda self, _=None: load_run(splits / "first").encoder
    )
    second.run()
    assert_same(splits / "first", splits / "second", ("environment", "ego"))


def run_scenes(folder: Path) -> str:
    return str(yaml.safe_load((folder / "ego" / "recipe.yaml").read_text())["scenes"])


def test_run_of_another_recipe_is_refused(splits: Path, recipe: CodebookRecipe) -> None:
    train(recipe, splits / "run")
    other = replace(recipe, model=replace(recipe.model, code_width=8))
    with pytest.raises(ContractError, match=r"model\.code_width: 4 there, 8 here"):
        train(other, splits / "run")
    with pytest.raises(ContractError, match="seed: 0 there, 1 here"):
        train(replace(recipe, seed=1), splits / "run")


def test_run_on_other_scenes_is_refused(splits: Path, recipe: CodebookRecipe) -> None:
    train(recipe, splits / "run")
    write_shard(
        split_folder("train") / "train-0002-00.parquet", episode_scenes("train-0002-00", 5.0)
    )
    with pytest.raises(ContractError, match="scenes"):
        train(recipe, splits / "run")


def test_scenes_too_short_for_any_pair_are_named(splits: Path, recipe: CodebookRecipe) -> None:
    for path in split_folder("train").glob("*.parquet"):
        write_shard(path, episode_scenes(path.stem, 3.0, steps=2)[:2])
    with pytest.raises(ContractError, match="pairs of train"):
        train(recipe, splits / "run")


def test_seeds_differ(splits: Path, recipe: CodebookRecipe) -> None:
    train(recipe, splits / "zero")
    train(replace(recipe, seed=1), splits / "one")
    first, second = weights(splits / "zero", "ego"), weights(splits / "one", "ego")
    name = "module.encoder.embed.weight"
    assert not np.allclose(first[name], second[name])
