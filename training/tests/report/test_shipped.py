"""What ships is replaced when that is asked for, and runs that are newer are found."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path

import pytest
from latentvla_training.report.places import Places
from latentvla_training.report.shipped import check_replaced, newer_run

from latentvla_ros.contract import ContractError


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """A codebook, two teachers and two bundles that ship; one of each speaks the codebook."""
    found = Places(**{entry.name: tmp_path / entry.name for entry in fields(Places)})
    write(found.released / "codebook" / "nano", codebook_id="nano-1")
    teacher = {"name": "nano_long", "processor": "0", "seed": 1, "steps": 9}
    write(found.released / "teacher" / "nano", codebook_id="nano-1", **teacher)
    write(found.released / "teacher" / "other", codebook_id="nano-2", **teacher)
    taught = {"codebook_id": "nano-1", "provenance": {"teacher_id": "nano_long-77"}}
    write(found.bundles / "nano", bundle_id="nano-4", **taught)
    (found.released / "released.json").write_text("{}")
    write(found.bundles / "host", bundle_id="host-3", codebook_id=None, provenance={})
    return found


def write(folder: Path, **manifest: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("codebook/nano", "codebook nano-1, spoken by teacher nano, bundle nano-4'"),
        (
            "teacher/nano",
            "teacher nano_long (seed 1, 9 steps) of codebook nano-1, spoken by bundle nano-4'",
        ),
        ("teacher/other", "of codebook nano-2, spoken by nothing that ships'"),
    ],
)
def test_what_ships_is_replaced_only_when_asked(places: Places, name: str, said: str) -> None:
    folder = places.released / name
    with pytest.raises(ContractError, match="--replace") as caught:
        check_replaced(folder, False, places)
    assert said in str(caught.value) and str(folder) in str(caught.value)
    check_replaced(folder, True, places)
    round_about = places.released / "codebook" / ".." / name
    with pytest.raises(ContractError, match="--out"):
        check_replaced(round_about, False, places)


def test_a_bundle_and_baselines_are_replaced_only_when_asked(places: Places) -> None:
    for folder, said in ((places.bundles / "host", "bundle host-3"), (places.released, "the base")):
        with pytest.raises(ContractError, match=said) as caught:
            check_replaced(folder, False, places)
        assert "--replace" in str(caught.value)
        check_replaced(folder, True, places)
    check_replaced(places.bundles / "new", False, places)


def test_a_new_place_and_a_folder_of_ones_own_need_no_asking(places: Places) -> None:
    check_replaced(places.released / "codebook" / "new", False, places)
    own = write(places.data / "book", codebook_id="nano-1")
    check_replaced(own, False, places)


def test_the_newest_finished_run_is_found(tmp_path: Path) -> None:
    manifest = write(tmp_path / "ships") / "manifest.json"
    os.utime(manifest, (1000, 1000))
    runs = tmp_path / "runs"

    def saved(folder: Path) -> Path | None:
        path = folder / "checkpoint.pt"
        return path if path.is_file() else None

    assert newer_run(manifest, runs, saved) is None
    for name, seconds in (("old", 900), ("new", 1100), ("newest", 1200), ("unfinished", 0)):
        (runs / name).mkdir(parents=True)
        (runs / name / "recipe.yaml").touch()
        if seconds:
            (runs / name / "checkpoint.pt").touch()
            os.utime(runs / name / "checkpoint.pt", (seconds, seconds))
    assert newer_run(manifest, runs, saved) == runs / "newest"
    os.utime(manifest, (1300, 1300))
    assert newer_run(manifest, runs, saved) is None
