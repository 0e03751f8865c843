"""How well a student says the codes, and what its teacher says: beside what the teacher knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentvla_training.distill.losses import divergence
from latentvla_training.distill.teaching import TaughtSplit
from latentvla_training.latent_action.codes import MISSING
from latentvla_training.planner.contender_scores import as_lists
from latentvla_training.planner.contenders import CodedSplit
from latentvla_training.report.network_sums import NetworkSums, pooled, sums_of

F64 = NDArray[np.float64]

#: By the codes of what was driven: nats a code, share said right. By the teacher's marginals: nats
#: of the divergence from them, share of places with the same likeliest code.
BY_CODES, BY_TEACHER = ("nll", "accuracy"), ("kl", "agreement")
TEACHER_ROW = "teacher"


def by_codes(logits: Tensor, codes: NDArray[np.int8]) -> dict[str, F64]:
    """Return nats and accuracy (N,) a Scene of logits (N, 12, 16); NaN where no code is known."""
    target = torch.from_numpy(codes.astype(np.int64))
    known = (target != MISSING).numpy()
    chances = logits.float().log_softmax(dim=-1)
    surprise = -chances.gather(-1, target.clamp(min=0)[..., None])[..., 0].numpy()
    right = (logits.argmax(dim=-1) == target).numpy()
    return {"nll": _mean(surprise, known), "accuracy": _mean(right, known)}


def by_teacher(logits: Tensor, marginals: NDArray[np.float32]) -> dict[str, F64]:
    """Return divergence and agreement (N,) a Scene of logits (N, 12, 16) with a teacher's."""
    target = torch.from_numpy(marginals)
    same = logits.argmax(dim=-1) == target.argmax(dim=-1)
    return {
        "kl": divergence(logits, target).double().mean(dim=1).numpy(),
        "agreement": same.double().mean(dim=1).numpy(),
    }


def _mean(values: NDArray[Any], known: NDArray[np.bool_]) -> F64:
    count = known.sum(axis=1)
    total = np.where(known, values, 0.0).sum(axis=1, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def token_figures(
    split: CodedSplit,
    taught: TaughtSplit | None,
    said: Mapping[str, Tensor],
    students: Sequence[str],
    seeds: Sequence[int],
    others: Mapping[str, CodedSplit] | None = None,
) -> dict[str, dict[str, list[float]]]:
    """Return figures with 95 % intervals by network, pooled over seeds, by student and teacher.

    Args:
        taught: with the teacher's marginals; None where there is no teacher.
        said: logits (N, 12, 16) by ``<student>/<seed>``.
        others: by student, the split with codes of another codebook that it has learned.
    """
    others = others or {}
    codes = split.codes.sequence
    parts = []
    for seed in seeds:
        rows: dict[str, dict[str, F64]] = {}
        for student in students:
            logits = said[f"{student}/{seed}"]
            own = others.get(student)
            rows[student] = by_codes(logits, codes if own is None else own.codes.sequence)
            if taught is not None and own is None:
                rows[student] |= by_teacher(logits, taught.cached.marginals)
        if taught is not None:
            marginals = torch.from_numpy(taught.cached.marginals).clamp(min=1e-8)
            rows[TEACHER_ROW] = by_codes(marginals.log(), codes)
        parts.append(sums_of(split.reader.columns["network"], rows, {}, {}))
    sums = pooled(parts)
    return {row: _figures(sums, row) for row in rows}


def _figures(sums: NetworkSums, row: str) -> dict[str, list[float]]:
    return as_lists({figure: sums.mean(row, figure) for figure in sums.figures()})
