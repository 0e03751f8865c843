"""An interrupted run continues as if nothing had happened; recipes refuse what they do not know."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from latentvla_training.engine.checkpoint import (
    CHECKPOINT,
    checkpoint_step,
    load_checkpoint,
    save_checkpoint,
)
from latentvla_training.engine.folder_lock import alone
from latentvla_training.engine.loop import (
    check_folder,
    learning_rate,
    make_optimizer,
    run_training,
)
from latentvla_training.engine.recipe import (
    OptimizerSettings,
    Recipe,
    RunSettings,
    build,
    load_recipe,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader

from latentvla_ros.contract import ContractError


class LineTask:
    """Fits a line with dropout, so that data position and random state both matter."""

    def __init__(self, recipe: Recipe) -> None:
        torch.manual_seed(recipe.run.seed)
        self.recipe = recipe
        self.module: nn.Module = _Line()

    def batches(self, start_step: int, process: int, processes: int) -> Iterator[dict[str, Tensor]]:
        for step in range(start_step, self.recipe.run.steps):
            rng = np.random.default_rng(step)
            yield {"x": torch.from_numpy(rng.standard_normal((8, 3)).astype(np.float32))}

    def validate(self, averaged: nn.Module, device: torch.device) -> dict[str, float]:
        return {"ade": float(sum(p.abs().sum() for p in averaged.parameters()))}


class _Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        error = self.body(batch["x"])[:, 0] - batch["x"].sum(dim=1)
        return {"error": error.square().mean()}


@pytest.fixture
def recipe() -> Recipe:
    run = RunSettings(
        passes=96, batch_size=8, mixed_precision="no", workers=0, log_steps=1, validate_passes=96
    )
    return Recipe("line", optimizer=OptimizerSettings(warmup_steps=2), run=run)


def test_resumed_run_equals_uninterrupted_one(recipe: Recipe, tmp_path: Path) -> None:
    whole = run_training(LineTask(recipe), recipe, tmp_path / "whole", progress=False)
    run_training(LineTask(recipe), recipe, tmp_path / "parts", stop_after_steps=5, progress=False)
    torch.manual_seed(99)  # whatever happened in between
    parts = run_training(LineTask(recipe), recipe, tmp_path / "parts", progress=False)
    for first, second in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(first, second)
    steps = [json.loads(line)["step"] for line in (tmp_path / "parts/metrics.jsonl").open()]
    assert steps == [*range(1, 13), 12]


class LoadedLineTask(LineTask):
    """The same from a loader, which takes from torch's numbers when it begins."""

    def batches(self, start_step: int, process: int, processes: int) -> DataLoader[Tensor]:
        rows = [batch["x"] for batch in super().batches(start_step, process, processes)]
        return DataLoader(rows, batch_size=None, collate_fn=lambda x: {"x": x})


def test_a_loader_that_begins_again_takes_no_number_of_the_run(
    recipe: Recipe, tmp_path: Path
) -> None:
    whole = run_training(LoadedLineTask(recipe), recipe, tmp_path / "whole", progress=False)
    for stop in (5, None):
        parts = run_training(LoadedLineTask(recipe), recipe, tmp_path / "parts", stop, False)
    for first, second in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(first, second)


def test_a_checkpoint_of_one_random_state_goes_on(recipe: Recipe, tmp_path: Path) -> None:
    """As it was before every process kept its own."""
    whole = run_training(LineTask(recipe), recipe, tmp_path / "whole", progress=False)
    run_training(LineTask(recipe), recipe, tmp_path / "parts", 5, progress=False)
    state = load_checkpoint(tmp_path / "parts")
    assert state is not None and len(state["rng"]) == 1
    save_checkpoint(tmp_path / "parts", {**state, "rng": state["rng"][0]["cpu"]})
    parts = run_training(LineTask(recipe), recipe, tmp_path / "parts", progress=False)
    for first, second in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(first, second)


def test_a_folder_that_is_being_trained_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    with (
        alone(tmp_path / "line"),
        pytest.raises(ContractError, match=rf"{tmp_path}/line.*process {os.getpid()}"),
    ):
        run_training(LineTask(recipe), recipe, tmp_path / "line", progress=False)
    assert checkpoint_step(tmp_path / "line") == 0
    run_training(LineTask(recipe), recipe, tmp_path / "line", progress=False)


def test_stages_of_one_process_may_differ_in_precision(recipe: Recipe, tmp_path: Path) -> None:
    for precision in ("no", "bf16", "no"):
        stage = replace(recipe, run=replace(recipe.run, mixed_precision=precision))
        run_training(LineTask(stage), stage, tmp_path / precision, 1, progress=False)


def test_costs_of_calls_before_count(recipe: Recipe, tmp_path: Path) -> None:
    run_training(LineTask(recipe), recipe, tmp_path, stop_after_steps=5, progress=False)
    state = load_checkpoint(tmp_path)
    assert state is not None and state["cpu_s"] > 0 and state["peak_gib"] > 0
    save_checkpoint(tmp_path, {**state, "cpu_s": 1e6, "peak_gib": 1e3})
    run_training(LineTask(recipe), recipe, tmp_path, progress=False)
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["cost/cpu_s"] > 1e6 and last["cost/peak_gib"] == 1e3


def test_a_checkpoint_without_costs_goes_on(recipe: Recipe, tmp_path: Path) -> None:
    run_training(LineTask(recipe), recipe, tmp_path, stop_after_steps=5, progress=False)
    state = load_checkpoint(tmp_path)
    assert state is not None
    save_checkpoint(tmp_path, {k: v for k, v in state.items() if k not in ("cpu_s", "peak_gib")})
    run_training(LineTask(recipe), recipe, tmp_path, progress=False)
    state = load_checkpoint(tmp_path)
    assert state is not None and state["step"] == 12


