"""A stage is finished when what it makes is whole, of what is here now, and newer than that."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from latentvla_training.data.make import episode_tasks, recipe_of
from latentvla_training.engine.checkpoint import checkpoint_step, save_checkpoint
from latentvla_training.engine.loop import _claim_folder
from latentvla_training.engine.recipe import load_recipe
from latentvla_training.pipeline import artefacts

from latentvla_ros.contract import ContractError


def test_newer_than_what_it_is_made_from(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.touch()
    assert not artefacts.is_newer(new, old) and not artefacts.is_newer(old, new)
    new.touch()
    os.utime(old, (1.0, 1.0))
    os.utime(new, (2.0, 2.0))
    assert artefacts.is_newer(new, old) and not artefacts.is_newer(old, new)
    assert not artefacts.has_result(new, [old], seeds=[0])
    new.write_text('{"seeds": [0]}')
    assert artefacts.has_result(new, [old], seeds=[0])
    assert not artefacts.has_result(new, [old], seeds=[1])


def test_a_run_is_done_at_its_last_step(tmp_path: Path) -> None:
    recipe = load_recipe("smoke")
    assert not artefacts.has_run(tmp_path, recipe) and checkpoint_step(tmp_path) == 0
    _claim_folder(tmp_path, recipe)
    for step, done in ((recipe.run.steps - 1, False), (recipe.run.steps, True)):
        save_checkpoint(tmp_path, {"step": step})
        assert artefacts.has_run(tmp_path, recipe) == done
    with pytest.raises(ContractError, match=r"run\.seed"):
        artefacts.has_run(tmp_path, replace(recipe, run=replace(recipe.run, seed=5)))
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    with pytest.raises(ContractError, match="remove it"):
        artefacts.has_run(tmp_path, recipe)


def test_scenes_are_all_there_or_known_to_be_left_out(tmp_path: Path) -> None:
    tasks = episode_tasks("longtail", max_episodes=3)
    folder = tmp_path / "scenes" / "longtail"
    folder.mkdir(parents=True)
    made, failed, without = (task.episode for task in tasks)
    (folder / f"{made}.parquet").touch()
    summary = {
        "hashes": {made: "0"},
        "failed": {failed: "why"},
        "without_event": [without],
        "recipe": recipe_of(tasks[0].settings),
    }

    def has(episodes: int, **changed: object) -> bool:
        (folder / "summary.json").write_text(json.dumps({**summary, **changed}))
        return artefacts.has_scenes("longtail", episodes, tmp_path)

    assert has(3) and has(1)
    assert not has(4) and not has(0)
    assert not has(3, failed={})
    assert not has(3, hashes={made: "0", "other": "0"})
    assert not has(3, recipe={})


def test_gates_are_read_from_results() -> None:
    assert artefacts.codebook_passed({"gates": [{"a": True}, {"a": True}]})
    assert not artefacts.codebook_passed({"gates": [{"a": True}, {"a": True, "b": False}]})
    assert not artefacts.oracle_passed({"verdict": {"passed": False}})
