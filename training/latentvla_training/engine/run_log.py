"""What a run has noted in its log, and what it has cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: Names of the costs, and in the log.
CPU_S, PEAK_GIB = "cpu_s", "peak_gib"


def log_entries(folder: Path, last_bytes: int | None = None) -> list[dict[str, Any]]:
    """Return the entries of a run's ``metrics.jsonl``, [] of none.

    What cannot be read is left out: a line that is being written, or that was cut when a run was
    killed or a disk was full.

    Args:
        last_bytes: so much of the end is read; None: all.
    """
    path = folder / "metrics.jsonl"
    try:
        with path.open("rb") as file:
            if last_bytes is not None:
                file.seek(max(0, path.stat().st_size - last_bytes))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    entries = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries


def run_cost(folder: Path) -> dict[str, float]:
    """Return CPU seconds ``cpu_s`` and most memory ``peak_gib`` of the run in a folder.

    As they stood at its last validation, which is the end of one that is done; {} when no run there
    has noted any. ``cost_meter`` says what they count.
    """
    noted = [entry for entry in log_entries(folder) if f"cost/{CPU_S}" in entry]
    return {name: float(noted[-1][f"cost/{name}"]) for name in (CPU_S, PEAK_GIB)} if noted else {}
