"""Teachers in the report: seeds pooled, others apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from latentvla_training.report.document import write_report
from latentvla_training.report.places import Places
from latentvla_training.report.present import Present
from latentvla_training.report.result_files import Kind, read_result

from .distill_documents import (
    teacher_file,
    told,
)

pytestmark = pytest.mark.usefixtures("no_scenes")


def test_teachers_of_one_recipe_are_pooled_and_others_stand_apart(
    tmp_path: Path, present: Present
) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    teacher_file(folder, "teacher_test.json", 0)
    teacher_file(folder, "teacher_test_s1.json", 1)
    teacher_file(folder, "teacher_other.json", 2, codebook_id="other-9")
    text = told(folder, present, "What the teacher knows")
    assert text.count("### Teacher nano on test") == 2 and "1 seed(s) (nano-s2)" in text
    assert "2 seed(s) (nano-s0, nano-s1), 40 Scenes of 4 networks" in text
    assert "--runs nano-s1 --split test --json docs/results/teacher_test_s1.json" in text
    assert "Beats ego state and command (MLP) by 0.1 nat: **yes**" in text
    assert "true codes before (MLP) by 0.1 nat, not asked for: **no**" in text
    stale = replace(present, scenes_ids={"test": "9" * 16})
    assert "### Teacher nano on test †" in told(folder, stale, "What the teacher knows")
    read = read_result(folder / "teacher_test.json", stale)
    assert read.stale == ("scenes 5555555555555555, now 9999999999999999",)
    other = replace(present, codebooks={"nano": "nano-9"}, recipes={"teacher": {"nano": "now"}})
    (why,) = read_result(folder / "teacher_test.json", other).stale
    assert why == "codebook nano-0123, now nano-9"  # it says no settings
    teacher_file(folder, "teacher_test.json", 0, recipes={"nano": "then"})
    assert "recipe nano then, now now" in read_result(folder / "teacher_test.json", other).stale
    teacher_file(folder, "teacher_test.json", 0, passes="many")
    read_all = write_report(folder, tmp_path / "results.md", present)
    assert "passes" in read_all.refused["teacher_test.json"]


def test_shipped_results_of_teachers_are_read() -> None:
    for name in ("teacher_test.json", "teacher_test_s1.json"):
        assert read_result(Places().results / name, Present()).kind is Kind.TEACHER
