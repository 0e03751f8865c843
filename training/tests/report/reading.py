"""Reading a report again: its parts, rows of its tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from latentvla_training.report.document import write_report
from latentvla_training.report.present import Present


def written(folder: Path, present: Present) -> str:
    out = folder.parent / "results.md"
    write_report(folder, out, present)
    return out.read_text()


def section(text: str, title: str) -> str:
    """Return the part of the report under a heading."""
    return text.partition(f"## {title}")[2].partition("\n## ")[0]


def row(text: str, name: str) -> list[str]:
    """Return the cells of the first row of a table that begins so."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {name}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def change(path: Path, **changes: Any) -> None:
    document = json.loads(path.read_text())
    document["identity"].update(changes)
    path.write_text(json.dumps(document))
