"""Imitation losses of the proposals and of their scores.

After iPad: the nearest proposal is pulled to the driven future, earlier rounds count less. What is
judged is the *selected* plan, so selection is trained for its expected distance, and the proposals
that would be selected are trained too. Where the PDM score of the proposals is known, what they
lose of it counts as distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from latentvla_ros.contract import ContractError


@dataclass(frozen=True)
class LossSettings:
    """Weights.

    Attributes:
        yaw: metres that a radian of yaw error counts.
        all_proposals: weight of the mean over all proposals.
        selected: weight of the proposals by the probability of being selected.
        round_decay: factor per round before the last.
        expected: weight of the selection's expected distance.
        assignment: weight of the cross-entropy to the softly nearest proposals.
        temperature_m: softness of that assignment.
        auxiliary: factor on all auxiliary losses.
        pdm: metres that a whole PDM score counts in selection; 0: it is not computed.
    """

    yaw: float = 1.0
    all_proposals: float = 0.05
    selected: float = 0.5
    round_decay: float = 0.3
    expected: float = 1.0
    assignment: float = 0.2
    temperature_m: float = 0.5
    auxiliary: float = 1.0
    pdm: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0 or (name == "temperature_m" and value == 0):
                raise ContractError(f"loss.{name}", value, "a positive weight")


def proposal_distance(
    candidates: Tensor, future: Tensor, future_mask: Tensor, yaw_weight: float
) -> tuple[Tensor, Tensor]:
    """Return the mean distance (B, M) in m of candidates (B, M, 8, 3) to the future (B, 8, 3).

    The first result adds the yaw error times ``yaw_weight``, the second is position alone (ADE).
    """
    offset = candidates - future[:, None]
    # A centimetre of smoothing keeps the gradient finite at a perfect plan.
    distance = (offset[..., :2].square().sum(-1) + 1e-4).sqrt()
    turn = torch.atan2(torch.sin(offset[..., 2]), torch.cos(offset[..., 2])).abs()
    weight = future_mask.to(distance.dtype)[:, None]
    count = weight.sum(-1).clamp(min=1.0)
    ade = (distance * weight).sum(-1) / count
    return ade + yaw_weight * (turn * weight).sum(-1) / count, ade


def imitation_loss(
    rounds: list[Tensor],
    scores: Tensor,
    future: Tensor,
    future_mask: Tensor,
    settings: LossSettings,
    quality: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return the weighted losses by name.

    Args:
        rounds: candidates (B, M, 8, 3) after each round. scores: (B, M) of the last.
        future: (B, 8, 3). future_mask: (B, 8) bool.
        quality: PDM scores (B, M) of the last round's candidates, 0 ... 1; None: not known.
    """
    log_probability = functional.log_softmax(scores, dim=1)
    probability = log_probability.exp()
    chosen = probability.detach()
    plan = scores.new_zeros(())
    for index, candidates in enumerate(rounds):
        distance, ade = proposal_distance(candidates, future, future_mask, settings.yaw)
        per_scene = (
            distance.min(dim=1).values
            + settings.all_proposals * distance.mean(dim=1)
            + settings.selected * (chosen * distance).sum(dim=1)
        )
        plan = plan + settings.round_decay ** (len(rounds) - 1 - index) * per_scene.mean()
    cost = ade.detach()  # of the last round
    if quality is not None:
        cost = cost + settings.pdm * (1.0 - quality)
    expected = (probability * cost).sum(dim=1).mean()
    assignment = functional.softmax(-cost / settings.temperature_m, dim=1)
    cross_entropy = -(assignment * log_probability).sum(dim=1).mean()
    return {
        "plan": plan,
        "expected": settings.expected * expected,
        "assignment": settings.assignment * cross_entropy,
    }


def selected_ade(candidates: Tensor, scores: Tensor, future: Tensor, future_mask: Tensor) -> Tensor:
    """Return the ADE (B,) in m of the candidate with the highest score."""
    _, ade = proposal_distance(candidates, future, future_mask, 0.0)
    return ade.gather(1, scores.argmax(dim=1, keepdim=True))[:, 0]
