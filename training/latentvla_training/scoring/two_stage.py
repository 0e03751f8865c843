"""Two-stage (pseudo closed-loop) aggregation of NAVSIM 2.2.

Source: design/metrics.md section 5, "Two-stage run" (NAVSIM ``SceneAggregator`` and its run
script). A few thousand frames at most: plain numpy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from latentvla_ros.contract import ContractError
from latentvla_training.scoring.aggregation import FrameScores, epdms

Values = NDArray[np.float64]
Pair = tuple[str, str]

SIGMA_SQUARED = 0.1
SCORE_COLUMNS = {
    "no_at_fault_collisions": "collision",
    "drivable_area_compliance": "drivable",
    "driving_direction_compliance": "direction",
    "traffic_light_compliance": "light",
    "ego_progress": "progress",
    "time_to_collision_within_bound": "time_to_collision",
    "lane_keeping": "lane",
    "history_comfort": "comfort",
}
EXTENDED_COMFORT = "two_frame_extended_comfort"


@dataclass(frozen=True)
class Group:
    """One original pair of frames and the synthetic pairs that follow it, by token.

    Attributes:
        now, previous: original frames about 0.5 s apart.
        second_stage: (now_j, previous_j) synthetic frames starting about 4 s later.
    """

    now: str
    previous: str
    second_stage: tuple[Pair, ...]


@dataclass(frozen=True)
class TwoStageResult:
    """Result of a run.

    Attributes:
        weight, score: (F,) per frame, in the order of the tokens; score is its EPDMS.
        combined, stage1, stage2: averages over the groups for every sub-score and ``score``.
    """

    weight: Values
    score: Values
    combined: dict[str, float]
    stage1: dict[str, float]
    stage2: dict[str, float]


def kernel_weights(endpoint: Values, starts: Values) -> Values:
    """Weights (n,) of synthetic frames starting at (n, 2), for a plan that ends at (2,).

    Gaussian with sigma^2 = 0.1 m^2, normalised; uniform where all of them vanish.
    """
    squared = ((endpoint[None] - starts) ** 2).sum(-1)
    weights = np.exp(-squared / (2.0 * SIGMA_SQUARED))
    total = weights.sum()
    if np.isclose(total, 0.0) or math.isnan(total):
        return np.full(len(starts), 1.0 / len(starts))
    return np.asarray(weights / total)


def aggregate_two_stage(
    tokens: Sequence[str],
    columns: Mapping[str, Values],
    extended_comfort: Values,
    groups: Sequence[Group],
) -> TwoStageResult:
    """Combine frame scores into the two-stage score.

    Args:
        tokens: F unique frame names.
        columns: (F,) arrays: the keys of ``SCORE_COLUMNS`` (human filter already applied to the
            original frames), ``endpoint_x/y`` of the planned path and ``start_point_x/y``, global.
        extended_comfort: (F,) EC of each frame's pair.
        groups: at least one, each with at least one synthetic pair.

    Raises:
        ContractError: on a missing column or token, a group without second stage, or no groups.
    """
    needed = [*SCORE_COLUMNS, "endpoint_x", "endpoint_y", "start_point_x", "start_point_y"]
    missing = [name for name in needed if name not in columns]
    if missing:
        raise ContractError("columns", f"no {', '.join(missing)}", "all score and position columns")
    if not groups:
        raise ContractError("groups", 0, "at least one")
    row = {token: i for i, token in enumerate(tokens)}
    endpoint = np.stack([columns["endpoint_x"], columns["endpoint_y"]], axis=-1)
    start = np.stack([columns["start_point_x"], columns["start_point_y"]], axis=-1)
    values = {name: np.asarray(columns[name], np.float64) for name in SCORE_COLUMNS}
    values[EXTENDED_COMFORT] = np.asarray(extended_comfort, np.float64)
    values["score"] = _frame_epdms(values)
    weight = np.ones(len(tokens))
    stages: list[tuple[int, NDArray[np.int64]]] = []  # first-stage row, second-stage rows
    for group in groups:
        if not group.second_stage:
            raise ContractError(f"groups[{group.now}].second_stage", 0, "at least one pair")
        for member, first in enumerate((group.now, group.previous)):
            try:
                head = row[first]
                rows = np.array([row[pair[member]] for pair in group.second_stage])
            except KeyError as error:
                raise ContractError(
                    f"groups[{group.now}]", f"frame {error}", "frames among the tokens"
                ) from error
            # A frame in several groups keeps what was written last, as NAVSIM's table does.
            weight[head] = 1.0
            weight[rows] = kernel_weights(endpoint[head], start[rows])
            stages.append((head, rows))
    combined, stage1, stage2 = {}, {}, {}
    for name, value in values.items():
        first_values = np.array([value[head] * weight[head] for head, _ in stages])
        second_values = np.array([(value[rows] * weight[rows]).sum() for _, rows in stages])
        combined[name] = float((first_values * second_values).mean())
        stage1[name] = float(first_values.mean())
        stage2[name] = float(second_values.mean())
    return TwoStageResult(weight, values["score"], combined, stage1, stage2)


def _frame_epdms(values: Mapping[str, Values]) -> Values:
    scores = FrameScores(
        **{field: torch.from_numpy(values[name]) for name, field in SCORE_COLUMNS.items()}
    )
    return np.asarray(epdms(scores, torch.from_numpy(values[EXTENDED_COMFORT])).numpy())
