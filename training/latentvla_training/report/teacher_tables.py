"""What teachers know of the codes, by the files of ``teacher evaluate``: seeds pooled."""

from __future__ import annotations

from collections.abc import Sequence

from latentvla_training.report import markdown as md
from latentvla_training.report.distill_files import calibration_of, sums_of_seeds
from latentvla_training.report.result_files import Kind, ResultFile, Results
from latentvla_training.teacher.evaluation import SeedResult
from latentvla_training.teacher.evaluation_table import token_table

#: What files must share for their seeds to be pooled.
_ALIKE = ("recipe", "codebook_id", "scenes_id", "passes")


def teacher_section(results: Results) -> str:
    """Return the token tables of every recipe, codebook and split that was measured."""
    parts = ["## What the teacher knows"]
    files = results.of(Kind.TEACHER)
    if not files:
        how = "`latentvla-train teacher evaluate --codes FOLDER --json docs/results/teacher.json`"
        return "\n\n".join([*parts, f"No result yet. {how}"])
    for group in teacher_groups(files):
        parts += _group(group)
    return "\n\n".join(parts)


def teacher_groups(files: Sequence[ResultFile]) -> list[list[ResultFile]]:
    """Return files whose seeds are pooled: of one recipe, codebook, split and set of Scenes.

    Stale files stand apart from fresh ones.
    """
    groups: dict[tuple[object, ...], list[ResultFile]] = {}
    for file in files:
        key = tuple(file.identity[name] for name in _ALIKE)
        groups.setdefault((*key, file.split, bool(file.stale)), []).append(file)
    return list(groups.values())


def _group(files: Sequence[ResultFile]) -> list[str]:
    stale = f" {md.DAGGER}" if files[0].stale else ""
    commands, seeds = [], {}
    for file in files:
        names = list(file.document["seeds"])
        codes = file.identity["codebook_id"]
        commands.append(
            f"latentvla-train teacher evaluate --codes data/codes/{codes} --runs {' '.join(names)} "
            f"--split {file.split} --json docs/results/{file.name}"
        )
        for name, found in file.document["seeds"].items():
            (sums,) = sums_of_seeds([{"seeds": {name: found}}])
            seeds[f"{name} of {file.name}" if name in seeds else name] = SeedResult(
                found["identity"],
                sums,
                calibration_of(found["calibration"]),
                calibration_of(found["own_calibration"]),
                costs=found.get("costs", {}),
            )
    # The table of the command itself, one level deeper.
    text = token_table(seeds, files[0].split).replace("\n## ", "\n#### ")
    title, _, rest = text.partition("\n")
    return [f"##{title}{stale}", md.code(*commands), rest.strip()]
