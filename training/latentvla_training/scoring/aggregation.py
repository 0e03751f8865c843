"""From sub-scores to PDMS and EPDMS: progress normalisation, weights, the human filter.

Source: design/metrics.md sections 4.5 and 5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from latentvla_training.scoring.sub_scores import SubScores

PROGRESS_THRESHOLD_M = 5.0
PROGRESS_WEIGHT = 5.0
TTC_WEIGHT = 5.0
COMFORT_WEIGHT = 2.0
LANE_WEIGHT = 2.0
EXTENDED_COMFORT_WEIGHT = 2.0


@dataclass(frozen=True)
class FrameScores:
    """Scores of candidates as they enter the final sums, each (S, K) float64.

    Attributes:
        collision, drivable, direction, light: NC, DAC, DDC, TLC.
        progress, time_to_collision, lane, comfort: EP, TTC, LK, C or HC.
    """

    collision: Tensor
    drivable: Tensor
    direction: Tensor
    light: Tensor
    progress: Tensor
    time_to_collision: Tensor
    lane: Tensor
    comfort: Tensor

    @property
    def product(self) -> Tensor:
        """NC * DAC * DDC * TLC (v2's multipliers)."""
        return self.collision * self.drivable * self.direction * self.light


def multipliers_v1(sub: SubScores) -> Tensor:
    """NC * DAC (S, B)."""
    return sub.collision * sub.drivable


def multipliers_v2(sub: SubScores) -> Tensor:
    """NC * DAC * TLC * DDC (S, B)."""
    return sub.collision * sub.drivable * sub.light * sub.direction


def progress_norm(raw: Tensor, multipliers: Tensor, companion: Tensor | None) -> Tensor:
    """Denominator of EP for every proposal.

    Args:
        raw, multipliers: (S, B) metres and product of multipliers.
        companion: (S,) index of the proposal each is paired with (the leaderboard's batches of
            two); None takes the best of all B (one batch).
    """
    gained = raw * multipliers
    if companion is None:
        return gained.amax(-1, keepdim=True).expand_as(gained)
    return torch.maximum(gained, torch.gather(gained, 1, companion[:, None]))


def ego_progress_v1(raw: Tensor, multipliers: Tensor, norm: Tensor) -> Tensor:
    """EP of NAVSIM 1.1: scaled by its own multipliers; 0 where these are 0."""
    safe = torch.where(norm > PROGRESS_THRESHOLD_M, norm, 1.0)
    short = (multipliers != 0.0).to(raw.dtype)
    return torch.where(norm > PROGRESS_THRESHOLD_M, raw * multipliers / safe, short)


def ego_progress_v2(raw: Tensor, norm: Tensor) -> Tensor:
    """EP of NAVSIM 2.2: clipped to 1, not masked by the multipliers."""
    safe = torch.where(norm > PROGRESS_THRESHOLD_M, norm, 1.0)
    return torch.where(norm > PROGRESS_THRESHOLD_M, (raw / safe).clamp(0.0, 1.0), 1.0)


def frame_scores_v1(sub: SubScores, companion: Tensor | None) -> FrameScores:
    """Normalise the progress of v1 sub-scores."""
    multipliers = multipliers_v1(sub)
    norm = progress_norm(sub.progress, multipliers, companion)
    return _frame_scores(sub, ego_progress_v1(sub.progress, multipliers, norm))


def frame_scores_v2(sub: SubScores, companion: Tensor | None) -> FrameScores:
    """Normalise the progress of v2 sub-scores."""
    norm = progress_norm(sub.progress, multipliers_v2(sub), companion)
    return _frame_scores(sub, ego_progress_v2(sub.progress, norm))


def _frame_scores(sub: SubScores, progress: Tensor) -> FrameScores:
    return FrameScores(
        collision=sub.collision,
        drivable=sub.drivable,
        direction=sub.direction,
        light=sub.light,
        progress=progress,
        time_to_collision=sub.time_to_collision,
        lane=sub.lane,
        comfort=sub.comfort,
    )


def pdms(scores: FrameScores) -> Tensor:
    """PDMS (NAVSIM 1.1): NC * DAC * (5 EP + 5 TTC + 2 C) / 12; DDC has weight 0."""
    weighted = (
        PROGRESS_WEIGHT * scores.progress
        + TTC_WEIGHT * scores.time_to_collision
        + COMFORT_WEIGHT * scores.comfort
    )
    total = PROGRESS_WEIGHT + TTC_WEIGHT + COMFORT_WEIGHT
    return scores.collision * scores.drivable * weighted / total


def epdms(scores: FrameScores, extended_comfort: Tensor | None = None) -> Tensor:
    """EPDMS (NAVSIM 2.2) with EC (weights sum 16), or without it (sum 14).

    Args:
        extended_comfort: (S, K) EC; NaN entries are frames without predecessor, which drop it.
    """
    weighted = (
        PROGRESS_WEIGHT * scores.progress
        + TTC_WEIGHT * scores.time_to_collision
        + LANE_WEIGHT * scores.lane
        + COMFORT_WEIGHT * scores.comfort
    )
    total = PROGRESS_WEIGHT + TTC_WEIGHT + LANE_WEIGHT + COMFORT_WEIGHT
    plain = scores.product * (weighted / total)
    if extended_comfort is None:
        return plain
    known = ~torch.isnan(extended_comfort)
    bonus = EXTENDED_COMFORT_WEIGHT * torch.where(known, extended_comfort, 0.0)
    extended = scores.product * ((weighted + bonus) / (total + EXTENDED_COMFORT_WEIGHT))
    return torch.where(known, extended, plain)


def human_filter(scores: FrameScores, human: FrameScores, enabled: Tensor) -> FrameScores:
    """Forgive a candidate every score in which the human driver got exactly 0.

    Args:
        scores: (S, K). human: (S, 1), scored alone (its EP and HC are always 1, so candidates'
            never change). enabled: (S,) bool, original frames with a human plan.
    """
    filtered = {}
    for name in FrameScores.__dataclass_fields__:
        forgiven = (getattr(human, name) == 0.0) & enabled[:, None]
        filtered[name] = torch.where(forgiven, 1.0, getattr(scores, name))
    return replace(scores, **filtered)
