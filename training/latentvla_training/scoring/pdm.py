"""PDMS and EPDMS of any number of plans in any number of scenes, in one call.

    scenes = SceneBatch.from_scenes(list_of_scenes)
    result = score_epdms(scenes, plans)          # plans (S, K, 8, 3), ego frame
    result.score                                 # (S, K)

As on NAVSIM's leaderboard every plan is compared with the PDM-Closed reference alone
(``normalization="pair"``); ``"batch"`` is NAVSIM's scorer given reference and all plans at once.
A plan that is not finite, or that cannot be simulated, scores 0 with the reason and touches no
other. float64 is the reference; a float32 batch (``SceneBatch.to``) is the fast path: on 208 scenes
with 8 plans each its PDMS and EPDMS are within 3e-7 of it, its simulated states within 2e-5 m.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Literal

import torch
from torch import Tensor

from latentvla_ros.contract import ContractError
from latentvla_training.scoring.aggregation import (
    FrameScores,
    epdms,
    frame_scores_v1,
    frame_scores_v2,
    human_filter,
    pdms,
)
from latentvla_training.scoring.bicycle import simulate
from latentvla_training.scoring.comfort import extended_comfort
from latentvla_training.scoring.reference_trajectory import PLAN_STEPS, reference_poses
from latentvla_training.scoring.scene_batch import SceneBatch
from latentvla_training.scoring.sub_scores import SubScores, sub_scores_v1, sub_scores_v2
from latentvla_training.scoring.vehicle import STATE_SIZE, STEP_S

Normalization = Literal["pair", "batch"]
MAX_DISTANCE_M = 1.0e5
PREVIOUS_INTERVAL_S = 0.5
PREVIOUS_HISTORY_ROW = 2


class Reason(IntEnum):
    """Why a plan scores 0 without having been scored."""

    SCORED = 0
    ABSENT = 1
    PLAN_NOT_FINITE = 2
    PLAN_TOO_FAR = 3
    SIMULATION_DIVERGED = 4
    SCENE_NOT_FINITE = 5
    PREVIOUS_PLAN_NOT_FINITE = 6

    def describe(self) -> str:
        """Say it in words."""
        return {
            Reason.SCORED: "scored",
            Reason.ABSENT: "padding: no plan here",
            Reason.PLAN_NOT_FINITE: "the plan holds NaN or infinity",
            Reason.PLAN_TOO_FAR: f"the plan leaves {MAX_DISTANCE_M:g} m around the ego",
            Reason.SIMULATION_DIVERGED: "the simulated states are not finite",
            Reason.SCENE_NOT_FINITE: "the scene (ego, past, reference, agents, map) is not finite",
            Reason.PREVIOUS_PLAN_NOT_FINITE: "the previous frame's plan cannot be simulated",
        }[self]


@dataclass(frozen=True)
class PdmResult:
    """Scores of K plans in S scenes.

    Attributes:
        score: (S, K) PDMS or EPDMS, 0 where ``reason`` is not SCORED.
        frame: the sub-scores in it (after the human filter), 0 where not SCORED.
        extended_comfort: (S, K) EC, NaN without predecessor (always in v1).
        extended_comfort_rms: (S, K, 4), NaN without predecessor.
        sub: raw sub-scores of the batch [reference, plans], (S, 1 + K).
        states: (S, 1 + K, 41, 11) simulated states, relative to ``SceneBatch.origin``.
        reason: (S, K) uint8 ``Reason``.
    """

    score: Tensor
    frame: FrameScores
    extended_comfort: Tensor
    extended_comfort_rms: Tensor
    sub: SubScores
    states: Tensor
    reason: Tensor

    def failures(self) -> dict[str, int]:
        """Count the plans that were not scored, by reason in words."""
        counts = torch.bincount(self.reason.flatten().to(torch.int64), minlength=len(Reason))
        return {
            Reason(i).describe(): int(n) for i, n in enumerate(counts.tolist()) if i > 0 and n > 0
        }


@torch.no_grad()
def score_pdms(
    scenes: SceneBatch,
    plans: Tensor,
    mask: Tensor | None = None,
    normalization: Normalization = "pair",
) -> PdmResult:
    """Score plans by NAVSIM 1.1.

    Args:
        scenes: S scenes. plans: (S, K, 8, 3) x, y, heading at 0.5 ... 4 s, ego frame at t = 0.
        mask: (S, K) bool, False for padding (ragged numbers of plans).
        normalization: progress relative to the reference alone, or to the whole batch.

    Raises:
        ContractError: on shapes that do not match.
    """
    plans, reason = _checked(scenes, plans, mask)
    states, reason = _simulate_batch(scenes, plans, reason)
    sub = _without_unscored(sub_scores_v1(scenes, states), reason)
    frame = _candidates(frame_scores_v1(sub, _companion(scenes, normalization)))
    unknown = torch.full_like(frame.collision, torch.nan)
    return _result(pdms(frame), frame, unknown, sub, states, reason)


@torch.no_grad()
def score_epdms(
    scenes: SceneBatch,
    plans: Tensor,
    mask: Tensor | None = None,
    normalization: Normalization = "pair",
    filter_by_human: bool = True,
    previous_plans: Tensor | None = None,
    previous_mask: Tensor | None = None,
) -> PdmResult:
    """Score plans by NAVSIM 2.2, one stage.

    Args:
        scenes, plans, mask, normalization: as ``score_pdms``.
        filter_by_human: forgive what the human driver also failed, where a scene has one.
        previous_plans: (S, K, 8, 3) plans made 0.5 s before, in the ego frame of then (history
            row -0.5 s), for extended comfort; without them, or where ``previous_mask`` (S,) is
            False, a frame has no predecessor and drops EC.

    Raises:
        ContractError: on shapes that do not match, or previous plans without history.
    """
    plans, reason = _checked(scenes, plans, mask)
    states, reason = _simulate_batch(scenes, plans, reason)
    sub = _without_unscored(sub_scores_v2(scenes, states), reason)
    frame = _candidates(frame_scores_v2(sub, _companion(scenes, normalization)))
    if filter_by_human and bool(scenes.human_mask.any()):
        frame = human_filter(frame, score_human(scenes), scenes.human_mask)
    comfort = torch.full_like(frame.collision, torch.nan)
    rms = comfort[..., None].expand(*comfort.shape, 4)
    if previous_plans is not None:
        comfort, rms, reason = _extended_comfort(
            scenes, states[:, 1:], previous_plans, previous_mask, reason
        )
    result = _result(epdms(frame, comfort), frame, comfort, sub, states, reason)
    return replace(result, extended_comfort_rms=rms)


def score_human(scenes: SceneBatch) -> FrameScores:
    """v2 scores (S, 1) of the human plan alone and without history, as the human filter does.

    Scenes without a human plan get scores of an arbitrary one: mask them.
    """
    human = scenes.human[:, None]
    usable = torch.isfinite(human).flatten(1).all(-1)
    human = torch.where(usable[:, None, None, None], human, 0.0)
    alone = replace(scenes, history_mask=torch.zeros_like(scenes.history_mask))
    states = simulate(scenes.ego, reference_poses(scenes.ego, human, scenes.start_time_s))
    frame = frame_scores_v2(sub_scores_v2(alone, states), companion=None)
    # A human plan that is not finite forgives nothing.
    return replace(
        frame,
        **{
            name: torch.where(usable[:, None], getattr(frame, name), 1.0)
            for name in FrameScores.__dataclass_fields__
        },
    )


def _checked(scenes: SceneBatch, plans: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return plans with unusable ones replaced by standing still, and the reasons (S, K)."""
    if plans.ndim != 4 or plans.shape[0] != len(scenes) or plans.shape[2:] != (PLAN_STEPS, 3):
        raise ContractError(
            "plans.shape", tuple(plans.shape), f"({len(scenes)}, K, {PLAN_STEPS}, 3)"
        )
    if mask is not None and mask.shape != plans.shape[:2]:
        raise ContractError("mask.shape", tuple(mask.shape), str(tuple(plans.shape[:2])))
    plans = plans.to(scenes.ego)
    reason = torch.zeros(plans.shape[:2], dtype=torch.uint8, device=plans.device)
    finite = torch.isfinite(plans).flatten(2).all(-1)
    reason[(plans[..., :2].abs() > MAX_DISTANCE_M).flatten(2).any(-1)] = Reason.PLAN_TOO_FAR
    reason[~finite] = Reason.PLAN_NOT_FINITE
    reason[~_scene_is_finite(scenes)] = Reason.SCENE_NOT_FINITE
    if mask is not None:
        reason[~mask.to(reason.device)] = Reason.ABSENT
    return torch.where((reason == Reason.SCORED)[..., None, None], plans, 0.0), reason


