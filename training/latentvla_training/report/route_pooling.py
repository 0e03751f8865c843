"""Which closed-loop files make up the rows of a table, and why the others do not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from latentvla_training.report.result_files import ResultFile

#: Rows of ``drive`` by their driver, where they are called otherwise in the tables.
DRIVER_ROWS = {"bundle": "ours", "bundle_hidden_state": "ours_hidden_state"}
#: Rows that are about the bundle that ships.
BUNDLE_ROWS = ("ours", "ours_hidden_state", "bundle_ros")
#: What runs of several seeds share.
BUDGET = ("recipe", "start_from", "passes")
_SHARED = (*BUDGET, "trained_on", "settings")


def budget_of(found: Mapping[str, Any]) -> list[str]:
    """Return recipe, first stage and passes; runs of seeds are called ``<name>_s<seed>``."""
    return [re.sub(r"_s\d+$", "", str(found.get(name) or "")) for name in BUDGET]


def who_drove(file: ResultFile) -> str:
    """Return the hash of the network that drove, empty where none did."""
    identity = file.identity
    hashes = (identity.get(name) for name in ("bundle_sha256", "weights"))
    hashes = (*hashes, _pair(file).get("sha256"))
    return str(next((value for value in hashes if value), identity.get("released_sha256") or ""))


def pool_routes(
    files: Sequence[ResultFile], shipped_sha256: str | None
) -> tuple[dict[str, list[ResultFile]], dict[str, str]]:
    """Choose the closed-loop files of one split.

    Pooled are files of the same recipe, budget, training Scenes and settings of the routes, fresh
    ones where there are any, every route once for each network that drove it. Rows of nano are of
    the bundle that ships, where it is known, and of its fellows of other seeds. Every row is driven
    with the settings of nano's, so that they can be compared.

    Returns:
        files by row, and why by name for those that are not pooled.
    """
    rows: dict[str, list[ResultFile]] = {}
    for file in files:
        driver = str(file.document["driver"])
        rows.setdefault(DRIVER_ROWS.get(driver, driver), []).append(file)
    pooled: dict[str, list[ResultFile]] = {}
    left_out: dict[str, str] = {}
    for row in sorted(rows, key=lambda name: name != "ours"):
        found = rows[row]
        if "ours" in pooled and row != "ours":
            settings = pooled["ours"][0].document.get("settings")
            others = [file for file in found if file.document.get("settings") != settings]
            left_out |= {file.name: "other settings of the routes than nano's" for file in others}
            found = [file for file in found if file not in others]
        chosen, why = _choose(found, shipped_sha256 if row in BUNDLE_ROWS else None)
        left_out |= why
        if chosen:
            pooled[row] = chosen
    return {row: pooled[row] for row in rows if row in pooled}, left_out


def _choose(
    files: Sequence[ResultFile], shipped_sha256: str | None
) -> tuple[list[ResultFile], dict[str, str]]:
    left_out: dict[str, str] = {}
    by_key: dict[tuple[str, ...], list[ResultFile]] = {}
    for file in files:
        by_key.setdefault(_key(file), []).append(file)
    if shipped_sha256 is not None:
        for key, group in list(by_key.items()):
            if not any(who_drove(file) == shipped_sha256 for file in group):
                text = f"{shipped_sha256[:10]}, which ships, nor of the same recipe and budget"
                for file in by_key.pop(key):
                    left_out[file.name] = (
                        f"bundle {who_drove(file)[:10] or 'unknown'} is not {text}"
                    )
    if not by_key:
        return [], left_out
    best = max(by_key, key=lambda key: _rank(by_key[key]))
    for key, group in by_key.items():
        if key != best:
            pairs = zip(_SHARED, key, best, strict=True)
            text = "; ".join(
                f"{n} {_short(a)}, pooled are {_short(b)}" for n, a, b in pairs if a != b
            )
            left_out |= {file.name: text for file in group}
    chosen: list[ResultFile] = []
    fresh = any(not file.stale for file in by_key[best])
    for file in sorted(by_key[best], key=lambda one: _order(one, shipped_sha256)):
        reason = f"stale: {'; '.join(file.stale)}" if fresh and file.stale else _twice(file, chosen)
        if reason:
            left_out[file.name] = reason
        else:
            chosen.append(file)
    return sorted(chosen, key=lambda file: file.name), left_out


def _rank(group: Sequence[ResultFile]) -> tuple[bool, int]:
    return any(not file.stale for file in group), sum(
        len(file.document["routes"]) for file in group
    )


def _order(file: ResultFile, shipped_sha256: str | None) -> tuple[Any, ...]:
    """Fresh ones, the bundle that ships and many routes come first."""
    ships = who_drove(file) == shipped_sha256
    return bool(file.stale), not ships, -len(file.document["routes"]), file.name


def _twice(file: ResultFile, chosen: Sequence[ResultFile]) -> str:
    """Return in words what is pooled already that this file has too, "" when nothing is."""
    names = {str(route["name"]) for route in file.document["routes"]}
    for other in chosen:
        if who_drove(other) == who_drove(file):
            if names & {str(route["name"]) for route in other.document["routes"]}:
                return f"the same driver on the same routes as {other.name}"
        elif _seed(other) == _seed(file):
            return f"another network of the same or an unknown seed than {other.name}"
    return ""


def _seed(file: ResultFile) -> Any:
    return file.identity.get("seed", _pair(file).get("seed"))


def _pair(file: ResultFile) -> Mapping[str, Any]:
    """Return what a baseline's file says about the network that drove."""
    return next(iter((file.identity.get("baselines") or {}).values()), {})


def _key(file: ResultFile) -> tuple[str, ...]:
    about = {**_pair(file), **file.identity}
    settings = file.document.get("settings") or {}
    return (*budget_of(about), str(about.get("trained_on") or ""), str(sorted(settings.items())))


def _short(text: str) -> str:
    return text if len(text) <= 16 else text[:12] if text.isalnum() else text


def mean_routes(files: Sequence[ResultFile]) -> dict[str, dict[str, Any]]:
    """Return routes by name; what was driven several times (seeds) is averaged."""
    driven: dict[str, list[dict[str, Any]]] = {}
    for file in files:
        for route in file.document["routes"]:
            driven.setdefault(str(route["name"]), []).append(route)
    return {name: _mean_route(rows) for name, rows in driven.items()}


def _mean_route(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {"network": rows[0]["network"]}
    for figure, first in rows[0].items():
        values = [row.get(figure) for row in rows]
        if isinstance(first, int | float) and all(isinstance(v, int | float) for v in values):
            merged[figure] = float(np.mean([float(v) for v in values]))
    infractions: dict[str, float] = {}
    for row in rows:
        for kind, number in (row.get("infractions") or {}).items():
            infractions[kind] = infractions.get(kind, 0.0) + float(number) / len(rows)
    merged["infractions"] = infractions
    return merged
