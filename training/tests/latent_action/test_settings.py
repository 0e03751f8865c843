"""Recipes of codebooks refuse what they do not know; ``base`` is the size of the papers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from latentvla_training.engine.recipe import build
from latentvla_training.latent_action import settings
from latentvla_training.latent_action.dynamics import EGO, ENVIRONMENT, LatentDynamics
from latentvla_training.latent_action.settings import (
    CodebookRecipe,
    DynamicsSettings,
    load_codebook_recipe,
)

from latentvla_ros.contract import ContractError


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": "x", "surprise": 1}, "surprise"),
        ({"name": "x", "model": {"codebok_size": 16}}, "codebok_size"),
        ({"name": "x", "model": {"width": 30}}, "model.width"),
        ({"name": "x", "model": {"codebook_size": 1}}, "model.codebook_size"),
        ({"name": "x", "model": {"times_s": [0.0, 1.0, 1.0]}}, "model.times_s"),
        ({"name": "x", "model": {"times_s": [1.0, 2.0]}}, "model.times_s"),
        ({"name": "x", "frames": {"encoder": "resnet"}}, "frames.encoder"),
        ({"name": "x", "frames": {"encoder": "dinov2"}}, "frames.pretrained"),
        ({"name": "x", "frames": {"width": 100}}, "frames.width"),
        ({"name": "x", "loss": {"commitment": -1.0}}, "loss.commitment"),
        ({"name": "x", "loss": {"change": 2.0}}, "loss.change"),
        ({"name": "x", "loss": {"unexplained_change": 1.0}}, "model.unexplained_change"),
        ({"name": "x", "seed": -1}, "seed"),
        ({"name": "x", "data": {"recordings": [1]}}, "data.recordings"),
    ],
)
def test_bad_recipes_name_the_key(values: dict[str, object], said: str) -> None:
    with pytest.raises(ContractError) as caught:
        build(CodebookRecipe, values, "recipe")
    assert said in str(caught.value)


def test_loader_workers_are_refused_where_a_stage_is_trained(tmp_path: Path) -> None:
    """A stage has no loader; a run's own recipe names default workers of what it does not train."""
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nego: {run: {workers: 2}}\n")
    with pytest.raises(ContractError, match=r"ego\.run\.workers: found 2"):
        load_codebook_recipe(str(path))
    path.write_text("name: mine\npictures: {run: {workers: 1}}\n")
    assert load_codebook_recipe(str(path)).stages == ("frames", "environment", "ego")
    path.write_text("name: mine\ndata: {odometry_share: 0.5}\npictures: {run: {workers: 1}}\n")
    with pytest.raises(ContractError, match=r"pictures\.run\.workers"):
        load_codebook_recipe(str(path))


def test_shipped_recipes_ask_for_no_workers() -> None:
    for path in (Path(settings.__file__).parents[1] / "recipes" / "codebook").glob("*.yaml"):
        load_codebook_recipe(path.stem)


@pytest.mark.parametrize("name", ["nano", "nano_scarce_odometry", "smoke", "base"])
def test_shipped_recipes_have_the_vocabulary(name: str) -> None:
    recipe = load_codebook_recipe(name)
    recipe.model.vocabulary().check_spoken(name)
    assert recipe.loss.commitment == 0.25
    assert recipe.stage(EGO).run.seed == recipe.seed


@pytest.mark.parametrize(
    "settings",
    [
        DynamicsSettings(codebook_size=8),
        DynamicsSettings(codebook_size=32),
        DynamicsSettings(times_s=(0.0, 1.0, 2.0, 3.0)),
    ],
)
def test_ablations_are_no_vocabulary(settings: DynamicsSettings) -> None:
    found = settings.vocabulary()
    assert (found.entries, found.times_s) == (settings.codebook_size, settings.times_s)
    with pytest.raises(ContractError, match=r"vocabulary of mine.*entries=16"):
        found.check_spoken("mine")


def test_more_codes_than_places_are_refused() -> None:
    with pytest.raises(ContractError, match="codebook"):
        DynamicsSettings(codes=5).vocabulary()


def test_base_on_the_meta_device() -> None:
    """12 + 12 blocks of width 768: 7.1 M parameters a block, 16 x 128 codes (method.md 3.2)."""
    recipe = load_codebook_recipe("base")
    places = recipe.frames.height // 14, recipe.frames.width // 14
    with torch.device("meta"):
        stages = {
            name: LatentDynamics(name, recipe.model, recipe.loss, places, 768)
            for name in (ENVIRONMENT, EGO)
        }
    for stage in stages.values():
        count = sum(parameter.numel() for parameter in stage.parameters())
        assert 24 * 7.08e6 < count < 24 * 7.08e6 + 10e6
        assert stage.bottleneck.entries.shape == (16, 128)
        assert stage.encoder.blocks[0].query_key_value.weight.shape == (3 * 768, 768)
    optimizer = recipe.environment.optimizer
    assert (optimizer.learning_rate, optimizer.weight_decay, optimizer.clip) == (1e-4, 1e-2, 0.1)
    assert recipe.environment.run.steps == 100_000
