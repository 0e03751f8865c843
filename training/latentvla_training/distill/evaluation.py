"""What a teacher is worth, online and distilled: scores on unseen networks, paired and pooled.

``latentvla-train distill evaluate --recipe nano --codes DIR --teacher NAME --json FILE``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from latentvla_ros.contract import ContractError
from latentvla_training.data.shards import ShardReader
from latentvla_training.distill.contenders import Contest, train_contender
from latentvla_training.distill.costs import pinned_costs, plan_costs
from latentvla_training.distill.examples import LONGTAIL, RULE, shown_scenes
from latentvla_training.distill.kept_scores import forget_scores, keep_scores, kept_scores
from latentvla_training.distill.settings import (
    CONTENDERS,
    PSEUDO,
    STUDENT,
    TEACHER,
    DistillRecipe,
    of_seed,
)
from latentvla_training.distill.student import ReasonerStates, student_answers
from latentvla_training.distill.teaching import Teaching, open_teaching
from latentvla_training.distill.token_scores import token_figures
from latentvla_training.distill.variants import Row, Variant, check_family
from latentvla_training.engine.launch import first_process_first
from latentvla_training.planner.contender_scores import (
    FIGURES,
    GIVEN,
    SUFFIXES,
    Plans,
    ScoredSplit,
    as_lists,
    score_contenders,
)
from latentvla_training.planner.contenders import (
    FREE,
    HOST,
    CodedSplit,
    open_splits,
    opened_gate,
    plan_quality,
)
from latentvla_training.planner.evaluation import EXPERT, write_result
from latentvla_training.planner.head_training import (
    FeatureSplit,
    NoStates,
    PlannerOnFeatures,
    plans_on_features,
)
from latentvla_training.planner.hosts import Host
from latentvla_training.planner.losses import LossSettings
from latentvla_training.planner.scene_groups import tag_groups
from latentvla_training.report.identity import comparison_identity, distill_identity
from latentvla_training.report.network_sums import NetworkSums
from latentvla_training.teacher.commands import teacher_place
from latentvla_training.teacher.release import load_teacher

#: By which goals are judged, and how much of the gain a student is to keep (experiments.md 6).
GOAL_FIGURE, GOAL_RETENTION = "pdms", 0.6


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise ContractError unless there are seeds, all different."""
    if not seeds or len(set(seeds)) != len(seeds):
        raise ContractError("seeds", list(seeds), "one or more, all different")


def seed_folder(folder: Path, seed: int) -> Path:
    """Return where the runs of a seed are."""
    return folder / f"seed{seed}"


def train_all(
    host: Host,
    recipe: DistillRecipe,
    codes: str,
    teacher: str,
    folder: Path,
    contenders: Sequence[str] = CONTENDERS,
    seeds: Sequence[int] = (0,),
    cache: Path | None = None,
    progress: bool = True,
) -> None:
    """Train contenders of seeds; what is trained already is left as it is.

    Several processes share every batch.

    Args:
        codes: folder with ``<split>.safetensors``. teacher: see ``open_teaching``; "" for none.
        folder: of the family's runs. cache: of all teachers' caches.

    Raises:
        ContractError: host, codes, teacher, Scenes and runs do not belong together.
        FileNotFoundError: Scenes, codes, teacher or its cache are absent.
    """
    check_seeds(seeds)
    with first_process_first():  # it makes what is cached of the host
        splits = open_splits(host, recipe.heads, codes, (), progress)
    teaching = open_teaching(teacher, splits, cache) if teacher else None
    train = splits[recipe.heads.data.train_split].reader
    quality = plan_quality(recipe.heads, train, progress)
    for seed in seeds:
        own = of_seed(recipe, seed)
        contest = Contest(host, own, splits, teaching, seed_folder(folder, seed), quality)
        for contender in contenders:
            train_contender(contender, contest, progress=progress)


