"""A released codebook is small, verified, and the same as its run; codes say whose they are."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from latentvla_training.data.shards import ShardReader, split_folder, write_shard
from latentvla_training.latent_action.codebook import (
    MANIFEST,
    WEIGHTS,
    Codebook,
    empty_stage,
    load_codebook,
    load_one_stage,
    load_run,
    release,
)
from latentvla_training.latent_action.codes import (
    MISSING,
    Vocabulary,
    load_codes,
    save_codes,
    scenes_identity,
)
from latentvla_training.latent_action.dynamics import TRAINING_ONLY
from latentvla_training.latent_action.encoding import codes_folder, encode_scenes, encode_split
from latentvla_training.latent_action.naming import (
    HOLD,
    NAMES_FILE,
    UNCLEAR,
    read_names,
    recorded_names,
)
from latentvla_training.latent_action.release import name_released, names_beside_codes, release_run
from latentvla_training.latent_action.settings import CodebookRecipe
from latentvla_training.latent_action.training import CodebookTraining
from latentvla_training.teacher.dataset import check_codes

from latentvla_ros.contract import ContractError

from .conftest import episode_scenes


@pytest.fixture
def splits(finished: Path) -> Path:
    return finished


@pytest.fixture
def run(splits: Path) -> Path:
    return splits / "run"


@pytest.fixture
def released(splits: Path) -> Codebook:
    return load_codebook(splits / "released")


def test_released_is_the_run(run: Path, released: Codebook, reader: ShardReader) -> None:
    of_run = encode_scenes(load_run(run), reader, "train", progress=False)
    of_release = encode_scenes(released, reader, "train", progress=False)
    assert of_run.ego.tobytes() == of_release.ego.tobytes()
    assert of_run.environment.tobytes() == of_release.environment.tobytes()
    assert released.codebook_id == f"smoke-{released.manifest['sha256'][:16]}"
    assert released.manifest["scenes_id"] == scenes_identity(reader)
    assert "perplexity" in released.manifest["validation"]["ego"]


def test_codes_of_a_split(released: Codebook, reader: ShardReader) -> None:
    path, made = encode_split(released, "train")
    assert made and path == codes_folder(released.codebook_id) / "train.safetensors"
    codes = load_codes(path, released.codebook_id, scenes_identity(reader))
    assert codes.tokens.tolist() == reader.columns["token"].tolist()
    assert codes.mask.sum(axis=0).tolist() == [20, 16, 8]
    recovery = np.char.endswith(codes.tokens, "r")
    assert (codes.ego[recovery] == MISSING).all()
    # (1, 2) s of a Scene is (0, 1) s of the Scene a second later: the same pair, the same codes.
    assert np.array_equal(codes.ego[0, 1], codes.ego[2, 0])
    assert encode_split(released, "train") == (path, False)


def test_codes_of_other_scenes_are_made_again(released: Codebook) -> None:
    path, _ = encode_split(released, "val")
    before = load_codes(path).scenes_id
    write_shard(split_folder("val") / "val-0002-00.parquet", episode_scenes("val-0002-00", 5.0))
    assert encode_split(released, "val") == (path, True)
    with pytest.raises(ContractError, match=before):
        load_codes(path, scenes_id=before)


def test_a_full_disk_leaves_nothing(released: Codebook, monkeypatch: pytest.MonkeyPatch) -> None:
    encode_split(released, "test")  # its features are there; the codes' file is what does not fit
    folder = codes_folder(released.codebook_id)
    (folder / "test.safetensors").unlink()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        encode_split(released, "test")
    assert list(folder.iterdir()) == []


def test_a_full_disk_while_features_are_made(
    released: Codebook, monkeypatch: pytest.MonkeyPatch, splits: Path
) -> None:
    calls = []

    def full(_: int) -> None:
        calls.append(1)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        encode_split(released, "test")
    files = [path for path in (splits / "data" / "cache").rglob("*test*") if path.is_file()]
    assert len(files) == 1 and files[0].suffix == ".npy"
    assert not codes_folder(released.codebook_id).exists()
    monkeypatch.undo()


def test_damaged_weights_are_refused(released: Codebook, splits: Path) -> None:
    path = splits / "released" / WEIGHTS
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ContractError, match=str(released.manifest["sha256"])):
        load_codebook(splits / "released")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "latentvla-codebook-0"}, "format"),
        ({"frame_encoder": "0" * 16}, "frame encoder"),
        ({"recipe": {"name": "smoke", "surprise": 1}}, "surprise"),
    ],
)
def test_wrong_manifests_are_refused(
    released: Codebook, splits: Path, change: dict[str, object], said: str
) -> None:
    path = splits / "released" / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ContractError, match=said):
        load_codebook(splits / "released")


def test_weights_of_another_shape_are_refused(released: Codebook, splits: Path) -> None:
    path = splits / "released" / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["recipe"]["model"]["code_width"] = 8
    path.write_text(json.dumps(manifest))
    with pytest.raises(ContractError, match="size mismatch"):
        load_codebook(splits / "released")


def test_released_codes_have_names(released: Codebook, splits: Path) -> None:
    names = recorded_names(released.codebook_id, released.manifest, "manifest")
    # Of a network 10 pairs of one second and 4 of two; straight on at a constant speed.
    assert names is not None and names.splits == ("test", "val") and names.pairs == 4 * 14
    assert {name for row in names.names for name in row} == {HOLD, UNCLEAR}
    before = (splits / "released" / WEIGHTS).read_bytes()
    path = splits / "released" / MANIFEST
    manifest = json.loads(path.read_text())
    del manifest["latent_action_names"]
    path.write_text(json.dumps(manifest))
    nameless = load_codebook(splits / "released")
    assert names_beside_codes(nameless, ("train", "val")) is None
    beside = names_beside_codes(nameless, ("train", "val", "test"))
    assert beside == codes_folder(released.codebook_id) / NAMES_FILE and read_names(beside) == names
    assert name_released(splits / "released") == names
    again = load_codebook(splits / "released")
    assert again.codebook_id == released.codebook_id and again.manifest == released.manifest
    assert (splits / "released" / WEIGHTS).read_bytes() == before
    beside.unlink()
    assert names_beside_codes(again, ()) == beside and read_names(beside) == names


def test_no_split_to_name_on_is_said_before_anything_is_written(splits: Path) -> None:
    shutil.rmtree(split_folder("test"))
    with pytest.raises(FileNotFoundError, match="world make --split test"):
        release_run(splits / "run", splits / "other")
    assert not (splits / "other").exists()


def test_ablations_are_not_released(splits: Path, recipe: CodebookRecipe) -> None:
    eight = replace(recipe, model=replace(recipe.model, codebook_size=8))
    encoder = load_run(splits / "run").encoder
    stages = [empty_stage(name, eight, encoder) for name in ("environment", "ego")]
    codebook = Codebook("smoke-0", eight, encoder, stages[0], stages[1], {})
    with pytest.raises(ContractError, match=r"vocabulary of smoke-0.*entries=8.*entries=16"):
        release(codebook, splits / "released", {})


def test_ablations_are_encoded_from_their_runs(
    splits: Path, recipe: CodebookRecipe, reader: ShardReader
) -> None:
    model = replace(recipe.model, codebook_size=8, times_s=(0.0, 1.0, 2.0, 3.0))
    run = splits / "eight"
    with pytest.raises(FileNotFoundError, match="no codebook run"):
        load_one_stage(run)
    training = CodebookTraining(replace(recipe, name="eight", model=model), run, progress=False)
    training.run(controls=True)
    found = load_run(run)
    path, _ = encode_split(found, "train")
    codes = load_codes(path, found.codebook_id, scenes_identity(reader))
    assert codes.vocabulary == Vocabulary(8, (0.0, 1.0, 2.0, 3.0))
    assert codes.ego.max() < 8 and codes.vectors is not None and codes.vectors.shape[:2] == (12, 8)
    one = load_one_stage(run)
    assert one.codebook_id.startswith("eight_one_stage-") and found.codebook_id[:6] == "eight-"
    single = encode_scenes(one, reader, "train", progress=False)
    assert np.array_equal(single.ego, single.environment) and (single.mask == codes.mask).all()
    assert not np.array_equal(single.ego, codes.ego)
    with pytest.raises(ContractError, match=r"vocabulary of .*one_stage.*stages=1.*stages=2"):
        single.vocabulary.check_spoken(single.codebook_id)
    save_codes(path, replace(codes, odometry_share=0.5))  # another codebook's word
    assert encode_split(found, "train") == (path, True)
    with pytest.raises(FileNotFoundError, match="--controls"):
        load_one_stage(splits / "run")
    with pytest.raises(ContractError, match=r"vocabulary of .*eight.*entries=8"):
        check_codes(reader, codes)  # no teacher speaks it


def test_what_is_absent_is_named(splits: Path) -> None:
    with pytest.raises(FileNotFoundError, match="codebook release"):
        load_codebook(splits / "none")
    with pytest.raises(FileNotFoundError, match="codebook train"):
        load_run(splits / "none")
    (splits / "run" / "environment" / "checkpoint.pt").unlink()
    with pytest.raises(FileNotFoundError, match="environment is not done"):
        load_run(splits / "run")


def test_files_are_small_and_half(released: Codebook, splits: Path) -> None:
    from safetensors.torch import load_file

    weights = load_file(splits / "released" / WEIGHTS)
    numbers = [value for value in weights.values() if value.is_floating_point()]
    assert {value.dtype for value in numbers} == {torch.float16}
    assert not [name for name in weights if name.endswith(TRAINING_ONLY)]
