"""The inventory's part about whole runs: how far each is, by the files that are there.

It is quick, and works beside a run under way: no Scene is opened and no network loaded. Whether
what is there is still of the Scenes that are here, ``all --dry-run`` tells.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from latentvla_ros.contract import ContractError
from latentvla_ros.runtime.bundle import BundleError, load_bundle
from latentvla_training.engine.checkpoint import CHECKPOINT
from latentvla_training.pipeline import artefacts
from latentvla_training.pipeline.layout import WHOLE_RUNS, Layout, find_layout
from latentvla_training.pipeline.plan import Plan
from latentvla_training.pipeline.runner import is_done
from latentvla_training.pipeline.settings import SPLITS, STAGES, StageName, load_whole_recipe
from latentvla_training.report.inventory import with_scenes
from latentvla_training.report.inventory_runs import runs
from latentvla_training.report.places import Entry, Places, Section, json_object, split_on_disk
from latentvla_training.report.present import Present, without_scenes
from latentvla_training.report.result_files import read_results
from latentvla_training.world.networks import SPLIT_SIZES

#: Keeps with what options the folder's run was begun.
_COMMAND = "command.json"
_GATES: tuple[StageName, ...] = ("codebook-report", "oracle-codes", "teacher-report")


def note_command(layout: Layout, recipe: str, bundle: str) -> None:
    """Keep the options that decide a whole run in its folder."""
    path = Path(recipe)
    options = {"recipe": str(path.resolve()) if path.is_file() else recipe, "bundle": bundle}
    layout.out.mkdir(parents=True, exist_ok=True)
    (layout.out / _COMMAND).write_text(json.dumps(options) + "\n", encoding="utf-8")


def whole_runs(
    root: Path | None = None, above: Path = WHOLE_RUNS, present: Present | None = None
) -> list[Section]:
    """Return how far whole runs are, and the runs that belong to each alone.

    Args:
        root: of one that was made elsewhere. above: folder of all others.
        present: what results and runs are compared with; by default this checkout. Their own
            bundle, codebook and Scenes take the place of those that ship.
    """
    folders = sorted(path for path in above.glob("*") if path.is_dir())
    folders += [] if root is None else [root]
    if folders and present is None:
        present = without_scenes(Places())
    entries, sections = [], []
    for folder in folders:
        try:
            plan = _plan(folder)
        except ContractError as error:
            entries.append(Entry((folder.name, str(folder), "", "", ""), (str(error),)))
            continue
        splits = [split_on_disk(name, plan.layout.data) for name in SPLIT_SIZES]
        assert present is not None
        own = _own(with_scenes(present, splits), plan)
        entries.append(_entry(plan, own))
        found = runs(plan.layout.own_runs, splits, own)
        if found.entries:
            sections.append(replace(found, title=f"Runs of the whole run {folder.name}"))
    headers = ("whole run", "folder", "stages done", "left", "bundle")
    absent = "latentvla-train all --recipe nano"
    return [Section("Whole runs", headers, tuple(entries), absent), *sections]


def _plan(folder: Path) -> Plan:
    """Return the whole run that a folder is of.

    Raises:
        ContractError: its recipe is not there, or not allowed.
    """
    options = json_object(folder / _COMMAND)
    recipe = load_whole_recipe(options.get("recipe") or folder.name)
    holds_all = (folder / "data").is_dir()
    layout = replace(find_layout(recipe, folder if holds_all else None), out=folder.resolve())
    return Plan(recipe, layout, bundle=options.get("bundle", ""))


def _own(present: Present, plan: Plan) -> Present:
    """Return it with bundle and codebook of a whole run, as far as they are made."""
    places = (plan.final, *(() if plan.bundle else (Path(plan.host),)))
    made = [folder for folder in places if (folder / artefacts.MANIFEST).is_file()]
    codebook = plan.layout.codebook
    has_codebook = (codebook / artefacts.MANIFEST).is_file()
    try:
        return present.with_made(made[0] if made else None, codebook if has_codebook else None)
    except ContractError:  # damaged: its stage is not done
        return present


def _entry(plan: Plan, present: Present) -> Entry:
    left: list[str] = []
    missed: list[str] = []
    stale: list[str] = []
    for stage in STAGES:
        try:
            there = _THERE.get(stage, partial(_steps_done, stage))(plan)
        except FileNotFoundError:
            there = False
        except ContractError as error:
            there = False
            stale.append(f"{stage}: {error}")
        if not there:
            left.append(stage)
        elif stage in _GATES and any(s.gate and not s.gate.holds() for s in plan.steps(stage)):
            missed.append(stage)
    folder = plan.layout.results
    for file in read_results(folder, present).files if folder.is_dir() else ():
        stale += [f"{file.name}: {reason}" for reason in file.stale]
    done = f"{len(STAGES) - len(left)} of {len(STAGES)}"
    done += f"; gate missed: {', '.join(missed)}" if missed else ""
    cells = (plan.recipe.name, str(plan.layout.out), done, ", ".join(left), _bundle_name(plan))
    return Entry(cells, tuple(stale))


def _bundle_name(plan: Plan) -> str:
    """Return which bundle is made, and how its student stands to its host on validation."""
    try:
        bundle = load_bundle(plan.final)
    except BundleError:
        return ""
    seed = bundle.manifest.provenance.get("seed")
    gains = [found.gain for found in plan.seeds_on_val() if found.seed == seed]
    beside = "".join(f", {100.0 * gain:+.2f} to its host on val" for gain in gains)
    return f"{bundle.manifest.bundle_id} {bundle.content_sha256[:10]}, seed {seed}{beside}"


def _steps_done(stage: StageName, plan: Plan) -> bool:
    return all(is_done(step) for step in plan.steps(stage))


def _codebook(plan: Plan) -> bool:
    stage = plan.recipe.codebook
    whole = all(
        artefacts.finished_stages(run, stage.recipe, seed, stage.controls)
        for seed, run in zip(stage.seeds, plan.codebook_runs, strict=True)
    )
    return whole and is_done(plan.steps("codebook")[-1])  # released


def _codes(plan: Plan) -> bool:
    return all((Path(plan.codes) / f"{split}.safetensors").is_file() for split in SPLITS)


def _oracle_codes(plan: Plan) -> bool:
    stage, result = plan.recipe.oracle, plan.layout.results / "oracle_codes.json"
    asked = {"codebook": plan.codebook_id, "seeds": list(stage.seeds)}
    return artefacts.has_result(result, [], stage.splits, **asked)


def _teacher(plan: Plan) -> bool:
    from latentvla_training.engine.loop import run_recipe
    from latentvla_training.teacher.settings import (
        TeacherRecipe,
        load_teacher_recipe,
        vision_recipe,
    )

    stage = plan.recipe.teacher
    recipe = load_teacher_recipe(stage.recipe)
    vision = plan.layout.vision_run(stage.recipe)
    if recipe.vision.enabled and not artefacts.has_run(vision, vision_recipe(recipe)):
        return False
    for seed, run in zip(stage.seeds, plan.teacher_runs, strict=True):
        found = run_recipe(TeacherRecipe, run)  # its Scenes are compared where runs are listed
        if found is None:
            return False
        noted = replace(recipe, codebook=plan.codebook_id, scenes=found.scenes)
        if not artefacts.has_run(run, replace(noted, run=replace(noted.run, seed=seed))):
            return False
    return True


def _teachers(plan: Plan) -> list[Path]:
    return [run / CHECKPOINT for run in plan.teacher_runs]


def _teacher_report(plan: Plan) -> bool:
    result = plan.layout.results / "teacher.json"
    return artefacts.has_result(result, _teachers(plan), split=plan.recipe.teacher.split)


def _teacher_cache(plan: Plan) -> bool:
    """Return whether there are states of all splits that are newer than the teacher."""
    above = plan.layout.data / "cache" / "teacher"
    teacher = _teachers(plan)[0]
    return any(
        all(
            any(artefacts.is_newer(file, teacher) for file in (folder / split).glob("*"))
            for split in SPLITS
        )
        for folder in above.glob(f"{plan.recipe.teacher.recipe}-*")
    )


def _students(plan: Plan) -> list[Path]:
    """Return the checkpoints of finished students that are newer than the teacher, one a seed."""
    from latentvla_training.distill.evaluation import seed_folder
    from latentvla_training.distill.settings import STUDENT, load_distill_recipe
    from latentvla_training.engine.checkpoint import checkpoint_step

    recipe = load_distill_recipe(plan.recipe.distill.recipe)
    found = []
    for seed in plan.recipe.distill.seeds:
        folders = seed_folder(plan.contest, seed).glob(f"{STUDENT}-{recipe.name}*")
        found += [
            folder / CHECKPOINT
            for folder in folders
            if artefacts.is_newer(folder / CHECKPOINT, _teachers(plan)[0])
            and checkpoint_step(folder) >= recipe.heads.run.steps
        ][:1]
    return found


def _distill(plan: Plan) -> bool:
    return len(_students(plan)) == len(plan.recipe.distill.seeds)


def _distill_val(plan: Plan) -> bool:
    known = bool(plan.seeds_on_val())
    return known and _distill(plan) and artefacts.is_newer(plan.val_result, *_students(plan))


def _distill_report(plan: Plan) -> bool:
    stage, result = plan.recipe.distill, plan.layout.results / "distill.json"
    asked = {"codebook": plan.codebook_id, "seeds": list(stage.seeds)}
    return _distill(plan) and artefacts.has_result(result, _students(plan), stage.splits, **asked)


def _bundle(plan: Plan) -> bool:
    newer = artefacts.is_newer(plan.final / artefacts.MANIFEST, plan.val_result)
    if not newer or not _distill_val(plan):
        return False
    made = load_bundle(plan.final).manifest.provenance
    asked = {"seed": plan.chosen_seed(), "codebook_id": plan.codebook_id}
    return all(made.get(name) == value for name, value in asked.items())


#: Whether what a stage makes is there; of the stages left out, by their commands' own check.
_THERE: dict[StageName, Callable[[Plan], bool]] = {
    "codebook": _codebook,
    "codes": _codes,
    "oracle-codes": _oracle_codes,
    "teacher": _teacher,
    "teacher-report": _teacher_report,
    "teacher-cache": _teacher_cache,
    "distill": _distill,
    "distill-val": _distill_val,
    "distill-report": _distill_report,
    "bundle": _bundle,
}
