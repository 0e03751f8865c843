"""Tables of the oracle-codes gate: contenders on unseen networks, and what the true codes add."""

from __future__ import annotations

from typing import Any

from latentvla_training.report import markdown as md
from latentvla_training.report.contender_tables import (
    ADE,
    DECISION,
    EPDMS,
    EXPERT_TITLES,
    GIVEN_TITLES,
    PDMS,
    Columns,
    cells,
    headers,
)
from latentvla_training.report.proposal_weights import told_line
from latentvla_training.report.result_files import Kind, Results
from latentvla_training.report.seed_tables import ONE_TRUNK, seed_table

#: Rows of the table in their order, and what they are called there.
TITLES = {
    **GIVEN_TITLES,
    "shuffled_codes": "host + codes of other scenes",
    "oracle_codes": "host + the true codes (diagnostic)",
    **EXPERT_TITLES,
}
_KNOWN: Columns = {"pdms_known": ("PDMS, all codes known", 100.0, 1)}
_FIGURES: Columns = {**PDMS, **EPDMS, **ADE, **DECISION, **_KNOWN}
HEADERS = headers(_FIGURES)


def score_rows(found: dict[str, Any]) -> list[list[str]]:
    """Return the rows of one split: means with 95 % intervals."""
    return [
        [title, *cells(found["rows"].get(row, {}), _FIGURES, md.figure)]
        for row, title in TITLES.items()
        if row in found["rows"]
    ]


def difference_rows(found: dict[str, Any]) -> list[list[str]]:
    """Return what the true codes add to each of the others, paired; bold where it leaves 0 out."""
    return [
        [_gain("", other), *cells(figures, _FIGURES, md.difference)]
        for key, figures in found["differences"].items()
        if (other := key.partition("-")[2])
    ]


def _gain(_: str, other: str) -> str:
    """Return what the true codes' difference from another row is called."""
    return f"true codes minus {TITLES.get(other, other)}"


def verdict_line(document: dict[str, Any]) -> str:
    """Return in a sentence whether the gate was passed, and where."""
    verdict = document["verdict"]
    word = "passed" if verdict["passed"] else "failed"
    where = "; ".join(
        f"{split}: beats {', '.join(TITLES.get(o, o) for o in others) or 'none'}"
        for split, others in verdict["beaten"].items()
    )
    return f"Gate {word} ({verdict['figure'].upper()} above, interval and all; {where})."


def oracle_section(results: Results) -> str:
    """Return the gate of every codebook that was measured."""
    parts = ["## Oracle codes: does the vocabulary say anything about planning?"]
    files = results.of(Kind.ORACLE_CODES)
    if not files:
        how = "`latentvla-train oracle-codes --codes FOLDER --json docs/results/oracle_codes.json`"
        return "\n\n".join([*parts, f"No result yet. {how}"])
    parts.append(
        "The true codes of what was driven, told to the planner through its gated fusion: a "
        "diagnostic, never a contender. All rows go on from one host, on its frozen trunk, over "
        f"the same scenes in the same order; in brackets 95 %, differences paired. {ONE_TRUNK}"
    )
    for file in files:
        found = file.document
        stale = f" {md.DAGGER}" if file.stale else ""
        codes = found["codebook"]
        where = "kinematic" if codes.startswith("kinematic-") else f"data/codes/{codes}"
        seeds = " ".join(str(seed) for seed in found["seeds"])
        host = f" --host-run {file.host_run}" if file.host_run else ""
        parts.append(
            md.code(
                f"latentvla-train oracle-codes --codes {where} --recipe {found['recipe']}{host} "
                f"--seeds {seeds} --splits {' '.join(found['splits'])} "
                f"--json docs/results/{file.name}"
            )
        )
        parts.append(
            f"`{file.name}`{stale}, codes of `{codes}`, {found['passes']} passes a "
            f"row, seeds {seeds.replace(' ', ', ')}: {verdict_line(found)}"
        )
        parts.append(told_line(file))
        for split, entry in found["splits"].items():
            headers = [f"{split}, {entry['scenes']} scenes", *HEADERS[1:]]
            parts.append(md.table(headers, [*score_rows(entry), *difference_rows(entry)], stale))
            parts.append(seed_table(entry, found["seeds"], _FIGURES, _gain, stale))
    return "\n\n".join(part for part in parts if part)
