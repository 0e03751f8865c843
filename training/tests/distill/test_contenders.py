"""Contenders with real caches: who is told what, what is refused by both names, what goes on."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from latentvla_training.data.shards import split_folder, write_shard
from latentvla_training.distill import contenders
from latentvla_training.distill.contenders import (
    STUDENT,
    TEACHER,
    Contest,
    train_contender,
)
from latentvla_training.distill.export import load_student
from latentvla_training.distill.pooling import TEACHER_ACTION, TEACHER_VISUAL
from latentvla_training.distill.settings import (
    PSEUDO,
    DistillRecipe,
    StudentSettings,
    of_seed,
)
from latentvla_training.distill.student import (
    CODES,
    GREEDY,
    POOLED_ACTION,
    PROBABILITIES,
    student_answers,
)
from latentvla_training.distill.teaching import Teaching, check_vocabulary, open_teaching
from latentvla_training.distill.token_scores import by_codes
from latentvla_training.latent_action.codes import Vocabulary, load_codes, save_codes
from latentvla_training.planner.contenders import FREE, HOST, CodedSplit, open_splits
from latentvla_training.planner.head_training import HeadTask
from latentvla_training.planner.hosts import Host
from latentvla_training.planner.motion_net import MotionNet, load_pseudo_recipe
from latentvla_training.planner.pseudo_odometry import write_motion
from latentvla_training.planner.release import load_run
from latentvla_training.teacher.cache import (
    CachedTeacher,
    cache_folder,
    cache_identity,
    ensure_cache,
    scenes_as_shown,
)

from latentvla_ros.contract import ContractError

from .conftest import CODEBOOK, SHARD_RECIPE, SPLITS, Place, codes_of, make_scene

Splits = dict[str, CodedSplit]


@pytest.fixture
def splits(host: Host, recipe: DistillRecipe, place: Place) -> Splits:
    return open_splits(host, recipe.heads, str(place.codes), ("test",), progress=False)


@pytest.fixture
def teaching(splits: Splits, place: Place) -> Teaching:
    return open_teaching(str(place.teacher), splits)


@pytest.fixture
def contest(
    host: Host, recipe: DistillRecipe, splits: Splits, teaching: Teaching, tmp_path: Path
) -> Contest:
    return Contest(host, recipe, splits, teaching, tmp_path / "runs")


def test_each_is_told_its_own(teaching: Teaching, place: Place) -> None:
    split = teaching.splits["test"]
    assert (teaching.teacher, teaching.width) == (place.teacher_id, 48)
    assert set(split.for_teacher().extras) == {TEACHER_VISUAL, TEACHER_ACTION}
    settings = StudentSettings(features=0.0)
    taught = split.for_student(settings).extras
    np.testing.assert_array_equal(taught[CODES], split.coded.codes.sequence)
    np.testing.assert_array_equal(taught[PROBABILITIES], split.cached.marginals)
    causal = split.for_student(replace(settings, autoregressive=True)).extras
    # After the teacher's greedy codes, of which each is the likeliest where it stands.
    likeliest = causal[PROBABILITIES].argmax(axis=-1)
    assert (likeliest == causal[GREEDY]).mean() > 0.95
    np.testing.assert_allclose(causal[PROBABILITIES].sum(axis=-1), 1.0, atol=1e-5)
    only = split.for_student(StudentSettings(kl=0.0, features=0.0)).extras
    assert set(only) == {CODES}
    with pytest.raises(ContractError, match=r"student\.features: found 1\.0"):
        split.for_student(StudentSettings())


def test_a_killed_student_goes_on_to_the_same_result(
    contest: Contest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = train_contender(STUDENT, contest, progress=False)
    first, second = contest.records.student_folders(contest.folder)
    assert whole.folder == second and (first / "checkpoint.pt").is_file()
    assert POOLED_ACTION in whole.features["train"].extras
    assert not whole.features["test"].extras  # it is told nothing where it is scored
    real: Callable[..., Any] = contenders.run_training
    killed = replace(contest, folder=tmp_path / "killed")

    def kill(stage: str) -> Callable[..., Any]:
        def run(task: Any, record: Any, folder: Path, progress: bool) -> Any:
            if not folder.name.startswith(stage):
                return real(task, record, folder, progress=progress)
            real(task, record, folder, 1, progress=progress)
            raise KeyboardInterrupt

        return run

    for stage in ("teacher", "reasoner", "student"):
        with monkeypatch.context() as patched:
            patched.setattr(contenders, "run_training", kill(stage))
            with pytest.raises(KeyboardInterrupt):
                train_contender(STUDENT, killed, progress=False)
    again = train_contender(STUDENT, killed, progress=False).module.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in whole.module.state_dict().items())
    path = whole.folder / "recipe.yaml"  # as it was before there were other vocabularies
    path.write_text(path.read_text().partition("vocabulary:")[0])
    assert load_student(whole.folder)[2] == 2
    read = train_contender(STUDENT, replace(contest, may_train=False)).module.state_dict()
    assert all(torch.equal(value, read[name]) for name, value in again.items())


def test_a_student_of_the_codes_alone_needs_no_teacher(contest: Contest, tmp_path: Path) -> None:
    student = StudentSettings(kl=0.0, features=0.0, reasoner_width=48, reasoner_heads=2)
    recipe = replace(contest.recipe, name="alone", student=student)
    alone = replace(contest, teaching=None, recipe=recipe)
    found = train_contender(STUDENT, alone, progress=False)
    assert found.folder.name == f"student-alone-{CODEBOOK}"
    assert found.module.planner.config.reasoner_width == 48
    with pytest.raises(ContractError, match="--teacher"):
        train_contender(TEACHER, alone, progress=False)


def test_a_finished_contender_is_all_where_its_host_is(
    contest: Contest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache may have moved the host to a GPU, for which the meta device stands here."""
    shape = StudentSettings(
        kl=0.0, cross_entropy=0.0, features=0.0, end_to_end=True, reasoner_width=48
    )
    untaught = replace(contest, recipe=replace(contest.recipe, name="untaught", student=shape))
    entries = ((FREE, contest), (TEACHER, contest), (STUDENT, untaught))
    for contender, own in entries:
        train_contender(contender, own, progress=False)
    here = contest.host.planner
    there = replace(contest.host, planner=copy.deepcopy(here).to("meta"))
    monkeypatch.setattr(contenders, "fresh_planner", lambda *_: copy.deepcopy(here))
    for contender, own in entries:
        module = train_contender(contender, replace(own, host=there, may_train=False)).module
        tensors = [*module.parameters(), *module.buffers()]
        assert {value.device.type for value in tensors} == {"meta"}, contender


