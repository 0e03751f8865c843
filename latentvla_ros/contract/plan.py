"""What the planner network answers at one moment."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

NUM_KNOTS = 8
KNOT_INTERVAL_S = 0.5
NUM_LATENT_ACTIONS = 12
CODEBOOK_SIZE = 16


@dataclass(frozen=True)
class Plan:
    """A trajectory with its alternatives; ego frame of t0, m and rad.

    Attributes:
        poses: (8, 3) float32 x, y, yaw at 0.5 s ... 4.0 s: the candidate of the highest score.
        candidates: (M, 8, 3) float32.
        scores: (M,) float32, higher is better.
        latent_actions: (12,) int64 codebook ids in 0..15, transition-major (3 transitions x 4).
        latent_probabilities: (12,) float32, probability of each id.
        stamp_ns: t0 in nanoseconds.
        timings_s: seconds of steady time per stage, by stage name.
    """

    poses: NDArray[np.float32]
    candidates: NDArray[np.float32]
    scores: NDArray[np.float32]
    latent_actions: NDArray[np.int64]
    latent_probabilities: NDArray[np.float32]
    stamp_ns: int
    timings_s: dict[str, float] = field(default_factory=dict)

    #: Names of the network outputs, in the order of every backend and of ``model.onnx``:
    #: (B, M, 8, 3) float32, (B, M) float32, (B, 12, 16) float32 logits.
    OUTPUTS = ("candidates", "scores", "latent_logits")

    @classmethod
    def from_outputs(
        cls,
        candidates: NDArray[np.float32],
        scores: NDArray[np.float32],
        latent_logits: NDArray[np.float32],
        stamp_ns: int,
        timings_s: dict[str, float] | None = None,
    ) -> Plan:
        """Build the plan of one moment from unbatched network outputs (shapes as ``OUTPUTS``)."""
        shifted = latent_logits - latent_logits.max(axis=-1, keepdims=True)
        probabilities = np.exp(shifted)
        probabilities /= probabilities.sum(axis=-1, keepdims=True)
        ids = probabilities.argmax(axis=-1)
        return cls(
            poses=candidates[int(scores.argmax())],
            candidates=candidates,
            scores=scores,
            latent_actions=ids.astype(np.int64),
            latent_probabilities=probabilities.max(axis=-1).astype(np.float32),
            stamp_ns=stamp_ns,
            timings_s=dict(timings_s or {}),
        )
