"""Tables of a comparison: contenders, what they gain, what a student keeps, how it says codes."""

from __future__ import annotations

from typing import Any

from latentvla_training.report import markdown as md
from latentvla_training.report.network_sums import UNKNOWN, Estimate

#: Rows and what they are called.
TITLES = {
    "host_as_given": "host, as it was given",
    "host": "host, trained on",
    "free_queries": "host + 12 free queries",
    "teacher": "host + teacher online",
    "student": "host + distilled student",
    "expert": "expert",
}
#: Figure: title, factor, digits.
FIGURES = {
    "pdms": ("PDMS", 100.0, 1),
    "epdms": ("EPDMS", 100.0, 1),
    "epdms_unfiltered": ("EPDMS, unfiltered", 100.0, 1),
    "ade": ("ADE, m", 1.0, 3),
    "pdms_decision": ("PDMS, decision", 100.0, 1),
}
HEADERS = ("", *(title for title, _, _ in FIGURES.values()))
TOKENS = {
    "nll": ("nats a code", 1.0, 3),
    "accuracy": ("codes right, %", 100.0, 1),
    "kl": ("nats from the teacher", 1.0, 3),
    "agreement": ("as the teacher, %", 100.0, 1),
}
TOKEN_HEADERS = ("", *(title for title, _, _ in TOKENS.values()))


def title(row: str) -> str:
    """Return what a row is called: ``student:<recipe>`` is a student of that recipe."""
    kind, _, variant = row.partition(":")
    named = TITLES.get(kind, kind)
    return f"{named}, {variant}" if variant else named


def score_rows(found: dict[str, Any]) -> list[list[str]]:
    """Return the rows of one split: means with 95 % intervals."""
    return [
        [title(row), *_cells(figures, FIGURES, md.figure)] for row, figures in found["rows"].items()
    ]


def difference_rows(found: dict[str, Any]) -> list[list[str]]:
    """Return the paired differences; bold where the interval leaves 0 out."""
    return [
        [f"{title(first)} minus {title(second)}", *_cells(figures, FIGURES, md.difference)]
        for key, figures in found["differences"].items()
        for first, _, second in (key.partition("-"),)
    ]


def retention_rows(found: dict[str, Any]) -> list[list[str]]:
    """Return how much of the online teacher's gain is kept; nothing where there is no such gain."""
    shares = {name: (head, 1.0, 2) for name, (head, _, _) in FIGURES.items()}
    return [
        [f"{title(row)}: share of the teacher's gain", *_cells(figures, shares, md.figure)]
        for row, figures in found["retention"].items()
    ]


def token_rows(found: dict[str, Any]) -> list[list[str]]:
    """Return how well students, and the teacher, say the codes."""
    return [
        ["the teacher" if row == "teacher" else title(row), *_cells(figures, TOKENS, md.figure)]
        for row, figures in found["tokens"].items()
    ]


def _cells(figures: dict[str, Any], columns: dict[str, Any], write: Any) -> list[str]:
    return [
        str(write(Estimate(*figures[name]) if name in figures else UNKNOWN, digits, factor))
        for name, (_, factor, digits) in columns.items()
    ]
