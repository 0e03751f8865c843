"""One step at full shape, on no memory: what is to learn is reached by a loss, or is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from latentvla_training.distill import student
from latentvla_training.distill.dry_run import (
    FUSION,
    LESSONS,
    ONLINE,
    distill_dry_runs,
    dry_runs,
    teacher_shape,
)
from latentvla_training.distill.pooling import TeacherStates
from latentvla_training.distill.settings import load_distill_recipe
from latentvla_training.distill.student import PooledReadout
from latentvla_training.engine.recipe import load_recipe
from latentvla_training.planner.describe import meta_planner
from latentvla_training.planner.dry_run import DryRun
from latentvla_training.teacher.settings import load_teacher_recipe
from torch import nn

from latentvla_ros.contract import ContractError
from latentvla_ros.model.planner import StudentPlanner

NAMES = (ONLINE, LESSONS, FUSION)


def steps(name: str) -> dict[str, DryRun]:
    return {found.what: found for found in distill_dry_runs(load_recipe(name))}


def size(*modules: nn.Module | None) -> int:
    return sum(p.numel() for module in modules if module is not None for p in module.parameters())


def check(name: str) -> dict[str, DryRun]:
    """Check that every step of a recipe trains all that it is to train, and nothing else."""
    recipe = load_distill_recipe(name)
    found = steps(name)
    host = load_recipe(name).model
    planner = meta_planner(recipe.student.planner_config(host))
    width, _ = teacher_shape(load_teacher_recipe(name))
    pooling = TeacherStates(width, host.width, recipe.pooling)
    readout = PooledReadout(host.width, recipe.pooling)
    whole = size(planner) - size(planner.image_encoder, planner.ego_prior)  # but what is frozen
    assert tuple(found) == NAMES and planner.head.fusion is not None
    assert found[ONLINE].trained == whole - size(planner.reasoner) + size(pooling)
    assert found[LESSONS].trained == size(planner.reasoner, readout)
    assert found[FUSION].trained == whole + size(readout)
    plan, lessons = {"plan", "expected", "assignment"}, {"kl", "codes", "features"}
    assert [set(step.losses) for step in found.values()] == [plan, lessons, plan | lessons]
    return found


def test_each_step_of_smoke_trains_what_it_is_to_train() -> None:
    check("smoke")


def nano_steps(name: str) -> dict[str, DryRun]:
    """Return the steps of a comparison of the shipped planner."""
    config, teacher = load_recipe("nano").model, load_teacher_recipe("nano")
    return {found.what: found for found in dry_runs(load_distill_recipe(name), config, teacher)}


def test_without_fusion_all_else_of_the_whole_student_is_trained() -> None:
    whole, without = nano_steps("nano_whole"), nano_steps("nano_no_fusion")
    fusion = meta_planner(load_recipe("nano").model).head.fusion
    assert whole[FUSION].trained - without[FUSION].trained == size(fusion) > 0
    for what in (ONLINE, LESSONS):  # memory depends on what the process has held before
        assert replace(whole[what], least_bytes=0) == replace(without[what], least_bytes=0)
    assert set(whole[FUSION].losses) == set(without[FUSION].losses) > {"plan", "kl"}


def test_each_step_of_nano_told() -> None:
    assert {what: step.trained for what, step in nano_steps("nano_told").items()} == {
        what: step.trained for what, step in nano_steps("nano").items()
    }


@pytest.mark.slow
def test_each_step_of_base_at_full_shape() -> None:
    found = check("base")
    assert {step.batch_size for step in found.values()} == {64}
    reasoner = meta_planner(load_recipe("base").model).reasoner  # as describe counts it
    assert 47e6 <= size(reasoner) <= 53e6 and found[LESSONS].trained > 47e6


def test_a_reasoner_that_no_lesson_reaches_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = student.ReasonerStates.read
    monkeypatch.setattr(student.ReasonerStates, "read", torch.no_grad()(real))
    with pytest.raises(ContractError, match=rf"gradients of {LESSONS}.*planner\.reasoner\."):
        steps("smoke")


@pytest.mark.parametrize("what", [ONLINE, FUSION])
def test_a_fusion_that_no_plan_reaches_is_named(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = StudentPlanner.decode
    left = {ONLINE: 1, FUSION: 2}[what]  # which of the two that plan forgets its states

    def decode(self: StudentPlanner, encoded: Any, states: Any) -> Any:
        nonlocal left
        left -= 1
        return real(self, encoded, states if left else None)

    monkeypatch.setattr(StudentPlanner, "decode", decode)
    with pytest.raises(ContractError, match=rf"gradients of {what}.*planner\.head\.fusion\."):
        steps("smoke")


def test_a_planner_without_a_comparison_of_its_name_has_no_such_steps() -> None:
    assert steps("nano_fine") == {}
