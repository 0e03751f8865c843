"""Temporary folders that an inventory is taken of."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from latentvla_training.data.source_hash import code_hash
from latentvla_training.report import identity
from latentvla_training.report.inventory import inventory
from latentvla_training.report.places import Entry, Places, Section


def section(places: Places, title: str) -> Section:
    return next(found for found in inventory(places) if found.title == title)


def entry(places: Places, title: str, name: str) -> Entry:
    return next(found for found in section(places, title).entries if found.cells[0] == name)


def write_split(
    places: Places, split: str, names: tuple[str, ...] = ("a", "b"), **changed: Any
) -> str:
    """Put shards and their summary there; return the hash of the contents."""
    folder = places.data / "scenes" / split
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.parquet").write_bytes(b"x" * 1000)
    hashes = {name: f"{split}-{name}" for name in names}
    summary = {"scenes": 96, "hashes": hashes, "code": code_hash(), "failed": {"c": "no"}}
    (folder / "summary.json").write_text(json.dumps({**summary, **changed}))
    return identity.joined_hash(hashes)


def write_run(places: Places, name: str, recipe: dict[str, Any], log: list[Any]) -> Path:
    folder = places.runs / name
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    return folder


def kept(recipe: Any) -> dict[str, Any]:
    """Return a record as it is read again."""
    return yaml.safe_load(yaml.safe_dump(json.loads(json.dumps(asdict(recipe)))))  # type: ignore[no-any-return]


def runs_of(places: Places) -> dict[str, tuple[str, ...]]:
    return {found.cells[0]: found.stale for found in section(places, "Runs").entries}