def test_a_student_speaks_the_vocabulary_that_it_learns(contest: Contest, place: Place) -> None:
    """An ablation: codes of 8 entries, in transitions of other times, without a teacher."""
    eight = Vocabulary(8, (0.0, 1.0, 2.0, 3.0))
    splits = {}
    for name, split in contest.splits.items():
        ego = np.where(split.codes.ego < 0, split.codes.ego, split.codes.ego % 8).astype(np.int8)
        few = replace(split.codes, ego=ego, environment=ego, vocabulary=eight)
        splits[name] = replace(split, codes=replace(few, codebook_id="eight-0"))
    student = StudentSettings(kl=0.0, features=0.0)
    alone = replace(
        contest,
        splits=splits,
        teaching=None,
        recipe=replace(contest.recipe, name="alone", student=student),
    )
    found = train_contender(STUDENT, alone, progress=False)
    said = student_answers(found.module, found.features["test"])[1]
    assert said.shape == (8, 12, 8) and found.folder.name == "student-alone-eight-0"
    known = splits["test"].codes.sequence >= 0
    assert np.isfinite(by_codes(said, splits["test"].codes.sequence)["nll"][known.any(1)]).all()
    with pytest.raises(ContractError, match=r"vocabulary of student.*entries=8.*entries=16"):
        load_student(found.folder)  # no car speaks it
    again = train_contender(STUDENT, replace(alone, may_train=False)).module.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in found.module.state_dict().items())


