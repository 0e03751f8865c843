"""Drives of contenders beside their comparison: which are pooled, which are named and why."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from latentvla_training.report.distill_drives import drive_tables, drives_of_nothing
from latentvla_training.report.distill_tables import distill_section
from latentvla_training.report.pooling import split_results
from latentvla_training.report.present import Present
from latentvla_training.report.result_files import Kind, Results, read_results

from .distill_documents import HOST_ID, distill_document
from .reading import row

CODE = {"distill": "e" * 16, "training": "7" * 16, "driving": "v" * 16}


@pytest.fixture
def write(tmp_path: Path, closed_loop: Callable[..., dict[str, Any]]) -> Callable[..., None]:
    (tmp_path / "distill_nano.json").write_text(json.dumps(distill_document()))

    def write(name: str, contender: str, score: float, seed: int = 0, **identity: Any) -> None:
        document = closed_loop("test", contender, score)
        document |= {"contender": contender, "teacher_run": "nano-s0"}
        document["asked"] = {"bundle": "", "host_run": "own_fine", "run": "own"}
        document["identity"] |= {
            "host": HOST_ID, "host_sha256": "b0" * 32, "recipe": "nano", "codebook": "nano-0123",
            "recipes": {"nano": "aaaa"}, "teacher": "nano-77aa", "trained_on": "t", "seed": seed,
            "weights": f"{contender}{seed}", **CODE, **identity,
        }  # fmt: skip
        (tmp_path / f"{name}.json").write_text(json.dumps(document))

    return write


@pytest.fixture
def read(tmp_path: Path, now: Present) -> Callable[[], Results]:
    present = replace(now, driving_code={"driving": CODE["driving"]})
    return lambda: read_results(tmp_path, present)


def tables(results: Results) -> str:
    (comparison,) = results.of(Kind.DISTILL)
    return "\n\n".join(drive_tables(comparison, "test", results))


def test_seeds_are_pooled_and_compared_with_the_host_on_the_same_routes(
    write: Callable[..., None], read: Callable[[], Results]
) -> None:
    assert tables(read()) == ""
    for seed in (0, 1):
        write(f"host{seed}", "host", 40.0 + seed, seed)
        write(f"student{seed}", "student", 50.0 + seed, seed)
    results = read()
    text = tables(results)
    assert row(text, "host, trained on")[1:3] == ["8", "4"]
    assert row(text, "host, trained on")[3].startswith("44.0 ± 0.7 [")
    assert row(text, "host, trained on")[4].startswith("50.0 ") and "-" in row(text, "host, tr")
    assert row(text, "host + distilled student")[6].startswith("**+10.0 [+10.0, +10.0]")
    assert "seeds of the runs: 0, 1." in text and "†" not in text
    assert "--recipe nano --host-run own_fine --run own --teacher nano-s0 " in text
    assert "--contenders student --seeds 1 --split test --routes 8 --json docs/results/st" in text
    assert split_results(results, "test").routes == {}  # no row among the planners of the world
    section = distill_section(results, [], None)
    assert section.count("| closed loop |") == 1 and "Of no comparison" not in section
    assert section.index("| closed loop |") < section.index("Long-tail events")


def test_drives_of_another_run_are_named_and_not_pooled(
    write: Callable[..., None], read: Callable[[], Results]
) -> None:
    write("host", "host", 40.0, teacher="other-1")  # it hears nobody: whoever's, it is the same
    write("teacher", "teacher", 60.0, teacher="other-1")
    write("before", "student", 10.0, closed_loop="0ld")
    write("student", "student", 50.0)
    write("again", "student", 50.0)
    write("elsewhere", "free_queries", 45.0, host="nano-9-ffff")
    results = read()
    text = tables(results)
    assert "| host, trained on |" in text and "teacher online" not in text
    assert row(text, "host + distilled student")[3].startswith("53.5 [")
    assert "Not pooled: `before.json` (stale: closed_loop 0ld" in text
    assert "Not pooled: `student.json` (the same driver on the same routes as again.json)" in text
    assert drives_of_nothing(results) == [
        "Of no comparison here: `elsewhere.json` (`distill_nano.json`: host nano-9-ffff, not "
        f"{HOST_ID}).",
        "Of no comparison here: `teacher.json` (`distill_nano.json`: teacher other-1, not "
        "nano-77aa).",
    ]
    assert "Of no comparison here: `teacher.json`" in distill_section(results, [], None)


@pytest.mark.parametrize("changed", ["closed_loop", "driving", "distill", "training", "recipes"])
def test_a_drive_that_hangs_on_what_has_changed_is_stale(
    write: Callable[..., None], read: Callable[[], Results], changed: str
) -> None:
    other = {"nano": "zzzz"} if changed == "recipes" else "0ther"
    write("teacher", "teacher", 60.0, **{changed: other})
    (file,) = read().of(Kind.DISTILL_DRIVE)
    assert len(file.stale) == 1 and changed.removesuffix("s") in file.stale[0]
    assert row(tables(read()), "host + teacher online †")[3].startswith("63.5 [")


def test_drives_without_any_comparison_are_named(
    write: Callable[..., None], read: Callable[[], Results], tmp_path: Path
) -> None:
    write("student", "student", 50.0)
    (tmp_path / "distill_nano.json").unlink()
    text = distill_section(read(), [], None)
    assert "No result yet." in text and text.endswith("Of no comparison here: `student.json`.")


def test_a_drive_that_does_not_say_what_drove_is_refused(
    write: Callable[..., None], read: Callable[[], Results]
) -> None:
    write("teacher", "teacher", 60.0, weights=None)
    assert "identity.weights" in read().refused["teacher.json"]
