"""From a run to the table of results on hand-made Scenes: train, export, release, evaluate."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from latentvla_training.data.shards import ShardReader, load_split
from latentvla_training.engine.recipe import OptimizerSettings, Recipe, RunSettings
from latentvla_training.planner import evaluation, release
from latentvla_training.planner.baselines import EgoStatusSettings
from latentvla_training.planner.open_loop import Errors
from latentvla_training.planner.released import load_baselines
from latentvla_training.planner.training import train_planner

from latentvla_ros.contract import ContractError
from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.runtime.bundle import load_bundle

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
    about = release.release_baselines(runs[True], splits / "released")
    assert set(about["val_ade_by_drop_ego_state"]) == {"0.0", "0.5"}

    monkeypatch.setattr(evaluation, "ensure_split", lambda split, workers: load_split(split))
    monkeypatch.setattr(evaluation, "load_baselines", lambda: load_baselines(splits / "released"))
    path = splits / "out" / "table.json"
    result = evaluation.evaluate(str(splits / "bundle"), "test", path)
    assert json.loads(path.read_text()) == json.loads(json.dumps(result))
    assert (result["scenes"], result["networks"], result["split"]) == (12, 2, "test")
    assert set(result["rows"]) == set(evaluation.ROWS)
    for row in result["rows"].values():
        for figure in FIGURES:
            name, _, group = figure.partition("_")
            low, high = row[f"{name}_ci" + (f"_{group}" if group else "")]
            assert low <= row[figure] <= high or np.isnan(row[figure])
    assert result["rows"]["constant_velocity"]["ade"] == pytest.approx(0.0, abs=1e-5)

    release.record_metrics(str(splits / "bundle"), "test", result)
    metrics = load_bundle(splits / "bundle").manifest.metrics
    assert metrics["test"]["rows"]["ours"]["ade"] == pytest.approx(result["rows"]["ours"]["ade"])


def test_decision_scenes_are_those_that_constant_velocity_misses(reader: ShardReader) -> None:
    far = np.arange(12) % 3 == 0
    errors = {
        name: Errors(
            np.where(far, 2.01, 2.0) if name == "constant_velocity" else 1.0 * far, 1.0 * far
        )
        for name in evaluation.ROWS
    }
    result = evaluation._report(errors, reader)
    assert result["decision_scenes"] == 4
    assert result["rows"]["ours"]["ade_decision"] == 1.0
    assert result["rows"]["ours"]["ade"] == pytest.approx(1 / 3)
    assert result["ratios"]["ours/constant_velocity_decision"]["ratio"] == pytest.approx(1 / 2.01)
