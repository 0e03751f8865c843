"""What a run has cost, by its own log."""

from __future__ import annotations

import json
from pathlib import Path

#: Names of the figures, and in the log.
CPU_S, PEAK_GIB = "cpu_s", "peak_gib"


def run_cost(folder: Path) -> dict[str, float]:
    """Return CPU seconds ``cpu_s`` and most memory ``peak_gib`` of the run in a folder.

    As they stood at its last validation, which is the end of one that is done; {} when no run there
    has noted any. ``cost_meter`` says what they count.
    """
    try:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # being written, or cut when the run was killed
        if isinstance(entry, dict) and f"cost/{CPU_S}" in entry:
            return {name: float(entry[f"cost/{name}"]) for name in (CPU_S, PEAK_GIB)}
    return {}
