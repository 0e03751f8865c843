"""The figure of a comparison with a teacher: rows, gains by tag, time against score, three Scenes.

Made of the result file alone, but for the pictures of the Scenes: where those are not here, or have
been made anew since, their place says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latentvla_training.distill import tables
from latentvla_training.distill.settings import PSEUDO, STUDENT, TEACHER
from latentvla_training.planner.contenders import FREE, HOST
from latentvla_training.report.distill_tables import tag_gains
from latentvla_training.report.figure import draw_interval, plain, save
from latentvla_training.report.network_sums import Estimate
from latentvla_training.report.result_files import ResultFile
from latentvla_training.report.scene_panels import (
    draw_above,
    draw_camera,
    find_scene,
    shown_ahead_m,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

_COLOURS = {
    "host_as_given": "#b9bec8",
    HOST: "#6b7a94",
    FREE: "#8c6fae",
    PSEUDO: "#3f8f9e",
    TEACHER: "#d1a03c",
    STUDENT: "#d1495b",
    "expert": "#2e7d4f",
}
_GAINS = {(TEACHER, HOST): TEACHER, (STUDENT, HOST): STUDENT}
_FIGURE, _TITLE = "pdms", "PDMS, %"
_DRIVEN, _INK, _VARIANT = "#2e7d4f", "#222222", "#c9a0a8"
_CLAIMED = "longtail"


def draw_distill_figure(file: ResultFile | None, path: Path) -> bool:
    """Draw the figure of a comparison.

    Returns:
        whether there was anything to draw; without, an old picture is removed.

    Raises:
        OSError: the picture cannot be written.
    """
    if file is None:
        path.unlink(missing_ok=True)
        return False
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = file.document
    scenes = found["examples"]["scenes"]
    gains = _gains(found)
    above = max(4.2, 0.8 + 1.75 * len(found["splits"]), 1.4 + 0.34 * len(gains))
    below = 3.6 * len(scenes) + 0.4 if scenes else 0.6
    canvas = pyplot.figure(figsize=(15.0, above + below + 0.5), layout="constrained")
    try:
        mark = " †" if file.stale else ""
        canvas.suptitle(
            f"Teacher {found['teacher']}, online and distilled: recipe {found['distilled']}, "
            f"{len(found['seeds'])} seeds{mark}",
            x=0.01, ha="left", fontsize=12, fontweight="bold", color=_INK,
        )  # fmt: skip
        top, bottom = canvas.subfigures(2, 1, height_ratios=(above, below))
        axes = top.subplots(1, 3, width_ratios=(1.15, 1.15, 1.0))
        _draw_rows(axes[0], found)
        _draw_gains(axes[1], gains)
        _draw_times(axes[2], found)
        _draw_scenes(bottom, found)
        save(canvas, path)
    finally:
        pyplot.close(canvas)
    return True


def _estimate(values: Sequence[float] | None) -> Estimate | None:
    return None if values is None else Estimate(*values)


def _shown_split(found: Mapping[str, Any]) -> str:
    """Return the split that tags and times are shown of."""
    return _CLAIMED if _CLAIMED in found["splits"] else next(iter(found["splits"]))


def _draw_rows(axes: Axes, found: Mapping[str, Any]) -> None:
    place, ticks, labels = 0.0, [], []
    for split, entry in found["splits"].items():
        axes.text(
            0.0, place, f"{split}, {entry['scenes']} scenes",
            transform=axes.get_yaxis_transform(), fontweight="bold", color=_INK, va="center",
        )  # fmt: skip
        place -= 1.0
        for row, colour in _COLOURS.items():
            mean = _estimate(entry["rows"].get(row, {}).get(_FIGURE))
            if mean is None:
                continue
            draw_interval(axes, mean, place, 100.0, colour, 7 if row == STUDENT else 5)
            axes.annotate(
                f"{100 * mean.value:.1f}", (100 * mean.high, place), xytext=(6, 0),
                textcoords="offset points", va="center", fontsize=8, color=colour,
            )  # fmt: skip
            ticks.append(place)
            labels.append(tables.title(row))
            place -= 1.0
        place -= 0.4
    axes.set_yticks(ticks, labels)
    axes.set_ylim(place + 0.6, 0.8)
    axes.margins(x=0.14)
    axes.set_title(f"{_TITLE}: mean over seeds, 95 % by network", loc="left", fontsize=10)
    plain(axes)


def _gains(found: Mapping[str, Any]) -> list[tuple[str, dict[tuple[str, str], Estimate]]]:
    """Return the gains over the host on all Scenes of the splits and by tag."""
    rows: list[tuple[str, dict[tuple[str, str], Estimate]]] = []
    for split, entry in found["splits"].items():
        estimates = {
            pair: _estimate(entry["differences"].get("-".join(pair), {}).get(_FIGURE))
            for pair in _GAINS
        }
        known = {pair: gain for pair, gain in estimates.items() if gain is not None}
        rows.append((f"{split}: all ({entry['scenes']})", known))
    split = _shown_split(found)
    for tag, count, gains in tag_gains(found["splits"][split], _FIGURE):
        rows.append((f"{split}: {tag.replace('_', ' ')} ({count})", gains))
    return rows


def _draw_gains(
    axes: Axes, gains: Sequence[tuple[str, Mapping[tuple[str, str], Estimate]]]
) -> None:
    axes.axvline(0.0, color=_INK, linewidth=1.0)
    for number, (pair, row) in enumerate(_GAINS.items()):
        colour = _COLOURS[row]
        for place, (_, known) in enumerate(gains):
            gain = known.get(pair)
            if gain is not None and not math.isnan(gain.value):
                draw_interval(axes, gain, -place + 0.14 - 0.28 * number, 100.0, colour, 5)
        label = "teacher online" if row == TEACHER else "distilled student"
        axes.plot([], [], "o-", color=colour, label=f"{label} minus host")
    axes.set_yticks([-place for place in range(len(gains))], [name for name, _ in gains])
    axes.set_ylim(-len(gains) + 0.4, 0.6)
    axes.set_title("gain in PDMS, points, by tag", loc="left", fontsize=10)
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.05), ncols=2, frameon=False, fontsize=8)
    plain(axes)


def _draw_times(axes: Axes, found: Mapping[str, Any]) -> None:
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    split, costs = _shown_split(found), found["costs"]["rows"]
    rows = found["splits"][split]["rows"]
    for row in sorted(costs, key=lambda name: name in _COLOURS):  # variants lie below
        mean = _estimate(rows.get(row, {}).get(_FIGURE))
        if mean is None:
            continue
        time, colour = costs[row]["cpu_ms"], _COLOURS.get(row, _VARIANT)
        named = row in _COLOURS
        axes.plot(
            [time, time], [100 * mean.low, 100 * mean.high], color=colour, linewidth=2.0, alpha=0.6
        )
        axes.plot(time, 100 * mean.value, "o", color=colour, markersize=9 if named else 5)
        axes.annotate(
            tables.title(row) if named else row.partition(":")[2], (time, 100 * mean.value),
            xytext=(8, -12 if row == HOST else 6), textcoords="offset points",
            fontsize=8 if named else 6, color=colour,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.35)
    axes.set_xlabel("CPU ms a plan, one thread (log)", fontsize=9)
    ratio, pinned = found["costs"]["teacher_by_student"]["cpu"], found["costs"]["pinned"]["ratio"]
    axes.set_title(
        f"time against PDMS, % ({split}); teacher by student:\n"
        f"{ratio:.1f} times here, {pinned:.0f} times at the paper's size",
        loc="left", fontsize=10,
    )  # fmt: skip
    plain(axes)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)


def _draw_scenes(figure: SubFigure, found: Mapping[str, Any]) -> None:
    scenes = found["examples"]["scenes"]
    if not scenes:
        figure.text(
            0.01, 0.5, f"No scenes are shown: none of {_CLAIMED} in this result.", fontsize=9
        )
        return
    count = max(len(example["plans"]) for example in scenes)
    panels = figure.subplots(
        len(scenes), 1 + count, squeeze=False, width_ratios=(2.4, *[1.0] * count)
    )
    for (camera, *above), example in zip(panels, scenes, strict=True):
        tag = example["tag"].replace("_", " ")
        camera.set_title(f"{tag}, {example['token']}", loc="left", fontsize=9)
        scene, why = find_scene(example)
        if scene is None:
            for axes in (camera, *above):
                axes.set_axis_off()
            camera.text(0.0, 0.5, f"left out: {why}", transform=camera.transAxes, fontsize=8)
            continue
        driven = np.array(example["driven"], np.float64)
        plans = {row: np.array(plan, np.float64) for row, plan in example["plans"].items()}
        colours = [(driven, _DRIVEN), *((plan, _COLOURS[row]) for row, plan in plans.items())]
        draw_camera(camera, scene, colours)
        ahead_m = shown_ahead_m([driven, *plans.values()])
        for axes, (row, plan) in zip(above, plans.items(), strict=False):
            draw_above(axes, scene, driven, plan, _COLOURS[row], _DRIVEN, ahead_m)
            axes.set_title(
                f"{tables.title(row)}: {100 * example['pdms'][row]:.0f}",
                loc="left", fontsize=9, color=_COLOURS[row],
            )  # fmt: skip
    figure.text(
        0.01, 0.0, "Titles: PDMS of the plan. Green: driven. Outlines: ego by its plan and traffic "
        "as it went, once a second.", fontsize=9, color=_INK, va="bottom",
    )  # fmt: skip
