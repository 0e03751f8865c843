"""A result of ``latentvla-train evaluate`` for people."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.table import Table

from latentvla_training.planner.scene_scores import (
    EPDMS_PARTS,
    EXTENDED_COMFORT,
    PDMS_PARTS,
    SCORES,
)
from latentvla_training.report.network_sums import ALL, NetworkSums, sums_from_json

SCORE_TITLES = {"pdms": "PDMS", "epdms": "EPDMS", "epdms_unfiltered": "EPDMS, no filter"}


def print_table(result: dict[str, Any]) -> None:
    """Print scores, displacement errors, differences and groups of a result."""
    console = Console()
    console.width = max(console.width, 150)  # also where the output is a file
    rows = result["rows"]
    if any("pdms" in row for row in rows.values()):
        console.print(_scores(result))
        console.print(_parts(rows))
    console.print(_errors(result))
    for name, ratio in result["ratios"].items():
        low, high = ratio["ci"]
        console.print(f"ADE {name}: {ratio['ratio']:.3f} [{low:.3f}, {high:.3f}]")
    for name, figures in result["differences"].items():
        for figure, found in figures.items():
            factor, digits = (100.0, 2) if figure in SCORES else (1.0, 3)
            value, low, high = (
                f"{factor * number:+.{digits}f}" for number in (found["difference"], *found["ci"])
            )
            console.print(f"{SCORE_TITLES.get(figure, 'ADE')} {name}: {value} [{low}, {high}]")
    console.print(_groups(result))
    unscored = result["unscored"]
    for reason, count in unscored["scenes"].items():
        console.print(f"{count} scenes could not be scored and count as 0: {reason}")
    for name, reasons in unscored["plans"].items():
        for reason, count in reasons.items():
            console.print(f"{count} plans of {name} count as 0: {reason}")


def _figure(row: dict[str, Any], name: str, factor: float, digits: int) -> str:
    if row.get(name) is None:
        return "-"
    base = name.removesuffix("_decision")
    low, high = row[f"{base}_ci{name.removeprefix(base)}"]
    return (
        f"{factor * row[name]:.{digits}f} [{factor * low:.{digits}f}, {factor * high:.{digits}f}]"
    )


def _title(result: dict[str, Any]) -> str:
    return (
        f"{result['bundle']} on {result['split']}: {result['scenes']} scenes of "
        f"{result['networks']} networks, {result['decision_scenes']} decision scenes; 95 % "
        "intervals by network"
    )


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for name in columns:
        table.add_column(name, justify="right" if name else "left")
    return table


def _scores(result: dict[str, Any]) -> Table:
    table = _table(_title(result), "", *(SCORE_TITLES[name] for name in SCORES))
    for name, row in result["rows"].items():
        table.add_row(name, *(_figure(row, score, 100.0, 1) for score in SCORES))
    return table


def _parts(rows: dict[str, Any]) -> Table:
    parts = [f"pdms_{part}" for part in PDMS_PARTS]
    parts += [f"epdms_{part}" for part in (*EPDMS_PARTS, EXTENDED_COMFORT)]
    titles = [f"{part.rpartition('_')[2].upper()}{' v1' * (part[0] == 'p')}" for part in parts]
    table = _table("sub-scores, % (v1: of PDMS; the others of EPDMS)", "", *titles)
    for name, row in rows.items():
        table.add_row(name, *(_percent(row.get(part, math.nan)) for part in parts))
    return table


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100.0 * value:.1f}"


def _errors(result: dict[str, Any]) -> Table:
    names = ("ade", "fde", "ade_decision", "fde_decision")
    titles = ("ADE", "FDE", "ADE, decision scenes", "FDE, decision scenes")
    table = _table(f"{_title(result)}; m over 4 s", "", *titles)
    for name, row in result["rows"].items():
        table.add_row(name, *(_figure(row, figure, 1.0, 3) for figure in names))
    return table


def _group_rows(sums: NetworkSums) -> set[str]:
    """Return the rows that groups have; the whole split has more."""
    groups = [figures for group, figures in sums.groups.items() if group != ALL]
    return {row for figures in groups for found in figures.values() for row in found.rows}


def _groups(result: dict[str, Any]) -> Table:
    sums = sums_from_json(result["sums"])
    known = "epdms" in sums.figures()
    rows = [name for name in result["rows"] if name in _group_rows(sums)]
    figures = [("ade", 1.0, 3), *([("epdms", 100.0, 1)] if known else [])]
    table = _table(
        "ADE, m" + ("; EPDMS" if known else "") + " by group of scenes", "", "scenes", *rows
    )
    for group in sums.groups:
        cells = []
        for row in rows:
            means = [sums.mean(row, figure, group).value for figure, _, _ in figures]
            cells.append(
                "; ".join(
                    "-" if math.isnan(mean) else f"{factor * mean:.{digits}f}"
                    for mean, (_, factor, digits) in zip(means, figures, strict=True)
                )
            )
        table.add_row(group, str(sums.scenes("ade", group)), *cells)
    return table
