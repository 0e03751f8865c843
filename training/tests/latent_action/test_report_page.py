"""The page says whether what ships is of the recipe that it judges."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import yaml
from latentvla_training.latent_action.codebook import RECIPE, load_codebook
from latentvla_training.latent_action.report import shipped
from latentvla_training.latent_action.report_page import _shipped_text
from latentvla_training.latent_action.settings import CodebookRecipe


def run_of(recipe: CodebookRecipe, folder: Path) -> Path:
    """Return a folder that says that it is a run of a recipe."""
    folder.mkdir()
    (folder / RECIPE).write_text(yaml.safe_dump(json.loads(json.dumps(asdict(recipe)))))
    return folder


def test_what_ships_is_named_with_what_is_other_in_it(tmp_path: Path) -> None:
    released = load_codebook("nano")
    same = shipped(run_of(replace(released.recipe, seed=7), tmp_path / "same"))
    assert same == {"codebook_id": released.codebook_id, "other_settings": []}
    assert "not about it" not in _shipped_text(same)[0]
    louder = replace(released.recipe, loss=replace(released.recipe.loss, commitment=0.5))
    other = shipped(run_of(louder, tmp_path / "other"))
    assert other["other_settings"] == ["loss.commitment: 0.25 there, 0.5 here"]
    text = _shipped_text(other)[0]
    assert released.codebook_id in text
    assert "loss.commitment" in text
    assert "not about it" in text


def test_a_recipe_of_which_nothing_ships(tmp_path: Path) -> None:
    recipe = replace(load_codebook("nano").recipe, name="never")
    assert shipped(run_of(recipe, tmp_path / "never")) == {}
    assert _shipped_text({}) == []
