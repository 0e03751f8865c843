"""From a run to the table of results on hand-made Scenes: train, export, release, evaluate."""

from __future__ import annotations

import functools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from latentvla_training.data.make import recipe_of
from latentvla_training.data.shards import ShardReader, load_split, write_shard
from latentvla_training.data.world_adapter import SceneSettings, scene_manifest
from latentvla_training.engine.checkpoint import load_checkpoint
from latentvla_training.engine.recipe import OptimizerSettings, Recipe, RunSettings
from latentvla_training.planner import evaluation, release
from latentvla_training.planner.baselines import EgoStatusSettings
from latentvla_training.planner.released import load_baselines
from latentvla_training.planner.training import TrainedPlanner, start_from, train_planner
from latentvla_training.report.network_sums import sums_from_json

from latentvla_ros.contract import ContractError, View
from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.runtime.bundle import Bundle, load_bundle

FIGURES = ("ade", "fde", "ade_decision", "fde_decision")


def recipe(name: str, model: PlannerConfig, blank: bool) -> Recipe:
    run = RunSettings(
        passes=24, batch_size=6, prior_steps=5, workers=0, threads=1, mixed_precision="no",
        validate_passes=24, log_steps=2,
    )  # fmt: skip
    return Recipe(name, blank_images=blank, model=model, optimizer=OptimizerSettings(), run=run)


@pytest.mark.slow
def test_a_run_becomes_a_bundle_and_a_table(
    splits: Path, tiny: PlannerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = {blank: splits / f"run_{blank}" for blank in (False, True)}
    for blank, folder in runs.items():
        train_planner(recipe("tiny", tiny, blank), folder, progress=False)
    with pytest.raises(ContractError, match="with images"):
        release.export_run(runs[True], "tiny", splits / "bundle")
    with pytest.raises(ContractError, match="blank_images: true"):
        release.release_baselines(runs[False], splits / "released")
    release.export_run(runs[False], "tiny", splits / "bundle")
    small = functools.partial(EgoStatusSettings, width=16, layers=2, steps=5, batch_size=8)
    monkeypatch.setattr(release, "EgoStatusSettings", small)
    about = release.release_baselines(runs[True], splits / "released", seed=3)
    assert set(about["val_ade_by_drop_ego_state"]) == {"0.0", "0.5"}

    # Runs go on from what ships, which is named by what it is.
    monkeypatch.setattr("latentvla_ros.runtime.bundle.data_path", lambda: splits / "data")
    monkeypatch.setattr(
        "latentvla_training.planner.released.released_folder", lambda: splits / "released"
    )
    shutil.copytree(splits / "bundle", splits / "data" / "bundles" / "tiny")
    baselines = load_baselines(splits / "released")
    for blank, name in ((False, "tiny-1"), (True, baselines.blank_id)):
        trained = TrainedPlanner(recipe("tiny", tiny, blank))
        start_from(trained, splits / name)
        state = load_checkpoint(runs[blank])
        assert state is not None
        kept = "blank_map" if blank else "planner.image_encoder.smooth.0.weight"
        for key in (kept, "planner.head.control.2.weight"):
            assert (trained.state_dict()[key] - state["averaged"][key]).abs().max() < 1e-3
        with pytest.raises(FileNotFoundError, match=rf"no run 'tiny-7'.*{name}"):
            start_from(trained, splits / "tiny-7")

    monkeypatch.setattr(evaluation, "ensure_split", lambda split, workers: load_split(split))
    path = splits / "out" / "table.json"
    result = evaluation.evaluate(
        str(splits / "bundle"), "test", path, baselines_folder=splits / "released"
    )
    assert json.loads(path.read_text()) == json.loads(json.dumps(result))
    assert (result["scenes"], result["networks"], result["split"]) == (12, 2, "test")
    assert set(result["rows"]) == set(evaluation.ROWS)
    for name, row in result["rows"].items():
        for figure in FIGURES:
            base, _, group = figure.partition("_")
            assert (figure in row) == (name != "expert" and figure in result["rows"]["ours"])
            if figure in row:
                low, high = row[f"{base}_ci" + (f"_{group}" if group else "")]
                assert low <= row[figure] <= high
    identity = result["identity"]
    assert identity["baselines"]["ego_status"]["seed"] == 3
    assert (identity["recipe"], identity["passes"]) == ("tiny", 24)
    assert identity["data"]["scenes"] == 12
    assert result["unscored"]["scenes"] == {"pdm_reference_10hz: NaN": 12}
    assert result["rows"]["constant_velocity"]["ade"] == pytest.approx(0.0, abs=1e-5)

    release.record_metrics(str(splits / "bundle"), "test", result)
    metrics = load_bundle(splits / "bundle").manifest.metrics
    assert metrics["test"]["rows"]["ours"]["ade"] == pytest.approx(result["rows"]["ours"]["ade"])


def test_decision_scenes_are_those_that_constant_velocity_misses(reader: ShardReader) -> None:
    far = np.arange(12) % 3 == 0
    future = reader.columns["future_2hz"]
    plans = {name: future.copy() for name in evaluation.ROWS}
    plans["constant_velocity"][..., 1] += np.where(far, 2.01, 2.0)[:, None]
    plans["ours"][..., 1] += far[:, None]
    result = evaluation.evaluation_result(plans, reader)
    assert result["decision_scenes"] == 4
    assert result["rows"]["ours"]["ade_decision"] == pytest.approx(1.0)
    assert result["rows"]["ours"]["ade"] == pytest.approx(1 / 3)
    ratio = result["ratios"]["ours/constant_velocity_decision"]["ratio"]
    assert ratio == pytest.approx(1 / 2.01, abs=1e-5)
    sums = sums_from_json(json.loads(json.dumps(result["sums"])))
    assert sums.scenes("ade", "decision") == 4
    assert sums.mean("ours", "ade").value == pytest.approx(1 / 3, abs=1e-4)


def test_a_bundle_for_other_views_or_sizes_is_refused_by_name(
    reader: ShardReader, tmp_path: Path
) -> None:
    settings = SceneSettings(image_width=64, image_height=32)
    manifest = scene_manifest(settings)
    two = Bundle(tmp_path / "two", replace(manifest, views=manifest.views[:2]))
    with pytest.raises(ContractError, match=r"scene.views: found 4, expected 2, as bundle .*two"):
        evaluation.check_views(two, reader)
    made = tmp_path / "made.parquet"
    write_shard(made, reader[:2], recipe_of(settings))
    shards = ShardReader([made])
    evaluation.check_views(Bundle(tmp_path, manifest), shards)
    late = replace(manifest, views=(*manifest.views[:3], View("front", -0.7)))
    with pytest.raises(ContractError, match=r"found 'front@0, left@0, right@0, front@-0.5'"):
        evaluation.check_views(Bundle(tmp_path, late), shards)
    with pytest.raises(ContractError, match=r"image_size: found '64x32', expected 128x32"):
        evaluation.check_views(Bundle(tmp_path, replace(manifest, image_width=128)), shards)


def test_absent_or_damaged_baselines_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="release-baselines"):
        load_baselines(tmp_path / "none")
    (tmp_path / "released.json").write_text("{")
    with pytest.raises(ContractError, match=r"released\.json"):
        load_baselines(tmp_path)
