"""Runs by name: below the checkout's ``runs/``, or wherever a path says."""

from __future__ import annotations

from pathlib import Path

#: The checkout's folder of runs.
RUNS = Path(__file__).resolve().parents[3] / "runs"


def run_folder(name_or_path: str, below: Path = RUNS) -> Path:
    """Return the folder of a run: a bare name stands below a folder of runs, a path for itself."""
    path = Path(name_or_path)
    return path if path.name != name_or_path else below / name_or_path