def evaluate(
    host: Host,
    recipe: DistillRecipe,
    codes: str,
    teacher: str,
    folder: Path,
    variants: Sequence[Variant] = (),
    seeds: Sequence[int] = (0,),
    split_names: Sequence[str] = ("test", "longtail", "ood"),
    json_path: Path | None = None,
    cache: Path | None = None,
    progress: bool = True,
    asked: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Score all contenders of finished runs; return (and write) the result.

    Scores are kept beside ``json_path`` while costs are measured: the same call again goes on.

    Args: as ``train_all``, and
        variants: students that are scored beside. split_names: to be scored.
        json_path: where to write the result; None for nowhere.
        asked: entries of the result that say how it was asked for.

    Raises:
        ContractError: host, codes, teacher, Scenes and runs do not belong together.
        FileNotFoundError: Scenes, codes, teacher, its cache or a finished run are absent.
    """
    check_seeds(seeds)
    check_family(recipe, variants)
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
    splits = open_splits(host, recipe.heads, codes, split_names, progress)
    teaching = open_teaching(teacher, splits, cache)
    rows = [Row(contender, contender, recipe) for contender in recipe.contenders]
    for variant in variants:
        own = None
        if variant.codes:
            own = open_splits(host, recipe.heads, variant.codes, split_names, progress)
        name = variant.row(own or splits)
        if name in {row.name for row in rows}:
            raise ContractError("--variants", name, "rows that are all different")
        rows.append(Row(name, STUDENT, variant.recipe, own))
    about = {
        "distilled": recipe.name,
        "regime": asdict(recipe.heads.data),
        "teacher": teaching.teacher,
        "teacher_run": Path(teacher).name,
        "codebook": teaching.codebook,
        **(asked or {}),
        "passes": recipe.heads.run.steps * recipe.heads.run.batch_size,
        "seeds": list(seeds),
        "contenders": [row.name for row in rows],
        "codebooks": {
            row.name: next(iter(row.splits.values())).codes.codebook_id
            for row in rows
            if row.splits is not None
        },
        "identity": result_identity(
            host,
            recipe,
            [row.recipe for row in rows],
            seeds,
            {name: split.reader for name, split in splits.items()},
        ),
    }
    contests = {
        (row.name, seed): Contest(
            host,
            of_seed(row.recipe, seed),
            row.splits or splits,
            None if row.splits is not None else teaching,
            seed_folder(folder, seed),
            may_train=False,
        )
        for seed in seeds
        for row in rows
    }
    modules = {
        row.name: train_contender(row.contender, contests[row.name, seeds[0]]).module
        for row in rows
    }
    gates = {name: gate_at_end(module) for name, module in modules.items()}
    scored = None if json_path is None else kept_scores(json_path, about, split_names, gates)
    if scored is None:
        found = _scores(rows, contests, teaching, splits, split_names, seeds, progress)
        scored = {**about, **found}
        if json_path is not None:
            keep_scores(json_path, scored)
    asked_teacher = load_teacher(teacher_place(teacher), teaching.codebook)
    costs = plan_costs(modules, HOST, STUDENT, asked_teacher, splits[split_names[0]].reader)
    result = {**scored, "costs": {**costs, "pinned": pinned_costs()}}
    if json_path is not None:
        write_result(json_path, result)
        forget_scores(json_path)
    return result


def _scores(
    rows: Sequence[Row],
    contests: Mapping[tuple[str, int], Contest],
    teaching: Teaching,
    splits: Mapping[str, CodedSplit],
    split_names: Sequence[str],
    seeds: Sequence[int],
    progress: bool,
) -> dict[str, Any]:
    """Return gates, goals, examples and figures by split of finished runs.

    Args:
        contests: by row and seed, from which runs are read.
    """
    host = next(iter(contests.values())).host
    given = PlannerOnFeatures(host.planner, NoStates(), LossSettings(auxiliary=0.0))
    plans: dict[str, dict[str, Plans]] = {}
    for name in split_names:
        plain = FeatureSplit(splits[name].reader, splits[name].features)
        plans[name] = {GIVEN: plans_on_features(given, plain)}
    said: dict[str, dict[str, Tensor]] = {name: {} for name in split_names}
    gates: dict[str, list[float]] = {}
    for seed in seeds:
        for row in rows:
            found = train_contender(row.contender, contests[row.name, seed])
            gates.setdefault(row.name, []).append(gate_at_end(found.module))
            for name in split_names:
                key, features = f"{row.name}/{seed}", found.features[name]
                if row.contender == STUDENT:
                    plans[name][key], said[name][key] = student_answers(found.module, features)
                else:
                    plans[name][key] = plans_on_features(found.module, features)
    names = [row.name for row in rows]
    figures: dict[str, dict[str, Any]] = {}
    examples: list[dict[str, Any]] = []
    for name in split_names:
        split = splits[name]
        scored = scored_split(split, plans[name], names, seeds, progress)
        apart = {row.name: row.splits[name] for row in rows if row.splits is not None}
        figures[name] = split_figures(split, teaching, scored, said[name], names, seeds, apart)
        if name == LONGTAIL:
            examples = shown_scenes(name, split.reader, scored.values, plans[name], seeds[0])
    return {
        "gates": gates,
        "goals": {name: goals(found) for name, found in figures.items()},
        "examples": {"rule": RULE, "scenes": examples},
        "splits": figures,
    }


def gate_at_end(module: PlannerOnFeatures) -> float:
    """Return where the gate of a trained fusion stands, -1 to 1; 0 where no states reach it."""
    source = module.source
    unused = isinstance(source, ReasonerStates) and not source.settings.fusion
    return 0.0 if unused else opened_gate(module.planner)


def result_identity(
    host: Host,
    recipe: DistillRecipe,
    recipes: Sequence[DistillRecipe],
    seeds: Sequence[int],
    readers: Mapping[str, ShardReader],
) -> dict[str, Any]:
    """Return what a result hangs on.

    Args:
        recipes: of all rows. readers: of the Scenes by split, as contenders are shown them.
    """
    run = recipe.heads.run
    return {
        "recipe": recipe.name,
        "passes": run.steps * run.batch_size,
        "seed": list(seeds),
        **distill_identity(),
        **comparison_identity(host, {own.name: own for own in recipes}, readers),
    }


def scored_split(
    split: CodedSplit,
    plans: Mapping[str, Plans],
    rows: Sequence[str],
    seeds: Sequence[int],
    progress: bool = True,
) -> ScoredSplit:
    """Score plans (N, 8, 3) by ``GIVEN`` and ``<row>/<seed>``, also by tag of the Scenes."""
    known, tags = split.codes.mask.all(axis=1), tag_groups(split.reader)
    return score_contenders(split.reader, known, plans, rows, seeds, progress, tags)


def split_figures(
    split: CodedSplit,
    teaching: Teaching,
    scored: ScoredSplit,
    said: Mapping[str, Tensor],
    rows: Sequence[str],
    seeds: Sequence[int],
    others: Mapping[str, CodedSplit] | None = None,
) -> dict[str, Any]:
    """Return scores, differences, retention and token figures of a split; ``sums`` also by tag.

    Args:
        said: logits (N, 12, 16) of students by ``<row>/<seed>``. others: see ``token_figures``.
    """
    students = [row for row in rows if row.partition(":")[0] == STUDENT]
    pairs = [(row, base) for base in (HOST, FREE) for row in (TEACHER, *students)]
    pairs += [(FREE, HOST), (STUDENT, TEACHER), (HOST, GIVEN)]
    pairs += [(STUDENT, row) for row in students if row != STUDENT]
    pairs += [pair for pair in ((PSEUDO, HOST), (STUDENT, PSEUDO)) if PSEUDO in rows]
    document = scored.document([GIVEN, *rows, EXPERT], pairs, split.reader)
    sums = scored.pooled
    taught = next(entry for entry in teaching.splits.values() if entry.coded is split)
    return {
        **{name: value for name, value in document.items() if name != "sums"},
        "retention": {row: retention(sums, row) for row in students},
        "tokens": token_figures(split, taught, said, students, seeds, others),
        "sums": document["sums"],
    }


def retention(sums: NetworkSums, row: str) -> dict[str, list[float]]:
    """Return which share of the online teacher's gain a student keeps, where there is a gain.

    Of scores alone: by figure, with the suffix of the group, value and 95 % interval by network.
    """
    found = {
        f"{figure}{suffix}": sums.retention(row, TEACHER, HOST, figure, group)
        for group, suffix in SUFFIXES.items()
        for figure in sums.figures(group)
        if figure in FIGURES[1:]
    }
    return as_lists(found)


def goals(found: Mapping[str, Any]) -> dict[str, Any]:
    """Judge one split: a difference counts where its whole interval is above 0.

    Returns:
        ``teacher_gains``, ``student_gains``, ``student_beats_free_queries``; ``retention`` or None,
        and ``keeps_enough``.
    """

    def above(first: str, second: str) -> bool:
        estimate = found["differences"][f"{first}-{second}"].get(GOAL_FIGURE, [0.0, 0.0, 0.0])
        return bool(estimate[1] > 0.0)

    kept = found["retention"][STUDENT].get(GOAL_FIGURE)
    return {
        "figure": GOAL_FIGURE,
        "teacher_gains": above(TEACHER, HOST),
        "student_gains": above(STUDENT, HOST),
        "student_beats_free_queries": above(STUDENT, FREE),
        "retention": None if kept is None else kept[0],
        "keeps_enough": kept is not None and kept[0] >= GOAL_RETENTION,
    }
