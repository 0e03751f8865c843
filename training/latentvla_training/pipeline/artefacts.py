"""Tells by what is there whether a stage is finished; nothing is written down for the purpose.

An artefact counts where it is whole, of what it is made from now (identities where it names them),
and no older than that. What is absent is not finished; a run that is damaged or of something else
is refused as its own command would refuse it, before anything is begun.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from latentvla_ros.contract import ContractError
from latentvla_training.engine.checkpoint import (
    CHECKPOINT,
    checkpoint_step,
    load_checkpoint,
    weights_below,
)
from latentvla_training.engine.loop import TrainingRecipe, check_folder
from latentvla_training.report.identity import different
from latentvla_training.report.places import json_object, split_on_disk

if TYPE_CHECKING:
    from latentvla_training.data.shards import ShardReader
    from latentvla_training.distill.runs import ContestRecords
    from latentvla_training.distill.settings import DistillRecipe
    from latentvla_training.engine.recipe import DataSettings
    from latentvla_training.planner.hosts import Host
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


def has_teacher_run(folder: Path, recipe: TeacherRecipe, codes: Path) -> bool:
    """Return whether the run of a teacher of these codes is at its end.

    Raises:
        FileNotFoundError: Scenes or codes are absent.
        ContractError: the folder holds a run of another recipe, of other codes or Scenes; names
            what differs.
    """
    from latentvla_training.teacher.training import open_coded_split, with_codes

    try:
        train = open_coded_split(recipe.data.train_split, codes, recipe.data)
        wanted = with_codes(recipe, train, open_coded_split(recipe.data.val_split, codes))
    except ContractError:  # codes of other Scenes: encode makes them again
        return False
    return has_run(folder, wanted)


def contest_records(
    recipe: DistillRecipe, host: Host, codes: Path, codebook_id: str, teacher: str
) -> ContestRecords:
    """Return the records that distill train would write of its runs.

    Args:
        codes: folder. teacher: identity.

    Raises:
        FileNotFoundError: Scenes or codes are absent.
        ContractError: codes of another codebook or of other Scenes; names both.
    """
    from latentvla_training.data.shards import load_split
    from latentvla_training.distill.runs import ContestRecords, scenes_shown
    from latentvla_training.latent_action.codes import load_codes, scenes_identity

    split = recipe.heads.data.train_split
    reader = load_split(split)
    found = load_codes(codes / f"{split}.safetensors", codebook_id, scenes_identity(reader))
    return ContestRecords(
        recipe,
        host.identity,
        host.planner.config,
        scenes_shown(_part(reader, recipe.heads.data)),
        found.codebook_id,
        found.vocabulary,
        teacher,
    )


def has_contest(folder: Path, records: ContestRecords) -> bool:
    """Return whether all runs of a seed are at their end, each as distill train would record it.

    Args:
        folder: of the seed.

    Raises:
        FileNotFoundError: a recipe has pseudo-trajectories, and they are absent.
        ContractError: a folder holds another run, as distill train would refuse it: of another
            host, codebook, teacher, recipe or other Scenes; names it and what differs.
    """
    from latentvla_training.distill.settings import PSEUDO
    from latentvla_training.planner.contenders import FREE, HOST

    recipe, online = records.recipe, records.online_folder(folder)
    first, second = records.student_folders(folder)
    runs: list[tuple[Path, Callable[[], TrainingRecipe]]] = [
        (folder / HOST, partial(records.plain, HOST)),
        (folder / FREE, partial(records.plain, FREE)),
        (online, records.online),
    ]
    if PSEUDO in recipe.contenders:
        runs.append((folder / PSEUDO, lambda: records.pseudo(_assumed(recipe))))
    if recipe.student.taught:
        pooled_by = partial(_source_identity, online) if recipe.student.features > 0.0 else str
        runs.append((first, lambda: records.reasoner(pooled_by())))
    reasoner = partial(_source_identity, first) if recipe.student.taught else str
    runs.append((second, lambda: records.student(reasoner())))
    return all(has_run(place, record()) for place, record in runs)


def _source_identity(run: Path) -> str:
    """Return the identity of the states that a contender has learned."""
    from latentvla_training.teacher.model import state_identity

    state = load_checkpoint(run)
    assert state is not None  # it is at its end
    return state_identity(weights_below(state["averaged"], "source."))


def _assumed(recipe: DistillRecipe) -> str:
    """Return whose word the pseudo-trajectories of a recipe are."""
    from latentvla_training.data.shards import load_split
    from latentvla_training.planner.pseudo_odometry import pseudo_file, with_pseudo_odometry

    data = recipe.heads.data
    reader = _part(load_split(data.train_split), data)
    path = pseudo_file(recipe.pseudo_odometry, data.train_split)
    return with_pseudo_odometry(reader, path).assumed


def _record(folder: Path) -> dict[str, Any]:
    """Return what a run folder says of itself; nothing where there is no run."""
    path = folder / "recipe.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}


def has_codebook_run(folder: Path, name: str, seed: int, controls: bool) -> bool:
    """Return whether all stages of a codebook's run are at their end, of the Scenes as they are.

    Raises:
        FileNotFoundError: there are no Scenes.
        ContractError: the folder holds a run of another recipe; names what differs.
    """
    from latentvla_training.latent_action.codes import scenes_identity
    from latentvla_training.latent_action.scene_set import training_scenes
    from latentvla_training.latent_action.settings import load_codebook_recipe

    stages = finished_stages(folder, name, seed, controls)
    if not stages:
        return False
    scenes = scenes_identity(training_scenes(load_codebook_recipe(name).data))
    return all(_record(folder / stage).get("scenes") == scenes for stage in stages)


def finished_stages(folder: Path, name: str, seed: int, controls: bool) -> list[str]:
    """Return the stages of a codebook's run once all are at their end, of whatever Scenes.

    Raises:
        ContractError: the folder holds a run of another recipe; names what differs.
    """
    from latentvla_training.latent_action.dynamics import CONTROLS
    from latentvla_training.latent_action.settings import load_codebook_recipe

    recipe = replace(load_codebook_recipe(name), seed=seed)
    if not check_folder(folder, recipe):  # type: ignore[arg-type]  # it has stages, no run
        return []
    stages = [*recipe.stages, *(CONTROLS if controls else ())]
    whole = all(checkpoint_step(folder / s) >= recipe.stage(s).run.steps for s in stages)
    return stages if whole else []


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


def has_result(
    path: Path, made_from: Sequence[Path], splits: Sequence[str] = (), **wanted: Any
) -> bool:
    """Return whether a result file is there, newer than what it judges, and says what is wanted.

    Args:
        splits: that it is of, all of them; none where it is of one alone.
    """
    found = json_object(path)
    if splits and set(found.get("splits") or ()) != set(splits):
        return False
    return is_newer(path, *made_from) and all(found.get(k) == v for k, v in wanted.items())


def hangs_on(path: Path, identity: Mapping[str, Any]) -> bool:
    """Return whether a result says that it hangs on the same as one would that is made now."""
    found = json_object(path).get("identity") or {}
    return not different(found, {**identity, "commit": None})


def scenes_as_shown(data: DataSettings, splits: Sequence[str] = ()) -> dict[str, ShardReader]:
    """Open the Scenes that contenders are trained, validated and scored on, as they see them.

    Raises:
        FileNotFoundError: a split is absent.
    """
    from latentvla_training.data.shards import load_split

    train = data.train_split
    readers = {name: load_split(name) for name in dict.fromkeys((train, data.val_split, *splits))}
    return {**readers, train: _part(readers[train], data)}


def _part(reader: ShardReader, data: DataSettings) -> ShardReader:
    return reader.part(data.max_shards, data.labelled_share, data.odometry_share)


def has_teacher_result(path: Path, runs: Sequence[Path], codes: Path, split: str) -> bool:
    """Return whether a result of teacher evaluate is of these runs on these codes, as they are."""
    from latentvla_training.teacher.evaluation import identity_of
    from latentvla_training.teacher.training import load_teacher_run, open_coded_split

    if not has_result(path, [run / CHECKPOINT for run in runs], split=split):
        return False
    seeds = json_object(path)["seeds"]
    try:
        coded = open_coded_split(split, codes)
    except ContractError:  # codes of other Scenes: encode makes them again
        return False
    return set(seeds) == {str(run) for run in runs} and not any(
        different(
            seeds[str(run)]["identity"],
            {**identity_of(load_teacher_run(run), coded), "commit": None},
        )
        for run in runs
    )


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
