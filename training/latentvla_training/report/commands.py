"""``latentvla-train report`` and ``status``; nothing heavy is imported before they run."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

#: The checkout's folder of documents.
_DOCS = Path(__file__).resolve().parents[3] / "docs"


@dataclass(frozen=True)
class Report:
    """Write docs/results.md and its figures from the result files; stale rows are marked."""

    results: Path = _DOCS / "results"
    """Folder of the files that evaluate, drive, teacher and distill evaluate and others wrote."""
    out: Path = _DOCS / "results.md"
    """The report; its figures go beside it."""
    bundle: Path | None = None
    """Folder of the bundle that results of another one, or of another's host, are stale beside; the
    one that ships by default."""
    codebook: Path | None = None
    """Folder of the codebook that results of another one of its recipe are stale beside; the one
    that ships by default."""

    def __call__(self) -> int:
        from latentvla_training.report.document import write_report
        from latentvla_training.report.present import here

        present = here().with_made(self.bundle, self.codebook)
        results = write_report(self.results, self.out, present)
        stale = [file for file in results.files if file.stale]
        print(f"{self.out}: {len(results.files)} result files, {len(stale)} of them stale")
        for file in stale:
            print(f"  stale: {file.name}: {'; '.join(file.stale)}")
        for name, why in results.refused.items():
            print(f"  refused: {name}: {why}", file=sys.stderr)
        return 1 if results.refused else 0


@dataclass(frozen=True)
class Status:
    """Show what exists (Scenes, runs, released weights, caches, results) and what is stale."""

    stale_only: bool = False
    """Leave out what is fresh."""
    root: Path | None = None
    """Folder of a whole run (all --root) that is listed beside those in out/all."""

    def __call__(self) -> int:
        from latentvla_training.pipeline.overview import whole_runs
        from latentvla_training.report.inventory import inventory
        from latentvla_training.report.status import print_status

        print_status([*inventory(), *whole_runs(self.root)], self.stale_only)
        return 0
