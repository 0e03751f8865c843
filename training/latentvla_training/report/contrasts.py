"""Linear combinations of the rows of a comparison: pooled over seeds, and seed by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from latentvla_training.planner.contender_scores import SUFFIXES
from latentvla_training.report.network_sums import (
    ALL,
    Estimate,
    FigureSums,
    NetworkSums,
    seed_spread,
)

#: By row: what its mean is multiplied by.
Weights = Mapping[str, float]

_ROW = "contrast"


def contrast(sums: NetworkSums, weights: Weights, figure: str, group: str = ALL) -> Estimate:
    """Return the weighted sum of means of rows, paired; unknown where one of them is.

    Unlike of a ratio, no draw of networks is left out of its interval.
    """
    return _alone(sums, weights, figure, group).mean(_ROW, figure, group)


def contrasts_by_seed(
    parts: Sequence[NetworkSums], weights: Weights, figure: str, group: str = ALL
) -> tuple[list[float], float | None]:
    """Return the weighted sum of every seed (NaN: unknown), and their standard deviation.

    Args:
        parts: sums of each seed.

    Returns:
        values, and ``seed_spread``: None with fewer than two seeds or where one is unknown.
    """
    alone = [_alone(part, weights, figure, group) for part in parts]
    values = [part.mean(_ROW, figure, group).value for part in alone]
    return values, seed_spread(alone, _ROW, figure, group)


def figure_and_group(name: str) -> tuple[str, str]:
    """Return figure and group of an entry of a result: of ``pdms_decision``, pdms and decision."""
    for group, suffix in SUFFIXES.items():
        if suffix and name.endswith(suffix):
            return name.removesuffix(suffix), group
    return name, ALL


def _alone(sums: NetworkSums, weights: Weights, figure: str, group: str) -> NetworkSums:
    """Return sums of one row, the weighted sum of those given; empty where one is unknown."""
    found = sums.groups.get(group, {}).get(figure)
    if found is None or not set(weights) <= set(found.rows):
        return NetworkSums(sums.networks)
    total = np.sum([weight * found.rows[row] for row, weight in weights.items()], axis=0)
    alone = FigureSums(found.count, {_ROW: total})
    return NetworkSums(sums.networks, {group: {figure: alone}})
