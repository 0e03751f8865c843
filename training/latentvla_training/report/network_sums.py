"""Figures of many scenes summed by road network: small, and enough for every interval.

A mean over scenes is a sum over networks, and so is a paired difference of two rows on the same
scenes. The bootstrap draws networks (experiments.md section 4), so a result file that keeps sums
and counts by network lets the report pool seeds and make intervals without a single scene.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import ContractError

F64 = NDArray[np.float64]

#: The group that every scene belongs to.
ALL = "all"
DRAWS = 2000
_DECIMALS = 3


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; all NaN where there is nothing to estimate."""

    value: float
    low: float
    high: float

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval is."""
        return self.low > 0.0

    @property
    def below_zero(self) -> bool:
        """Whether the whole interval is."""
        return self.high < 0.0


UNKNOWN = Estimate(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True)
class FigureSums:
    """One figure of one group: ``count`` (N,) scenes of each network, ``rows`` their sums (N,)."""

    count: F64
    rows: dict[str, F64]


@lru_cache(maxsize=64)
def _draws(networks: int) -> F64:
    """Return (draws, networks): how often each was drawn."""
    rng = np.random.default_rng(0)
    chances = np.full(networks, 1.0 / networks)
    return rng.multinomial(networks, chances, size=DRAWS).astype(np.float64)


def _estimate(top: F64, bottom: F64) -> Estimate:
    """Return sum(top) / sum(bottom) over networks with its interval."""
    if not bottom.sum():
        return UNKNOWN
    draws = _draws(len(top))
    tops, bottoms = draws @ top, draws @ bottom
    drawn = tops[bottoms > 0.0] / bottoms[bottoms > 0.0]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(float(top.sum() / bottom.sum()), float(low), float(high))


@dataclass(frozen=True)
class NetworkSums:
    """Sums of the figures of some rows by network.

    Attributes:
        networks: N names.
        groups: by group of scenes and figure. Rows of a figure are of the same scenes: one that is
            unknown (NaN) in any row is left out of all.
    """

    networks: tuple[str, ...]
    groups: dict[str, dict[str, FigureSums]] = field(default_factory=dict)

    def figures(self, group: str = ALL) -> tuple[str, ...]:
        """Return the figures known of a group."""
        return tuple(self.groups.get(group, {}))

    def _of(self, figure: str, group: str) -> FigureSums | None:
        return self.groups.get(group, {}).get(figure)

    def scenes(self, figure: str = "ade", group: str = ALL) -> int:
        """Return how many scenes of a group a figure is known of."""
        found = self._of(figure, group)
        return 0 if found is None else int(found.count.sum())

    def mean(self, row: str, figure: str, group: str = ALL) -> Estimate:
        """Return the mean of a figure over the scenes of a group."""
        found = self._of(figure, group)
        if found is None or row not in found.rows:
            return UNKNOWN
        return _estimate(found.rows[row], found.count)

    def difference(self, first: str, second: str, figure: str, group: str = ALL) -> Estimate:
        """Return the paired difference of the means, ``first`` minus ``second``."""
        found = self._of(figure, group)
        if found is None or first not in found.rows or second not in found.rows:
            return UNKNOWN
        return _estimate(found.rows[first] - found.rows[second], found.count)

    def ratio(self, first: str, second: str, figure: str, group: str = ALL) -> Estimate:
        """Return mean(first) / mean(second), paired; unknown where the second is 0."""
        found = self._of(figure, group)
        if found is None or first not in found.rows or second not in found.rows:
            return UNKNOWN
        return _estimate(found.rows[first], found.rows[second])

    def retention(
        self, first: str, second: str, base: str, figure: str, group: str = ALL
    ) -> Estimate:
        """Return the gain of ``first`` over ``base`` as a share of that of ``second``, paired.

        Unknown unless the interval of the second's gain is above 0: a share of nothing is nothing.
        """
        if not self.difference(second, base, figure, group).above_zero:
            return UNKNOWN
        found = self._of(figure, group)
        if found is None or first not in found.rows:
            return UNKNOWN
        gains = (found.rows[row] - found.rows[base] for row in (first, second))
        return _estimate(*gains)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values; a group keeps only networks that it has scenes of."""
        groups: dict[str, Any] = {}
        for group, figures in self.groups.items():
            groups[group] = {}
            for name, sums in figures.items():
                kept = np.flatnonzero(sums.count)
                entry: dict[str, list[Any]] = {
                    "network": kept.tolist(),
                    "count": sums.count[kept].astype(int).tolist(),
                }
                for row, values in sums.rows.items():
                    entry[row] = [_short(value) for value in values[kept]]
                groups[group][name] = entry
        return {"networks": list(self.networks), "groups": groups}


def _short(value: float) -> float | int:
    rounded = round(float(value), _DECIMALS)
    return int(rounded) if rounded == int(rounded) else rounded


