"""The teacher's token table: seeds pooled, intervals by network, in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from latentvla_ros.contract import NUM_LATENT_ACTIONS
from latentvla_training.report import markdown
from latentvla_training.report.network_sums import Estimate, NetworkSums, pooled, seed_spread
from latentvla_training.teacher.calibration import Calibration, pooled_calibration
from latentvla_training.teacher.evaluation import (
    BLIND,
    MLP,
    MLP_PREVIOUS,
    PREVIOUS,
    SHUFFLED,
    TEACHER,
    UNIGRAM,
    SeedResult,
)

#: Nats a code by which the teacher must beat counts and the net of ego state and command
#: (experiments.md section 5).
MARGIN = 0.1
TO_BEAT = (UNIGRAM, PREVIOUS, MLP)
#: Told apart: a net that is told the true codes before, as the teacher is (ours, and harder).
BESIDE = (MLP_PREVIOUS,)

TITLES = {
    UNIGRAM: "unigram of each place",
    PREVIOUS: "previous token",
    MLP: "ego state and command (MLP)",
    MLP_PREVIOUS: "ego state, command and the true codes before (MLP)",
    BLIND: "teacher trained on black pictures",
    SHUFFLED: "teacher, pictures of another network (diagnostic)",
    TEACHER: "**teacher**",
}


def token_table(results: Mapping[str, SeedResult], split: str) -> str:
    """Return the report of the seeds of one recipe on one split."""
    parts = [result.sums for result in results.values()]
    sums = pooled(parts)
    identity = next(iter(results.values())).identity
    rows = [row for row in TITLES if not math.isnan(sums.mean(row, "nll").value)]
    lines = [
        f"# Teacher {identity['recipe']} on {split}",
        "",
        f"{len(results)} seed(s) ({', '.join(results)}), {sums.scenes('nll')} Scenes of "
        f"{len(sums.networks)} networks never trained on, codebook {identity['codebook_id']}. "
        "Mean, ± spread over seeds, [95 % interval by network].",
        "",
        "## Codes after the true ones before them",
        "",
        markdown.table(
            ("row", "NLL, nats a code", "perplexity", "accuracy, %", "NLL of the teacher minus it"),
            [_row(sums, parts, row) for row in rows],
        ),
        "",
        verdict(sums),
        "",
        "## Codes when only t0 is known",
        "",
        "The teacher's marginals over sampled prefixes (what a student learns) against nets and "
        "counts that see no code.",
        "",
        markdown.table(
            ("row", "NLL, nats a code", "accuracy, %", "NLL of the teacher minus it"),
            [_own_row(sums, parts, row) for row in (UNIGRAM, MLP, TEACHER)],
        ),
        "",
        "## By place, after the true codes: NLL / accuracy, %",
        "",
        markdown.table(
            ("row", *(str(place + 1) for place in range(NUM_LATENT_ACTIONS))),
            [_by_place(sums, row) for row in rows],
        ),
    ]
    for title, name in (
        ("Calibration after the true codes", "calibration"),
        ("Calibration of the marginals", "own_calibration"),
    ):
        lines += ["", f"## {title}", "", _calibration([getattr(r, name) for r in results.values()])]
    lines += _costs([result.costs for result in results.values()])
    return "\n".join(lines) + "\n"


def _costs(found: Sequence[Mapping[str, Mapping[str, float]]]) -> list[str]:
    """Return what the stages of runs have cost; nothing where none is kept."""
    rows = []
    for stage, title in (("vision", "vision tower, once for all seeds"), ("codes", "codes")):
        costs = [one[stage] for one in found if stage in one]
        if costs:
            minutes = ", ".join(f"{cost['cpu_s'] / 60:.1f}" for cost in costs)
            peaks = ", ".join(f"{cost['peak_gib']:.2f}" for cost in costs)
            rows.append((title, minutes, peaks))
    if not rows:
        return []
    table = markdown.table(("stage", "CPU minutes", "peak memory, GiB"), rows)
    return ["", "## What a stage cost, seed by seed", "", table]


def passed(results: Mapping[str, SeedResult]) -> bool:
    """Return whether the teachers beat all of ``TO_BEAT`` by ``MARGIN`` beyond the interval.

    Also where t0 alone is known, to both: there the interval of what they are ahead of the net must
    leave 0 out.
    """
    return beats_all(pooled([result.sums for result in results.values()]))


def beats_all(sums: NetworkSums) -> bool:
    """Return whether the pooled sums of teachers say so."""
    told = all(sums.difference(row, TEACHER, "nll").low >= MARGIN for row in TO_BEAT)
    own = sums.difference(MLP, TEACHER, "own_nll")
    return told and own.value >= MARGIN and own.low > 0.0


def verdict(sums: NetworkSums) -> str:
    """Say of each row whether the teacher beats it by ``MARGIN``, beyond the interval or not."""
    asked = [(row, "nll", "") for row in TO_BEAT] + [(MLP, "own_nll", ", at t0 alone")]
    lines = []
    for row, figure, where in (*asked, *((row, "nll", ", not asked for") for row in BESIDE)):
        gain = sums.difference(row, TEACHER, figure)
        word = "yes" if gain.low >= MARGIN else "not beyond the interval"
        if gain.value < MARGIN:
            word = "no"
        lines.append(
            f"Beats {TITLES[row]} by {MARGIN} nat{where}: **{word}** "
            f"({markdown.difference(gain, 3)})."
        )
    return "\n\n".join(lines)


def _spread(parts: Sequence[NetworkSums], row: str, figure: str) -> float | None:
    return seed_spread(parts, row, figure) if len(parts) > 1 else None


def _perplexity(found: Estimate) -> Estimate:
    return Estimate(math.exp(found.value), math.exp(found.low), math.exp(found.high))


def _row(sums: NetworkSums, parts: Sequence[NetworkSums], row: str) -> list[str]:
    nll = sums.mean(row, "nll")
    against = (
        markdown.NONE
        if row == TEACHER
        else markdown.difference(sums.difference(TEACHER, row, "nll"), 3)
    )
    return [
        TITLES[row],
        markdown.figure(nll, 3, spread=_spread(parts, row, "nll")),
        markdown.figure(_perplexity(nll), 2),
        markdown.figure(sums.mean(row, "accuracy"), 1, 100.0, _spread(parts, row, "accuracy")),
        against,
    ]


def _own_row(sums: NetworkSums, parts: Sequence[NetworkSums], row: str) -> list[str]:
    against = (
        markdown.NONE
        if row == TEACHER
        else markdown.difference(sums.difference(TEACHER, row, "own_nll"), 3)
    )
    return [
        TITLES[row],
        markdown.figure(sums.mean(row, "own_nll"), 3, spread=_spread(parts, row, "own_nll")),
        markdown.figure(sums.mean(row, "own_accuracy"), 1, 100.0),
        against,
    ]


def _by_place(sums: NetworkSums, row: str) -> list[str]:
    cells = []
    for place in range(1, NUM_LATENT_ACTIONS + 1):
        nll = markdown.number(sums.mean(row, f"nll_{place}").value, 2)
        accuracy = markdown.number(sums.mean(row, f"accuracy_{place}").value, 0, 100.0)
        cells.append(f"{nll} / {accuracy}")
    return [TITLES[row], *cells]


def _calibration(parts: Sequence[Calibration]) -> str:
    found = pooled_calibration(parts)
    each = [part.error.value for part in parts]
    spread = float(np.std(each, ddof=1)) if len(each) > 1 else None
    rows = [
        (
            f"{low:.2f} to {high:.2f}",
            str(count),
            markdown.number(confidence, 1, 100.0),
            markdown.number(accuracy, 1, 100.0),
        )
        for low, high, count, confidence, accuracy in found.reliability()
    ]
    error = markdown.figure(found.error, 2, 100.0, spread)
    table = markdown.table(("confidence", "codes", "mean confidence, %", "accuracy, %"), rows)
    return f"Expected calibration error {error} %.\n\n{table}"
