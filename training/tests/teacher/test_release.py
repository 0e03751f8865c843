"""What is released can be loaded, is small, and is refused when anything of it has changed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from latentvla_training.teacher.model import make_teacher
from latentvla_training.teacher.processor import load_processor
from latentvla_training.teacher.release import (
    MANIFEST,
    WEIGHTS,
    load_teacher,
    release,
    released_folder,
)
from latentvla_training.teacher.settings import TeacherRecipe
from latentvla_training.teacher.training import TeacherRun

from latentvla_ros.contract import ContractError


@pytest.fixture
def run(recipe: TeacherRecipe) -> TeacherRun:
    processor = load_processor(recipe.model, recipe.pictures)
    known = replace(recipe, codebook="test-1")
    return TeacherRun(known, processor, make_teacher(known.model, processor).eval(), 7)


@pytest.fixture
def folder(run: TeacherRun, tmp_path: Path) -> Path:
    return release(run, tmp_path / "small", {"metrics": {"nll": 1.5}})


def test_released_teacher_is_the_same_in_half_precision(run: TeacherRun, folder: Path) -> None:
    found = load_teacher(folder, "test-1")
    assert found.recipe == run.recipe and found.steps == 7
    assert found.processor.identity == run.processor.identity
    own = run.teacher.state_dict()
    for name, value in found.teacher.state_dict().items():
        assert torch.equal(value, own[name].half().float()), name
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["codebook_id"] == "test-1" and manifest["metrics"] == {"nll": 1.5}
    again = release(run, folder.parent / "again")
    assert (again / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()


@pytest.mark.parametrize("name", [WEIGHTS, "processor/tokenizer.json"])
def test_a_changed_file_is_refused(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    with pytest.raises(ContractError, match=rf"{path.name} sha256: found .*, expected"):
        load_teacher(folder)


def test_another_processor_or_codebook_is_refused(folder: Path) -> None:
    path = folder / MANIFEST
    manifest = json.loads(path.read_text())
    with pytest.raises(ContractError, match=r"found 'test-1', expected other-2"):
        load_teacher(folder, "other-2")
    path.write_text(json.dumps({**manifest, "processor": "feed"}))
    with pytest.raises(ContractError, match=r"of this version', expected feed"):
        load_teacher(folder)


@pytest.mark.parametrize("text", ["", "[]", '{"format": "x"}', '{"sha256": 1}'])
def test_a_manifest_that_is_none_is_refused(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text)
    with pytest.raises(ContractError, match=r"manifest\.json"):
        load_teacher(folder)


def test_weights_of_another_size_are_refused(folder: Path) -> None:
    path = folder / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["recipe"]["model"]["layers"] += 1
    path.write_text(json.dumps(manifest))
    with pytest.raises(ContractError, match=r"found 'vlm.*layers\.2.*: None'"):
        load_teacher(folder)


def test_a_name_that_is_nowhere_says_what_there_is() -> None:
    with pytest.raises(FileNotFoundError, match="no teacher nowhere; one of"):
        load_teacher("nowhere")


def test_what_others_published_is_not_released(run: TeacherRun, tmp_path: Path) -> None:
    model = replace(run.recipe.model, source="Qwen/Qwen2.5-VL-3B-Instruct")
    vision = replace(run.recipe.vision, enabled=False)
    other = replace(run, recipe=replace(run.recipe, model=model, vision=vision))
    with pytest.raises(ContractError, match=r"model\.source"):
        release(other, tmp_path / "x")


@pytest.mark.parametrize("path", sorted(released_folder().glob(f"*/{MANIFEST}")))
def test_shipped_teachers_are_whole_and_small(path: Path) -> None:
    load_teacher(path.parent)
    assert sum(file.stat().st_size for file in path.parent.rglob("*")) < 35e6
