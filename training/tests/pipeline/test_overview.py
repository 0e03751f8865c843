"""The inventory tells by files alone how far whole runs are, and what of them is stale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from latentvla_training.data import shards
from latentvla_training.data.make import episode_tasks, recipe_of
from latentvla_training.engine.checkpoint import save_checkpoint
from latentvla_training.engine.loop import _claim_folder
from latentvla_training.engine.recipe import load_recipe
from latentvla_training.pipeline.layout import find_layout
from latentvla_training.pipeline.overview import note_command, whole_runs
from latentvla_training.pipeline.settings import SPLITS, STAGES, load_whole_recipe
from latentvla_training.report.places import Entry, Section
from latentvla_training.report.present import Present

PRESENT = Present(code={"world": "w" * 16})


@pytest.fixture(autouse=True)
def no_scene_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the inventory opens no Scenes")

    monkeypatch.setattr(shards.ShardReader, "__init__", refuse)


def begin(folder: Path, recipe: str = "smoke", bundle: str = "") -> None:
    note_command(find_layout(load_whole_recipe(recipe), folder), recipe, bundle)
    (folder / "data").mkdir()


def look(above: Path) -> tuple[Entry, list[Section]]:
    first, *others = whole_runs(above=above, present=PRESENT)
    (entry,) = first.entries
    return entry, others


def make_scenes(folder: Path) -> None:
    for split in SPLITS:
        most = getattr(load_whole_recipe("smoke").world, split)
        tasks = episode_tasks(split, max_episodes=most)
        place = folder / "data" / "scenes" / split
        place.mkdir(parents=True)
        for task in tasks:
            (place / f"{task.episode}.parquet").touch()
        summary: dict[str, Any] = {
            "hashes": {task.episode: "0" for task in tasks},
            "failed": {},
            "without_event": [],
            "recipe": recipe_of(tasks[0].settings),
        }
        (place / "summary.json").write_text(json.dumps(summary))


def test_none_says_how_to_begin(tmp_path: Path) -> None:
    (found,) = whole_runs(above=tmp_path / "none", present=PRESENT)
    assert found.entries == () and found.absent == "latentvla-train all --recipe nano"


def test_stages_are_told_by_what_they_made(tmp_path: Path) -> None:
    folder = tmp_path / "smoke"
    begin(folder)
    entry, others = look(tmp_path)
    total = len(STAGES)
    assert entry.cells == ("smoke", str(folder), f"0 of {total}", ", ".join(STAGES), "")
    assert not entry.stale and not others
    make_scenes(folder)
    assert look(tmp_path)[0].cells[2:4] == (f"1 of {total}", ", ".join(STAGES[1:]))
    for name, recipe in ("smoke", "smoke"), ("smoke_s0", "smoke_fine"):
        loaded = load_recipe(recipe)
        _claim_folder(folder / "runs" / name, loaded)
        save_checkpoint(folder / "runs" / name, {"step": loaded.run.steps})
    entry, (runs,) = look(tmp_path)
    assert entry.cells[3].startswith("host, codebook")
    assert runs.title == "Runs of the whole run smoke"
    assert {found.cells[0] for found in runs.entries} == {"smoke", "smoke_s0"}


def test_a_given_host_leaves_nothing_to_train(tmp_path: Path) -> None:
    begin(tmp_path / "smoke", bundle="nano")
    assert look(tmp_path)[0].cells[3].startswith("world, codebook")


def test_what_holds_something_else_or_is_unknown_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "smoke"
    begin(folder)
    _claim_folder(folder / "runs" / "smoke", load_recipe("smoke_fine"))
    (why,) = look(tmp_path)[0].stale
    assert why.startswith("planner: ") and str(folder / "runs" / "smoke") in why
    (folder / "results").mkdir()
    (folder / "results" / "lights.json").write_text(
        json.dumps({"accuracy": 1.0, "bins": {}, "states": {}, "identity": {"world": "0" * 16}})
    )
    assert any(why.startswith("lights.json: world 0") for why in look(tmp_path)[0].stale)
    folder.rename(tmp_path / "mine")
    (tmp_path / "mine" / "command.json").write_text('{"recipe": "gone", "bundle": ""}')
    entry, _ = look(tmp_path)
    assert entry.cells[0] == "mine" and "gone" in entry.stale[0]
