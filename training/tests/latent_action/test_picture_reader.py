"""Drives without odometry are paired and encoded by pictures; nothing else of them is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from latentvla_training.data.shards import ShardReader, load_split, write_shard
from latentvla_training.latent_action.codebook import load_codebook, load_run, release
from latentvla_training.latent_action.encoding import encode_scenes, pair_data
from latentvla_training.latent_action.pairs import find_pairs
from latentvla_training.latent_action.picture_reader import PictureReader
from latentvla_training.latent_action.scene_set import (
    SceneSet,
    scenes_with_odometry,
    training_scenes,
)
from latentvla_training.latent_action.settings import CodebookData, CodebookRecipe, StageSettings
from latentvla_training.latent_action.training import CodebookTraining

from latentvla_ros.contract import ContractError

from .conftest import picture


@pytest.fixture
def scarce(recipe: CodebookRecipe) -> CodebookRecipe:
    """Recipe ``smoke`` with odometry on one of two drives."""
    short = StageSettings(recipe.environment.optimizer, recipe.environment.run)
    return replace(recipe, data=CodebookData(odometry_share=0.5), pictures=short)


@pytest.fixture
def trained(scarce: CodebookRecipe, splits: Path) -> Path:
    """The folder of a finished run of ``scarce``."""
    CodebookTraining(scarce, splits / "run", progress=False).run()
    return splits / "run"


def test_drives_without_odometry_are_paired_by_their_pictures(
    scarce: CodebookRecipe, reader: ShardReader
) -> None:
    scenes = training_scenes(scarce.data)
    odometry = scenes_with_odometry(scenes, scarce.data)
    assert odometry is not None
    assert odometry.sum() == 13  # one drive of two
    pairs = find_pairs(scenes, scarce.model, odometry)
    everywhere = find_pairs(scenes, scarce.model)
    assert everywhere.known.all()
    np.testing.assert_array_equal(pairs.known, odometry[pairs.earlier])
    assert 0 < pairs.known.sum() < len(pairs)
    for name in ("trajectory", "state", "later_state", "unforeseen"):
        values = getattr(pairs, name)
        assert not values[~pairs.known].any()
        assert values[pairs.known].any()
    found = set(zip(pairs.earlier, pairs.later, strict=True))
    assert set(zip(everywhere.earlier, everywhere.later, strict=True)) <= found


def test_hidden_odometry_decides_nothing(
    scarce: CodebookRecipe, splits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever odometry says of a drive that has none to show: every weight is the same."""

    def weights(folder: str) -> dict[str, torch.Tensor]:
        run = CodebookTraining(scarce, splits / folder, progress=False)
        run.run()
        codebook = load_run(splits / folder)
        assert codebook.pictures is not None
        modules = (codebook.environment, codebook.pictures, codebook.ego)
        return {
            f"{index}.{name}": value
            for index, module in enumerate(modules)
            for name, value in module.state_dict().items()
        }

    told = weights("one")
    column = SceneSet.column

    def lied(self: SceneSet, name: str) -> np.ndarray:
        values = np.array(column(self, name))
        shown = scenes_with_odometry(self, scarce.data)
        train = str(column(self, "token")[0]).startswith("train")
        if train and shown is not None and name in ("future_10hz", "ego_dynamics"):
            values[~shown] = 7.0
        return values

    monkeypatch.setattr(SceneSet, "column", lied)
    for name, value in weights("two").items():
        assert torch.equal(value, told[name]), name


def test_renders_beside_a_hidden_path_teach_stage_0_nothing(
    scarce: CodebookRecipe, recipe: CodebookRecipe, splits: Path
) -> None:
    """Another recovery start of the drive without odometry: the same encoder; of the other not."""
    scenes = training_scenes(scarce.data)
    odometry = scenes_with_odometry(scenes, scarce.data)
    assert odometry is not None
    shards = {bool(odometry[row]): path for row, path in zip((0, 13), scenes.paths, strict=True)}

    def learned(recipe: CodebookRecipe, folder: str) -> str:
        return CodebookTraining(recipe, splits / folder, progress=False).frame_encoder().identity()

    def render_anew(path: Path) -> None:
        kept = list(ShardReader([path]))
        assert kept[-1].token.endswith("r")
        write_shard(path, [*kept[:-1], replace(kept[-1], view_jpegs=(picture(500.0),))])

    told, scarcely = learned(recipe, "told"), learned(scarce, "scarcely")
    assert told != scarcely
    assert learned(scarce, "scarcely") == scarcely  # what a run began with stays
    render_anew(shards[False])
    assert learned(scarce, "hidden") == scarcely
    assert learned(recipe, "all") != told
    render_anew(shards[True])
    assert learned(scarce, "shown") != scarcely


def test_stage_0_is_not_taken_from_a_run_that_was_shown_more(
    scarce: CodebookRecipe, recipe: CodebookRecipe, splits: Path
) -> None:
    CodebookTraining(recipe, splits / "told", progress=False).run()
    for folder, stages_of in (("own", None), ("taken", splits / "told")):
        CodebookTraining(scarce, splits / folder, False, stages_of).frame_encoder()
    own, taken = (
        (splits / folder / "frame_encoder.safetensors").read_bytes() for folder in ("own", "taken")
    )
    assert own == taken


def test_codes_are_read_off_pictures_alone(trained: Path, splits: Path) -> None:
    codebook = load_run(trained)
    assert isinstance(codebook.environment_reader, PictureReader)
    folder = release(codebook, splits / "released", {})
    again = load_codebook(folder)
    assert again.pictures is not None
    codes = encode_scenes(again, load_split("test"), "test", splits / "cache", progress=False)
    assert codes.mask.any()
    scenes = SceneSet([load_split("test")])
    nobody = np.zeros(len(scenes), np.bool_)
    data = pair_data(
        again.recipe.model, again.encoder, scenes, splits / "cache", False, odometry=nobody
    )
    assert not data.pairs.known.any()
    assert data.change is None
    assert (data.pairs.of_scene >= 0).sum() == codes.mask.sum()


def test_stage_2_may_not_read_odometry_that_is_not_there(recipe: CodebookRecipe) -> None:
    with pytest.raises(ContractError, match=r"model\.odometry"):
        replace(
            recipe,
            data=CodebookData(odometry_share=0.5),
            model=replace(recipe.model, odometry=True),
        )
    with pytest.raises(ContractError, match="odometry_share"):
        CodebookData(odometry_share=0.0)
