"""What exists here: Scenes, runs, released weights, caches, results; and what of it is stale.

Only what files say of themselves is read (summaries, recipes, logs, manifests, headers), never
weights: it is quick and works beside trainings that are under way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from latentvla_training.data.source_hash import code_hash
from latentvla_training.report.inventory_released import released, results
from latentvla_training.report.inventory_runs import runs
from latentvla_training.report.places import (
    Entry,
    Places,
    Section,
    SplitOnDisk,
    megabytes,
    split_on_disk,
)
from latentvla_training.report.present import SPLITS, Present, without_scenes
from latentvla_training.world.networks import SPLIT_SIZES

#: A safetensors header longer than this is none.
_LONGEST_HEADER = 1 << 24


def inventory(places: Places | None = None) -> list[Section]:
    """Return what exists, by kind."""
    places = Places() if places is None else places
    splits = [split_on_disk(name, places.data) for name in SPLIT_SIZES]
    present = with_scenes(without_scenes(places), splits)
    return [
        _scenes(splits),
        runs(places.runs, splits, present),
        released(places, splits, present),
        _codes(places.data, splits, present),
        _caches(places.data / "cache", splits),
        results(places.results, present),
    ]


def with_scenes(present: Present, splits: list[SplitOnDisk]) -> Present:
    """Return it with the Scenes of splits, by what their summaries say."""
    scored = [split for split in splits if split.name in SPLITS]
    return replace(
        present,
        scenes={split.name: split.content_sha256 for split in scored},
        scenes_ids={split.name: split.scenes_id() for split in scored},
        train=dict(sorted(next((s.hashes for s in splits if s.name == "train"), {}).items())),
    )


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


def _codes(data: Path, splits: list[SplitOnDisk], present: Present) -> Section:
    """List the codes of codebooks, and the motions that nets without odometry read off pictures."""
    entries = []
    ids = {split.name: split.scenes_id() for split in splits}
    for place, files in _folders(data / "codes"):
        stale = present.other_codebook(place.name)
        for path in files:
            found, here = _metadata(path).get("scenes_id"), ids.get(path.stem)
            if found is not None and here not in (None, found):
                stale.append(f"{path.name} is of Scenes {found}, here {here}")
        entries.append(_folder(place.relative_to(data), files, stale))
    for place, files in _folders(data / "pseudo_odometry"):
        stale = []
        for path in files:
            hashes = _hashes(splits)
            shards = _metadata(path).get("shards") or {}
            others = [name for name, own in shards.items() if hashes.get(name, own)[:16] != own]
            if others:
                stale.append(f"{path.name} is of Scenes that are no longer here: {others[0]}, ...")
        entries.append(_folder(place.relative_to(data), files, stale))
    absent = "latentvla-train codebook encode"
    return Section("Codes and motions", ("folder", "files", "size"), tuple(entries), absent)


def _caches(folder: Path, splits: list[SplitOnDisk]) -> Section:
    """List the folders with files below the cache, and compare what names its Scenes."""
    hashes, entries = _hashes(splits), []
    for place, files in _folders(folder):
        stale = []
        others = [path.name for path in files if _of_other_scenes(path, hashes)]
        if others:
            names = ", ".join(others[:3])
            stale.append(f"{len(others)} files are of Scenes that are no longer here: {names}")
        entries.append(_folder(place.relative_to(folder), files, stale))
    absent = "made by the commands that need them"
    return Section("Caches", ("folder", "files", "size"), tuple(entries), absent)


def _hashes(splits: list[SplitOnDisk]) -> dict[str, str]:
    """Return the hashes of the contents of all shards by their names."""
    return {name: digest for split in splits for name, digest in split.hashes.items()}


def _folders(above: Path) -> list[tuple[Path, list[Path]]]:
    """Return the folders with files below one, and their files."""
    found: dict[Path, list[Path]] = {}
    for path in sorted(above.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            found.setdefault(path.parent, []).append(path)
    return list(found.items())


def _folder(name: Path, files: list[Path], stale: list[str]) -> Entry:
    size = sum(path.stat().st_size for path in files)
    return Entry((str(name), str(len(files)), megabytes(size)), tuple(stale))


def _of_other_scenes(path: Path, hashes: Mapping[str, str]) -> bool:
    """Return whether a cached file of a shard says that it is of other Scenes than are here.

    Features and encodings say ``scenes_sha256``, a teacher's states ``scenes``; what is hidden of
    them may stand behind the hash.
    """
    about = _metadata(path)
    own, found = hashes.get(path.stem), about.get("scenes_sha256") or about.get("scenes")
    return own is not None and found is not None and own != str(found).partition(" ")[0]


def _metadata(path: Path) -> dict[str, Any]:
    """Return what a safetensors file says of itself; some say it as JSON under ``about``."""
    if path.suffix != ".safetensors":
        return {}
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _LONGEST_HEADER:
                return {}
            header = json.loads(file.read(length))
        found = header.get("__metadata__") or {}
        found = json.loads(found["about"]) if "about" in found else found
    except (OSError, ValueError, AttributeError):
        return {}
    return found if isinstance(found, dict) else {}
