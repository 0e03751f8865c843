"""What is there is taken for finished only where its command would write the same record now."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from latentvla_training.data.shards import load_split, split_folder
from latentvla_training.distill import settings
from latentvla_training.distill.evaluation import result_identity, train_all
from latentvla_training.distill.settings import DistillRecipe, load_distill_recipe
from latentvla_training.engine.checkpoint import save_checkpoint
from latentvla_training.engine.loop import _claim_folder
from latentvla_training.engine.recipe import load_record
from latentvla_training.latent_action.codes import save_codes, scenes_identity
from latentvla_training.pipeline import artefacts
from latentvla_training.pipeline.layout import Layout
from latentvla_training.pipeline.plan import UNKNOWN, Plan
from latentvla_training.pipeline.runner import is_done, listed
from latentvla_training.pipeline.settings import StageName, load_whole_recipe
from latentvla_training.planner.hosts import Host
from latentvla_training.planner.oracle_codes import OracleRecipe
from latentvla_training.report import identity

from latentvla_ros.contract import ContractError

from ..distill.conftest import CODEBOOK, Place, codes_of, write_split
from ..distill.test_choice import val_result


@dataclass(frozen=True)
class Here(Plan):
    """A whole run whose host, codes and teacher are those of ``Place``."""

    told: Host | None = None
    teacher: str = ""
    codes: str = ""
    codebook_id: str = CODEBOOK

    def load_host(self) -> Host:
        assert self.told is not None
        return self.told

    def teacher_id(self) -> str:
        return self.teacher


@pytest.fixture
def plan(place: Place, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    """With data of its own, which a test may change."""
    shutil.copytree(place.root / "data", tmp_path / "data")
    shutil.copytree(place.codes, tmp_path / "codes")
    monkeypatch.setenv("LATENTVLA_DATA", str(tmp_path / "data"))
    layout = Layout(tmp_path / "data", tmp_path / "runs", tmp_path / "out")
    whole = load_whole_recipe("smoke")
    return Here(whole, layout, told=host, teacher=place.teacher_id, codes=str(tmp_path / "codes"))


def done(plan: Plan, stage: StageName) -> bool:
    return all(is_done(step) for step in plan.steps(stage))


def refused(plan: Plan, stage: StageName, said: str) -> None:
    """Check that the plan names what a folder holds instead."""
    assert any(
        said in entry.refused and "there" in entry.refused for entry in listed(plan, [stage])
    )


def edit_recipe(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[DistillRecipe], DistillRecipe]
) -> None:
    """Change what is read of distill/smoke.yaml."""
    changed = change(load_distill_recipe("smoke"))
    monkeypatch.setattr(settings, "load_distill_recipe", lambda _: changed)


def remake(split: str) -> None:
    """Make the Scenes of a split anew, without the first drive."""
    min(split_folder(split).glob("*.parquet")).unlink()


def write(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def test_contenders_are_done_where_train_would_record_the_same(
    plan: Here, place: Place, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not done(plan, "distill")
    recipe = load_distill_recipe("smoke")
    train_all(host, recipe, plan.codes, str(place.teacher), plan.contest, progress=False)
    assert done(plan, "distill")
    assert not done(replace(plan, teacher="another-0"), "distill")  # in a folder of its name
    refused(replace(plan, told=replace(host, identity="tiny-2-0")), "distill", "host: 'tiny-1-")
    for change, said in (
        (lambda own: replace(own, pooling=replace(own.pooling, width=48)), "pooling.width: 24"),
        (lambda own: replace(own, student=replace(own.student, kl=0.25)), "student.kl: 1.0"),
        (lambda own: replace(own, heads=replace(own.heads, new_factor=3.0)), "new_factor"),
    ):
        with monkeypatch.context() as patched:
            edit_recipe(patched, change)
            refused(plan, "distill", said)
    seed = plan.contest / "seed0"
    first = next(seed.glob("reasoner-*"))
    shutil.copytree(first, seed / "kept")
    shutil.copy(next(seed.glob("student-*")) / "checkpoint.pt", first / "checkpoint.pt")
    refused(plan, "distill", "reasoner: ")  # the student learned of another first phase
    shutil.rmtree(first)
    (seed / "kept").rename(first)
    assert done(plan, "distill")

    remake("train")
    assert not done(plan, "distill")  # codes of other Scenes
    save_codes(Path(plan.codes) / "train.safetensors", codes_of(load_split("train"), "train"))
    refused(plan, "distill", "scenes: ")  # codes of these, runs of others


def test_a_comparison_is_done_where_it_would_say_the_same(
    plan: Here, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_distill_recipe("smoke")
    run = plan.student_run(0, plan.teacher)
    run.mkdir(parents=True)
    (run / "checkpoint.pt").touch()
    readers = artefacts.scenes_as_shown(recipe.heads.data, ["test"])
    about = result_identity(host, recipe, [recipe], [0], readers)
    found = {
        "teacher": plan.teacher, "codebook": CODEBOOK, "seeds": [0], "splits": {"test": {}},
        "identity": {**about, "commit": "another"},
    }  # fmt: skip
    path = plan.layout.results / "distill.json"
    assert not done(plan, "distill-report")
    write(path, found)
    assert done(plan, "distill-report")
    for lost in ("training", "distill", "recipes", "data", "host"):
        write(path, {**found, "identity": {**about, lost: None}})
        assert not done(plan, "distill-report"), lost
    write(path, {**found, "splits": {"val": {}}})
    assert not done(plan, "distill-report")
    write(path, found)
    with monkeypatch.context() as patched:
        edit_recipe(patched, lambda own: replace(own, student=replace(own.student, kl=0.25)))
        assert not done(plan, "distill-report")
    remake("test")
    assert not done(plan, "distill-report")


def test_the_student_that_is_best_on_validation_becomes_the_bundle(plan: Here) -> None:
    distill = replace(plan.recipe.distill, seeds=(0, 1))
    plan = replace(plan, recipe=replace(plan.recipe, distill=distill))
    (step,) = plan.steps("bundle")
    assert UNKNOWN in step.arguments[3] and plan.verdict() == [] and not is_done(step)
    for scores, seed in ([(0.6, 0.5), (0.7, 0.5)], 1), ([(0.8, 0.5), (0.7, 0.5)], 0):
        write(plan.val_result, val_result(scores))
        (step,) = plan.steps("bundle")
        assert step.arguments[3] == str(plan.student_run(seed, plan.teacher))
        assert step.arguments[-2:] == ("--result", str(plan.val_result))
        assert f"seed {seed} is best" in plan.verdict()[-1] and len(plan.verdict()) == 3
    write(plan.val_result, val_result([(0.6, 0.5)]))  # of fewer seeds
    assert plan.chosen_seed() is None


def test_the_gate_is_done_where_it_would_say_the_same(plan: Here, host: Host) -> None:
    recipe = load_record(OracleRecipe, "smoke", "oracle_codes")
    readers = artefacts.scenes_as_shown(recipe.data, ["test"])
    about = identity.comparison_identity(host, {"smoke": recipe}, readers)
    found = {"codebook": CODEBOOK, "seeds": [0], "splits": {"test": {}}, "identity": about}
    path = plan.layout.results / "oracle_codes.json"
    assert not done(plan, "oracle-codes")
    write(path, found)
    assert done(plan, "oracle-codes")
    other = identity.comparison_identity(host, {"smoke": replace(recipe, new_factor=3.0)}, readers)
    write(path, {**found, "identity": other})
    assert not done(plan, "oracle-codes")
    write(path, found)
    assert not done(replace(plan, told=replace(host, identity="tiny-2-0")), "oracle-codes")
    remake("test")
    assert not done(plan, "oracle-codes")


def test_teachers_are_done_where_they_learned_these_codes_of_these_scenes(
    plan: Here, place: Place
) -> None:
    (run,) = plan.teacher_runs
    recipe = replace(place.run.recipe, codebook="")
    assert not artefacts.has_teacher_run(run, recipe, Path(plan.codes))
    scenes = scenes_identity(load_split("train").part(recipe.data.max_shards))
    _claim_folder(run, replace(recipe, codebook=CODEBOOK, scenes=scenes))
    save_checkpoint(run, {"step": recipe.run.steps})
    assert artefacts.has_teacher_run(run, recipe, Path(plan.codes))
    with pytest.raises(ContractError, match="ego_steps"):
        artefacts.has_teacher_run(run, replace(recipe, ego_steps=9), Path(plan.codes))
    remake("train")
    assert not artefacts.has_teacher_run(run, recipe, Path(plan.codes))  # codes of other Scenes
    for split in ("train", "val"):
        own = codes_of(load_split(split), split)
        save_codes(Path(plan.codes) / f"{split}.safetensors", own)
    with pytest.raises(ContractError, match="scenes: "):  # it learned others
        artefacts.has_teacher_run(run, recipe, Path(plan.codes))
    write_split("train")
    for split in ("train", "val"):
        own = codes_of(load_split(split), split, "other-0")
        save_codes(Path(plan.codes) / f"{split}.safetensors", own)
    with pytest.raises(ContractError, match="codebook: "):
        artefacts.has_teacher_run(run, recipe, Path(plan.codes))