class _TwoSpeeds(nn.Module):
    learning_rate_factors: ClassVar[dict[str, float]] = {"new.": 10.0}

    def __init__(self) -> None:
        super().__init__()
        self.old, self.new = nn.Linear(3, 1), nn.Linear(3, 1)
        self.frozen = nn.Linear(3, 1).requires_grad_(False)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sum": (self.old(batch["x"]) + self.new(batch["x"])).sum()}


def test_what_is_new_learns_faster(recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(recipe, run=replace(recipe.run, passes=8, validate_passes=8))
    task = LineTask(recipe)
    task.module = module = _TwoSpeeds()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    groups = make_optimizer(module, recipe.optimizer).param_groups
    factors = {id(p): group["learning_rate_factor"] for group in groups for p in group["params"]}
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert [factors[id(p)] for p in module.old.parameters()] == [1.0, 1.0]
    assert [factors[id(p)] for p in module.new.parameters()] == [10.0, 10.0]
    assert [decays[id(p)] for p in module.new.parameters()] == [0.01, 0.0]
    assert not any(id(p) in factors for p in module.frozen.parameters())
    run_training(task, recipe, tmp_path, progress=False)
    moved = {name: (value - before[name]).abs() for name, value in module.state_dict().items()}
    # Adam's first step is as long as the rate, whatever the gradient.
    assert float(moved["new.bias"]) == pytest.approx(10.0 * float(moved["old.bias"]), rel=1e-3)
    assert not moved["frozen.weight"].any()


def test_folder_of_another_recipe_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    run_training(LineTask(recipe), recipe, tmp_path, stop_after_steps=1, progress=False)
    other = replace(recipe, run=replace(recipe.run, seed=1))
    with pytest.raises(ContractError, match=r"run\.seed: 0 there, 1 here"):
        run_training(LineTask(other), other, tmp_path, progress=False)


def test_checkpoint_of_another_recipe_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    """Of the same shape, so that its weights would do; one that does not say whose it is, goes."""
    other = replace(recipe, run=replace(recipe.run, seed=1))
    for name, each in (("own", recipe), ("other", other)):
        run_training(LineTask(each), each, tmp_path / name, stop_after_steps=1, progress=False)
    shutil.copy(tmp_path / "other" / CHECKPOINT, tmp_path / "own")
    with pytest.raises(ContractError, match=r"own/checkpoint\.pt.*run\.seed: 1 there, 0 here"):
        run_training(LineTask(recipe), recipe, tmp_path / "own", progress=False)
    state = load_checkpoint(tmp_path / "own")
    assert state is not None and build(Recipe, state.pop("recipe"), "checkpoint") == other
    save_checkpoint(tmp_path / "own", state)
    run_training(LineTask(recipe), recipe, tmp_path / "own", progress=False)
    assert checkpoint_step(tmp_path / "own") == recipe.run.steps


def test_a_setting_that_came_later_does_not_end_old_runs(recipe: Recipe, tmp_path: Path) -> None:
    run_training(LineTask(recipe), recipe, tmp_path, stop_after_steps=1, progress=False)
    path = tmp_path / "recipe.yaml"
    kept = [line for line in path.read_text().splitlines() if "blank_images" not in line]
    path.write_text("\n".join(kept))
    assert check_folder(tmp_path, recipe)
    assert not check_folder(tmp_path / "new", recipe)


def test_learning_rate_warms_up_and_decays() -> None:
    settings = OptimizerSettings(learning_rate=1.0, warmup_steps=10, final_fraction=0.1)
    rates = [learning_rate(step, 100, settings) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_cycles_begin_anew_at_a_lower_rate() -> None:
    settings = OptimizerSettings(learning_rate=1.0, warmup_steps=10, cycles=2, cycle_factor=0.5)
    once = OptimizerSettings(learning_rate=1.0, warmup_steps=10)
    rates = [learning_rate(step, 200, settings) for step in range(200)]
    assert rates[:100] == [learning_rate(step, 100, once) for step in range(100)]
    assert rates[100:] == pytest.approx([0.5 * rate for rate in rates[:100]])


def test_shipped_recipes_are_valid() -> None:
    assert load_recipe("nano").model.view_time_offsets_s == (0.0, 0.0, 0.0, -0.5)
    assert load_recipe("smoke").run.steps == 6


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"name": "x", "surprise": 1}, "surprise"),
        ({"name": "x", "run": {"passses": 3}}, "passses"),
        ({"name": "x", "run": {"passes": 0}}, "run.passes"),
        ({"name": "x", "run": {"passes": "many"}}, "run.passes"),
        ({"name": "x", "model": {"width": 30}}, "width"),
        ({"name": "x", "model": {"bev_cells": 3}}, "recipe.model.bev_cells"),
        ({"name": "x", "model": {"bev_cells": [24]}}, "a list of 2 ints"),
        ({"name": "x", "model": {"bev_cells": [24, 2.5]}}, "recipe.model.bev_cells"),
        ({"name": "x", "model": {"view_time_offsets_s": ["a"]}}, "any number of floats"),
        ({"name": "x", "optimizer": {"learning_rate": -1}}, "learning_rate"),
        ({"name": "x", "optimizer": {"cycles": 0}}, "cycles"),
        ({}, "name"),
        ([], "recipe"),
    ],
)
def test_bad_recipe_names_the_key(values: object, field: str) -> None:
    with pytest.raises(ContractError) as caught:
        build(Recipe, values, "recipe")
    assert field in str(caught.value)
