"""The section about the teacher in the planner: rows, gains, goals, ablations, tags and costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from latentvla_training.distill import tables
from latentvla_training.distill.costs import ANSWER
from latentvla_training.distill.settings import STUDENT, TEACHER
from latentvla_training.planner.contenders import FREE, HOST
from latentvla_training.planner.scene_groups import TAG
from latentvla_training.report import markdown as md
from latentvla_training.report.distill_beside import oracle_rows, rows_beside
from latentvla_training.report.distill_detail_tables import ablations, sub_scores
from latentvla_training.report.distill_drives import drive_tables, drives_of_nothing
from latentvla_training.report.distill_files import sums_of_split
from latentvla_training.report.distill_goals import (
    CLAIM_SEEDS,
    FULL,
    SCARCE_ODOMETRY,
    goal_lines,
    regime_lines,
    regime_of,
)
from latentvla_training.report.identity import SHIPPED
from latentvla_training.report.network_sums import Estimate
from latentvla_training.report.pooling import SplitResults
from latentvla_training.report.result_files import Kind, ResultFile, Results
from latentvla_training.report.seed_tables import ONE_TRUNK, seed_table
from latentvla_training.report.split_tables import SPLIT_TITLES

#: Gains that are shown by tag.
GAINS = {
    (TEACHER, HOST): "teacher online minus host",
    (STUDENT, HOST): "student minus host",
    (STUDENT, FREE): "student minus free queries",
}
LEAST_NETWORKS = 3


def main_file(results: Results) -> ResultFile | None:
    """Return the comparison that is drawn: fresh, of the shipped recipe, most seeds and splits."""

    def rank(file: ResultFile) -> tuple[bool, bool, int, int]:
        found = file.document
        counts = len(found["seeds"]), len(found["splits"])
        return not file.stale, found["distilled"] == SHIPPED, *counts

    return max(results.of(Kind.DISTILL), key=rank, default=None)


def distill_section(results: Results, splits: Sequence[SplitResults], picture: str | None) -> str:
    """Return what every comparison with a teacher found.

    Args:
        splits: of ``evaluate``, whose rows without a teacher stand beside. picture: file name.
    """
    parts = ["## Distillation: what the teacher is worth, online and on a car"]
    files = results.of(Kind.DISTILL)
    if not files:
        how = "`latentvla-train distill evaluate --codes FOLDER --json docs/results/distill.json`"
        return "\n\n".join([*parts, f"No result yet. {how}", *drives_of_nothing(results)])
    parts.append(
        "All rows below *host, as it was given* go on from that host on its frozen trunk, by the "
        "same settings, over the same scenes in the same order. In brackets the 95 % interval; "
        f"differences are paired, bold where it leaves 0 out. {ONE_TRUNK}"
    )
    if picture is not None:
        parts.append(f"![Rows, gains by tag, time against score, and three scenes]({picture})")
    parts.append(
        "In which regime is the teacher online above the host in PDMS, interval and all on "
        f"longtail and not below it on test? By fresh results of {CLAIM_SEEDS} seeds or more:"
    )
    parts.append("\n".join(f"- {line}" for line in regime_lines(files)))
    for file in files:
        parts += _comparison(file, results, {found.split: found for found in splits})
    parts += drives_of_nothing(results)
    return "\n\n".join(part for part in parts if part)


def _comparison(
    file: ResultFile, results: Results, elsewhere: Mapping[str, SplitResults]
) -> list[str]:
    found, mark = file.document, _mark(file)
    seeds = " ".join(str(seed) for seed in found["seeds"])
    variants = [row.partition(":")[2] for row in found["contenders"] if ":" in row]
    asked = f" --variants {' '.join(variants)}" if variants else ""
    said = [name for name in ("bundle", "host_run", "run") if found.get(name)]
    asked += "".join(f" --{name.replace('_', '-')} {found[name]}" for name in said)
    if not said and file.host_run:
        asked += f" --host-run {file.host_run}"
    asked += f" --teacher {found['teacher_run']}"
    parts = [
        f"### `{file.name}`: recipe `{found['distilled']}`{mark}",
        md.code(
            f"latentvla-train distill evaluate --recipe {found['distilled']}{asked} "
            f"--codes data/codes/{found['codebook']} --seeds {seeds} "
            f"--splits {' '.join(found['splits'])} --json docs/results/{file.name}"
        ),
        f"Teacher `{found['teacher']}`, codes of `{found['codebook']}`, host "
        f"`{file.identity['host']}`; {found['passes']} passes a row, seeds "
        f"{seeds.replace(' ', ', ')}. {tables.gates_line(found['gates'])}"
        f"{_regime(found)}",
        "\n".join(f"- {line}{mark}" for line in goal_lines(found)),
    ]
    if file.stale:
        why = "; ".join(file.stale)
        parts.insert(1, f"{md.DAGGER} Every figure of this comparison is stale: {why}.")
    for split, entry in found["splits"].items():
        parts += _split(file, split, entry, results, elsewhere.get(split))
    return [*parts, *_costs(found, mark), _examples(found, mark)]


def _regime(found: Mapping[str, Any]) -> str:
    regime = regime_of(found)
    if regime == FULL:
        return ""
    if regime == SCARCE_ODOMETRY:
        share = 100 * found["regime"]["odometry_share"]
        return (
            " **Scarce odometry**: how the ego moved, maps, road users and lights are known of "
            f"about {share:.0f} % of the drives, which are imitated; of the others there are "
            "pictures alone, which codebook, teacher and a student's lessons see."
        )
    share = 100 * found["regime"]["labelled_share"]
    return (
        f" **Scarce labels**: maps, road users and lights are known of about {share:.0f} % of the "
        "drives, for the host's trunk and for the score of plans in training; all are imitated."
    )


def _mark(file: ResultFile) -> str:
    return f" {md.DAGGER}" if file.stale else ""


def _split(
    file: ResultFile,
    split: str,
    entry: dict[str, Any],
    results: Results,
    beside: SplitResults | None,
) -> list[str]:
    found, mark = file.document, _mark(file)
    whole = {**entry, "rows": {r: v for r, v in entry["rows"].items() if ":" not in r}}
    rows = [[*row] for row in tables.score_rows(whole)]
    for row in rows:
        row[0] += mark
    told, otherwise = oracle_rows(file, split, results)
    rows[-1:-1] = told  # above the expert
    rows = [*rows_beside(file, split, beside), *rows]
    head = (
        f"{split}: {entry['scenes']} scenes of {entry['networks']} networks",
        *tables.HEADERS[1:],
    )
    parts = [f"#### {SPLIT_TITLES.get(split, split)}{mark}", md.table(head, rows), otherwise]
    plain = _without_variants(entry, "differences")
    parts.append(md.table(tables.HEADERS, tables.difference_rows(plain), mark))
    parts.append(seed_table(entry, found["seeds"], tables.FIGURES, _gain, mark))
    kept = tables.retention_rows(_without_variants(entry, "retention"))
    if any(cell != md.NONE for row in kept for cell in row[1:]):
        parts.append(md.table(tables.HEADERS, kept, mark))
    else:
        parts.append(
            "No share of the teacher's gain is reported: the whole interval of that gain is above "
            "0 in no figure."
        )
    parts += drive_tables(file, split, results)
    parts += sub_scores(entry, mark)
    parts.append(md.table(tables.TOKEN_HEADERS, tables.token_rows(entry), mark))
    parts += ablations(found, entry, mark)
    parts.append(_by_tag(entry, mark))
    return [part for part in parts if part]


def _gain(first: str, second: str) -> str:
    return f"{tables.title(first)} minus {tables.title(second)}"


def _without_variants(entry: Mapping[str, Any], part: str) -> dict[str, Any]:
    return {part: {key: value for key, value in entry[part].items() if ":" not in key}}


def tag_gains(
    entry: Mapping[str, Any], figure: str = "pdms"
) -> list[tuple[str, int, dict[tuple[str, str], Estimate]]]:
    """Return by tag how many Scenes carry it and the paired gains; tags of few networks not."""
    sums = sums_of_split(entry)
    found = []
    for group, figures in sums.groups.items():
        known = figures.get(figure)
        if not group.startswith(TAG) or known is None:
            continue
        if int((known.count > 0).sum()) < LEAST_NETWORKS:
            continue
        gains = {pair: sums.difference(*pair, figure, group) for pair in GAINS}
        found.append((group.removeprefix(TAG), int(known.count.sum()), gains))
    return found


def _by_tag(entry: Mapping[str, Any], mark: str) -> str:
    rows = [
        [tag.replace("_", " "), str(count), *(md.difference(gains[p], 1, 100.0) for p in GAINS)]
        for tag, count, gains in tag_gains(entry)
    ]
    return md.table(["PDMS, by tag", "scenes", *GAINS.values()], rows, mark) if rows else ""


def cost_title(row: str) -> str:
    """Return what a row of the costs is called."""
    return "the teacher's answer alone" if row == ANSWER else tables.title(row)


def _costs(found: Mapping[str, Any], mark: str) -> list[str]:
    costs = found["costs"]
    order = costs.get("order", "")  # results before had one order for all turns
    pinned, measured = costs["pinned"], costs["teacher_by_student"]
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "parameters, M": lambda cost: md.number(cost["parameters"], 2, 1e-6),
        "GFLOP": lambda cost: md.number(cost["flops"], 2, 1e-9),
        "CPU ms": lambda cost: md.number(cost["cpu_ms"], 1),
        "CPU, times the host's": lambda cost: md.number(cost["to_host"], 2),
        "peak memory, MiB": lambda cost: md.number(cost["peak_mib"], 1),
    }
    rows = [
        [cost_title(row), *(write(cost) for write in columns.values())]
        for row, cost in costs["rows"].items()
    ]
    return [
        f"#### What a plan costs{mark}",
        f"One scene, from decoded pictures, {costs.get('threads', 1)} thread: the median CPU time "
        f"of {costs['calls']} calls on `{costs['machine']}`, rows called in turn"
        f"{order and f' ({order})'}, ratios of the same turn; weights and the most that was "
        "allocated beside them. Planners in float32, the teacher in "
        f"{costs['teacher_precision']}, greedy codes.",
        md.table(["a plan", *columns], rows, mark),
        f"Teacher to system{mark}: **{measured['cpu']:.1f} times** the CPU time of the student's "
        f"plan measured here, {measured['flops']:.1f} times its operations at these shapes; **"
        f"{pinned['ratio']:.1f} times** counted at the pinned shapes of recipe "
        f"`{pinned['recipe']}` (system {pinned['system_shape']}, "
        f"{pinned['system_flops'] / 1e9:,.1f} GFLOP; teacher {pinned['teacher_shape']}, "
        f"{pinned['teacher_flops'] / 1e9:,.0f} GFLOP).",
    ]


def _examples(found: Mapping[str, Any], mark: str) -> str:
    scenes = found["examples"]["scenes"]
    if not scenes:
        return ""
    lines = [
        f"- `{scene['token']}`, {scene['tag'].replace('_', ' ')}: PDMS "
        + ", ".join(f"{tables.title(row)} {100 * v:.1f}" for row, v in scene["pdms"].items())
        + mark
        for scene in scenes
    ]
    rule = found["examples"]["rule"]
    return f"Scenes shown: {rule}.\n\n" + "\n".join(lines)
