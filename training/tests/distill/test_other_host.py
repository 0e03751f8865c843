"""The same comparison on the other host: its BEV tokens, not its proposals, hear the states."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from latentvla_training.distill.contenders import STUDENT, TEACHER, Contest, train_contender
from latentvla_training.distill.export import load_student
from latentvla_training.distill.settings import DistillRecipe
from latentvla_training.distill.teaching import open_teaching
from latentvla_training.engine.recipe import load_recipe
from latentvla_training.planner.contenders import HOST, open_splits, opened_gate
from latentvla_training.planner.head_training import plans_on_features
from latentvla_training.planner.hosts import Host

from latentvla_ros.model.config import PlannerConfig

from .conftest import TINY, Place


@pytest.fixture
def tiny() -> PlannerConfig:
    return replace(TINY, host="transfuser", rounds=1)


@pytest.mark.parametrize("proposals_only", [True, False])
def test_contenders_go_on_from_a_transfuser(
    host: Host, recipe: DistillRecipe, place: Place, tmp_path: Path, proposals_only: bool
) -> None:
    recipe = replace(recipe, heads=replace(recipe.heads, proposals_only=proposals_only))
    splits = open_splits(host, recipe.heads, str(place.codes), ("test",), progress=False)
    contest = Contest(
        host, recipe, splits, open_teaching(str(place.teacher), splits), tmp_path / "runs"
    )
    made = {name: train_contender(name, contest, False) for name in (HOST, TEACHER, STUDENT)}
    plans = {
        name: plans_on_features(found.module, found.features["test"])
        for name, found in made.items()
    }
    for name in (TEACHER, STUDENT):
        assert opened_gate(made[name].module.planner) != 0.0
        assert not np.array_equal(plans[name], plans[HOST])
    weights = host.planner.state_dict()
    trunk = [name for name in weights if name.startswith("image_encoder.")]
    assert trunk
    _, student, _ = load_student(made[STUDENT].folder)
    assert student.config.host == "transfuser"
    for name in trunk:
        assert torch.equal(student.state_dict()[name], weights[name])


def test_the_recipe_differs_from_nano_in_its_host_alone() -> None:
    found, nano = load_recipe("nano_transfuser"), load_recipe("nano")
    assert found.model.host == "transfuser" and nano.model.host == "ipad"
    assert replace(found, name="nano", model=nano.model) == nano
    assert replace(found.model, host="ipad") == nano.model
