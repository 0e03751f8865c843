"""EPDMS of proposals in training: what selection learns beside being near what was driven.

After iPad, whose score head learns the PDM score of its proposals online. Ours counts what a
proposal loses of it as distance from the driven future (``LossSettings.pdm``), so that one score
serves both. It is known in training alone: the labels of the Scene are needed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from latentvla_ros.contract import ContractError
from latentvla_training.data.shards import ShardReader
from latentvla_training.scoring.pdm import score_epdms
from latentvla_training.scoring.scene_batch import SceneArrays, SceneBatch, scene_arrays


class PlanQuality:
    """EPDMS of plans on a split's Scenes: one stage, no human filter, no extended comfort.

    Args:
        reader: the split. About 70 kB a Scene stay in memory.
        progress: show a progress bar while they are read.
    """

    def __init__(self, reader: ShardReader, progress: bool = True) -> None:
        from tqdm import tqdm

        self._scenes: list[SceneArrays | None] = []
        for index in tqdm(range(len(reader)), desc="labels", disable=not progress, leave=False):
            if not reader.labelled[index]:
                self._scenes.append(None)
                continue
            try:
                arrays = scene_arrays(reader[index])
                SceneBatch.from_arrays([arrays])
            except ContractError:
                arrays = None
            self._scenes.append(arrays)

    def __deepcopy__(self, memo: dict[int, Any]) -> PlanQuality:
        """Return itself: it never changes, and is too big to be copied with a module."""
        return self

    @torch.no_grad()
    def __call__(self, index: Tensor, candidates: Tensor) -> Tensor:
        """Return scores (B, M) in 0 ... 1 of candidates (B, M, 8, 3) on the Scenes ``index`` (B,).

        Computed in float32, on the device of the candidates. A Scene that cannot be scored, or has
        no labels to score by, prefers no plan: all of its have 1.
        """
        result = torch.ones(candidates.shape[:2], device=candidates.device)
        found = [(row, self._scenes[int(number)]) for row, number in enumerate(index.tolist())]
        rows = [row for row, arrays in found if arrays is not None]
        if rows:
            batch = SceneBatch.from_arrays([arrays for _, arrays in found if arrays is not None])
            scores = score_epdms(
                batch.to(candidates.device, torch.float32),
                candidates.detach().float()[rows],
                filter_by_human=False,
            ).score
            result[rows] = scores.to(result)
        return result
