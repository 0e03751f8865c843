"""Recipes of whole runs name recipes that ship and fit together; mistakes are refused by name."""

from __future__ import annotations

from pathlib import Path

import latentvla_training
import pytest
from latentvla_training.distill.settings import load_distill_recipe
from latentvla_training.engine.recipe import load_recipe, load_record
from latentvla_training.latent_action.settings import load_codebook_recipe
from latentvla_training.pipeline.layout import find_layout
from latentvla_training.pipeline.plan import Plan
from latentvla_training.pipeline.settings import STAGES, load_whole_recipe
from latentvla_training.planner.contenders import HOST
from latentvla_training.planner.oracle_codes import OracleRecipe
from latentvla_training.teacher.settings import load_teacher_recipe

from latentvla_ros.contract import ContractError

SHIPPED = sorted((Path(latentvla_training.__file__).parent / "recipes" / "all").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_what_ships_fits_together(path: Path) -> None:
    recipe = load_whole_recipe(path.stem)
    assert recipe.name == path.stem
    first = load_recipe(recipe.planner.recipe)
    fine = load_recipe(recipe.planner.fine)
    assert fine.start_from == recipe.planner.recipe and fine.model == first.model
    load_codebook_recipe(recipe.codebook.recipe).model.vocabulary().check_spoken("it")
    pictures = load_teacher_recipe(recipe.teacher.recipe).pictures
    assert (pictures.width, pictures.height) == (first.model.image_width, first.model.image_height)
    # What the true codes are worth at best: the host of the gate is that of the comparison.
    oracle = load_record(OracleRecipe, recipe.oracle.recipe, "oracle_codes")
    assert oracle.heads.of(HOST) == load_distill_recipe(recipe.distill.recipe).heads.of(HOST)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("surprise: 1", "surprise"),
        ("world: {train: -1}", "world.train"),
        ("world: {minutes: -1.0}", "world.minutes"),
        ("codebook: {recipe: nano, seeds: []}", "codebook.seeds"),
        ("distill: {recipe: nano, seeds: [1, 1]}", "distill.seeds"),
        ("oracle: {recipe: nano, splits: [train]}", "oracle.splits"),
        ("teacher: {recipe: nano, split: nowhere}", "teacher.split"),
        ("planner: {recipe: nano, surprise: 1}", "surprise"),
        ("revision: 0", "revision"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, said: str) -> None:
    values = {
        name: f"{name}: {{recipe: smoke}}"
        for name in ("planner", "codebook", "oracle", "teacher", "distill")
    }
    values[text.partition(":")[0]] = text
    path = tmp_path / "mine.yaml"
    path.write_text("\n".join(["name: mine", *values.values()]))
    with pytest.raises(ContractError, match=said):
        load_whole_recipe(str(path))


def test_a_run_apart_leaves_the_checkout_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATENTVLA_DATA", str(tmp_path / "mine"))
    smoke, nano = load_whole_recipe("smoke"), load_whole_recipe("nano")
    apart = find_layout(smoke, None)
    assert apart.data.is_relative_to(apart.out) and apart.runs.is_relative_to(apart.out)
    shared = find_layout(nano, None)
    assert shared.data == tmp_path / "mine" and shared.codebook_run("nano", 0).parts[-3] == "runs"
    # What hangs on this host and codebook is nobody else's.
    for run in (
        shared.oracle_run("nano"),
        shared.vision_run("nano"),
        shared.teacher_run("nano", 0),
        shared.contest("nano"),
    ):
        assert run.is_relative_to(shared.out / "runs") and shared.out.name == "nano"
    assert not shared.codebook_run("nano", 0).is_relative_to(shared.out)
    below = find_layout(nano, tmp_path / "root")
    assert {below.data.parent, below.runs.parent, below.out} == {tmp_path / "root"}


def test_every_command_writes_below_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No stage replaces what ships, or falls back on a folder of the checkout."""
    monkeypatch.setenv("LATENTVLA_DATA", str(tmp_path / "data"))
    plan = Plan(load_whole_recipe("smoke"), find_layout(load_whole_recipe("smoke"), tmp_path))
    places = ("--out", "--run", "--json", "--markdown", "--results", "--vision-run", "--codebook")
    seen = set()
    for stage in STAGES:
        for step in plan.steps(stage):
            for option, value in zip(step.arguments, step.arguments[1:], strict=False):
                if option in places:
                    seen.add(option)
                    assert Path(value).is_relative_to(tmp_path), step.arguments
            writes = {"train", "export", "report", "release", "evaluate"} & {*step.arguments[:2]}
            assert not writes or set(places) & set(step.arguments), step.arguments
    assert seen == set(places)
