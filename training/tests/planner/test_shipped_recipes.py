"""Recipes of planners that ship: rows of a comparison differ by what they are named after alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from latentvla_training.engine.recipe import Recipe, load_recipe
from latentvla_training.planner.trunk_pretraining import load_trunk_recipe


def second_stage(first: Recipe) -> Recipe:
    """Return a first stage with what ``nano_fine`` changes of ``nano``."""
    fine = load_recipe("nano_fine")
    run = replace(
        first.run,
        passes=fine.run.passes,
        validate_passes=fine.run.validate_passes,
        seed=fine.run.seed,
    )
    return replace(
        first,
        name=f"{first.name}_fine",
        start_from=first.name,
        trunk_from="",
        loss=fine.loss,
        optimizer=fine.optimizer,
        run=run,
    )


@pytest.mark.parametrize(
    "first",
    [
        "nano",
        "nano_blank",
        "nano_transfuser",
        "nano_scarce",
        "nano_scarce_blank",
        "nano_scarce_odometry",
        "nano_scarce_odometry_blank",
    ],
)
def test_every_second_stage_is_that_of_nano(first: str) -> None:
    found = load_recipe(f"{first}_fine")
    assert found == second_stage(load_recipe(first))
    assert found.loss.pdm == 4.0


@pytest.mark.parametrize("sees", ["nano", "nano_scarce", "nano_scarce_odometry"])
def test_who_cannot_see_differs_in_that_alone(sees: str) -> None:
    found = load_recipe(f"{sees}_blank")
    assert found.blank_images
    assert replace(found, name=sees, blank_images=False) == load_recipe(sees)


@pytest.mark.parametrize("plain", ["nano", "nano_scarce_odometry"])
def test_a_host_with_a_learned_trunk_differs_in_that_alone(plain: str) -> None:
    found, trunk = load_recipe(f"{plain}_trunk"), load_trunk_recipe("nano")
    assert found.trunk_from == f"trunk_{trunk.name}" and found.model == trunk.model
    assert replace(found, name=plain, trunk_from="") == load_recipe(plain)


@pytest.mark.parametrize(
    ("name", "shares"),
    [("nano_scarce", (0.1, 1.0)), ("nano_scarce_odometry", (1.0, 0.1)), ("nano_trunk", (1.0, 1.0))],
)
def test_a_regime_hides_what_it_says(name: str, shares: tuple[float, float]) -> None:
    data = load_recipe(name).data
    assert (data.labelled_share, data.odometry_share) == shares
