"""Recipes: what ships is valid, an ablation changes what it says and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import latentvla_training
import pytest
from latentvla_training.distill.settings import (
    StudentSettings,
    load_distill_recipe,
    of_seed,
)
from latentvla_training.engine.recipe import load_record
from latentvla_training.planner.oracle_codes import OracleRecipe

from latentvla_ros.contract import ContractError
from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.model.planner import StudentPlanner

SHIPPED = sorted((Path(latentvla_training.__file__).parent / "recipes" / "distill").glob("*.yaml"))


def test_shipped_recipes_differ_from_their_base_in_the_student_alone() -> None:
    nano = load_distill_recipe("nano")
    gate = load_record(OracleRecipe, "nano", "oracle_codes")
    assert nano.heads.run.passes == gate.run.passes  # what the true codes are worth at best
    assert nano.reasoner.run.steps == 800
    students = set()
    for path in SHIPPED:
        found = load_distill_recipe(path.stem)
        assert found.name == path.stem
        if found.name == "nano_whole":
            own = replace(nano.heads, proposals_only=False), replace(nano.student, end_to_end=True)
            assert found == replace(nano, name=found.name, heads=own[0], student=own[1])
        elif found.name == "nano_told":
            told = replace(nano.heads, told_all_proposals=gate.told_all_proposals)
            assert found == replace(nano, name=found.name, heads=told)
            losses = found.heads.of("student").loss, nano.heads.of("student").loss
            assert losses[0].all_proposals == 0.5 != losses[1].all_proposals
            assert losses[0] == gate.heads.of("oracle_codes").loss
        elif found.name in ("nano_scarce_maps", "nano_scarce_odometry"):
            data = found.heads.data
            assert found.family == found.name
            assert min(data.labelled_share, data.odometry_share) == 0.1
            everywhere = replace(found.heads, data=nano.heads.data, run=nano.heads.run)
            assert bool(found.pseudo_odometry) == (data.odometry_share < 1.0)
            assert replace(found, name=nano.name, heads=everywhere, pseudo_odometry="") == nano
        elif found.base in ("nano_scarce_odometry", "nano_whole"):
            lower = load_distill_recipe(found.base)
            assert found.family == found.base and found.student != lower.student
            assert replace(found, name=lower.name, base="", student=lower.student) == lower
        elif found.base:
            assert found.family == "nano"
            assert replace(found, name=nano.name, base="", student=nano.student) == nano
            students.add(found.student)
    assert nano.student not in students and len(students) == len(SHIPPED) - 10


def test_what_no_fusion_leaves_out_is_the_fusion_alone() -> None:
    whole, without = load_distill_recipe("nano_whole"), load_distill_recipe("nano_no_fusion")
    assert without.student == replace(whole.student, fusion=False)
    assert without.family == whole.family == "nano_whole"  # one host, free queries and teacher


def test_nano_has_a_tenth_of_the_papers_student() -> None:
    config = load_distill_recipe("nano").student.planner_config(PlannerConfig())
    count = sum(weight.numel() for weight in StudentPlanner(config).reasoner.parameters())
    assert 4.5e6 < count < 5.5e6


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kl": -1.0}, r"student\.kl: found -1\.0"),
        ({"temperature": 0.0}, r"student\.temperature"),
        ({"fusion": False}, r"student\.fusion.*end_to_end: true"),
        ({"kl": 0.0, "cross_entropy": 0.0, "features": 0.0}, "nothing of the student reaches"),
        ({"reasoner_layers": -1}, r"student\.reasoner_layers"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, float], said: str) -> None:
    with pytest.raises(ContractError, match=said):
        StudentSettings(**values)  # type: ignore[arg-type]


def test_a_student_that_cannot_reach_the_plan_is_refused() -> None:
    nano = load_distill_recipe("nano")
    apart = replace(nano.student, fusion=False, end_to_end=True)
    with pytest.raises(ContractError, match=r"student\.fusion.*proposals_only: false"):
        replace(nano, student=apart)


def test_nothing_is_guessed_where_odometry_is_known() -> None:
    with pytest.raises(
        ContractError, match=r"pseudo_odometry: found 'nano'.*odometry_share below 1"
    ):
        replace(load_distill_recipe("nano"), pseudo_odometry="nano")
    scarce = load_distill_recipe("nano_scarce_odometry")
    assert scarce.contenders[-1] == "pseudo_trajectories"
    assert "pseudo_trajectories" not in load_distill_recipe("nano").contenders


def test_a_base_may_have_a_base_but_not_itself(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text(f"name: first\nbase: {second}\nstudent: {{kl: 0.5}}\n")
    second.write_text("name: second\nbase: smoke\nstudent: {cross_entropy: 0.25}\n")
    found, smoke = load_distill_recipe(str(first)), load_distill_recipe("smoke")
    assert (found.student.kl, found.student.cross_entropy) == (0.5, 0.25)
    assert found.family == "smoke" and found.heads == smoke.heads
    second.write_text(f"name: second\nbase: {first}\n")
    with pytest.raises(ContractError, match=r"\.base.*does not go on from this one"):
        load_distill_recipe(str(first))


def test_a_recipe_of_its_own_may_go_on_from_one_that_ships(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nbase: smoke\nheads: {run: {passes: 6}}\n")
    found, smoke = load_distill_recipe(str(path)), load_distill_recipe("smoke")
    assert found.heads.run.passes == 6 and found.heads.data == smoke.heads.data
    assert found.family == "mine"  # other heads: it shares no runs
    assert of_seed(found, 3).heads.run.seed == of_seed(found, 3).reasoner.run.seed == 3
    path.write_text("name: a-b\n")
    with pytest.raises(ContractError, match="without - : /"):
        load_distill_recipe(str(path))
    path.write_text("name: mine\nbase: smoke\nstudent: {surprise: 1}\n")
    with pytest.raises(ContractError, match="surprise"):
        load_distill_recipe(str(path))
