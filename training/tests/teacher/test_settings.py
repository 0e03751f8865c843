"""Recipes that ship can be built; what a recipe has not is refused by its key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from latentvla_training.engine import recipe as recipe_module
from latentvla_training.engine.recipe import build, load_recipe
from latentvla_training.latent_action.settings import load_codebook_recipe
from latentvla_training.teacher.settings import (
    TeacherRecipe,
    load_teacher_recipe,
    vision_recipe,
)

from latentvla_ros.contract import ContractError


@pytest.mark.parametrize("name", ["nano", "nano_blind", "smoke", "base", "base_lora"])
def test_shipped_recipes_are_valid(name: str) -> None:
    recipe = load_teacher_recipe(name)
    assert recipe.name == name
    assert recipe.vision.enabled == (name in ("nano", "smoke"))
    assert recipe.blank_images == (name == "nano_blind")


def test_blind_control_differs_from_nano_in_its_pictures_alone() -> None:
    nano, blind = load_teacher_recipe("nano"), load_teacher_recipe("nano_blind")
    for part in ("model", "pictures", "data", "augmentation", "optimizer", "run", "ego_steps"):
        assert getattr(nano, part) == getattr(blind, part), part


def test_scenes_of_the_papers_size_serve_planner_codebook_and_teacher() -> None:
    planner, frames = load_recipe("base").model, load_codebook_recipe("base").frames
    sizes = {(planner.image_width, planner.image_height)}
    sizes |= {(frames.source_width, frames.source_height)}
    for name in ("base", "base_lora"):
        pictures = load_teacher_recipe(name).pictures
        sizes |= {(pictures.width, pictures.height)}
    assert sizes == {(512, 256)}


def test_the_vision_stage_is_the_same_for_all_seeds() -> None:
    recipe = load_teacher_recipe("nano")
    other = replace(recipe, run=replace(recipe.run, seed=3))
    assert vision_recipe(recipe) == vision_recipe(other)


def test_fsdp2_configuration_names_classes_of_the_model() -> None:
    from latentvla_ros.model.torchvision_operators import declare_missing_operators

    declare_missing_operators()
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl

    path = Path(recipe_module.__file__).parents[1] / "recipes" / "accelerate" / "fsdp2.yaml"
    config = yaml.safe_load(path.read_text())
    assert config["distributed_type"] == "FSDP" and config["fsdp_config"]["fsdp_version"] == 2
    for name in config["fsdp_config"]["fsdp_transformer_layer_cls_to_wrap"].split(","):
        assert hasattr(modeling_qwen2_5_vl, name)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"name": "x", "surprise": 1}, "surprise"),
        ({"name": "x", "model": {"depth": 3}}, "depth"),
        ({"name": "x", "vision": {"run": {"passses": 3}}}, "passses"),
        ({"name": "x", "model": {"width": 30}}, "model.width"),
        ({"name": "x", "model": {"source": ""}}, "model.source"),
        ({"name": "x", "model": {"lora_rank": 4}}, "vision.enabled"),
        ({"name": "x", "model": {"source": "./qwen"}}, "false with model.source ./qwen"),
        ({"name": "x", "start_from": "y"}, "start_from"),
        ({"name": "x", "pictures": {"front_pixels": [9, 3]}}, "pictures.front_pixels"),
        ({"name": "x", "vision": {"hidden_share": 1.0}}, "vision.hidden_share"),
        ({"name": "x", "cache": {"prefixes": 0}}, "cache.prefixes"),
        ({"name": "x", "baseline": {"drop_ego_state": []}}, "baseline.drop_ego_state"),
    ],
)
def test_bad_recipe_names_the_key(values: object, field: str) -> None:
    with pytest.raises(ContractError) as caught:
        build(TeacherRecipe, values, "recipe")
    assert field in str(caught.value)
