"""The figure of the report: every row with its interval, and what images add by tag."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from latentvla_training.planner.scene_groups import TAG
from latentvla_training.report.network_sums import ALL, Estimate
from latentvla_training.report.pooling import SplitResults
from latentvla_training.report.split_tables import group_names, too_few

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROWS = {
    "constant_velocity": ("constant velocity", "#9a9a9a"),
    "ego_status_mlp": ("ego status MLP", "#7d8ca3"),
    "blank_images": ("blank images", "#4f6d8f"),
    "ours": ("nano", "#d1495b"),
    "expert": ("expert", "#2e7d4f"),
}
_GAINS = {
    "blank_images": ("nano minus blank images", "#4f6d8f"),
    "ego_status_mlp": ("nano minus MLP", "#d1a03c"),
}
_INK = "#222222"
_DPI = 130


def draw_figure(splits: Sequence[SplitResults], path: Path) -> bool:
    """Draw rows with intervals per split (left) and gains by tag (right).

    Returns:
        whether there was anything to draw; without, an old picture is removed.

    Raises:
        OSError: the picture cannot be written.
    """
    shown = [found for found in splits if found.sums is not None]
    if not shown:
        path.unlink(missing_ok=True)
        return False
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    scored = any("epdms" in found.sums.figures() for found in shown if found.sums is not None)
    figure, factor = ("epdms", 100.0) if scored else ("ade", 1.0)
    gains = _gains(shown, figure)
    height = max(3.6, 1.0 + 0.36 * len(gains), 0.9 + 1.5 * len(shown))
    canvas, axes = pyplot.subplots(
        1, 2, figsize=(12.5, height), layout="constrained", width_ratios=(1.0, 1.15)
    )
    try:
        _draw_rows(axes[0], shown, figure, factor)
        _draw_gains(axes[1], gains, figure, factor)
        save(canvas, path)
    finally:
        pyplot.close(canvas)
    return True


def save(canvas: Figure, path: Path) -> None:
    """Write a PNG in one rename; the same figure gives the same bytes.

    Raises:
        OSError: it cannot be written; the file of before is as it was.
    """
    part = path.with_name(f".{path.stem}.part.png")
    try:
        canvas.savefig(part, dpi=_DPI, metadata={"Software": None})
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _title(figure: str) -> str:
    return "ADE over 4 s, m (less is better)" if figure == "ade" else "EPDMS, %"


def plain(axes: Axes) -> None:
    """Leave of the frame what is needed to read values along x."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)


def _draw_rows(axes: Axes, shown: Sequence[SplitResults], figure: str, factor: float) -> None:
    place, ticks, labels = 0.0, [], []
    for found in shown:
        stale = " †" if found.stale else ""
        axes.text(
            0.0, place, f"{found.split}{stale}", transform=axes.get_yaxis_transform(),
            fontweight="bold", color=_INK, va="center",
        )  # fmt: skip
        place -= 1.0
        for row, (label, colour) in _ROWS.items():
            mean = found.mean(row, figure)
            if math.isnan(mean.value):
                continue
            draw_interval(axes, mean, place, factor, colour, size=7 if row == "ours" else 5)
            _seeds(axes, found, row, figure, place, factor, colour)
            axes.annotate(
                f"{factor * mean.value:.{1 if factor > 1 else 2}f}",
                (factor * mean.high, place), xytext=(6, 0), textcoords="offset points",
                va="center", fontsize=8, color=colour,
            )  # fmt: skip
            ticks.append(place)
            labels.append(label)
            place -= 1.0
        place -= 0.4
    axes.set_yticks(ticks, labels)
    axes.set_title(f"{_title(figure)}: mean over seeds, 95 % by network", loc="left", fontsize=10)
    axes.set_ylim(place + 0.6, 0.8)
    axes.margins(x=0.12)
    plain(axes)


def draw_interval(
    axes: Axes, found: Estimate, place: float, factor: float, colour: str, size: float
) -> None:
    """Draw a value and its interval along x at a height."""
    axes.plot(
        [factor * found.low, factor * found.high], [place, place],
        color=colour, linewidth=2.0, solid_capstyle="round", alpha=0.75,
    )  # fmt: skip
    axes.plot(factor * found.value, place, "o", color=colour, markersize=size)


def _seeds(
    axes: Axes, found: SplitResults, row: str, figure: str, place: float, factor: float, colour: str
) -> None:
    """Draw every seed as a small tick under the mean, where there are several."""
    values = [file.sums.mean(row, figure).value for file in found.files if file.sums is not None]
    if len(values) > 1 and max(values) - min(values) > 1e-9:
        axes.plot(
            [factor * value for value in values], [place - 0.36] * len(values), "|",
            color=colour, markersize=5,
        )  # fmt: skip


def _gains(shown: Sequence[SplitResults], figure: str) -> list[tuple[str, dict[str, Estimate]]]:
    """Return by tag (and for all scenes of a split) the gains over both opponents."""
    rows = []
    for found in shown:
        names = [ALL, *(name for name in group_names(found) if name.startswith(TAG))]
        for group in names:
            if group != ALL and too_few(found, figure, group):
                continue
            gains = {other: found.difference(other, figure, group) for other in _GAINS}
            if all(math.isnan(gain.value) for gain in gains.values()):
                continue
            what = "all scenes" if group == ALL else group.removeprefix(TAG).replace("_", " ")
            assert found.sums is not None
            count = found.sums.scenes(figure, group)
            rows.append((f"{found.split}: {what} ({count})", gains))
    return rows


def _draw_gains(
    axes: Axes, gains: Sequence[tuple[str, dict[str, Estimate]]], figure: str, factor: float
) -> None:
    axes.axvline(0.0, color=_INK, linewidth=1.0)
    for number, (other, (label, colour)) in enumerate(_GAINS.items()):
        for row, (_, found) in enumerate(gains):
            if not math.isnan(found[other].value):
                draw_interval(axes, found[other], -row + 0.13 - 0.26 * number, factor, colour, 5)
        axes.plot([], [], "o-", color=colour, label=label)
    axes.set_yticks([-row for row in range(len(gains))], [name for name, _ in gains])
    better = "left" if figure == "ade" else "right"
    axes.set_title(
        f"what images add: {_title(figure).partition(',')[0]}, better to the {better}",
        loc="left", fontsize=10,
    )  # fmt: skip
    axes.set_ylim(-len(gains) + 0.4, 0.6)
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.06), ncols=2, frameon=False, fontsize=8)
    plain(axes)
