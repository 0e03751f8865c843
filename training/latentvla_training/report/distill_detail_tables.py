"""What stands below the scores of a split: sub-scores, and students of other recipes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latentvla_training.distill import tables
from latentvla_training.distill.settings import STUDENT
from latentvla_training.planner.contenders import FREE, HOST
from latentvla_training.planner.scene_scores import EPDMS_PARTS, EXTENDED_COMFORT, PDMS_PARTS
from latentvla_training.report import markdown as md
from latentvla_training.report.contender_tables import ADE, EPDMS, PDMS
from latentvla_training.report.network_sums import Estimate

#: Sub-scores by the score whose they are; extended comfort is kept once.
_PARTS = {
    "pdms": ("PDMS, %", tuple(PDMS_PARTS)),
    "epdms": ("EPDMS, human filter applied, %", (*EPDMS_PARTS, EXTENDED_COMFORT)),
    "epdms_unfiltered": ("EPDMS, unfiltered, %", tuple(EPDMS_PARTS)),
}
_UNKNOWN = [float("nan")]
_REACHED = {**PDMS, **EPDMS, **tables.UNFILTERED, **ADE}
#: Paired differences of an ablation: head, the other row, figure.
_AGAINST = (
    ("PDMS minus host", HOST, "pdms"),
    ("PDMS minus free queries", FREE, "pdms"),
    ("PDMS minus student", STUDENT, "pdms"),
    ("EPDMS minus student", STUDENT, "epdms"),
    ("EPDMS, unfiltered, minus student", STUDENT, "epdms_unfiltered"),
)


def sub_scores(entry: Mapping[str, Any], mark: str) -> list[str]:
    """Return a table of parts for each score; extended comfort of Scenes with a predecessor alone.

    Args:
        entry: of a split. mark: see ``markdown.table``.
    """
    found = []
    for score, (head, parts) in _PARTS.items():
        rows = []
        for row, figures in entry["rows"].items():
            values = [figures.get(f"{score}_{part}", _UNKNOWN)[0] for part in parts]
            if any(value == value for value in values):
                rows.append([tables.title(row), *(md.number(value, 1, 100.0) for value in values)])
        if rows:
            found.append(md.table([head, *(part.upper() for part in parts)], rows, mark))
    return found


def ablations(found: Mapping[str, Any], entry: Mapping[str, Any], mark: str) -> list[str]:
    """Return students of other recipes beside the student: what they reach, and the differences.

    Args:
        found: a result of ``distill evaluate``. entry: of its split. mark: see ``markdown.table``.
    """
    variants = [row for row in found["contenders"] if ":" in row]
    if not variants:
        return []
    reached, against = [], []
    for row in (STUDENT, *variants):
        tokens = entry["tokens"].get(row, {})
        reached.append(
            [
                tables.title(row),
                *tables.cells(entry["rows"][row], _REACHED, md.figure),
                md.number(tokens.get("nll", _UNKNOWN)[0], 3),
                md.number(tokens.get("kl", _UNKNOWN)[0], 3),
            ]
        )
        differences = (_difference(entry, row, other, figure) for _, other, figure in _AGAINST)
        against.append([tables.title(row), *differences])
    heads = ["ablations", *tables.headers(_REACHED)[1:], "nats a code", "nats from the teacher"]
    return [
        md.table(heads, reached, mark),
        md.table(["ablations, paired", *(head for head, _, _ in _AGAINST)], against, mark),
    ]


def _difference(entry: Mapping[str, Any], first: str, second: str, figure: str) -> str:
    """Return a paired difference, whichever way round the file has it."""
    for key, sign in ((f"{first}-{second}", 1.0), (f"{second}-{first}", -1.0)):
        values = entry["differences"].get(key, {}).get(figure)
        if values is not None:
            value, *ends = (sign * number for number in values)
            return md.difference(Estimate(value, *sorted(ends)), 1, 100.0)
    return md.NONE
