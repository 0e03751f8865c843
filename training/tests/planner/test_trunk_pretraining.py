"""A trunk learns from pictures alone, goes on after a kill, and a host begins with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from latentvla_training.data.shards import ShardReader, split_folder, write_shard
from latentvla_training.engine.recipe import LoopSettings, OptimizerSettings, Recipe, RunSettings
from latentvla_training.planner.training import train_planner
from latentvla_training.planner.trunk_pretraining import (
    Pictures,
    TrunkPretraining,
    TrunkRecipe,
    load_trunk_recipe,
    pretrain_trunk,
    take_trunk,
)

from latentvla_ros.contract import ContractError
from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.model.image_encoder import ImageEncoder

from .conftest import make_scene

_LOOP = {
    "passes": 8,
    "batch_size": 4,
    "workers": 0,
    "validate_passes": 8,
    "validate_scenes": 4,
    "mixed_precision": "no",
}


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: PlannerConfig) -> TrunkRecipe:
    monkeypatch.setenv("LATENTVLA_DATA", str(tmp_path / "data"))
    _write(0.0)
    optimizer = OptimizerSettings(warmup_steps=1)
    return TrunkRecipe("tiny", tiny, optimizer=optimizer, run=LoopSettings(**_LOOP))


def _write(turn: float) -> None:
    for split in ("train", "val"):
        scenes = [make_scene(index, f"{split}-0000") for index in range(6)]
        told = [
            replace(
                scene,
                ego_dynamics=scene.ego_dynamics + np.float32(turn),
                labels=replace(scene.labels, future_2hz=scene.labels.future_2hz + np.float32(turn)),
            )
            for scene in scenes
        ]
        write_shard(split_folder(split) / f"{split}-0000-00.parquet", told)


def test_pictures_alone_decide_and_a_killed_run_goes_on(short: TrunkRecipe, tmp_path: Path) -> None:
    whole = pretrain_trunk(short, tmp_path / "whole", progress=False)
    pretrain_trunk(short, tmp_path / "parts", stop_after_steps=1, progress=False)
    _write(3.0)  # other odometry and labels, the same pictures
    again = pretrain_trunk(short, tmp_path / "parts", progress=False)
    for one, two in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, two)


def test_two_views_are_the_same_picture_changed(short: TrunkRecipe, tmp_path: Path) -> None:
    reader = ShardReader([split_folder("train") / "train-0000-00.parquet"])
    pictures = Pictures(reader, short.model, 0)
    item, same, other = pictures[(3, 1)], pictures[(3, 1)], pictures[(4, 1)]
    assert item["first"].shape == (4, 32, 64, 3) and item["first"].dtype == np.uint8
    assert np.array_equal(item["first"], same["first"])
    assert not np.array_equal(item["first"], item["second"])
    assert not np.array_equal(item["first"], other["first"])
    assert 0.1 < (item["first"] == 128).all(axis=-1).mean() < 0.6


def test_which_camera_it_is_satisfies_nothing(short: TrunkRecipe) -> None:
    views = torch.stack([torch.full((3, 32, 64, 3), 60 * v, dtype=torch.uint8) for v in range(4)])
    batch = {name: views.transpose(0, 1).contiguous() for name in ("first", "second")}
    losses = TrunkPretraining(short.model).eval()(batch)
    assert losses["variance"] > 0.98  # all Scenes of a view are the same picture
    one = {name: value[:, :1] for name, value in batch.items()}
    torch.testing.assert_close(
        TrunkPretraining(short.model).eval()(one)["variance"],
        losses["variance"],
        rtol=0.0,
        atol=1e-3,
    )


def test_a_host_begins_with_it(short: TrunkRecipe, tmp_path: Path, tiny: PlannerConfig) -> None:
    run = RunSettings(**_LOOP, prior_steps=1)
    recipe = Recipe("host", trunk_from="trunk", model=tiny, run=run)
    with pytest.raises(FileNotFoundError, match="latentvla-train pretrain-trunk"):
        train_planner(recipe, tmp_path / "runs" / "host", progress=False)
    pretrain_trunk(short, tmp_path / "runs" / "trunk", stop_after_steps=1, progress=False)
    with pytest.raises(FileNotFoundError, match="no finished run"):
        train_planner(recipe, tmp_path / "runs" / "host1", progress=False)
    pretrain_trunk(short, tmp_path / "runs" / "trunk", progress=False)
    trained = train_planner(recipe, tmp_path / "runs" / "host2", progress=False)
    plain = train_planner(
        replace(recipe, trunk_from=""), tmp_path / "runs" / "plain", progress=False
    )
    given = ImageEncoder(tiny.backbone, tiny.image_channels)
    take_trunk(given, tmp_path / "runs" / "trunk")
    name = "planner.image_encoder.lateral.0.weight"
    moved = [
        float((module.state_dict()[name] - given.lateral[0].weight.detach()).abs().mean())
        for module in (trained, plain)
    ]
    assert moved[0] < 0.2 * moved[1]  # a few steps away, not another beginning
    wider = ImageEncoder(tiny.backbone, 2 * tiny.image_channels)
    with pytest.raises(ContractError, match="trunk_from trunk"):
        take_trunk(wider, tmp_path / "runs" / "trunk")
    with pytest.raises(ContractError, match="trunk_from"):
        replace(recipe, start_from="other")


def test_what_ships_fits_its_host() -> None:
    from latentvla_training.engine.recipe import load_recipe

    host = load_recipe("nano_scarce_odometry_trunk")
    recipe = load_trunk_recipe("nano")
    assert host.model == recipe.model and host.trunk_from == f"trunk_{recipe.name}"
    plain = load_recipe("nano_scarce_odometry")
    assert replace(host, name=plain.name, trunk_from="") == plain
