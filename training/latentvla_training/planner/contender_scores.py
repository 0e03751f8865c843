"""Scores of contenders of several seeds on a split: means over seeds and paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentvla_training.data.shards import ShardReader
from latentvla_training.planner.baselines import constant_velocity_plans
from latentvla_training.planner.evaluation import EXPERT, expert_plans
from latentvla_training.planner.open_loop import DECISION_ADE_M, displacement_errors
from latentvla_training.planner.scene_groups import DECISION
from latentvla_training.planner.scene_scores import SCORES, score_rows
from latentvla_training.report.network_sums import ALL, Estimate, NetworkSums, pooled, sums_of

#: The host before any contender went on from it.
GIVEN = "host_as_given"
FIGURES = ("ade", *SCORES)
#: Scenes with all twelve codes: where a recording ends too early some are missing.
KNOWN = "known"
#: What a group's figures end with.
SUFFIXES = {ALL: "", DECISION: f"_{DECISION}", KNOWN: f"_{KNOWN}"}

Plans = NDArray[np.float32]


@dataclass(frozen=True)
class ScoredSplit:
    """Scores of a split.

    Attributes:
        sums: of every seed; rows are ``GIVEN``, the contenders and the expert.
        groups: (N,) bool of ``DECISION`` and ``KNOWN``, and of others that were asked for.
        values: (N,) of every Scene, by ``<row>/<seed>`` and figure.
        scenes_unscored: how many Scenes could not be scored, by reason.
    """

    sums: tuple[NetworkSums, ...]
    groups: dict[str, NDArray[np.bool_]]
    values: dict[str, dict[str, NDArray[np.float64]]]
    scenes_unscored: dict[str, int]

    @property
    def pooled(self) -> NetworkSums:
        """The average over seeds."""
        return pooled(self.sums)

    def document(
        self, rows: Sequence[str], pairs: Sequence[tuple[str, str]], reader: ShardReader
    ) -> dict[str, Any]:
        """Return means and paired differences, each with its 95 % interval by network.

        Args:
            rows: to list. pairs: to list as ``<first>-<second>``.
        """
        sums = self.pooled
        return {
            "scenes": len(reader),
            "networks": len(sums.networks),
            "decision_scenes": int(self.groups[DECISION].sum()),
            "known_scenes": int(self.groups[KNOWN].sum()),
            "rows": {row: means(sums, row) for row in rows},
            "differences": {
                f"{first}-{second}": differences(sums, first, second) for first, second in pairs
            },
            "unscored": dict(self.scenes_unscored),
            "sums": [part.to_json() for part in self.sums],
        }


def score_contenders(
    reader: ShardReader,
    known: NDArray[np.bool_],
    plans: Mapping[str, Plans],
    contenders: Sequence[str],
    seeds: Sequence[int],
    progress: bool = True,
    others: Mapping[str, NDArray[np.bool_]] | None = None,
) -> ScoredSplit:
    """Score plans (N, 8, 3) by ``GIVEN`` and ``<contender>/<seed>``, and the expert.

    Args:
        known: (N,) whether all codes of a Scene are. others: (N,) bool of further groups by name,
            which get ``FIGURES``; the sums alone tell of them.
    """
    columns = reader.columns
    plans = {**plans, EXPERT: expert_plans(reader)}
    scores = score_rows(reader, plans, progress)
    future, mask = columns["future_2hz"], columns["future_mask"]
    values: dict[str, dict[str, NDArray[np.float64]]] = {}
    for name, poses in plans.items():
        found = dict(scores.rows.get(name, {}))
        if name != EXPERT:  # of the expert from itself it says nothing
            found["ade"] = displacement_errors(poses, future, mask).ade
        values[name] = found
    groups = {DECISION: _decision(reader), KNOWN: known, **(others or {})}
    parts = []
    for seed in seeds:
        rows = {row: values[f"{row}/{seed}"] for row in contenders}
        rows = {GIVEN: values[GIVEN], **rows, EXPERT: values[EXPERT]}
        parts.append(sums_of(columns["network"], rows, groups, {"": FIGURES}))
    return ScoredSplit(tuple(parts), groups, values, dict(scores.scenes_unscored))


def _decision(reader: ShardReader) -> NDArray[np.bool_]:
    columns = reader.columns
    errors = displacement_errors(
        constant_velocity_plans(reader), columns["future_2hz"], columns["future_mask"]
    )
    return np.asarray(errors.ade > DECISION_ADE_M)


def means(sums: NetworkSums, row: str) -> dict[str, list[float]]:
    """Return the means of a row by figure, with the suffix of the group; sub-scores of all."""
    found = {
        f"{figure}{suffix}": sums.mean(row, figure, group)
        for group, suffix in SUFFIXES.items()
        for figure in sums.figures(group)
    }
    return as_lists(found)


def differences(sums: NetworkSums, first: str, second: str) -> dict[str, list[float]]:
    """Return the paired differences of ``FIGURES``, ``first`` minus ``second``, likewise."""
    found = {
        f"{figure}{suffix}": sums.difference(first, second, figure, group)
        for group, suffix in SUFFIXES.items()
        for figure in sums.figures(group)
        if figure in FIGURES
    }
    return as_lists(found)


def as_lists(found: Mapping[str, Estimate]) -> dict[str, list[float]]:
    """Return value, low and high of what is known."""
    return {
        name: [round(value, 6) for value in (estimate.value, estimate.low, estimate.high)]
        for name, estimate in found.items()
        if np.isfinite(estimate.value)
    }
