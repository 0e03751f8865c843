"""Cells and tables of Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from latentvla_training.report.network_sums import Estimate

DAGGER = "†"
NONE = "-"


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], mark: str = "") -> str:
    """Return a Markdown table; the first column is left-aligned, the others right.

    Args:
        mark: behind the name of every row.
    """
    lines = [_line(headers), "|---|" + "---:|" * (len(headers) - 1)]
    return "\n".join([*lines, *(_line([row[0] + mark, *row[1:]]) for row in rows)])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def number(value: float | None, digits: int = 1, factor: float = 1.0, sign: bool = False) -> str:
    """Return a number, or a dash where it is unknown."""
    if value is None or math.isnan(value):
        return NONE
    return f"{factor * value:{'+' if sign else ''}.{digits}f}"


def figure(
    found: Estimate, digits: int = 1, factor: float = 1.0, spread: float | None = None
) -> str:
    """Return mean, spread over seeds and interval: ``84.3 ± 0.4 [82.0, 86.1]``."""
    if math.isnan(found.value):
        return NONE
    seeds = "" if spread is None else f" ± {number(spread, digits, factor)}"
    return f"{number(found.value, digits, factor)}{seeds} {_interval(found, digits, factor)}"


def difference(found: Estimate, digits: int = 1, factor: float = 1.0) -> str:
    """Return a signed difference with its interval, bold where that leaves 0 out."""
    if math.isnan(found.value):
        return NONE
    text = f"{number(found.value, digits, factor, True)} {_interval(found, digits, factor, True)}"
    return f"**{text}**" if found.above_zero or found.below_zero else text


def by_seed(
    values: Sequence[float], spread: float | None, digits: int = 1, factor: float = 1.0
) -> str:
    """Return the difference of every seed and their spread: ``+0.4, +1.0, +0.9 (± 0.3)``."""
    if all(math.isnan(value) for value in values):
        return NONE
    text = ", ".join(number(value, digits, factor, True) for value in values)
    return f"{text} (± {number(spread, digits, factor)})"


def _interval(found: Estimate, digits: int, factor: float, sign: bool = False) -> str:
    low, high = (number(value, digits, factor, sign) for value in (found.low, found.high))
    return f"[{low}, {high}]"


def code(*lines: str) -> str:
    """Return a block of commands."""
    return "\n".join(["```", *lines, "```"])
