"""What only scoring knows of a Scene: its PDM-Closed reference and how well the expert drove."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from latentvla_ros.geometry import se2
from latentvla_training.data.scene import Scene
from latentvla_training.scoring.aggregation import FrameScores
from latentvla_training.scoring.pdm import score_epdms, score_pdms
from latentvla_training.scoring.pdm_closed import pdm_closed_reference
from latentvla_training.scoring.scene_batch import SceneBatch

#: Scenes scored at a time: padding costs little as long as they are neighbours.
SCENES_PER_BATCH = 16


@dataclass(frozen=True)
class ExpertScores:
    """Scores of the driven futures of S Scenes, each (S,) float64.

    Attributes:
        pdms, epdms: NAVSIM 1.1; NAVSIM 2.2 without human filter and extended comfort.
        frame: sub-scores of the latter by name (``FrameScores``).
    """

    pdms: NDArray[np.float64]
    epdms: NDArray[np.float64]
    frame: dict[str, NDArray[np.float64]]


@torch.no_grad()
def score_expert(scenes: SceneBatch) -> ExpertScores:
    """Score the human plan of scenes that have a reference."""
    plans = scenes.human[:, None]
    first = score_pdms(scenes, plans)
    second = score_epdms(scenes, plans, filter_by_human=False)
    frame = {
        name: getattr(second.frame, name)[:, 0].numpy() for name in FrameScores.__dataclass_fields__
    }
    return ExpertScores(first.score[:, 0].numpy(), second.score[:, 0].numpy(), frame)


def with_scores(scenes: Sequence[Scene]) -> Iterator[Scene]:
    """Yield Scenes of the world with ``pdm_reference_10hz`` and the expert's scores filled in."""
    for first in range(0, len(scenes), SCENES_PER_BATCH):
        chunk = scenes[first : first + SCENES_PER_BATCH]
        batch, limits = _unreferenced(chunk)
        reference = pdm_closed_reference(batch, limits)
        scores = score_expert(replace(batch, reference=reference))
        for scene, poses, pdms, epdms in zip(
            chunk, reference.numpy(), scores.pdms, scores.epdms, strict=True
        ):
            labels = replace(
                scene.labels,
                pdm_reference_10hz=np.append(poses[:, :2], se2.wrap_angle(poses[:, 2:]), axis=1),
                expert_pdms=float(pdms),
                expert_epdms=float(epdms),
            )
            yield replace(scene, labels=labels)


def _unreferenced(scenes: Sequence[Scene]) -> tuple[SceneBatch, torch.Tensor]:
    """Return Scenes as a batch without a reference yet, and their padded speed limits (S, C)."""
    standing = [
        replace(scene, labels=replace(scene.labels, pdm_reference_10hz=np.zeros((41, 3))))
        for scene in scenes
    ]
    batch = SceneBatch.from_scenes(standing)
    longest = batch.centerline.points.shape[1]
    limits = np.stack(
        [
            np.pad(
                scene.labels.speed_limit_mps,
                (0, longest - len(scene.labels.speed_limit_mps)),
                "edge",
            )
            for scene in scenes
        ]
    )
    return batch, torch.from_numpy(limits)
