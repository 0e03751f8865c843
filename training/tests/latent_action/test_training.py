"""Stage by stage: killed at any moment it goes on to the same end; stage 2 cannot move stage 1."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from latentvla_training.data.commands import Import
from latentvla_training.data.shards import split_folder, write_shard
from latentvla_training.engine.checkpoint import checkpoint_step, load_checkpoint
from latentvla_training.latent_action.codebook import load_run, run_recipe
from latentvla_training.latent_action.encoding import pair_codes
from latentvla_training.latent_action.frame_encoder import freeze
from latentvla_training.latent_action.scene_set import frames_to_learn_from
from latentvla_training.latent_action.settings import CodebookRecipe, load_codebook_recipe
from latentvla_training.latent_action.training import CodebookTraining, StageInterrupted
from latentvla_training.planner.dataset import evenly

import latentvla_ros
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
import sys, time
from pathlib import Path
from latentvla_training.engine import loop
from latentvla_training.latent_action.settings import load_codebook_recipe
from latentvla_training.latent_action.training import CodebookTraining
save = loop.save_checkpoint
def pause(folder, state):
    save(folder, state)
    if (folder.name, state["step"]) == (sys.argv[3], 2):
        print("there", flush=True)
        time.sleep(600)
loop.save_checkpoint = pause
recipe = load_codebook_recipe(sys.argv[1])
CodebookTraining(recipe, Path(sys.argv[2]), progress=False).run(controls=True)
"""


def test_killed_in_every_stage(splits: Path, recipe: CodebookRecipe) -> None:
    """kill -9 in the middle of a stage, stage by stage, controls too; the end is the same."""
    path, folder = splits / "recipe.yaml", splits / "killed"
    path.write_text(_recipe_text(recipe))
    same = load_codebook_recipe(str(path))
    for number, stage in enumerate(STAGES):
        process = subprocess.Popen(
            [sys.executable, "-c", _RUN, str(path), str(folder), stage],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdout is not None and b"there\n" in iter(process.stdout.readline, b"")
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        assert checkpoint_step(folder / stage) == 2 < same.stage(stage).run.steps
        assert not any((folder / later).exists() for later in STAGES[number + 1 :])
    train(same, folder, controls=True)
    train(same, splits / "whole", controls=True)
    assert_same(splits / "whole", folder, STAGES)


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


_WHOLE_AND_PARTS = """
import sys
from pathlib import Path
import torch
from latentvla_training.engine.launch import join_processes, leave_group
from latentvla_training.latent_action.settings import load_codebook_recipe
from latentvla_training.latent_action.training import CodebookTraining, StageInterrupted
recipe, folder = load_codebook_recipe(sys.argv[1]), Path(sys.argv[2])
CodebookTraining(recipe, folder / "two_whole", progress=False).run()
rank, interruptions = join_processes().process_index, 0
while True:
    torch.manual_seed(7 * interruptions + rank)  # whatever happened in between
    try:
        CodebookTraining(recipe, folder / "two_parts", progress=False).run(stop_after_steps=2)
        break
    except StageInterrupted:
        interruptions += 1
assert interruptions >= 5 and torch.distributed.get_world_size() == 2
leave_group()
"""


def test_two_processes_go_on_to_the_same_end(splits: Path, recipe: CodebookRecipe) -> None:
    """Each draws for itself what unused entries are revived as."""
    path, script = splits / "recipe.yaml", splits / "two.py"
    often = replace(recipe, loss=replace(recipe.loss, dead_share=1.0))
    path.write_text(_recipe_text(often))
    script.write_text(_WHOLE_AND_PARTS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", str(script), str(path), str(splits)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    state = load_checkpoint(splits / "two_parts" / "environment")
    assert state is not None
    one, other = (entry["cpu"] for entry in state["rng"])
    assert not torch.equal(one, other)  # they have drawn
    assert_same(splits / "two_whole", splits / "two_parts", ("frames", "environment", "ego"))


def test_stage_0_learns_from_a_recorded_bag(
    splits: Path, recipe: CodebookRecipe, tmp_path: Path
) -> None:
    """The demo bag as ``bag import`` makes it, beside the Scenes of the splits."""
    bag = Path(latentvla_ros.__file__).parent / "data" / "demo_bag"
    assert Import(bag, tmp_path / "bags" / "demo.parquet")() == 0
    data = replace(recipe.data, recordings=(str(tmp_path / "bags"),))
    told = CodebookTraining(replace(recipe, data=data), splits / "bag", progress=False)
    recorded = told.train_scenes.readers[1]
    assert len(recorded) > 20 and recorded.columns["view_mask"].shape == (len(recorded), 4)
    shown = evenly(
        np.flatnonzero(frames_to_learn_from(told.train_scenes, data)), recipe.pretraining.run.passes
    )
    assert (shown >= 26).sum() >= 6  # of the recording, behind 26 Scenes
    encoder = told.frame_encoder()
    assert checkpoint_step(splits / "bag" / "frames") == recipe.pretraining.run.steps
    plain = CodebookTraining(recipe, splits / "plain", progress=False).frame_encoder()
    name = "averaged.trunk.layers.0.weight"
    first, second = (weights(splits / run, "frames")[name] for run in ("bag", "plain"))
    assert not torch.equal(first, second)
    frames = told.train_scenes.front(30, recipe.frames)[None]
    assert float((encoder.encode(frames) - plain.encode(frames)).abs().max()) > 0.0
    pairs = told._data(encoder)["train"].pairs
    assert (pairs.earlier >= 26).any()  # and its odometry makes pairs


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
