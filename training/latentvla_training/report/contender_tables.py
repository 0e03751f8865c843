"""What tables of contenders share: what rows and figures are called, and how cells are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latentvla_training.report.network_sums import UNKNOWN, Estimate

#: Rows that every comparison on one host has.
GIVEN_TITLES = {
    "host_as_given": "host, as it was given",
    "host": "host, trained on",
    "free_queries": "host + 12 free queries",
}
EXPERT_TITLES = {"expert": "expert"}

#: Of figures: title, factor, digits.
Columns = Mapping[str, tuple[str, float, int]]
PDMS: Columns = {"pdms": ("PDMS", 100.0, 1)}
EPDMS: Columns = {"epdms": ("EPDMS", 100.0, 1)}
ADE: Columns = {"ade": ("ADE, m", 1.0, 3)}
DECISION: Columns = {"pdms_decision": ("PDMS, decision", 100.0, 1)}


def headers(columns: Columns) -> tuple[str, ...]:
    """Return the heads of a table: of the rows' names, and of every figure."""
    return ("", *(title for title, _, _ in columns.values()))


def cells(figures: Mapping[str, Any], columns: Columns, write: Any) -> list[str]:
    """Return the cells of a row; a figure that is not there is unknown.

    Args:
        write: ``markdown.figure`` or ``markdown.difference``.
    """
    return [
        str(write(Estimate(*figures[name]) if name in figures else UNKNOWN, digits, factor))
        for name, (_, factor, digits) in columns.items()
    ]
