"""Linear probes of codes: what they say about driving beyond what was known at t0.

Both what is asked and what answers are first cleared of known quantities by least squares, then a
ridge regression is fitted on training networks and judged on others (Frisch-Waugh-Lovell): its R2
is the share of what was left that the codes explain. "Current speed" explains nothing of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentvla_training.report.network_sums import DRAWS

F64 = NDArray[np.float64]

#: Ridge penalties to choose from, on a fifth of the training networks.
_PENALTIES = (1.0, 10.0, 100.0, 1000.0)


def one_hot(codes: NDArray[np.integer], entries: int) -> F64:
    """Return codes (N, ...) as (N, ... entries) zeros and ones; a missing code is all zero."""
    flat = codes.reshape(len(codes), -1)
    return np.asarray(
        (flat[..., None] == np.arange(entries)).reshape(len(codes), -1), dtype=np.float64
    )


def with_one(features: F64) -> F64:
    """Return features (N, D) with a column of ones."""
    return np.concatenate([features, np.ones((len(features), 1))], axis=1)


def least_squares(inputs: F64, targets: F64) -> F64:
    """Return the weights (D, T) of targets (N, T) on inputs (N, D)."""
    weights: F64 = np.linalg.lstsq(inputs, targets, rcond=None)[0]
    return weights


def ridge(inputs: F64, targets: F64, penalty: float) -> F64:
    """Return ridge weights (D, T) of centred inputs (N, D) and targets (N, T)."""
    matrix = inputs.T @ inputs + penalty * np.eye(inputs.shape[1])
    weights: F64 = np.linalg.solve(matrix, inputs.T @ targets)
    return weights


@dataclass(frozen=True)
class ProbeData:
    """Samples of a probe.

    Attributes:
        known: (N, K) what is regressed out. targets: (N, T) what is asked.
        networks: (N,) where each sample is from.
    """

    known: F64
    targets: F64
    networks: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class ProbeAnswer:
    """What inputs explain of what was left to explain, by network, so that intervals can be drawn.

    Attributes:
        missed, asked: (M, T) sums over the samples of every network of the squared error, and of
            the square of what was left.
    """

    missed: F64
    asked: F64

    @property
    def share(self) -> F64:
        """Return the partial R2 (T,)."""
        return self.shares(np.ones((1, len(self.asked))))[0]

    def shares(self, weights: F64) -> F64:
        """Return the partial R2 (S, T) with networks weighted (S, M)."""
        return np.asarray(1.0 - weights @ self.missed / np.maximum(weights @ self.asked, 1e-12))

    def ahead_of(self, other: ProbeAnswer | None) -> dict[str, float]:
        """Return how far the mean share is above another's (None: above 0), and its interval.

        Returns:
            ``value``, ``low`` and ``high``: paired, 95 %, drawn by network.
        """
        networks = len(self.asked)
        chances = np.full(networks, 1.0 / networks)
        draws = np.random.default_rng(0).multinomial(networks, chances, DRAWS).astype(np.float64)
        drawn = self.shares(draws).mean(axis=1)
        value = self.share.mean()
        if other is not None:
            drawn, value = drawn - other.shares(draws).mean(axis=1), value - other.share.mean()
        low, high = np.percentile(drawn, [2.5, 97.5])
        return {"value": float(value), "low": float(low), "high": float(high)}


def ask(train: ProbeData, test: ProbeData, train_inputs: F64, test_inputs: F64) -> ProbeAnswer:
    """Ask how much of the targets' rest on ``test`` inputs explain.

    Args:
        train, test: samples of different networks. train_inputs, test_inputs: (N, D) of each.
    """
    known = least_squares(with_one(train.known), train.targets)
    rest, test_rest = (one.targets - with_one(one.known) @ known for one in (train, test))
    of_inputs = least_squares(with_one(train.known), train_inputs)
    inputs = train_inputs - with_one(train.known) @ of_inputs
    test_inputs = test_inputs - with_one(test.known) @ of_inputs
    weights = ridge(inputs, rest, _best_penalty(inputs, rest, train.networks))
    missed = (test_rest - test_inputs @ weights) ** 2
    of_network = test.networks == np.unique(test.networks)[:, None]  # (M, N)
    return ProbeAnswer(of_network @ missed, of_network @ test_rest**2)


def partial_r2(train: ProbeData, test: ProbeData, train_inputs: F64, test_inputs: F64) -> F64:
    """Return the share (T,) that inputs explain: see ``ask``."""
    return ask(train, test, train_inputs, test_inputs).share


def held_out_networks(networks: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Return which samples (N,) are of the fifth of the networks that settings are chosen on.

    None where there are too few networks: then nothing would be left to fit on.
    """
    names = np.unique(networks)
    held_out = np.isin(networks, names[:: max(2, min(5, len(names)))])
    return held_out & ~held_out.all()


def _best_penalty(inputs: F64, targets: F64, networks: NDArray[np.str_]) -> float:
    held_out = held_out_networks(networks)
    if not held_out.any():
        return _PENALTIES[1]
    scale = np.maximum((targets**2).mean(axis=0), 1e-12)

    def error(penalty: float) -> float:
        weights = ridge(inputs[~held_out], targets[~held_out], penalty)
        missed = targets[held_out] - inputs[held_out] @ weights
        return float(((missed**2).mean(axis=0) / scale).mean())

    return min(_PENALTIES, key=error)
