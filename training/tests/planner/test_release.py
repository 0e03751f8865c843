"""Baselines for release: of the Scenes that their regime shows, no more."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from latentvla_training.data.hidden import spread
from latentvla_training.data.shards import ShardReader, split_folder, write_shard
from latentvla_training.engine.checkpoint import save_checkpoint
from latentvla_training.engine.recipe import DataSettings, Recipe
from latentvla_training.planner import release
from latentvla_training.planner.baselines import EgoStatusNet, TrainedEgoStatus
from latentvla_training.planner.release import release_baselines, views_shown
from latentvla_training.planner.training import TrainedPlanner

from latentvla_ros.contract import View
from latentvla_ros.model.config import PlannerConfig

from .conftest import SHARD_RECIPE, make_scene


def blank_run(folder: Path, model: PlannerConfig, data: DataSettings) -> Path:
    """Write a run on blank images as it began."""
    recipe = Recipe("blind", blank_images=True, model=model, data=data)
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(asdict(recipe)))))
    averaged = TrainedPlanner(recipe).state_dict()
    save_checkpoint(folder, {"averaged": averaged, "step": 1})
    return folder


def write(split: str, networks: Iterable[str]) -> None:
    for network in networks:
        scenes = [make_scene(index, network) for index in range(4)]
        write_shard(split_folder(split) / f"{network}-00.parquet", scenes, SHARD_RECIPE)


@pytest.fixture
def trained_on(monkeypatch: pytest.MonkeyPatch) -> list[ShardReader]:
    """Return what the ego-status net is trained on and validated on, which it is not here."""
    found: list[ShardReader] = []

    def train(train: ShardReader, val: ShardReader, settings: Any) -> TrainedEgoStatus:
        found.extend((train, val))
        return TrainedEgoStatus(EgoStatusNet(settings.width, settings.layers), settings, 0.5)

    monkeypatch.setattr(release, "train_ego_status", train)
    return found


@pytest.mark.parametrize("hidden", ["odometry_share", "labelled_share", ""])
def test_the_ego_status_net_learns_on_the_drives_of_its_regime(
    hidden: str,
    tiny: PlannerConfig,
    trained_on: list[ShardReader],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LATENTVLA_DATA", str(tmp_path / "data"))
    write("train", ("train-0000", "train-0001"))
    write("val", ("val-0000",))
    places = sorted(spread(f"train-{index:04d}-00") for index in range(2))
    share = float(np.mean(places)) if hidden else 1.0  # the first of the two alone
    data = DataSettings(**({hidden: share} if hidden else {}))
    run = blank_run(tmp_path / "runs" / "blind", tiny, data)
    about = release_baselines(run, tmp_path / "released")
    train, val = trained_on
    odometry = 4 if hidden == "odometry_share" else 8
    assert len(train) == 8 and train.has_odometry.sum() == odometry
    assert train.labelled.sum() == (4 if hidden else 8)
    assert val.has_odometry.all() and val.labelled.all()
    written = json.loads((tmp_path / "released" / "released.json").read_text())
    assert about.get(hidden) == (share if hidden else None)
    assert written["ego_status.safetensors"].get(hidden) == about.get(hidden)


def test_a_split_says_which_cameras_its_scenes_are_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATENTVLA_DATA", str(tmp_path / "data"))
    assert views_shown("train") == ()  # nothing is there that could say it
    write("train", ("train-0000",))
    wanted = View("front"), View("left"), View("right"), View("front", -0.5)
    assert views_shown("train") == wanted
    write_shard(split_folder("val") / "val-0000-00.parquet", [make_scene(0, "val-0000")])
    assert views_shown("val") == ()  # of before shards said so
