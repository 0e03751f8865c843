"""Which seed's student becomes a bundle: the one that plans best on networks kept for validation.

Results are reported of other networks, so the choice flatters none of them. A result of
``distill evaluate --splits val`` holds all that it takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from latentvla_ros.contract import ContractError
from latentvla_training.distill.settings import STUDENT
from latentvla_training.planner.contenders import HOST
from latentvla_training.planner.scene_groups import DECISION
from latentvla_training.planner.scene_scores import SCORES
from latentvla_training.report.network_sums import ALL, Estimate, NetworkSums, sums_from_json

#: Where the choice is made.
SPLIT = "val"
#: What a planner is chosen by, and what it is called.
FIGURES = {"pdms": "PDMS", "epdms": "EPDMS"}
#: The row of a bundle's own planner in its manifest, as ``evaluate --record`` names it.
OURS = "ours"


@dataclass(frozen=True)
class SeedScores:
    """What the student of a seed scores beside its host.

    Attributes:
        seed: of both. sums: of the split's Scenes.
    """

    seed: int
    sums: NetworkSums

    def score(self, row: str = STUDENT) -> float:
        """Return the mean of PDMS and EPDMS, 0 to 1; NaN where there are none."""
        return float(np.mean([self.sums.mean(row, figure).value for figure in FIGURES]))

    @property
    def gain(self) -> float:
        """The student's score minus its host's."""
        return self.score() - self.score(HOST)

    def line(self) -> str:
        """Return the scores in words, each difference with its 95 % interval by network."""
        parts = []
        for figure, title in FIGURES.items():
            value = 100.0 * self.sums.mean(STUDENT, figure).value
            parts.append(f"{title} {value:.1f} ({_signed(self._minus_host(figure))})")
        return f"seed {self.seed}: student {', '.join(parts)}"

    def _minus_host(self, figure: str) -> Estimate:
        return self.sums.difference(STUDENT, HOST, figure)

    def figures(self, scenes: int, decision_scenes: int) -> dict[str, Any]:
        """Return them as a bundle's manifest keeps figures: the student's row is ``OURS``."""
        rows: dict[str, dict[str, Any]] = {}
        for name, row in ((OURS, STUDENT), (HOST, HOST)):
            rows[name] = {}
            for group, suffix in ((ALL, ""), (DECISION, f"_{DECISION}")):
                for figure in self.sums.figures(group):
                    mean = self.sums.mean(row, figure, group)
                    if np.isfinite(mean.value):
                        rows[name][f"{figure}{suffix}"] = round(mean.value, 6)
                        if figure in ("ade", *SCORES):
                            rows[name][f"{figure}_ci{suffix}"] = _interval(mean)
        minus_host = {
            figure: {"difference": round(found.value, 6), "ci": _interval(found)}
            for figure in ("ade", *SCORES)
            if np.isfinite((found := self._minus_host(figure)).value)
        }
        return {
            "scenes": scenes,
            "networks": len(self.sums.networks),
            "decision_scenes": decision_scenes,
            "rows": rows,
            "ratios": {},
            "differences": {f"{OURS}-{HOST}": minus_host},
        }


def seed_scores(result: Mapping[str, Any], split: str = SPLIT) -> list[SeedScores]:
    """Return what every seed of a result of ``distill evaluate`` scores on a split.

    Raises:
        ContractError: the result is not of that split, or is damaged.
    """
    splits = result.get("splits") or {}
    if split not in splits:
        raise ContractError("splits", sorted(splits), f"those of distill evaluate --splits {split}")
    where = f"splits.{split}.sums"
    return [
        SeedScores(seed, sums_from_json(sums, where))
        for seed, sums in zip(result["seeds"], splits[split]["sums"], strict=True)
    ]


def best(seeds: Sequence[SeedScores]) -> SeedScores:
    """Return the seed whose student scores most; of equals, and where none has a score, the first.

    All are scored on the same Scenes, so their scores compare whatever their hosts are.
    """
    return max(seeds, key=lambda found: np.nan_to_num(found.score(), nan=-np.inf))


def verdict(seeds: Sequence[SeedScores]) -> str:
    """Return in words which seed is best, and whether its student is the better planner."""
    chosen = best(seeds)
    if not np.isfinite(chosen.gain):
        return f"On {SPLIT} no student has a score beside its host; seed {chosen.seed} is taken."
    head = f"On {SPLIT} the student of seed {chosen.seed} is best"
    gain = f"{100.0 * chosen.gain:+.2f} to its host (mean of PDMS and EPDMS)"
    if chosen.gain > 0.0:
        return f"{head}: {gain}."
    above = ", ".join(str(found.seed) for found in seeds if found.gain > 0.0)
    if above:
        return f"{head}, but not the better planner: {gain}. Above their hosts: seed {above}."
    return f"{head}, but NO student is above its host there: {gain}. The host plans better."


def _signed(found: Estimate) -> str:
    value, low, high = (100.0 * part for part in (found.value, found.low, found.high))
    return f"{value:+.2f} to its host [{low:+.2f}, {high:+.2f}]"


def _interval(found: Estimate) -> list[float]:
    return [round(found.low, 6), round(found.high, 6)]