def test_where_odometry_is_scarce_pictures_teach_and_the_rest_is_imitated(
    host: Host, recipe: DistillRecipe, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = replace(recipe.heads.data, max_shards=0, odometry_share=0.5)
    scarce = replace(recipe, heads=replace(recipe.heads, data=data))
    codes = tmp_path / "codes"
    with pytest.raises(ContractError, match=r"odometry_share of host tiny-1-.*at most 0\.5"):
        open_splits(host, scarce.heads, str(place.codes), ("test",), progress=False)
    host = replace(host, data=data)
    with pytest.raises(ContractError, match=r"odometry_share of codebook test-.*at most 0\.5"):
        open_splits(host, scarce.heads, str(place.codes), ("test",), progress=False)
    with pytest.raises(ContractError, match="--codes: found 'kinematic'"):
        open_splits(host, scarce.heads, "kinematic", ("test",), progress=False)
    for split in SPLITS:
        told_less = replace(load_codes(place.codes / f"{split}.safetensors"), odometry_share=0.5)
        save_codes(codes / f"{split}.safetensors", told_less)
    splits = open_splits(host, scarce.heads, str(codes), ("test",), progress=False)
    with pytest.raises(ContractError, match=r"expected .+ without odometry"):
        open_teaching(str(place.teacher), splits)  # its states know how these drives went
    teacher = replace(place.run, recipe=replace(place.run.recipe, data=data))
    for split in SPLITS:
        ensure_cache(teacher, scenes_as_shown(teacher, split), split, tmp_path / "c", False)
    teaching = open_teaching(str(place.teacher), splits, tmp_path / "c")
    learned: dict[str, set[int]] = {}
    real: Callable[..., Any] = contenders.run_training

    def note(task: HeadTask, record: Any, folder: Path, progress: bool) -> Any:
        learned[folder.name.partition("-")[0]] = set(task.scenes().tolist())
        return real(task, record, folder, progress=progress)

    monkeypatch.setattr(contenders, "run_training", note)
    contest = Contest(host, scarce, splits, teaching, tmp_path / "runs")
    with pytest.raises(ContractError, match="a recipe with pseudo_odometry"):
        train_contender(PSEUDO, contest)
    motion = np.tile([2.0, 0.0, 0.0], (8, 1))
    net = load_pseudo_recipe("smoke")
    monkeypatch.setattr(contenders, "pseudo_file", lambda name, split: tmp_path / name / split)
    write_motion(tmp_path / "smoke" / "train", MotionNet(net), net, splits["train"].reader, motion)
    contest = replace(contest, recipe=replace(scarce, pseudo_odometry="smoke"))
    for contender in (HOST, PSEUDO, STUDENT):
        module = train_contender(contender, contest, progress=False).module
        assert all(torch.isfinite(value).all() for value in module.state_dict().values())
    known = set(range(4, 8))
    assert learned == {
        "host": known,
        "pseudo_trajectories": set(range(3)) | known,  # the last has no future
        "teacher": known,
        "reasoner": set(range(8)),
        "student": known,
    }
    with pytest.raises(ContractError, match=r"assumed: 'smoke-\w+' there, 'smoke-\w+' here"):
        write_motion(
            tmp_path / "smoke" / "train", MotionNet(net), net, splits["train"].reader, motion
        )
        train_contender(PSEUDO, contest)


def test_runs_of_others_are_refused_by_both_names(contest: Contest) -> None:
    train_contender(HOST, contest, progress=False)
    with pytest.raises(ContractError, match=r"settings\.run\.seed: 0 there, 1 here"):
        train_contender(HOST, replace(contest, recipe=of_seed(contest.recipe, 1)), progress=False)
    other = Host(contest.host.planner, "tiny-2-fedcba9876543210")
    with pytest.raises(ContractError, match=r"host: 'tiny-1-\w+' there, 'tiny-2-\w+' here"):
        train_contender(HOST, replace(contest, host=other), progress=False)
    with pytest.raises(ContractError, match=r"distill export.*expected a planner's run"):
        load_run(contest.folder / HOST)
    unfinished = replace(contest, may_train=False)
    with pytest.raises(FileNotFoundError, match=r"0 of 2 steps; finish it with distill train"):
        train_contender(TEACHER, unfinished)


def test_a_host_of_another_codebook_is_refused(contest: Contest) -> None:
    other = replace(contest.host, codebook="other-1")
    with pytest.raises(
        ContractError, match=r"codebook of the host tiny-1.*'other-1', expected test-"
    ):
        replace(contest, host=other)
    assert replace(contest, host=replace(contest.host, codebook="test-0123456789abcdef"))


def test_a_teacher_of_another_codebook_is_refused(splits: Splits, place: Place) -> None:
    other = {
        name: replace(split, codes=replace(split.codes, codebook_id="other-1"))
        for name, split in splits.items()
    }
    with pytest.raises(ContractError, match=r"found 'test-0123456789abcdef', expected other-1"):
        open_teaching(str(place.teacher), other)


@pytest.mark.parametrize("field", ["teacher", "codebook", "rig"])
def test_states_of_another_are_refused(
    field: str, splits: Splits, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache on disk is of this teacher; one is opened that says it is another."""

    def other(*arguments: Any) -> dict[str, str]:
        found = cache_identity(*arguments)
        return {**found, field: "other-1"}

    with monkeypatch.context() as patched:
        patched.setattr("latentvla_training.distill.teaching.cache_identity", other)
        if field == "teacher":  # also another place
            with pytest.raises(FileNotFoundError, match="latentvla-train teacher cache"):
                open_teaching(str(place.teacher), splits)
            patched.setattr(
                "latentvla_training.distill.teaching.cache_folder",
                lambda _, split, root: cache_folder(place.teacher_id, split, root),
            )
        with pytest.raises(ContractError, match=rf"{field}: found '.+', expected other-1"):
            open_teaching(str(place.teacher), splits)


def test_states_of_other_scenes_are_refused(
    splits: Splits, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = splits["test"].reader.paths[0]
    kept = path.read_bytes()
    try:
        rows = [make_scene(9 + index, "test-0000") for index in range(4)]
        write_shard(split_folder("test") / path.name, rows, SHARD_RECIPE)
        reader = type(splits["test"].reader)(splits["test"].reader.paths)
        identity = cache_identity(place.run, reader)
        folder = cache_folder(place.teacher_id, "test")
        with pytest.raises(ContractError, match=r"scenes: found '\w+', expected \w+"):
            CachedTeacher(folder, reader, identity)
        moved = replace(splits["test"], reader=reader, codes=codes_of(reader, "test"))
        with pytest.raises(ContractError, match="scenes"):
            open_teaching(str(place.teacher), {"test": moved})
    finally:
        path.write_bytes(kept)


def test_another_vocabulary_is_refused(host: Host, teaching: Teaching) -> None:
    check_vocabulary(host.planner, teaching)
    cached = teaching.splits["test"].cached
    cached.marginals = cached.marginals[..., :8]
    with pytest.raises(ContractError, match=r"\(12, 16\), expected \(12, 8\), as teacher smoke-"):
        check_vocabulary(host.planner, teaching)
