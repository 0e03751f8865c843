"""The scores' subcommands of ``latentvla-train``; nothing heavy is imported before they run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class ScoreVectors:
    """Compare every score with NAVSIM's own results in a vector file."""

    file: tyro.conf.Positional[Path]
    """Scene vectors (npz)."""
    comfort: Path | None = None
    """Comfort unit vectors (npz)."""
    two_stage: Path | None = None
    """Two-stage aggregation cases (JSON)."""
    json: Path | None = None
    """Where to write the report."""

    def __call__(self) -> int:
        from latentvla_training.scoring.score_vectors import score_vectors

        report = score_vectors(self.file, self.comfort, self.two_stage, self.json)
        return 1 if any(column.mismatches for column in report.columns.values()) else 0


@dataclass(frozen=True)
class BenchScoring:
    """Measure the CPU time of the scores on one core."""

    vectors: Path
    """Scene vectors (npz) whose scenes are scored."""
    json: Path | None = None
    """Where to write the figures."""

    def __call__(self) -> int:
        from latentvla_training.scoring.benchmark import bench_scoring

        bench_scoring(self.vectors, self.json)
        return 0
