"""Files of another run, another rig or half-written are told from a codebook's own."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from latentvla_training.data.shards import ShardReader, write_shard
from latentvla_training.latent_action.codebook import Codebook, load_codebook, load_run
from latentvla_training.latent_action.codes import load_codes
from latentvla_training.latent_action.encoding import encode_scenes, encode_split
from latentvla_training.latent_action.release import names_beside_codes
from latentvla_training.latent_action.settings import CodebookRecipe, load_codebook_recipe
from latentvla_training.latent_action.training import CodebookTraining

from latentvla_ros.contract import ContractError

from .conftest import episode_scenes

_UP = np.zeros((4, 4), np.float32)
_UP[2, 3] = 1.0


@pytest.fixture
def splits(finished: Path) -> Path:
    return finished


@pytest.fixture
def run(splits: Path) -> Path:
    return splits / "run"


@pytest.fixture
def released(splits: Path) -> Codebook:
    return load_codebook(splits / "released")


def test_another_front_camera_is_refused(released: Codebook, run: Path, tmp_path: Path) -> None:
    """What the run kept of its Scenes' cameras is in the manifest, and judges what is encoded."""
    assert released.manifest["front_camera"] == load_run(run).manifest["front_camera"]
    higher = [
        replace(scene, ego_from_camera=scene.ego_from_camera + np.float32(0.5) * _UP)
        for scene in episode_scenes("bag-00", 5.0)
    ]
    write_shard(tmp_path / "bag.parquet", higher)
    reader = ShardReader([tmp_path / "bag.parquet"])
    said = rf"scene bag-00/00000, z_m.*0\.5.*0\.00 to 0\.00, as codebook {released.codebook_id}"
    with pytest.raises(ContractError, match=said):
        encode_scenes(released, reader, "bag", tmp_path, progress=False)
    manifest = {name: it for name, it in released.manifest.items() if name != "front_camera"}
    older = replace(released, manifest=manifest)
    assert encode_scenes(older, reader, "bag", tmp_path, progress=False).mask.any()


@pytest.fixture(scope="module")
def seed_1(trained: Path) -> Path:
    """A run of another seed beside ``trained``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LATENTVLA_DATA", str(trained / "data"))
        recipe = replace(load_codebook_recipe("smoke"), seed=1)
        CodebookTraining(recipe, trained / "one", progress=False).run()
    return trained / "one"


def forget_whose(run: Path) -> None:
    """Make the checkpoints of a run such as before they said of which run they are."""
    for path in run.glob("*/checkpoint.pt"):
        state = torch.load(path, weights_only=True)
        state.pop("recipe", None)
        torch.save(state, path)


@pytest.mark.parametrize("stage", ["environment", "ego"])
def test_a_checkpoint_of_another_run_is_refused(
    stage: str, run: Path, seed_1: Path, recipe: CodebookRecipe
) -> None:
    """Of the same shape, so that its weights would do."""
    shutil.copy(seed_1 / stage / "checkpoint.pt", run / stage)
    said = rf"checkpoint .*run/{stage}/checkpoint\.pt.*run\.seed: 1 there, 0 here"
    with pytest.raises(ContractError, match=said):
        load_run(run)
    with pytest.raises(ContractError, match=said):
        CodebookTraining(recipe, run, progress=False).run()


def test_what_stages_were_trained_on_is_checked(run: Path, seed_1: Path) -> None:
    """Without a word of whose they are too: later stages name what they were trained on."""
    whole = load_run(run).codebook_id
    follows = yaml.safe_load((run / "ego" / "recipe.yaml").read_text())["follows"]
    path = run / "environment" / "checkpoint.pt"
    kept = path.read_bytes()
    shutil.copy(seed_1 / "environment" / "checkpoint.pt", path)
    forget_whose(run)
    with pytest.raises(ContractError, match=rf"before stage ego.*expected {follows}"):
        load_run(run)
    path.write_bytes(kept)
    assert load_run(run).codebook_id == whole  # what does not say stays readable
    shutil.copy(seed_1 / "frame_encoder.safetensors", run)
    with pytest.raises(ContractError, match=rf"before stage environment.*{follows.split()[0]}"):
        load_run(run)


def test_an_old_checkpoint_of_another_shape_is_named(run: Path, splits: Path) -> None:
    wider = replace(load_codebook_recipe("smoke"), name="wider")
    wider = replace(wider, model=replace(wider.model, code_width=8))
    CodebookTraining(wider, splits / "wider", progress=False).run()
    shutil.copy(splits / "wider" / "ego" / "checkpoint.pt", run / "ego")
    with pytest.raises(ContractError, match=r"model\.code_width: 8 there, 4 here"):
        load_run(run)
    forget_whose(run)
    with pytest.raises(ContractError, match=r"size mismatch.*does not say.*of seed 0 on Scenes"):
        load_run(run)


def test_a_damaged_frame_encoder_is_named(run: Path, recipe: CodebookRecipe) -> None:
    path = run / "frame_encoder.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ContractError, match=r"frame_encoder\.safetensors.*remove it"):
        load_run(run)
    path.unlink()
    CodebookTraining(recipe, run, progress=False).run()
    assert load_run(run).codebook_id


_ENCODE = """
import os, sys, time
from latentvla_training import cli
flush, calls = os.fsync, []
def pause(number):
    calls.append(number)
    if len(calls) == 2:  # the first file is whole, the second is written and has no name yet
        print("there", flush=True)
        time.sleep(600)
    flush(number)
os.fsync = pause
sys.argv = ["latentvla-train", "codebook", "encode", "--codebook", sys.argv[1], "--split", "test"]
cli.main()
"""


def test_killed_while_encoding(released: Codebook, splits: Path) -> None:
    """kill -9 while each file is written, of every cache and of the codes: the same files."""
    data = splits / "data"
    for name in ("unexplained_change", "pair_codes"):
        shutil.rmtree(data / "cache" / name)
    shutil.copytree(data, splits / "whole")

    def files(root: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(root)): path.read_bytes()
            for folder in ("cache", "codes")
            for path in sorted((root / folder).rglob("*"))
            if path.is_file() and path.suffix != ".part"
        }

    environment = {**os.environ, "LATENTVLA_LAUNCHED": "1", "OMP_NUM_THREADS": "1"}
    made = [set(files(data))]
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", _ENCODE, str(splits / "released")],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdout is not None and b"there\n" in iter(process.stdout.readline, b"")
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        made.append(set(files(data)))
        assert list(data.rglob(".*.part"))  # it was half-written
    new = [sorted(after - before) for before, after in itertools.pairwise(made)]
    assert [[Path(name).parts[1] for name in names] for names in new] == [
        ["frames"], ["frames"], ["unexplained_change"], ["pair_codes"], [released.codebook_id],
    ]  # fmt: skip
    codes = []
    with pytest.MonkeyPatch.context() as patch:
        for root in (data, splits / "whole"):
            patch.setenv("LATENTVLA_DATA", str(root))
            path, again = encode_split(released, "test")
            assert again == (root == splits / "whole")
            names_beside_codes(released, ("test",))
            codes.append(load_codes(path))
            path.unlink()  # its metadata are in any order
    assert files(data) == files(splits / "whole")
    for field in fields(codes[0]):
        np.testing.assert_array_equal(*(getattr(one, field.name) for one in codes))
