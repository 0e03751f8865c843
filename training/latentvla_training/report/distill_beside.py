"""Rows of other results that stand beside a comparison's own: without a teacher, and true codes."""

from __future__ import annotations

from latentvla_training.distill import tables
from latentvla_training.planner.oracle_codes import ORACLE
from latentvla_training.report import markdown as md
from latentvla_training.report.contrasts import figure_and_group
from latentvla_training.report.distill_goals import FULL, SCARCE_ODOMETRY, regime_of
from latentvla_training.report.pooling import ROW_TITLES, SplitResults
from latentvla_training.report.proposal_weights import oracle_line
from latentvla_training.report.result_files import Kind, ResultFile, Results

#: Rows of ``evaluate``: they know less than any contender. The last has learned of all labels, as
#: contenders of the full regime have.
_BESIDE = ("constant_velocity", "ego_status_mlp", "blank_images")
_ORACLE_TITLE = "host + the true codes (diagnostic)"


def rows_beside(file: ResultFile, split: str, beside: SplitResults | None) -> list[list[str]]:
    """Return rows of ``evaluate`` on this split; marked where they are stale or of other Scenes."""
    if beside is None or beside.sums is None:
        return []
    own = file.identity["data"].get(split, {}).get("content_sha256")
    others = {(entry.identity.get("data") or {}).get("content_sha256") for entry in beside.files}
    mark = f" {md.DAGGER}" if beside.stale or others != {own} else ""
    regime = regime_of(file.document)
    known = _BESIDE[:1] if regime == SCARCE_ODOMETRY else _BESIDE[:-1]  # others learned of all
    rows = []
    for row in _BESIDE if regime == FULL else known:
        figures = {
            name: [mean.value, mean.low, mean.high]
            for name in tables.FIGURES
            for mean in [beside.mean(row, *figure_and_group(name))]
            if mean.value == mean.value
        }
        if figures:
            cells = tables.cells(figures, tables.FIGURES, md.figure)
            rows.append([f"{ROW_TITLES[row]} (`evaluate`){mark}", *cells])
    return rows


def oracle_rows(file: ResultFile, split: str, results: Results) -> tuple[list[list[str]], str]:
    """Return the true codes told to the planner, of the same codebook, wherever measured.

    Returns:
        rows, and in sentences what else they differ by from contenders ("" for nothing).
    """
    rows, lines = [], []
    for other in results.of(Kind.ORACLE_CODES):
        found = other.document
        figures = (found["splits"].get(split) or {"rows": {}})["rows"].get(ORACLE)
        if figures is None or found["codebook"] != file.document["codebook"]:
            continue
        why = [f"`{other.name}`", f"{found['passes']} passes"]
        if other.identity.get("host") != file.identity["host"]:
            why.append(f"of host {other.identity.get('host')}")
        mark = f" {md.DAGGER}" if other.stale else ""
        title = f"{_ORACLE_TITLE} ({', '.join(why)}){mark}"
        rows.append([title, *tables.cells(figures, tables.FIGURES, md.figure)])
        lines.append(oracle_line(other, file))
    return rows, " ".join(line for line in lines if line)
