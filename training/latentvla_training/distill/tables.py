"""Tables of a comparison: contenders, what they gain, what a student keeps, how it says codes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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

#: Rows and what they are called.
TITLES = {
    **GIVEN_TITLES,
    "pseudo_trajectories": "host, pseudo-trajectories of all drives",
    "teacher": "host + teacher online",
    "student": "host + distilled student",
    **EXPERT_TITLES,
}
UNFILTERED: Columns = {"epdms_unfiltered": ("EPDMS, unfiltered", 100.0, 1)}
FIGURES: Columns = {**PDMS, **EPDMS, **UNFILTERED, **ADE, **DECISION}
HEADERS = headers(FIGURES)
TOKENS: Columns = {
    "nll": ("nats a code", 1.0, 3),
    "accuracy": ("codes right, %", 100.0, 1),
    "kl": ("nats from the teacher", 1.0, 3),
    "agreement": ("as the teacher, %", 100.0, 1),
}
TOKEN_HEADERS = headers(TOKENS)
#: tanh of the gate that a fusion is trained from (``GatedFusion.open``).
GATE_BEGINS = math.tanh(1.0)


def title(row: str) -> str:
    """Return what a row is called: ``student:<recipe>`` is a student of that recipe."""
    kind, _, variant = row.partition(":")
    named = TITLES.get(kind, kind)
    return f"{named}, {variant}" if variant else named


def score_rows(found: dict[str, Any]) -> list[list[str]]:
    """Return the rows of one split: means with 95 % intervals."""
    return [
        [title(row), *cells(figures, FIGURES, md.figure)] for row, figures in found["rows"].items()
    ]


def difference_rows(found: dict[str, Any]) -> list[list[str]]:
    """Return the paired differences; bold where the interval leaves 0 out."""
    return [
        [f"{title(first)} minus {title(second)}", *cells(figures, FIGURES, md.difference)]
        for key, figures in found["differences"].items()
        for first, _, second in (key.partition("-"),)
    ]


def retention_rows(found: dict[str, Any]) -> list[list[str]]:
    """Return how much of the online teacher's gain is kept; nothing where there is no such gain."""
    shares = {name: (head, 1.0, 2) for name, (head, _, _) in FIGURES.items()}
    return [
        [f"{title(row)}: share of the teacher's gain", *cells(figures, shares, md.figure)]
        for row, figures in found["retention"].items()
    ]


def gates_line(gates: Mapping[str, Sequence[float]]) -> str:
    """Return in a sentence where the gates of fusions stand at the end of training, by seed.

    Args:
        gates: tanh of the gate by row and seed; 0 of rows whose plans no states reach.
    """
    ends = [
        f"{title(row)} {' '.join(f'{gate:+.2f}' for gate in found)}"
        for row, found in gates.items()
        if any(found)
    ]
    begin = f"All began at {GATE_BEGINS:+.2f}, where an untrained fusion says nothing yet"
    return f"{begin}; where their gates stand at the end, by seed: {', '.join(ends) or 'none'}."


def token_rows(found: dict[str, Any]) -> list[list[str]]:
    """Return how well students, and the teacher, say the codes."""
    return [
        ["the teacher" if row == "teacher" else title(row), *cells(figures, TOKENS, md.figure)]
        for row, figures in found["tokens"].items()
    ]
