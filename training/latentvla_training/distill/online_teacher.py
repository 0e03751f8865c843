"""What a planner reads of a teacher that is asked now, as the teacher's cache would hold it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentvla_training.distill.pooling import TEACHER_ACTION, TEACHER_VISUAL
from latentvla_training.planner.dataset import collate
from latentvla_training.teacher.cache import pooled_pictures
from latentvla_training.teacher.decoding import answer
from latentvla_training.teacher.training import TeacherRun


def online_states(
    run: TeacherRun, known: Mapping[str, Any], views: NDArray[np.uint8]
) -> dict[str, Tensor]:
    """Return states of the pictures (1, P, D) and of the codes' places (1, 12, D), half precision.

    By the procedure of ``teacher.cache``: after the teacher's own greedy codes, where it is.

    Args:
        known: ego inputs at t0 by name. views: (V, H, W, 3) of t0 and before.
    """
    device = next(run.teacher.parameters()).device
    batch = collate([{**known, **run.processor.pictures(views)}])
    batch = {name: value.to(device) for name, value in batch.items()}
    with torch.autocast(device.type, torch.bfloat16, run.mixed):
        said = answer(run.teacher, batch)
    visual = pooled_pictures(run.teacher, said.prompt_states, run.recipe.cache.visual_grid)
    return {TEACHER_VISUAL: visual.half(), TEACHER_ACTION: said.states.half()}