def _scene_is_finite(scenes: SceneBatch) -> Tensor:
    """(S,) bool: everything that a score reads is finite."""
    finite = torch.isfinite(scenes.ego).all(-1)
    for values in (
        scenes.reference,
        scenes.agent_state,
        scenes.agent_size,
        scenes.polygons.rings,
        scenes.centerline.points,
    ):
        finite = finite & torch.isfinite(values).flatten(1).all(-1)
    return finite & (torch.isfinite(scenes.history).flatten(1).all(-1) | ~scenes.history_mask)


def _simulate_batch(scenes: SceneBatch, plans: Tensor, reason: Tensor) -> tuple[Tensor, Tensor]:
    """Simulate [reference, plans] and note plans whose states diverge; all states are finite."""
    poses = reference_poses(scenes.ego, plans, scenes.start_time_s)
    states = simulate(scenes.ego, torch.cat([scenes.reference[:, None], poses], dim=1))
    finite = torch.isfinite(states).flatten(2).all(-1)
    reason = torch.where(
        ~finite[:, 1:] & (reason == Reason.SCORED), int(Reason.SIMULATION_DIVERGED), reason
    )
    if bool(finite.all()):
        return states, reason
    return torch.where(finite[..., None, None], states, 0.0), reason


def _without_unscored(sub: SubScores, reason: Tensor) -> SubScores:
    """Take unscored plans out of the comparison of progress."""
    progress = sub.progress.clone()
    progress[:, 1:] = torch.where(reason == Reason.SCORED, progress[:, 1:], 0.0)
    return replace(sub, progress=progress)


