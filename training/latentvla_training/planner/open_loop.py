"""Open-loop figures: displacement errors, intervals bootstrapped by network, groups of scenes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

#: Constant velocity is wrong by more than this (m, ADE) where a decision is to be made.
DECISION_ADE_M = 2.0


@dataclass(frozen=True)
class Errors:
    """Displacement errors of N plans, m.

    Attributes:
        ade: (N,) mean over the 8 knots. fde: (N,) at 4 s.
    """

    ade: F64
    fde: F64


def displacement_errors(
    plans: NDArray[np.float32], future: NDArray[np.float32], mask: NDArray[np.bool_]
) -> Errors:
    """Compare plans (N, 8, 3) with futures (N, 8, 3) where ``mask`` (N, 8); NaN without a knot."""
    offset = plans[..., :2].astype(np.float64) - future[..., :2]
    distance = np.where(mask, np.hypot(offset[..., 0], offset[..., 1]), np.nan)
    count = mask.sum(axis=1)
    ade = np.where(count > 0, np.nansum(distance, axis=1) / np.maximum(count, 1), np.nan)
    return Errors(ade, distance[:, -1])


def network_draws(networks: NDArray[np.str_], draws: int = 2000, seed: int = 0) -> F64:
    """Return (draws, N) weights of scenes: how often each scene's network was drawn."""
    names, index = np.unique(networks, return_inverse=True)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(names), np.full(len(names), 1.0 / len(names)), size=draws)
    return counts[:, index].astype(np.float64)


def interval(values: F64, weights: F64) -> tuple[float, float]:
    """Return the 95 % interval of the mean of values (N,) under bootstrap weights (draws, N)."""
    valid = np.isfinite(values)
    total = weights[:, valid].sum(axis=1)
    means = (weights[:, valid] @ values[valid])[total > 0] / total[total > 0]
    if not len(means):
        return (float("nan"), float("nan"))
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def wrong_scene(
    speed: F64, command: NDArray[np.integer], networks: NDArray[np.str_]
) -> NDArray[np.int64]:
    """Return for every scene another one of like speed and the same command, from far away.

    Within a bin of speed and command the scenes are ordered by network and shifted, by as much as
    leaves the fewest a scene of their own network: none, unless a network has over half of a bin.
    """
    edges = np.array([0.5, 3.0, 6.0, 9.0, 12.0])
    other = np.arange(len(speed))
    bins = np.digitize(speed, edges) * 10 + command
    for value in np.unique(bins):
        members = np.flatnonzero(bins == value)
        members = members[np.argsort(networks[members], kind="stable")]
        own = networks[members]
        shifts = range(1, max(len(members), 2))
        best = min(shifts, key=lambda shift: int((np.roll(own, shift) == own).sum()))
        other[members] = np.roll(members, best)
    return other
