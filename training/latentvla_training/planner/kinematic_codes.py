"""Codes read off the driven future itself: they tell whether a fusion can use codes at all.

Ours, a diagnostic: no latent action model is asked. The change of speed and of heading over each
transition goes to the nearest of sixteen centres of k-means, fitted on the training split; the one
code stands in all four places of its transition.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import KNOT_INTERVAL_S
from latentvla_training.data.shards import ShardReader
from latentvla_training.latent_action.codes import (
    CODEBOOK_SIZE,
    CODES_PER_TRANSITION,
    MISSING,
    TRANSITIONS_S,
    LatentCodes,
    scenes_identity,
)

F64 = NDArray[np.float64]
NAME = "kinematic"


def changes_of_motion(reader: ShardReader) -> F64:
    """Return delta v (m/s) and delta yaw (rad) of N Scenes over the transitions, (N, 3, 2).

    NaN where a recording ends before a transition does.
    """
    columns = reader.columns
    start = np.zeros((len(reader), 1, 3))
    path = np.concatenate([start, columns["future_2hz"].astype(np.float64)], axis=1)  # (N, 9, 3)
    known = np.concatenate([np.ones((len(reader), 1), np.bool_), columns["future_mask"]], axis=1)
    step = np.hypot(*np.moveaxis(np.diff(path[..., :2], axis=1), -1, 0)) / KNOT_INTERVAL_S
    speed = np.concatenate([columns["ego_dynamics"][:, :1], step], axis=1)  # mean of the last 0.5 s
    changes = np.full((len(reader), len(TRANSITIONS_S), 2), np.nan)
    for number, (begin_s, end_s) in enumerate(TRANSITIONS_S):
        begin, end = (round(value / KNOT_INTERVAL_S) for value in (begin_s, end_s))
        turn = path[:, end, 2] - path[:, begin, 2]
        changes[:, number, 0] = speed[:, end] - speed[:, begin]
        changes[:, number, 1] = np.arctan2(np.sin(turn), np.cos(turn))
        changes[~known[:, : end + 1].all(axis=1), number] = np.nan
    return changes


def fit_centres(changes: F64, seed: int = 0) -> F64:
    """Return centres (3, 16, 2) of the changes (N, 3, 2) over each transition, in their own units.

    Both parts are divided by their spread first, so that neither drowns the other.
    """
    from scipy.cluster.vq import kmeans2

    centres = np.zeros((len(TRANSITIONS_S), CODEBOOK_SIZE, 2))
    for number in range(len(TRANSITIONS_S)):
        whole = changes[np.isfinite(changes[:, number]).all(axis=1), number]
        spread = whole.std(axis=0) + 1e-9
        found = np.unique((whole / spread).round(6), axis=0)
        if len(found) > CODEBOOK_SIZE:
            rng = np.random.default_rng(seed)
            found, _ = kmeans2(whole / spread, CODEBOOK_SIZE, iter=30, minit="++", rng=rng)
        centres[number] = np.resize(found, (CODEBOOK_SIZE, 2)) * spread  # few are repeated
    return centres


def nearest_codes(changes: F64, centres: F64) -> NDArray[np.int8]:
    """Return codes (N, 3, 4) of changes (N, 3, 2); ``MISSING`` where those are unknown."""
    spread = centres.std(axis=1, keepdims=True) + 1e-9  # (3, 1, 2)
    offset = (changes[:, :, None] - centres[None]) / spread[None]
    distance = (np.nan_to_num(offset) ** 2).sum(axis=-1)  # (N, 3, 16)
    code = np.where(np.isfinite(changes).all(axis=-1), distance.argmin(axis=-1), MISSING)
    return np.repeat(code[..., None], CODES_PER_TRANSITION, axis=-1).astype(np.int8)


def kinematic_codes(
    train: ShardReader, splits: Mapping[str, ShardReader], seed: int = 0
) -> dict[str, LatentCodes]:
    """Return codes of the Scenes of every split, from centres that were fitted on ``train``."""
    centres = fit_centres(changes_of_motion(train), seed)
    spread = centres.std(axis=1, keepdims=True) + 1e-9  # (3, 1, 2)
    vectors = np.repeat(centres / spread, CODES_PER_TRANSITION, axis=0).astype(np.float32)
    name = f"{NAME}-{hashlib.sha256(centres.tobytes()).hexdigest()[:16]}"
    result = {}
    for split, reader in splits.items():
        ego = nearest_codes(changes_of_motion(reader), centres)
        environment = np.where(ego >= 0, np.int8(0), np.int8(MISSING))
        tokens = reader.columns["token"]
        scenes_id = scenes_identity(reader)
        result[split] = LatentCodes(split, name, scenes_id, tokens, environment, ego, vectors)
    return result
