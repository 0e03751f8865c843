"""The inventory for people: a table a kind, and why what is stale is so."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from latentvla_training.report.markdown import DAGGER
from latentvla_training.report.places import Section


def print_status(
    sections: Sequence[Section], stale_only: bool = False, console: Console | None = None
) -> None:
    """Print what exists; with ``stale_only`` what is fresh is left out."""
    if console is None:
        console = Console()
        console.width = max(console.width, 140)  # also where the output is a file
    stale = 0
    for section in sections:
        shown = [entry for entry in section.entries if entry.stale or not stale_only]
        if not section.entries:
            console.print(Text(f"{section.title}: none yet. {section.absent}\n"))
        if not shown:
            continue
        table = Table(*section.headers, title=section.title, title_justify="left")
        for entry in shown:
            mark = f" {DAGGER}" if entry.stale else ""
            cells = (entry.cells[0] + mark, *entry.cells[1:])
            table.add_row(*(Text(cell) for cell in cells), style="yellow" if entry.stale else None)
        console.print(table)
        for entry in shown:
            stale += bool(entry.stale)
            for reason in entry.stale:
                console.print(Text(f"  {DAGGER} {entry.cells[0]}: {reason}"))
        console.print()
    console.print(f"{stale} stale or unfinished." if stale else "Nothing is stale.")
