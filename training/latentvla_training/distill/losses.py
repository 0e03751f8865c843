"""What a student is told: the teacher's distribution, the codes, the teacher's pooled states."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_LEAST = 1e-8


def divergence(logits: Tensor, probabilities: Tensor, temperature: float = 1.0) -> Tensor:
    """Return KL(teacher || student) (B, 12) in nats of distributions at a temperature.

    Args:
        logits: (B, 12, 16) of the student. probabilities: (B, 12, 16) of the teacher.
    """
    target = probabilities.float().clamp(min=_LEAST).log().div(temperature).log_softmax(dim=-1)
    own = logits.float().div(temperature).log_softmax(dim=-1)
    return functional.kl_div(own, target, reduction="none", log_target=True).sum(dim=-1)


def kl_loss(logits: Tensor, probabilities: Tensor, temperature: float) -> Tensor:
    """Return the mean divergence, times the squared temperature (Hinton): gradients keep scale."""
    return temperature**2 * divergence(logits, probabilities, temperature).mean()


def code_loss(logits: Tensor, codes: Tensor) -> Tensor:
    """Return the mean cross-entropy (nats a code) to codes (B, 12); missing ones do not count."""
    surprise = functional.cross_entropy(
        logits.float().flatten(0, 1), codes.long().flatten(), ignore_index=-1, reduction="sum"
    )
    return surprise / (codes >= 0).sum().clamp(min=1)


def feature_loss(found: tuple[Tensor, Tensor], pooled: tuple[Tensor, Tensor]) -> Tensor:
    """Return the L1 distance of pooled pictures and actions, the mean of the two's means.

    L1 is the safest of the distances that Orion-Lite compared (method.md section 5).
    """
    parts = [
        functional.l1_loss(own.float(), target.float())
        for own, target in zip(found, pooled, strict=True)
    ]
    return torch.stack(parts).mean()
