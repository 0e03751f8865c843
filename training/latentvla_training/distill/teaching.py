"""Scenes with what the teacher said of them, and who of the contenders is told what.

A teacher's states are read as they were cached (``latentvla-train teacher cache``), never computed
here: those of another teacher, codebook, rig or of other Scenes are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from latentvla_ros.contract import ContractError
from latentvla_ros.model.planner import StudentPlanner
from latentvla_training.distill.pooling import TEACHER_ACTION, TEACHER_VISUAL, TeacherStates
from latentvla_training.distill.settings import StudentSettings
from latentvla_training.distill.student import (
    CODES,
    GREEDY,
    POOLED_ACTION,
    POOLED_VISUAL,
    PROBABILITIES,
)
from latentvla_training.planner.contenders import CodedSplit
from latentvla_training.planner.head_training import FeatureSplit
from latentvla_training.teacher.cache import CachedTeacher, cache_folder, cache_identity
from latentvla_training.teacher.commands import teacher_place
from latentvla_training.teacher.model import Teacher
from latentvla_training.teacher.release import load_teacher

_AT_ONCE = 256


@dataclass(frozen=True)
class TaughtSplit:
    """Scenes of a split with features and codes, and the teacher's states of them.

    Attributes:
        coded: Scenes, features, codes. cached: the teacher's states of the same Scenes.
        conditionals: (N, 12, 16) its distribution of each code after its own greedy ones.

    Raises:
        ContractError: the states are of another number of Scenes.
    """

    coded: CodedSplit
    cached: CachedTeacher
    conditionals: NDArray[np.float32]

    def __post_init__(self) -> None:
        wanted = len(self.coded.reader)
        if len(self.cached) != wanted:
            raise ContractError("teacher cache", f"{len(self.cached)} Scenes", f"{wanted}")

    def features(self, extras: Mapping[str, NDArray[Any]] | None = None) -> FeatureSplit:
        """Return Scenes and features, with entries for every batch."""
        return FeatureSplit(self.coded.reader, self.coded.features, extras or {})

    def for_teacher(self) -> FeatureSplit:
        """Return what the contender with the teacher online gets: its states, no code."""
        states = {TEACHER_VISUAL: self.cached.visual, TEACHER_ACTION: self.cached.action}
        return self.features(states)

    def for_student(
        self, settings: StudentSettings, pooling: TeacherStates | None = None
    ) -> FeatureSplit:
        """Return what a student is taught with: nothing of it reaches its states.

        Args:
            pooling: trained, of the teacher's contender, where ``settings.features`` asks for it.

        Raises:
            ContractError: it asks and there is none.
        """
        extras: dict[str, NDArray[Any]] = {CODES: self.coded.codes.sequence}
        if settings.hears_teacher:
            causal = settings.autoregressive
            extras[PROBABILITIES] = self.conditionals if causal else self.cached.marginals
            extras[GREEDY] = self.cached.codes
        if settings.features > 0.0:
            if pooling is None:
                raise ContractError("student.features", settings.features, "0 without a pooling")
            extras[POOLED_VISUAL], extras[POOLED_ACTION] = pooled_states(pooling, self.cached)
        return self.features(extras)


@dataclass(frozen=True)
class Teaching:
    """A teacher and its states of splits.

    Attributes:
        teacher: its identity. codebook: that it speaks. width: of its states.
        splits: by name.
    """

    teacher: str
    codebook: str
    width: int
    splits: dict[str, TaughtSplit] = field(default_factory=dict)


def open_teaching(
    name_or_path: str, splits: Mapping[str, CodedSplit], root: Path | None = None
) -> Teaching:
    """Open the cached states of a teacher on splits.

    Args:
        name_or_path: a released teacher or a run of one. root: of all caches.

    Raises:
        FileNotFoundError: there is no such teacher, or a split is not cached.
        ContractError: the teacher speaks another codebook than the codes; a cache is damaged or of
            another teacher, codebook, rig or of other Scenes; both are named.
    """
    codebook = next(iter(splits.values())).codes.codebook_id
    run = load_teacher(teacher_place(name_or_path), codebook)
    taught: dict[str, TaughtSplit] = {}
    teacher = ""
    for name, split in splits.items():
        identity = cache_identity(run, split.reader)
        teacher = identity["teacher"]
        cached = CachedTeacher(cache_folder(teacher, name, root), split.reader, identity)
        taught[name] = TaughtSplit(split, cached, _conditionals(run.teacher, cached.action))
    width = next(iter(taught.values())).cached.action.shape[-1]
    return Teaching(teacher, codebook, int(width), taught)


@torch.inference_mode()
def _conditionals(teacher: Teacher, action: NDArray[np.float16]) -> NDArray[np.float32]:
    """Return what the teacher says (N, 12, 16) after its greedy codes, of the cached states."""
    weight = teacher.vlm.lm_head.weight[list(teacher.actions.ids)].float().cpu()
    found = [
        functional.linear(torch.from_numpy(part).float(), weight).softmax(dim=-1).numpy()
        for part in np.array_split(action, max(1, len(action) // _AT_ONCE))
    ]
    return np.concatenate(found)


@torch.inference_mode()
def pooled_states(
    pooling: TeacherStates, cached: CachedTeacher
) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """Return pooled pictures (N, V, W) and actions (N, 12, W) of every Scene."""
    pooling = pooling.cpu().eval()
    visual, action = [], []
    for start in range(0, len(cached), _AT_ONCE):
        chosen = slice(start, start + _AT_ONCE)
        found = pooling.pool(*(torch.from_numpy(a[chosen]) for a in (cached.visual, cached.action)))
        visual.append(found[0].half().numpy())
        action.append(found[1].half().numpy())
    return np.concatenate(visual), np.concatenate(action)


def check_vocabulary(planner: StudentPlanner, teaching: Teaching) -> None:
    """Check that a student can say what its teacher says.

    Raises:
        ContractError: its codes are more or fewer; names both.
    """
    with torch.inference_mode():
        memory = torch.zeros(1, 1, planner.config.width, device=planner.token_position.device)
        said = planner.reasoner(memory)[1]
    for split in teaching.splits.values():
        heard = split.cached.marginals.shape[1:]
        if said.shape[1:] != heard:
            raise ContractError(
                "vocabulary of the student (places, codes)",
                tuple(said.shape[1:]),
                f"{heard}, as teacher {teaching.teacher}",
            )
