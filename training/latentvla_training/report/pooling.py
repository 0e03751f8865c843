"""Puts the results of several seeds together: which files, their mean, their spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from latentvla_ros.contract import ContractError
from latentvla_training.report.network_sums import (
    UNKNOWN,
    Estimate,
    NetworkSums,
    pooled,
    seed_spread,
    sums_of,
)
from latentvla_training.report.result_files import Kind, ResultFile, Results
from latentvla_training.report.route_pooling import (
    BUDGET,
    budget_of,
    mean_routes,
    pool_routes,
    who_drove,
)

#: Rows of the tables in their order, and what they are called there.
ROW_TITLES = {
    "constant_velocity": "constant velocity and turn rate",
    "ego_status_mlp": "ego status and command (MLP)",
    "blank_images": "the planner of nano, trained on blank images",
    "ours": "**nano**",
    "ours_wrong_images": "nano, images of another scene (diagnostic)",
    "ours_hidden_state": "nano, past and acceleration hidden (diagnostic)",
    "bundle_ros": "nano through planner node and gate (DDS)",
    "expert": "expert (knows the world's state)",
    "expert_plan": "expert's plans, driven by the tracker",
}


@dataclass
class SplitResults:
    """Everything measured on one split.

    Attributes:
        split: name.
        files: open-loop results that are pooled, one a seed. sums: their mean.
        left_out: why by name, for files of this split that are not pooled.
        routes: closed-loop routes by row and route name, figures averaged over seeds.
        route_files: closed-loop files that are pooled, by row.
        other_bundle: commands none of whose bundles here is the one that ships.
        others: open-loop results of other planners on the same Scenes, pooled likewise.
    """

    split: str
    files: list[ResultFile] = field(default_factory=list)
    sums: NetworkSums | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    routes: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    route_files: dict[str, list[ResultFile]] = field(default_factory=dict)
    other_bundle: dict[Kind, str] = field(default_factory=dict)
    others: list[SplitResults] = field(default_factory=list)

    @property
    def stale(self) -> bool:
        """Whether the open-loop rows are made of a stale file."""
        return any(file.stale for file in self.files)

    def mean(self, row: str, figure: str, group: str = "all") -> Estimate:
        """Return the mean over seeds with its interval by network."""
        return UNKNOWN if self.sums is None else self.sums.mean(row, figure, group)

    def difference(self, other: str, figure: str, group: str = "all") -> Estimate:
        """Return the paired difference nano minus another row."""
        if self.sums is None:
            return UNKNOWN
        return self.sums.difference("ours", other, figure, group)

    def spread(self, row: str, figure: str) -> float | None:
        """Return the standard deviation over seeds; None where there is one seed alone."""
        parts = [file.sums for file in self.files if file.sums is not None]
        spread = seed_spread(parts, row, figure)
        return spread if spread is None or spread > 1e-9 else None

    def driven(self, row: str, figure: str) -> Estimate:
        """Return the mean of a closed-loop figure over routes with its interval by network."""
        return route_estimate([self.routes.get(row, {})], figure)

    def driven_difference(self, other: str, figure: str) -> Estimate:
        """Return nano minus another row on the routes that both drove."""
        return route_estimate([self.routes.get("ours", {}), self.routes.get(other, {})], figure)

    def driven_spread(self, row: str, figure: str) -> float | None:
        """Return the standard deviation of a closed-loop mean over bundles of several seeds."""
        means: dict[str, list[float]] = {}
        for file in self.route_files.get(row, []):
            values = [float(route[figure]) for route in file.document["routes"]]
            means.setdefault(who_drove(file), []).extend(values)
        if len(means) < 2 or not all(means.values()):
            return None
        return float(np.std([np.mean(values) for values in means.values()], ddof=1))


def route_estimate(rows: Sequence[dict[str, dict[str, Any]]], figure: str) -> Estimate:
    """Return a figure of one row of routes, or its paired difference between two, by network."""
    names = sorted(set.intersection(*(set(row) for row in rows)))
    names = [name for name in names if all(row[name].get(figure) is not None for row in rows)]
    if not names:
        return UNKNOWN
    networks = np.array([rows[0][name]["network"] for name in names])
    values = {
        str(number): {figure: np.array([float(row[name][figure]) for name in names])}
        for number, row in enumerate(rows)
    }
    sums = sums_of(networks, values, {}, {})
    return sums.mean("0", figure) if len(rows) == 1 else sums.difference("0", "1", figure)


def split_results(results: Results, split: str, shipped_sha256: str | None = None) -> SplitResults:
    """Choose and pool the files of a split.

    Args:
        shipped_sha256: of the bundle that the rows of nano should be about, where it is known.
    """
    found = SplitResults(split)
    _pool_open_loop(found, results.of(Kind.OPEN_LOOP, split), shipped_sha256)
    driven = results.of(Kind.CLOSED_LOOP, split)
    found.route_files, left_out = pool_routes(driven, shipped_sha256)
    found.left_out |= left_out
    found.routes = {row: mean_routes(files) for row, files in found.route_files.items()}
    hashes = {str(file.identity.get("bundle_sha256")) for file in found.files}
    if found.files and shipped_sha256 is not None and shipped_sha256 not in hashes:
        found.other_bundle[Kind.OPEN_LOOP] = ", ".join(sorted(value[:10] for value in hashes))
    return found


def _key(file: ResultFile) -> tuple[Any, ...]:
    """Return what files must share to be pooled."""
    scenes = (file.identity.get("data") or {}).get("content_sha256")
    return (*budget_of(file.identity), scenes)


def _pool_open_loop(
    found: SplitResults, files: list[ResultFile], shipped_sha256: str | None
) -> None:
    """Pool the files of one recipe, budget and set of Scenes: fresh ones of what ships first.

    Fresh files of another recipe or budget are pooled apart; all others are left out.
    """
    by_key: dict[tuple[Any, ...], list[ResultFile]] = {}
    for file in files:
        by_key.setdefault(_key(file), []).append(file)
    if not by_key:
        return

    def rank(key: tuple[Any, ...]) -> tuple[bool, bool, int]:
        own = by_key[key]
        ships = any(file.identity.get("bundle_sha256") == shipped_sha256 for file in own)
        return not any(file.stale for file in own), ships, len(own)

    best = max(by_key, key=rank)
    _pool(found, by_key.pop(best))
    for key, own in by_key.items():
        if key[-1] == best[-1] and not any(file.stale for file in own):
            other = SplitResults(found.split)
            _pool(other, own)
            found.others.append(other)
            found.left_out |= other.left_out
            continue
        pairs = zip((*BUDGET, "scenes"), key, best, strict=True)
        why = "; ".join(
            f"{name} {str(one)[:16]}, pooled are {str(other)[:16]}"
            for name, one, other in pairs
            if one != other
        )
        found.left_out |= {file.name: why for file in own}


def _pool(found: SplitResults, files: list[ResultFile]) -> None:
    """Pool files of one recipe, budget and set of Scenes: every bundle once."""
    seeds: dict[Any, str] = {}
    for file in files:
        which = (file.identity.get("seed"), file.identity.get("bundle_sha256"))
        if which in seeds:
            found.left_out[file.name] = f"the same bundle as {seeds[which]}"
            continue
        seeds[which] = file.name
        found.files.append(file)
    parts = [file.sums for file in found.files if file.sums is not None]
    try:
        found.sums = pooled(parts)
    except ContractError as error:
        for file in found.files[1:]:
            found.left_out[file.name] = str(error)
        found.files, found.sums = found.files[:1], parts[0]
