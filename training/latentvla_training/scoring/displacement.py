"""Displacement errors of trajectories: ADE, FDE, their minima over modes, miss rate.

Source: design/metrics.md section 6, "ADE/FDE/miss".
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from latentvla_ros.contract import ContractError

MISS_THRESHOLD_M = 2.0
MissConvention = Literal["argoverse", "nuscenes"]


def displacement(predicted: Tensor, target: Tensor) -> Tensor:
    """Euclidean error (..., T) of positions (..., T, >= 2); batch axes broadcast.

    Raises:
        ContractError: when the numbers of steps differ or there is no step.
    """
    if predicted.shape[-2] != target.shape[-2] or predicted.shape[-2] == 0:
        raise ContractError(
            "steps", (predicted.shape[-2], target.shape[-2]), "the same number > 0 of both"
        )
    return torch.sqrt(((predicted[..., :2] - target[..., :2]) ** 2).sum(-1))


def average_displacement_error(predicted: Tensor, target: Tensor) -> Tensor:
    """ADE (...): mean error over all steps, m."""
    return displacement(predicted, target).mean(-1)


def final_displacement_error(predicted: Tensor, target: Tensor) -> Tensor:
    """FDE (...): error at the last step, m."""
    return displacement(predicted, target)[..., -1]


def min_average_displacement_error(modes: Tensor, target: Tensor) -> Tensor:
    """minADE_K (...) of modes (..., K, T, >= 2): least ADE over the modes."""
    return average_displacement_error(modes, target.unsqueeze(-3)).amin(-1)


def min_final_displacement_error(modes: Tensor, target: Tensor) -> Tensor:
    """minFDE_K (...) of modes (..., K, T, >= 2): least FDE over the modes."""
    return final_displacement_error(modes, target.unsqueeze(-3)).amin(-1)


def argoverse_displacement_errors(modes: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """ADE and FDE (...) of the mode (of K) with the best FDE, as Argoverse reports them."""
    error = displacement(modes, target.unsqueeze(-3))
    best = error[..., -1].argmin(-1, keepdim=True)
    chosen = torch.gather(error.mean(-1), -1, best)[..., 0]
    return chosen, error[..., -1].amin(-1)


def miss_rate(
    modes: Tensor,
    target: Tensor,
    convention: MissConvention = "argoverse",
    threshold_m: float = MISS_THRESHOLD_M,
) -> float:
    """Share of samples (N, K, T, >= 2) whose best mode misses by more than the threshold.

    Args:
        convention: ``argoverse`` (VAD too): least FDE > threshold; ``nuscenes``: least over the
            modes of the *largest* pointwise error > threshold. Give samples with a complete
            future only.

    Raises:
        ContractError: on an unknown convention.
    """
    error = displacement(modes, target.unsqueeze(-3))
    if convention == "argoverse":
        best = error[..., -1].amin(-1)
    elif convention == "nuscenes":
        best = error.amax(-1).amin(-1)
    else:
        raise ContractError("convention", convention, "'argoverse' or 'nuscenes'")
    return float((best > threshold_m).to(torch.float64).mean())
