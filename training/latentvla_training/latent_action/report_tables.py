"""The tables of ``docs/latent_actions.md``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from latentvla_training.latent_action.evidence import SOURCES, SPEED_AT_T0
from latentvla_training.report import markdown as md

TITLES = {
    "ego": "ego codes",
    "environment": "environment codes",
    "one_stage": "codes in one stage",
    "shuffled": "ego codes, shuffled",
    "continuous": "continuous bottleneck",
    SPEED_AT_T0: "speed at t0, in as many bins",
    "unexplained_change": "unexplained change itself",
}

#: Stages of a run in the order of their training.
_STAGES = {
    "frames": "0: frame encoder, self-supervised",
    "environment": "1: environment",
    "pictures": "1: its reader off pictures",
    "ego": "2: ego",
    "one_stage": "control: codes in one stage",
    "continuous": "control: continuous bottleneck",
}


def cell(found: dict[str, Any] | None, digits: int = 2, factor: float = 1.0) -> str:
    """Return mean ± spread of a pooled figure."""
    if found is None:
        return md.NONE
    text, spread = md.number(found["mean"], digits, factor), found["spread"]
    return text if spread is None else f"{text} ± {md.number(spread, digits, factor)}"


def stage_table(stages: dict[str, Any]) -> str:
    """Return perplexities and gains over copying of every stage."""
    rows = []
    for name, figures in stages.items():
        places = figures.get("position_perplexity")
        rows.append(
            [
                TITLES[name],
                cell(figures.get("perplexity"), 1),
                " / ".join(md.number(place["mean"], 1) for place in places) if places else md.NONE,
                cell(figures["gain_over_copy"], 3),
                cell(figures["gain_over_copy_weighted"], 3),
            ]
        )
    return md.table(["", "perplexity", "by position", "gain over copy", "weighted by change"], rows)


def ego_table(probe: dict[str, Any]) -> str:
    """Return what is read of the ego's motion off every source."""
    rows = []
    for source in (name for name in SOURCES if name in probe):
        found = probe[source]
        cells = [cell(value, 3) for value in (*found["delta_v"], *found["delta_yaw"])]
        rows.append([TITLES[source], *cells, cell(found["mean"], 3)])
    transitions = len(rows[0][1:]) // 2
    names = [f"{kind} {index + 1}" for kind in ("dv", "dyaw") for index in range(transitions)]
    return md.table(["read off", *names, "mean"], rows)


def agent_table(probe: dict[str, Any]) -> str:
    """Return what is read of others off every source."""
    rows = [
        [TITLES[name], *(cell(probe[name][key], 3) for key in ("x", "y", "distance", "mean"))]
        for name in SOURCES
        if name in probe
    ]
    return md.table(["read off", "ahead", "left", "how far", "mean"], rows)


def gate_table(passed: Sequence[dict[str, bool]], runs: Sequence[dict[str, Any]]) -> str:
    """Return which gates every run passes."""
    headers = ["", *(f"seed {figures['seed']}" for figures in runs)]
    rows = [
        [name, *("passed" if one[name] else "**not passed**" for one in passed)]
        for name in passed[0]
    ]
    return md.table(headers, rows)


def meaning_table(meanings: Sequence[dict[str, Any]]) -> str:
    """Return what every code means at every position."""
    places = len(meanings[0]["at"])
    headers = ["code", "share", *(f"position {place + 1}" for place in range(places))]
    rows = [
        [
            str(entry["code"]),
            f"{100 * entry['share']:.1f} %",
            *(_meaning_cell(place) for place in entry["at"]),
        ]
        for entry in meanings
    ]
    return md.table(headers, rows)


def _meaning_cell(found: dict[str, float]) -> str:
    if found["share"] < 0.005:
        return md.NONE
    return (
        f"{100 * found['share']:.0f} %: {found['delta_v']:+.1f}, {found['delta_yaw']:+.1f}, "
        f"{found['driven']:.1f}; {found['name']}"
    )


def cost_section(costs: dict[str, Any]) -> list[str]:
    """Return a heading, a table and a note; nothing where no stage noted what it has cost."""
    if not costs:
        return []
    rows = [
        [_STAGES[stage], cell(found["cpu_s"], 1, 1 / 60), cell(found["peak_gib"])]
        for stage, found in costs.items()
    ]
    return [
        "## What a stage costs",
        md.table(["stage", "CPU minutes", "peak memory, GiB"], rows),
        "By each run's own log: CPU time of all its processes on the machine that trained it, and "
        "the most memory held at once (on a GPU, of the GPU's). Interruptions add up.",
    ]