def _companion(scenes: SceneBatch, normalization: Normalization) -> Tensor | None:
    if normalization == "pair":
        return torch.zeros(len(scenes), dtype=torch.int64, device=scenes.ego.device)
    if normalization == "batch":
        return None
    raise ContractError("normalization", normalization, "'pair' or 'batch'")


def _candidates(frame: FrameScores) -> FrameScores:
    return replace(
        frame, **{name: getattr(frame, name)[:, 1:] for name in FrameScores.__dataclass_fields__}
    )


def _extended_comfort(
    scenes: SceneBatch,
    states: Tensor,
    previous_plans: Tensor,
    previous_mask: Tensor | None,
    reason: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    if previous_plans.shape != (*reason.shape, PLAN_STEPS, 3):
        raise ContractError(
            "previous_plans.shape",
            tuple(previous_plans.shape),
            str((*reason.shape, PLAN_STEPS, 3)),
        )
    known = torch.ones_like(scenes.history_mask) if previous_mask is None else previous_mask
    known = known.to(scenes.ego.device)
    if bool((known & ~scenes.history_mask).any()):
        raise ContractError("history_mask", False, "history of every scene with a previous plan")
    plans = previous_plans.to(scenes.ego)
    initial = scenes.history[:, PREVIOUS_HISTORY_ROW, :STATE_SIZE]
    initial = torch.where(known[:, None], initial, 0.0)
    poses = reference_poses(initial, plans, scenes.start_time_s - PREVIOUS_INTERVAL_S)
    previous = simulate(initial, poses)
    usable = torch.isfinite(previous).flatten(2).all(-1)
    previous = torch.where(usable[..., None, None], previous, 0.0)
    comfortable, rms = extended_comfort(states, previous, round(PREVIOUS_INTERVAL_S / STEP_S))
    nan = torch.nan
    comfort = torch.where(known[:, None], comfortable.to(torch.float64), nan)
    rms = torch.where((known[:, None] & usable)[..., None], rms.to(torch.float64), nan)
    broken = known[:, None] & ~usable & (reason == Reason.SCORED)
    reason = torch.where(broken, int(Reason.PREVIOUS_PLAN_NOT_FINITE), reason)
    return comfort, rms, reason


def _result(
    score: Tensor,
    frame: FrameScores,
    comfort: Tensor,
    sub: SubScores,
    states: Tensor,
    reason: Tensor,
) -> PdmResult:
    scored = reason == Reason.SCORED
    values = {
        name: torch.where(scored, getattr(frame, name), 0.0)
        for name in FrameScores.__dataclass_fields__
    }
    return PdmResult(
        score=torch.where(scored, score, 0.0),
        frame=replace(frame, **values),
        extended_comfort=torch.where(scored | torch.isnan(comfort), comfort, 0.0),
        extended_comfort_rms=torch.full((*score.shape, 4), torch.nan, device=score.device),
        sub=sub,
        states=states,
        reason=reason.to(torch.uint8),
    )
