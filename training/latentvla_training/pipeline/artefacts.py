"""Tells by what is there whether a stage is finished; nothing is written down for the purpose.

An artefact counts where it is whole, of what it is made from now (identities where it names them),
and no older than that. What is absent is not finished; what is damaged or of another recipe is
refused as its own command refuses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from latentvla_ros.contract import ContractError
from latentvla_training.engine.checkpoint import CHECKPOINT, checkpoint_step
from latentvla_training.engine.loop import TrainingRecipe, check_folder
from latentvla_training.engine.recipe import LoopSettings, build
from latentvla_training.report.places import json_object, split_on_disk
from latentvla_training.teacher.settings import TeacherRecipe

MANIFEST = "manifest.json"


def is_newer(path: Path, *made_from: Path) -> bool:
    """Return whether a file is there and no older than what it is made from, which is there."""
    if not all(file.is_file() for file in (path, *made_from)):
        return False
    return all(path.stat().st_mtime >= file.stat().st_mtime for file in made_from)


def has_scenes(split: str, episodes: int, data: Path) -> bool:
    """Return whether a split holds its episodes, but for those that its summary says are left out.

    Args:
        episodes: at most so many; 0: the split's own number.
    """
    from latentvla_training.data.make import episode_tasks, recipe_of

    found = split_on_disk(split, data)
    if found.content_sha256 is None:
        return False
    tasks = episode_tasks(split, max_episodes=episodes or None)
    known = {*found.hashes, *found.summary["failed"], *found.summary["without_event"]}
    wanted = recipe_of(tasks[0].settings)
    return {task.episode for task in tasks} <= known and found.summary["recipe"] == wanted


def has_run(folder: Path, recipe: TrainingRecipe) -> bool:
    """Return whether the run of a recipe is at its end.

    Raises:
        ContractError: the folder holds a run of another recipe; names what differs.
    """
    return check_folder(folder, recipe) and checkpoint_step(folder) >= recipe.run.steps


def has_teacher_run(folder: Path, recipe: TeacherRecipe, codebook_id: str) -> bool:
    """Return whether the run of a teacher of a codebook's codes is at its end.

    Raises:
        ContractError: the folder holds a run of another recipe; names what differs.
    """
    record = _record(folder)
    if record.get("codebook") != codebook_id:  # train refuses it, and names both
        return False
    return has_run(folder, replace(recipe, codebook=codebook_id, scenes=record["scenes"]))


def has_contender(folder: Path, **wanted: Any) -> bool:
    """Return whether a folder holds a contender's run at its end that says what is wanted of it.

    A run of something else is not finished: distill train refuses it and names both.
    """
    record = _record(folder)
    if not record or any(record.get(name) != value for name, value in wanted.items()):
        return False
    run = build(LoopSettings, record["settings"]["run"], f"{folder}: run")
    return checkpoint_step(folder) >= run.steps


def _record(folder: Path) -> dict[str, Any]:
    """Return what a run folder says of itself; nothing where there is no run."""
    path = folder / "recipe.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}


def has_codebook_run(folder: Path, name: str, seed: int, controls: bool) -> bool:
    """Return whether all stages of a codebook's run are at their end.

    Raises:
        ContractError: the folder holds a run of another recipe; names what differs.
    """
    from latentvla_training.latent_action.dynamics import CONTROLS, EGO, ENVIRONMENT
    from latentvla_training.latent_action.settings import OWN, load_codebook_recipe
    from latentvla_training.latent_action.training import FRAMES

    recipe = replace(load_codebook_recipe(name), seed=seed)
    if not check_folder(folder, recipe):  # type: ignore[arg-type]  # it has stages, no run
        return False
    stages = [FRAMES] if recipe.frames.encoder == OWN else []
    stages += [ENVIRONMENT, EGO, *(CONTROLS if controls else ())]
    return all(checkpoint_step(folder / s) >= recipe.stage(s).run.steps for s in stages)


def has_bundle(folder: Path, made_from: Path, **wanted: Any) -> bool:
    """Return whether a folder holds a whole bundle that says what is wanted, newer than its run.

    Args:
        made_from: folder of the run. wanted: entries of the bundle's provenance.
    """
    from latentvla_ros.runtime.bundle import BundleError, load_bundle

    if not is_newer(folder / MANIFEST, made_from / CHECKPOINT):
        return False
    try:
        found = load_bundle(str(folder)).manifest.provenance
    except BundleError:  # export puts a whole one in its place
        return False
    return all(found.get(name) == value for name, value in wanted.items())


def has_codes(folder: Path, codebook_id: str, splits: Sequence[str]) -> bool:
    """Return whether the codes of splits are there, of a codebook and of the Scenes as they are."""
    from latentvla_training.data.shards import load_split
    from latentvla_training.latent_action.codes import load_codes, scenes_identity

    for split in splits:
        path = folder / f"{split}.safetensors"
        if not path.is_file():
            return False
        try:
            load_codes(path, codebook_id, scenes_identity(load_split(split)))
        except ContractError:  # of other Scenes: encode makes them again
            return False
    return True


def has_states(teacher: Path, splits: Sequence[str], train_shards: int = 0) -> bool:
    """Return whether a teacher's states of splits are cached, whole and of the Scenes as they are.

    Args:
        teacher: folder of its run. train_shards: at most so many of its training split; 0: all.
    """
    from latentvla_training.teacher.cache import (
        CachedTeacher,
        cache_folder,
        cache_identity,
        scenes_as_shown,
    )
    from latentvla_training.teacher.release import load_teacher

    run = load_teacher(teacher)
    for split in splits:
        reader = scenes_as_shown(run, split, train_shards)
        identity = cache_identity(run, reader)
        try:
            CachedTeacher(cache_folder(identity["teacher"], split), reader, identity)
        except (FileNotFoundError, ContractError):  # the cache is made again
            return False
    return True


def has_result(path: Path, made_from: Sequence[Path], **wanted: Any) -> bool:
    """Return whether a result file is there, newer than what it judges, and says what is wanted."""
    found = json_object(path)
    return is_newer(path, *made_from) and all(found.get(k) == v for k, v in wanted.items())


def codebook_passed(result: Mapping[str, Any]) -> bool:
    """Return whether every run of ``codebook report`` passes the gates of its codes."""
    return all(all(passed.values()) for passed in result["gates"])


def oracle_passed(result: Mapping[str, Any]) -> bool:
    """Return whether ``oracle-codes`` passed its gate."""
    return bool(result["verdict"]["passed"])


def teacher_passed(result: Mapping[str, Any]) -> bool:
    """Return whether the teachers of ``teacher evaluate`` beat all that knows less."""
    from latentvla_training.report.network_sums import pooled, sums_from_json
    from latentvla_training.teacher.evaluation_table import beats_all

    return beats_all(pooled([sums_from_json(one["sums"]) for one in result["seeds"].values()]))
