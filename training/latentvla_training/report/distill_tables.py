"""The section about the teacher in the planner: rows, gains, goals, ablations, tags and costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from latentvla_training.distill import tables
from latentvla_training.distill.costs import ANSWER
from latentvla_training.distill.settings import STUDENT, TEACHER
from latentvla_training.engine.recipe import SHARES
from latentvla_training.planner.contenders import FREE, HOST
from latentvla_training.planner.scene_groups import TAG
from latentvla_training.report import markdown as md
from latentvla_training.report.distill_drives import drive_tables, drives_of_nothing
from latentvla_training.report.distill_files import sums_of_split
from latentvla_training.report.distill_goals import goal_lines
from latentvla_training.report.identity import SHIPPED
from latentvla_training.report.network_sums import ALL, Estimate
from latentvla_training.report.pooling import ROW_TITLES, SplitResults
from latentvla_training.report.result_files import Kind, ResultFile, Results
from latentvla_training.report.split_tables import SPLIT_TITLES

#: Rows of ``evaluate`` that stand beside: they know less than any contender. The last has learned
#: of all labels, as contenders of the full regime have.
_BESIDE = ("constant_velocity", "ego_status_mlp", "blank_images")
ORACLE, ORACLE_TITLE = "oracle_codes", "host + the true codes (diagnostic)"
#: Figures of a comparison as the group and figure of ``evaluate``'s sums.
_GROUPED = {"pdms_decision": ("pdms", "decision")}
_PARTS = ("nc", "dac", "ddc", "tlc", "ep", "ttc", "lk", "hc", "ec")
#: Gains that are shown by tag.
GAINS = {
    (TEACHER, HOST): "teacher online minus host",
    (STUDENT, HOST): "student minus host",
    (STUDENT, FREE): "student minus free queries",
}
LEAST_NETWORKS = 3


def main_file(results: Results) -> ResultFile | None:
    """Return the comparison that is drawn: fresh, of the shipped recipe, of most seeds."""

    def rank(file: ResultFile) -> tuple[bool, bool, int]:
        found = file.document
        return not file.stale, found["distilled"] == SHIPPED, len(found["seeds"])

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
        return "\n\n".join([*parts, f"No result yet. {how}"])
    parts.append(
        "All rows below *host, as it was given* go on from that host on its frozen trunk, by the "
        "same settings, over the same scenes in the same order. In brackets the 95 % interval, "
        "bootstrapped by network and pooled over seeds; differences are paired, bold where the "
        "interval leaves 0 out."
    )
    if picture is not None:
        parts.append(f"![Rows, gains by tag, time against score, and three scenes]({picture})")
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
    if file.identity.get("bundle_sha256") is None:  # <run>-step<N>-<hash of its weights>
        asked += f" --host-run {file.identity['host'].rpartition('-step')[0]}"
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


def _full(found: Mapping[str, Any]) -> bool:
    return all(found["regime"].get(name, 1.0) == 1.0 for name in SHARES)


def _regime(found: Mapping[str, Any]) -> str:
    if _full(found):
        return ""
    share = 100 * found["regime"].get("odometry_share", 1.0)
    if share < 100:
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


def _mark(file: ResultFile | None, also: bool = False) -> str:
    return f" {md.DAGGER}" if also or (file is not None and file.stale) else ""


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
    rows[-1:-1] = _oracle_rows(file, split, results)  # above the expert
    rows = [*_rows_beside(file, split, beside), *rows]
    head = (
        f"{split}: {entry['scenes']} scenes of {entry['networks']} networks",
        *tables.HEADERS[1:],
    )
    parts = [f"#### {SPLIT_TITLES.get(split, split)}{mark}", md.table(head, rows)]
    plain = _without_variants(entry, "differences")
    parts.append(md.table(tables.HEADERS, tables.difference_rows(plain), mark))
    kept = tables.retention_rows(_without_variants(entry, "retention"))
    if any(cell != md.NONE for row in kept for cell in row[1:]):
        parts.append(md.table(tables.HEADERS, kept, mark))
    else:
        parts.append(
            "No share of the teacher's gain is reported: the whole interval of that gain is above "
            "0 in no figure."
        )
    parts += drive_tables(file, split, results)
    parts.append(_sub_scores(entry, mark))
    parts.append(md.table(tables.TOKEN_HEADERS, tables.token_rows(entry), mark))
    parts.append(_ablations(found, entry, mark))
    parts.append(_by_tag(entry, mark))
    return [part for part in parts if part]


def _without_variants(entry: Mapping[str, Any], part: str) -> dict[str, Any]:
    return {part: {key: value for key, value in entry[part].items() if ":" not in key}}


def _rows_beside(file: ResultFile, split: str, beside: SplitResults | None) -> list[list[str]]:
    """Return rows of ``evaluate`` on this split; marked where they are stale or of other Scenes."""
    if beside is None or beside.sums is None:
        return []
    own = file.identity["data"].get(split, {}).get("content_sha256")
    others = {(entry.identity.get("data") or {}).get("content_sha256") for entry in beside.files}
    stale = beside.stale or others != {own}
    rows = []
    scarce = file.document["regime"].get("odometry_share", 1.0) < 1.0
    known = _BESIDE[:1] if scarce else _BESIDE[:-1]  # the others have learned of all drives
    for row in _BESIDE if _full(file.document) else known:
        figures = {
            name: [mean.value, mean.low, mean.high]
            for name in tables.FIGURES
            for mean in [beside.mean(row, *_GROUPED.get(name, (name, ALL)))]
            if mean.value == mean.value
        }
        if figures:
            cells = tables.cells(figures, tables.FIGURES, md.figure)
            rows.append([f"{ROW_TITLES[row]} (`evaluate`){_mark(None, stale)}", *cells])
    return rows


def _oracle_rows(file: ResultFile, split: str, results: Results) -> list[list[str]]:
    """Return the true codes told to the planner, of the same codebook, wherever measured."""
    rows = []
    for other in results.of(Kind.ORACLE_CODES):
        found = other.document
        figures = (found["splits"].get(split) or {"rows": {}})["rows"].get(ORACLE)
        if figures is None or found["codebook"] != file.document["codebook"]:
            continue
        why = [f"`{other.name}`", f"{found['passes']} passes"]
        if other.identity.get("host") != file.identity["host"]:
            why.append(f"of host {other.identity.get('host')}")
        title = f"{ORACLE_TITLE} ({', '.join(why)}){_mark(other)}"
        rows.append([title, *tables.cells(figures, tables.FIGURES, md.figure)])
    return rows


def _sub_scores(entry: Mapping[str, Any], mark: str) -> str:
    """Return the parts of EPDMS; extended comfort of Scenes with a predecessor alone."""
    rows = []
    for row, figures in entry["rows"].items():
        values = [figures.get(f"epdms_{part}", [float("nan")])[0] for part in _PARTS]
        if any(value == value for value in values):
            rows.append([tables.title(row), *(md.number(value, 1, 100.0) for value in values)])
    if not rows:
        return ""
    heads = ["EPDMS, human filter applied, %", *(part.upper() for part in _PARTS)]
    return md.table(heads, rows, mark)


def _ablations(found: Mapping[str, Any], entry: Mapping[str, Any], mark: str) -> str:
    """Return students of other recipes: what they reach, beside host and the student."""
    variants = [row for row in found["contenders"] if ":" in row]
    if not variants:
        return ""
    rows = []
    for row in (STUDENT, *variants):
        figures = entry["rows"][row]
        tokens = entry["tokens"].get(row, {})
        rows.append(
            [
                tables.title(row),
                *tables.cells(figures, {**tables.PDMS, **tables.EPDMS, **tables.ADE}, md.figure),
                *(_difference(entry, row, other) for other in (HOST, FREE, STUDENT)),
                md.number(tokens.get("nll", [float("nan")])[0], 3),
                md.number(tokens.get("kl", [float("nan")])[0], 3),
            ]
        )
    heads = [
        "ablations", "PDMS", "EPDMS", "ADE, m", "PDMS minus host", "minus free queries",
        "minus student", "nats a code", "nats from the teacher",
    ]  # fmt: skip
    return md.table(heads, rows, mark)


def _difference(entry: Mapping[str, Any], first: str, second: str) -> str:
    """Return the paired difference of PDMS, whichever way round the file has it."""
    for key, sign in ((f"{first}-{second}", 1.0), (f"{second}-{first}", -1.0)):
        values = entry["differences"].get(key, {}).get("pdms")
        if values is not None:
            value, *ends = (sign * number for number in values)
            return md.difference(Estimate(value, *sorted(ends)), 1, 100.0)
    return md.NONE


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