def sums_of(
    networks: NDArray[np.str_],
    rows: Mapping[str, Mapping[str, F64]],
    groups: Mapping[str, NDArray[np.bool_]],
    group_figures: Mapping[str, Sequence[str]],
    group_rows: Sequence[str] | None = None,
) -> NetworkSums:
    """Sum figures of S scenes by network.

    Args:
        networks: (S,) network of each scene.
        rows: (S,) values by row and figure, NaN where unknown. A row may lack figures.
        groups: (S,) bool by name; ``ALL`` is added and gets every figure and row.
        group_figures: figures that a group gets, under "" those of groups not named.
        group_rows: rows that the other groups get; all by default.
    """
    names, index = np.unique(networks, return_inverse=True)
    figures = list(dict.fromkeys(name for values in rows.values() for name in values))
    result: dict[str, dict[str, FigureSums]] = {}
    for group, chosen in {ALL: np.ones(len(networks), np.bool_), **groups}.items():
        result[group] = {}
        wanted = figures if group == ALL else group_figures.get(group, group_figures.get("", ()))
        kept = list(rows) if group == ALL or group_rows is None else group_rows
        for name in [figure for figure in figures if figure in wanted]:
            values = {row: rows[row][name] for row in kept if name in rows[row]}
            known = chosen & np.isfinite(np.stack(list(values.values()))).all(axis=0)
            if not known.any():
                continue
            part = index[known]
            result[group][name] = FigureSums(
                np.bincount(part, minlength=len(names)).astype(np.float64),
                {
                    row: np.bincount(part, weights=value[known], minlength=len(names))
                    for row, value in values.items()
                },
            )
    return NetworkSums(
        tuple(str(name) for name in names), {k: v for k, v in result.items() if v or k == ALL}
    )


def sums_from_json(document: Any, where: str = "sums") -> NetworkSums:
    """Read what ``NetworkSums.to_json`` returned.

    Raises:
        ContractError: it is not that; names the place.
    """
    try:
        networks = tuple(str(name) for name in document["networks"])
        groups = {
            str(group): {
                str(name): _figure_from_json(entry, len(networks))
                for name, entry in figures.items()
            }
            for group, figures in document["groups"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ContractError(
            where, f"{type(error).__name__}: {error}", "networks and groups of sums by network"
        ) from error
    if ALL not in groups or not networks:
        raise ContractError(where, sorted(groups), f"a group {ALL!r} of at least one network")
    return NetworkSums(networks, groups)


def _figure_from_json(entry: Mapping[str, Any], networks: int) -> FigureSums:
    kept = np.asarray(entry["network"], np.int64)

    def spread(name: str) -> F64:
        values = np.asarray(entry[name], np.float64)
        if values.shape != kept.shape or not np.isfinite(values).all():
            raise ValueError(f"{name}: {values.shape} values for {kept.shape} networks")
        full = np.zeros(networks)
        full[kept] = values
        return full

    if len(kept) and (kept.min() < 0 or kept.max() >= networks):
        raise ValueError(f"network {int(kept.max())} of {networks}")
    rows = [name for name in entry if name not in ("network", "count")]
    return FigureSums(spread("count"), {name: spread(name) for name in rows})


def pooled(parts: Sequence[NetworkSums]) -> NetworkSums:
    """Return the average over seeds that were measured on the same scenes.

    Rows, figures and groups that a part lacks are left out.

    Raises:
        ContractError: they are not of the same networks and scenes.
    """
    first = parts[0]
    for part in parts[1:]:
        if part.networks != first.networks:
            raise ContractError("sums.networks", part.networks, str(first.networks))
    groups: dict[str, dict[str, FigureSums]] = {}
    for group, figures in first.groups.items():
        groups[group] = {}
        for name, sums in figures.items():
            others = [part._of(name, group) for part in parts[1:]]
            present = [other for other in others if other is not None]
            if len(present) != len(others):
                continue
            if any((other.count != sums.count).any() for other in present):
                raise ContractError(
                    f"sums.{group}.{name}.count",
                    [int(other.count.sum()) for other in present],
                    f"{int(sums.count.sum())}, the same scenes for every seed",
                )
            groups[group][name] = FigureSums(
                sums.count,
                {
                    row: np.mean([values, *(other.rows[row] for other in present)], axis=0)
                    for row, values in sums.rows.items()
                    if all(row in other.rows for other in present)
                },
            )
    return NetworkSums(first.networks, groups)


def seed_spread(
    parts: Sequence[NetworkSums], row: str, figure: str, group: str = ALL
) -> float | None:
    """Return the standard deviation of a mean over seeds; None with fewer than two."""
    if len(parts) < 2:
        return None
    means = np.array([part.mean(row, figure, group).value for part in parts])
    return float(means.std(ddof=1)) if np.isfinite(means).all() else None
