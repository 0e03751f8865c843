"""Do two backends plan alike? Asked before a bundle is released, and by its tests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import ContractError
from latentvla_ros.runtime.backend import Backend

#: All candidates within a centimetre (and a milliradian), scores within a thousandth.
POSITION_M, YAW_RAD, SCORE = 0.01, 0.001, 1e-3


@dataclass(frozen=True)
class Parity:
    """Largest differences over some Scenes.

    Attributes:
        scenes: compared. position_m, yaw_rad: of all candidates. score: of all scores.
        selections: Scenes whose selected plan differs although the score margin exceeds ``SCORE``.
        close_calls: Scenes whose margin does not.
    """

    scenes: int
    position_m: float
    yaw_rad: float
    score: float
    selections: int
    close_calls: int

    def check(self) -> None:
        """Raise ContractError for the first bound that is exceeded."""
        for name, bound in (("position_m", POSITION_M), ("yaw_rad", YAW_RAD), ("score", SCORE)):
            value = getattr(self, name)
            if not value <= bound:
                raise ContractError(f"parity.{name}", value, f"at most {bound}")
        if self.selections:
            raise ContractError("parity.selections", self.selections, "0")


def compare(first: Backend, second: Backend, inputs: Iterable[dict[str, NDArray[Any]]]) -> Parity:
    """Run two loaded backends on the same inputs (names as ``Observation``, batch 1)."""
    position = yaw = score = 0.0
    scenes = selections = close_calls = 0
    for feed in inputs:
        one, two = first.infer(feed), second.infer(feed)
        offset = one["candidates"].astype(np.float64) - two["candidates"]
        position = max(position, float(np.hypot(offset[..., 0], offset[..., 1]).max()))
        turn = np.arctan2(np.sin(offset[..., 2]), np.cos(offset[..., 2]))
        yaw = max(yaw, float(np.abs(turn).max()))
        score = max(score, float(np.abs(one["scores"].astype(np.float64) - two["scores"]).max()))
        ranked = np.sort(one["scores"][0].astype(np.float64))
        close = len(ranked) > 1 and ranked[-1] - ranked[-2] <= SCORE
        close_calls += close
        selections += bool(not close and one["scores"][0].argmax() != two["scores"][0].argmax())
        scenes += 1
    return Parity(scenes, position, yaw, score, int(selections), int(close_calls))
