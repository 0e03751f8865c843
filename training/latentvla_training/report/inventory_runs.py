"""The inventory's part about runs: how far they are, and what of them is no longer so."""

from __future__ import annotations

import time
from pathlib import Path

import yaml

from latentvla_training.engine.run_log import log_entries
from latentvla_training.report.places import Entry, Section, SplitOnDisk
from latentvla_training.report.present import Present
from latentvla_training.report.run_records import stale_run

#: So much of the end of a log is read, bytes.
_TAIL = 1 << 16
#: What a run has cost so far, by its name in the log.
_COSTS = {"cost/cpu_s": "{:.0f} CPU s", "cost/peak_gib": "{:.2f} GiB"}


def runs(folder: Path, splits: list[SplitOnDisk], present: Present) -> Section:
    """List every run below a folder."""
    entries = []
    for path in sorted(folder.rglob("recipe.yaml")):
        name = str(path.parent.relative_to(folder))
        entry = _run(path.parent, name, splits, present)
        if entry is not None:
            entries.append(entry)
    headers = ("run", "recipe", "steps", "last validation", "cost", "last checkpoint")
    return Section("Runs", headers, tuple(entries), "latentvla-train train --recipe nano")


def _run(folder: Path, name: str, splits: list[SplitOnDisk], present: Present) -> Entry | None:
    try:
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return Entry((name, "unreadable", "?", "", "", ""), ("recipe.yaml cannot be read",))
    if not isinstance(recipe, dict):
        return None
    within = (recipe, recipe.get("settings") or {}, recipe.get("phase") or {})
    settings = next((found["run"] for found in within if found.get("run")), {})
    if not settings:
        return None  # of a codebook with all its stages, each in a folder below
    passes, batch = settings.get("passes"), settings.get("batch_size")
    total = max(1, passes // batch) if passes and batch else None
    log = log_entries(folder, _TAIL)
    step = max((int(entry["step"]) for entry in log if "step" in entry), default=0)
    validations = [entry for entry in log if any(key.startswith("val/") for key in entry)]
    last = validations[-1] if validations else {}
    figures = "  ".join(
        f"{key.removeprefix('val/')} {value:.4g}"
        for key, value in last.items()
        if key.startswith("val/") and isinstance(value, (int, float))
    )
    checkpoint = folder / "checkpoint.pt"
    saved = checkpoint.is_file()
    ago = _ago(time.time() - checkpoint.stat().st_mtime) if saved else "none"
    stale = stale_run(folder, recipe, splits, present)
    if step and not saved:
        stale.append("no checkpoint yet: a kill now starts it anew")
    names = ("name", "contender", "stage")
    what = next((str(recipe[name]) for name in names if recipe.get(name)), folder.name)
    cost = "  ".join(
        text.format(last[key]) for key, text in _COSTS.items() if isinstance(last.get(key), float)
    )
    seed = settings.get("seed")
    return Entry(
        (
            name,
            what if seed is None else f"{what}, seed {seed}",
            f"{step} of {total or '?'}" + (", done" if total and step >= total and saved else ""),
            f"step {last['step']}: {figures}" if figures and "step" in last else "",
            cost,
            ago,
        ),
        tuple(stale),
    )


def _ago(seconds: float) -> str:
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return "just now"
