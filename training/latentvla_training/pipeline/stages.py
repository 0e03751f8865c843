"""The stages of a whole run: which commands each gives, and by what it is known to be finished.

A stage is the commands that a user would type; all work, and going on with it, is theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from latentvla_ros.contract import ContractError
from latentvla_training.engine.checkpoint import CHECKPOINT
from latentvla_training.pipeline import artefacts
from latentvla_training.pipeline.plan import UNKNOWN, Gate, Plan, Step
from latentvla_training.pipeline.settings import SPLITS, StageName

if TYPE_CHECKING:
    from latentvla_training.distill.runs import ContestRecords


def _world(plan: Plan) -> list[Step]:
    from latentvla_training.data.make import episode_tasks

    stage = plan.recipe.world
    most = {split: getattr(stage, split) for split in SPLITS}
    counts = {
        split: len(episode_tasks(split, max_episodes=most[split] or None)) for split in SPLITS
    }
    total = sum(counts.values())
    return [
        Step(
            (
                *("world", "make", "--split", split),
                *(("--episodes", str(most[split])) if most[split] else ()),
                *("--workers", str(plan.processes)),
            ),
            partial(artefacts.has_scenes, split, most[split], plan.layout.data),
            stage.minutes * counts[split] / total,
            plan.processes,
        )
        for split in SPLITS
    ]


def _planner(plan: Plan) -> list[Step]:
    from latentvla_training.engine.recipe import load_recipe

    if plan.bundle:
        return []
    stage = plan.recipe.planner
    first = load_recipe(stage.recipe)
    runs = [(first, plan.layout.planners / stage.recipe)]
    if stage.fine:
        runs.append((load_recipe(stage.fine), plan.host_run))
    last, folder = runs.pop()
    runs.append((replace(last, run=replace(last.run, seed=stage.seed)), folder))
    passes = sum(recipe.run.passes for recipe, _ in runs)
    return [
        Step(
            (
                *("train", "--recipe", name, "--run", str(folder)),
                *("--seed", str(recipe.run.seed), "--processes", str(plan.processes)),
            ),
            partial(artefacts.has_run, folder, recipe),
            stage.minutes * recipe.run.passes / passes,
            plan.processes,
        )
        for name, (recipe, folder) in zip((stage.recipe, stage.fine), runs, strict=False)
    ]


def _host(plan: Plan) -> list[Step]:
    if plan.bundle:
        return []
    name, run, out = f"{plan.recipe.name}_host", plan.host_run, Path(plan.host)
    arguments = ("export", "--run", str(run), "--name", name)
    arguments += ("--revision", str(plan.recipe.revision), "--out", str(out))
    return [Step(arguments, partial(artefacts.has_bundle, out, run), 0.5)]


def _codebook(plan: Plan) -> list[Step]:
    stage = plan.recipe.codebook
    minutes = stage.minutes + (stage.controls_minutes if stage.controls else 0.0)
    steps = [
        Step(
            (
                *("codebook", "train", "--recipe", stage.recipe, "--run", str(run)),
                *("--seed", str(seed)),
                *(("--controls",) if stage.controls else ()),
            ),
            partial(artefacts.has_codebook_run, run, stage.recipe, seed, stage.controls),
            minutes,
        )
        for seed, run in zip(stage.seeds, plan.codebook_runs, strict=True)
    ]
    run, out = plan.codebook_runs[0], plan.layout.codebook
    made_from = [run / name / CHECKPOINT for name in ("environment", "ego")]
    release = ("codebook", "release", "--run", str(run), "--out", str(out))
    done = partial(artefacts.is_newer, out / artefacts.MANIFEST, *made_from)
    return [*steps, Step(release, done, 0.2)]


def _codes(plan: Plan) -> list[Step]:
    arguments = ("codebook", "encode", "--codebook", str(plan.layout.codebook))
    done = partial(artefacts.has_codes, Path(plan.codes), plan.codebook_id, SPLITS)
    minutes = plan.recipe.codebook.encode_minutes
    return [Step((*arguments, "--split", *SPLITS), done, minutes)]


def _codebook_report(plan: Plan) -> list[Step]:
    stage, runs = plan.recipe.codebook, plan.codebook_runs
    result = plan.layout.evidence / "codebook.json"
    arguments = ("codebook", "report", "--runs", *map(str, runs), "--json", str(result))
    arguments += ("--out", str(plan.layout.out / "latent_actions.md"))
    arguments += ("--train-shards", str(stage.train_shards))
    made_from = [run / "ego" / CHECKPOINT for run in runs]
    gate = Gate("Do the codes say how the ego's motion changes?", result, artefacts.codebook_passed)
    done = partial(artefacts.has_result, result, made_from)
    return [Step(arguments, done, stage.report_minutes, gate=gate)]


def _oracle_codes(plan: Plan) -> list[Step]:
    from latentvla_training.engine.recipe import load_record
    from latentvla_training.planner.oracle_codes import OracleRecipe
    from latentvla_training.report.identity import comparison_identity

    stage = plan.recipe.oracle
    recipe = load_record(OracleRecipe, stage.recipe, "oracle_codes")
    result = plan.layout.results / "oracle_codes.json"
    arguments = ("oracle-codes", "--codes", plan.codes, "--bundle", plan.host)
    arguments += ("--recipe", stage.recipe, "--seeds", *map(str, stage.seeds))
    run = plan.layout.oracle_run(stage.recipe)
    arguments += ("--splits", *stage.splits, "--run", str(run), "--json", str(result))
    gate = Gate("Do the true codes improve the planner?", result, artefacts.oracle_passed)

    def done() -> bool:
        asked = {"codebook": plan.codebook_id, "seeds": list(stage.seeds)}
        if not artefacts.has_result(result, [], stage.splits, **asked):
            return False
        readers = artefacts.scenes_as_shown(recipe.data, stage.splits)
        identity = comparison_identity(plan.load_host(), {recipe.name: recipe}, readers)
        return artefacts.hangs_on(result, identity)

    return [Step(arguments, done, stage.minutes * len(stage.seeds), gate=gate)]


def _teacher(plan: Plan) -> list[Step]:
    from latentvla_training.teacher.settings import load_teacher_recipe, vision_recipe

    stage = plan.recipe.teacher
    recipe = load_teacher_recipe(stage.recipe)
    steps = []
    vision = plan.layout.vision_run(stage.recipe)
    if recipe.vision.enabled:
        arguments = ("teacher", "pretrain-vision", "--recipe", stage.recipe, "--run", str(vision))
        done = partial(artefacts.has_run, vision, vision_recipe(recipe))
        steps.append(Step(arguments, done, stage.vision_minutes))
    for seed, run in zip(stage.seeds, plan.teacher_runs, strict=True):
        arguments = ("teacher", "train", "--codes", plan.codes, "--recipe", stage.recipe)
        arguments += ("--run", str(run), "--vision-run", str(vision), "--seed", str(seed))
        own = replace(recipe, run=replace(recipe.run, seed=seed))
        done = partial(artefacts.has_teacher_run, run, own, Path(plan.codes))
        steps.append(Step(arguments, done, stage.minutes))
    return steps


def _teacher_report(plan: Plan) -> list[Step]:
    stage, runs = plan.recipe.teacher, plan.teacher_runs
    result = plan.layout.results / "teacher.json"
    arguments = ("teacher", "evaluate", "--codes", plan.codes, "--runs", *map(str, runs))
    arguments += ("--split", stage.split, "--json", str(result))
    arguments += ("--markdown", str(plan.layout.out / "teacher.md"))
    gate = Gate("Does the teacher know more than an ego state?", result, artefacts.teacher_passed)
    done = partial(artefacts.has_teacher_result, result, runs, Path(plan.codes), stage.split)
    return [Step(arguments, done, stage.report_minutes, gate=gate)]


def _teacher_cache(plan: Plan) -> list[Step]:
    from latentvla_training.distill.settings import load_distill_recipe

    run = plan.teacher_runs[0]
    shards = load_distill_recipe(plan.recipe.distill.recipe).heads.data.max_shards
    arguments = ("teacher", "cache", "--teacher", str(run), "--split", *SPLITS)
    arguments += ("--train-shards", str(shards))
    done = partial(artefacts.has_states, run, SPLITS, shards)
    return [Step(arguments, done, plan.recipe.teacher.cache_minutes)]


def _distill_arguments(plan: Plan) -> tuple[str, ...]:
    stage = plan.recipe.distill
    return (
        *("--codes", plan.codes, "--recipe", stage.recipe, "--teacher", str(plan.teacher_runs[0])),
        *("--bundle", plan.host, "--run", str(plan.contest)),
    )


def _distill(plan: Plan) -> list[Step]:
    from latentvla_training.distill.evaluation import seed_folder
    from latentvla_training.distill.settings import load_distill_recipe, of_seed

    stage = plan.recipe.distill
    recipe = load_distill_recipe(stage.recipe)

    @cache
    def records() -> ContestRecords:
        return artefacts.contest_records(
            recipe, plan.load_host(), Path(plan.codes), plan.codebook_id, plan.teacher_id()
        )

    def done(seed: int) -> bool:
        try:
            own = replace(records(), recipe=of_seed(recipe, seed))
        except ContractError:  # codes of other Scenes: they are made again before
            return False
        return artefacts.has_contest(seed_folder(plan.contest, seed), own)

    return [
        Step(
            ("distill", "train", *_distill_arguments(plan), "--seeds", str(seed)),
            partial(done, seed),
            stage.minutes,
        )
        for seed in stage.seeds
    ]


def _scored(plan: Plan, splits: Sequence[str], result: Path, minutes: float) -> Step:
    """Return the command that scores all contenders on splits."""
    from latentvla_training.distill.evaluation import result_identity
    from latentvla_training.distill.settings import load_distill_recipe

    stage = plan.recipe.distill
    recipe = load_distill_recipe(stage.recipe)
    arguments = ("distill", "evaluate", *_distill_arguments(plan))
    arguments += ("--seeds", *map(str, stage.seeds), "--splits", *splits, "--json", str(result))

    def done() -> bool:
        teacher = plan.teacher_id()
        made_from = [plan.student_run(seed, teacher) / CHECKPOINT for seed in stage.seeds]
        asked = {"teacher": teacher, "codebook": plan.codebook_id, "seeds": list(stage.seeds)}
        if not artefacts.has_result(result, made_from, splits, **asked):
            return False
        readers = artefacts.scenes_as_shown(recipe.heads.data, splits)
        identity = result_identity(plan.load_host(), recipe, [recipe], stage.seeds, readers)
        return artefacts.hangs_on(result, identity)

    return Step(arguments, done, minutes)


def _distill_val(plan: Plan) -> list[Step]:
    step = _scored(plan, ["val"], plan.val_result, plan.recipe.distill.val_minutes)
    return [replace(step, found=plan.verdict)]


def _distill_report(plan: Plan) -> list[Step]:
    stage = plan.recipe.distill
    result = plan.layout.results / "distill.json"
    return [_scored(plan, stage.splits, result, stage.report_minutes)]


def _bundle(plan: Plan) -> list[Step]:
    seed, teacher, result = plan.chosen_seed(), plan.teacher_id(), plan.val_result
    run = plan.contest / UNKNOWN if seed is None else plan.student_run(seed, teacher)
    arguments = ("distill", "export", "--run", str(run), "--name", plan.recipe.name)
    arguments += ("--revision", str(plan.recipe.revision), "--out", str(plan.final))
    asked = {"teacher_id": teacher, "codebook_id": plan.codebook_id, "seed": seed}

    def done() -> bool:
        made = artefacts.has_bundle(plan.final, run, **asked)
        return made and artefacts.is_newer(plan.final / artefacts.MANIFEST, result)

    return [Step((*arguments, "--result", str(result)), done, 0.5)]


def _report(plan: Plan) -> list[Step]:
    out, final = plan.layout.out / "results.md", plan.final
    arguments = ("report", "--results", str(plan.layout.results), "--out", str(out))
    arguments += ("--bundle", str(final), "--codebook", str(plan.layout.codebook))

    def done() -> bool:
        files = sorted(plan.layout.results.glob("*.json"))
        made_from = [folder / artefacts.MANIFEST for folder in (final, plan.layout.codebook)]
        return bool(files) and artefacts.is_newer(out, *files, *made_from)

    return [Step(arguments, done, 0.2)]


#: The commands of every stage.
STEPS: dict[StageName, Callable[[Plan], list[Step]]] = {
    "world": _world,
    "planner": _planner,
    "host": _host,
    "codebook": _codebook,
    "codes": _codes,
    "codebook-report": _codebook_report,
    "oracle-codes": _oracle_codes,
    "teacher": _teacher,
    "teacher-report": _teacher_report,
    "teacher-cache": _teacher_cache,
    "distill": _distill,
    "distill-val": _distill_val,
    "distill-report": _distill_report,
    "bundle": _bundle,
    "report": _report,
}
