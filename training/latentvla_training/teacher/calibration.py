"""Whether the teacher is as sure as it is right: reliability by bins of confidence.

Expected calibration error: Guo et al., ICML 2017, equation 3; bins of equal width. Counts are kept
by road network, so that seeds are pooled and intervals drawn without a single Scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import ContractError
from latentvla_training.report.network_sums import DRAWS, Estimate

F64 = NDArray[np.float64]

BINS = 15


@dataclass(frozen=True)
class Calibration:
    """Codes by network and bin of confidence.

    Attributes:
        networks: N names. count, confidence, right: (N, ``BINS``) codes, sum of the probability of
            the likeliest code, and how many of those were true.
    """

    networks: tuple[str, ...]
    count: F64
    confidence: F64
    right: F64

    @property
    def error(self) -> Estimate:
        """Expected calibration error with its interval by network."""
        rng = np.random.default_rng(0)
        networks = len(self.networks)
        draws = rng.multinomial(networks, np.full(networks, 1.0 / networks), size=DRAWS)
        drawn = _error(draws @ self.count, draws @ self.confidence, draws @ self.right)
        value = _error(self.count.sum(0), self.confidence.sum(0), self.right.sum(0))
        low, high = np.percentile(drawn, [2.5, 97.5])
        return Estimate(float(value), float(low), float(high))

    def reliability(self) -> list[tuple[float, float, int, float, float]]:
        """Return (from, to, codes, mean confidence, accuracy) of every bin that is not empty."""
        rows = []
        for place in range(BINS):
            count = self.count[:, place].sum()
            if count:
                low, high = place / BINS, (place + 1) / BINS
                means = (
                    self.confidence[:, place].sum() / count,
                    self.right[:, place].sum() / count,
                )
                rows.append((low, high, int(count), float(means[0]), float(means[1])))
        return rows

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        parts = {
            name: np.round(getattr(self, name), 3).tolist()
            for name in ("count", "confidence", "right")
        }
        return {"networks": list(self.networks), **parts}


def _error(count: F64, confidence: F64, right: F64) -> Any:
    return np.abs(right - confidence).sum(axis=-1) / count.sum(axis=-1)


def calibrate(
    networks: NDArray[np.str_], log_probabilities: NDArray[np.float32], codes: NDArray[np.int8]
) -> Calibration:
    """Count codes by network and confidence.

    Args:
        networks: (S,) of each Scene. log_probabilities: (S, 12, 16). codes: (S, 12), negative where
            there is none.
    """
    names, which = np.unique(networks, return_inverse=True)
    known = codes >= 0
    best = log_probabilities.argmax(axis=-1)
    confidence = np.exp(log_probabilities.max(axis=-1).astype(np.float64))
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    cell = (which[:, None] * BINS + place)[known]

    def by_cell(values: NDArray[Any] | None) -> F64:
        weights = None if values is None else values[known].astype(np.float64)
        size = len(names) * BINS
        return np.bincount(cell, weights, size).reshape(-1, BINS).astype(np.float64)

    return Calibration(
        tuple(str(name) for name in names),
        by_cell(None),
        by_cell(confidence),
        by_cell(best == codes),
    )


def pooled_calibration(parts: Sequence[Calibration]) -> Calibration:
    """Return the counts of several seeds together.

    Raises:
        ContractError: they are not of the same networks.
    """
    for part in parts[1:]:
        if part.networks != parts[0].networks:
            raise ContractError("calibration.networks", part.networks, str(parts[0].networks))
    return Calibration(
        parts[0].networks,
        *(np.sum([getattr(p, n) for p in parts], axis=0) for n in ("count", "confidence", "right")),
    )
