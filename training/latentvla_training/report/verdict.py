"""Where cameras help and where they do not, in words made from the numbers alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from latentvla_training.report import markdown as md
from latentvla_training.report.network_sums import ALL
from latentvla_training.report.pooling import SplitResults
from latentvla_training.report.split_tables import (
    OPPONENTS,
    SCORE_TITLES,
    group_names,
    too_few,
)

#: Figures that decide, with the sign of what is better, digits and factor.
_FIGURES = {"epdms": (1.0, 1, 100.0), "ade": (-1.0, 3, 1.0)}
_TITLES = {**SCORE_TITLES, "ade": "ADE (m, less is better)"}


def summary(splits: Sequence[SplitResults]) -> str:
    """Return one line a split: nano against the rows without cameras."""
    lines = []
    for found in splits:
        texts = []
        for figure in ("pdms", "epdms", "ade"):
            sign, digits, factor = _FIGURES.get(figure, (1.0, 1, 100.0))
            for other, title in OPPONENTS.items():
                gain = found.difference(other, figure)
                if math.isnan(gain.value):
                    continue
                word = _word(gain.low * sign, gain.high * sign)
                name = _TITLES[figure].partition(" ")[0]
                texts.append(f"{name} against {title} {md.difference(gain, digits, factor)} {word}")
        if texts:
            mark = f" {md.DAGGER}" if found.stale else ""
            lines.append(f"- **{found.split}**{mark}: " + "; ".join(texts) + ".")
    return "\n".join(lines)


def _word(first: float, second: float) -> str:
    low, high = sorted((first, second))
    if low > 0.0:
        return "(better)"
    return "(worse)" if high < 0.0 else "(no difference shown)"


def where_cameras_do_not_help(splits: Sequence[SplitResults]) -> str:
    """Return by split, figure and opponent which tags and groups show no gain from images."""
    parts = ["## Where cameras do not help"]
    lines = []
    for found in splits:
        if found.sums is None:
            continue
        for figure in _FIGURES:
            if figure not in found.sums.figures():
                continue
            for other, title in OPPONENTS.items():
                lines.append(_line(found, figure, other, title))
    if not lines:
        return "\n\n".join([*parts, "Nothing has been measured yet."])
    parts.append(
        "Made from the intervals above: *worse* where the whole interval of nano's paired "
        "difference is on the wrong side of 0, *not shown* where it holds 0, *helps* where it is "
        "on the right side. Groups within fewer than three networks are left out of all three."
    )
    return "\n\n".join([*parts, "\n".join(line for line in lines if line)])


def _line(found: SplitResults, figure: str, other: str, title: str) -> str:
    sign, digits, factor = _FIGURES[figure]
    by_word: dict[str, list[str]] = {"worse": [], "not shown": [], "helps": []}
    for group in [ALL, *group_names(found)]:
        gain = found.difference(other, figure, group)
        if math.isnan(gain.value) or too_few(found, figure, group):
            continue
        low, high = sorted((gain.low * sign, gain.high * sign))
        word = "helps" if low > 0.0 else "worse" if high < 0.0 else "not shown"
        name = "all scenes" if group == ALL else group
        by_word[word].append(f"{name} ({md.number(gain.value, digits, factor, True)})")
    texts = [f"*{word}*: {', '.join(names) or 'nowhere'}" for word, names in by_word.items()]
    return f"- **{found.split}, {_TITLES[figure]}, against {title}.** " + "; ".join(texts) + "."
