"""``latentvla-train describe``: sizes and operations of the planners, one step on no memory."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import latentvla_training
import pytest
import torch
from latentvla_training.engine.recipe import Recipe, load_recipe
from latentvla_training.planner import describe as describing
from latentvla_training.planner.commands import Describe
from latentvla_training.planner.describe import count_planner, describe, meta_planner
from latentvla_training.planner.dry_run import dry_run

from latentvla_ros.contract import ContractError
from latentvla_ros.model.config import HOSTS

RECIPES = Path(latentvla_training.__file__).parent / "recipes"
NANO = sorted(path.stem for path in RECIPES.glob("nano*.yaml"))


def _with_host(recipe: Recipe, host: str) -> Recipe:
    return replace(recipe, model=replace(recipe.model, host=host))


def test_every_product_of_a_planner_is_counted_in_one_of_its_parts() -> None:
    for host in HOSTS:
        planner = meta_planner(_with_host(load_recipe("smoke"), host).model)
        counted = count_planner(planner)
        assert counted.total == sum(counted.parts.values())
        assert {"image_encoder", "bev_encoder", "reasoner", "head"} <= set(counted.parts)
    # A linear layer from 12 queries to 16 codes, two operations each.
    with_more = replace(planner.config, reasoner_hidden=2 * planner.config.width + 10)
    more = count_planner(meta_planner(with_more)).parts["reasoner"] - counted.parts["reasoner"]
    assert more == 2 * 2 * 12 * 10 * planner.config.width


@pytest.mark.parametrize("host", HOSTS)
def test_one_step_of_the_smoke_recipe_reaches_every_weight(host: str) -> None:
    recipe = _with_host(load_recipe("smoke"), host)
    found = dry_run(recipe)
    assert found.batch_size == recipe.run.batch_size and found.trained > 1e5
    assert {"plan", "expected", "raster", "lamps"} <= set(found.losses)


@pytest.mark.parametrize("name", NANO)
def test_one_step_of_every_shipped_planner_of_nanos_size(name: str) -> None:
    recipe = load_recipe(name)
    found = dry_run(recipe)
    assert recipe.name == name and found.batch_size == recipe.run.batch_size
    assert ("lamps" in found.losses) != recipe.blank_images  # nothing to read in blank pictures


def test_a_weight_that_no_loss_reaches_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from latentvla_training.planner import dry_run as module

    class Idle(module.TrainedPlanner):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            self.idle = torch.nn.Parameter(torch.zeros(3))

    monkeypatch.setattr(module, "TrainedPlanner", Idle)
    with pytest.raises(ContractError, match=r"gradients.*idle"):
        dry_run(load_recipe("smoke"))


def test_the_command_prints_and_writes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(describing, "count_teacher", lambda: 5e12)
    assert Describe("smoke", json=())() == 0
    printed = json.loads(capsys.readouterr().out)
    assert Describe("smoke", json=(tmp_path / "cost.json",))() == 0
    assert "latent reasoner" in capsys.readouterr().out
    assert json.loads((tmp_path / "cost.json").read_text()) == printed
    assert printed["ratio"] == pytest.approx(5e12 / printed["system_flops"])
    assert printed["system_shape"] == "3x256x512"
    assert printed["teacher_shape"] == "3x252x504 + 60 tokens"
    assert printed["recipe_shape"] == "4x128x256"
    assert Describe("smoke", host="transfuser", json=())() == 0
    assert json.loads(capsys.readouterr().out)["host"] == "transfuser"
    with pytest.raises(ContractError, match="at most one"):
        Describe("smoke", json=(tmp_path / "a", tmp_path / "b"))()


@pytest.mark.slow
def test_base_has_the_papers_reasoner_and_an_eightieth_of_the_teachers_operations() -> None:
    found = describe(load_recipe("base"))
    assert 47e6 <= found.latent_reasoner_parameters <= 53e6
    assert found.ratio >= 80.0


@pytest.mark.slow
@pytest.mark.parametrize("host", HOSTS)
def test_one_step_of_base_at_full_shape(host: str) -> None:
    found = dry_run(_with_host(load_recipe("base"), host))
    assert found.batch_size == 64 and found.trained > 2e7
