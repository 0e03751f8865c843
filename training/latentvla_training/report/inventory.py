"""What exists here: Scenes, runs, released weights, caches, results; and what of it is stale.

Only what files say of themselves is read (summaries, recipes, logs, manifests, headers), never
weights: it is quick, works beside trainings that are under way, and needs no torch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from latentvla_training.data.source_hash import code_hash
from latentvla_training.report.inventory_released import released, results
from latentvla_training.report.places import (
    Entry,
    Places,
    Section,
    SplitOnDisk,
    megabytes,
    split_on_disk,
)
from latentvla_training.world.networks import SPLIT_SIZES

#: So much of the end of a log is read, bytes.
_TAIL = 1 << 16
#: A safetensors header longer than this is none.
_LONGEST_HEADER = 1 << 24


#: What a run has cost so far, by its name in the log.
_COSTS = {"cost/cpu_s": "{:.0f} CPU s", "cost/peak_gib": "{:.2f} GiB"}


def inventory(places: Places | None = None) -> list[Section]:
    """Return what exists, by kind."""
    places = Places() if places is None else places
    splits = [split_on_disk(name, places.data) for name in SPLIT_SIZES]
    return [
        _scenes(splits),
        _runs(places.runs),
        released(places, splits),
        _caches(places.data / "cache", splits),
        results(places, splits),
    ]


def _scenes(splits: list[SplitOnDisk]) -> Section:
    entries = []
    for split in splits:
        if not split.shards:
            continue
        found = split.summary
        stale = []
        if not found:
            stale.append("no summary: being made, or interrupted")
        elif split.content_sha256 is None:
            stale.append(f"{len(split.shards)} shards, its summary knows {len(split.hashes)}")
        if found and found.get("code") != code_hash():
            stale.append(f"made by code {found.get('code')}, now {code_hash()}")
        elif found.get("other_code"):
            stale.append(f"{found['other_code']} shards made by other code")
        size = sum(path.stat().st_size for path in split.shards)
        cells = (
            split.name,
            str(found.get("scenes", "?")),
            str(len(split.shards)),
            megabytes(size),
            (split.content_sha256 or "?")[:12],
            str(found.get("code", "?")),
            str(len(found.get("failed") or {})),
        )
        entries.append(Entry(cells, tuple(stale)))
    headers = ("split", "scenes", "shards", "size", "contents", "code", "failed episodes")
    return Section("Scenes", headers, tuple(entries), "latentvla-train world make --split train")


def _runs(folder: Path) -> Section:
    entries = []
    for path in sorted(folder.rglob("recipe.yaml")):
        entry = _run(path.parent, str(path.parent.relative_to(folder)))
        if entry is not None:
            entries.append(entry)
    headers = ("run", "recipe", "steps", "last validation", "cost", "last checkpoint")
    return Section("Runs", headers, tuple(entries), "latentvla-train train --recipe nano")


def _run(folder: Path, name: str) -> Entry | None:
    try:
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return Entry((name, "unreadable", "?", "", "", ""), ("recipe.yaml cannot be read",))
    if not isinstance(recipe, dict):
        return None
    settings = recipe.get("run") or (recipe.get("settings") or {}).get("run") or {}
    if not settings:
        return None  # of a codebook with all its stages, each in a folder below
    passes, batch = settings.get("passes"), settings.get("batch_size")
    total = max(1, passes // batch) if passes and batch else None
    log = _log_tail(folder / "metrics.jsonl")
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
    stale = () if saved or not step else ("no checkpoint yet: a kill now starts it anew",)
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
        stale,
    )


def _caches(folder: Path, splits: list[SplitOnDisk]) -> Section:
    """List the folders with files below the cache, and compare what names its Scenes."""
    hashes = {name: digest for split in splits for name, digest in split.hashes.items()}
    by_folder: dict[Path, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            by_folder.setdefault(path.parent, []).append(path)
    entries = []
    for place, files in by_folder.items():
        stale = []
        others = [path for path in files if _of_other_scenes(path, hashes)]
        if others:
            names = ", ".join(path.name for path in others[:3])
            stale.append(f"{len(others)} files are of Scenes that are no longer here: {names}")
        size = sum(path.stat().st_size for path in files)
        cells = (str(place.relative_to(folder)), str(len(files)), megabytes(size))
        entries.append(Entry(cells, tuple(stale)))
    absent = "made by the commands that need them"
    return Section("Caches", ("folder", "files", "size"), tuple(entries), absent)


def _of_other_scenes(path: Path, hashes: Mapping[str, str]) -> bool:
    """Return whether a cached file of a shard says that it is of other Scenes than are here."""
    own, found = hashes.get(path.stem), _safetensors_metadata(path).get("scenes_sha256")
    return own is not None and found is not None and own != found


def _safetensors_metadata(path: Path) -> dict[str, str]:
    if path.suffix != ".safetensors":
        return {}
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _LONGEST_HEADER:
                return {}
            header = json.loads(file.read(length))
        found: dict[str, str] = header.get("__metadata__") or {}
    except (OSError, ValueError, AttributeError):
        return {}
    return found


def _log_tail(path: Path) -> list[dict[str, Any]]:
    """Return the last entries of a log of JSON lines; a line that is being written is left out."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
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


def _ago(seconds: float) -> str:
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return "just now"
