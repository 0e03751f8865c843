"""What decides the run of each contender; a run's folder holds it and refuses every other."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from latentvla_ros.model.config import PlannerConfig
from latentvla_training.data.shards import ShardReader
from latentvla_training.distill.settings import (
    PSEUDO,
    STUDENT,
    TEACHER,
    DistillRecipe,
    PoolingSettings,
    ReasonerPhase,
    StudentSettings,
)
from latentvla_training.engine.recipe import LoopSettings, OptimizerSettings
from latentvla_training.latent_action.codes import Vocabulary, scenes_identity
from latentvla_training.planner.augmentation import AugmentationSettings
from latentvla_training.planner.contenders import HOST, NOT_A_PLANNER, ContenderRun


@dataclass(frozen=True)
class TeacherContenderRun(ContenderRun):
    """What decides the run with the teacher online.

    Attributes:
        teacher: identity. pooling: of its states.
    """

    teacher: str
    pooling: PoolingSettings


@dataclass(frozen=True)
class PseudoRun(ContenderRun):
    """What decides the run on pseudo-trajectories. ``assumed``: whose word they are."""

    assumed: str


@dataclass(frozen=True)
class ReasonerRun:
    """What decides the first phase of a student.

    Attributes:
        contender, diagnostic, host, scenes, codebook: as of every contender.
        teacher: identity, or "" for a student of the codes alone.
        pooled_by: identity of the pooling whose states are learned, or "".
        augmentation: of the contenders. phase, student, pooling: settings.
    """

    contender: str
    diagnostic: str
    host: str
    scenes: str
    codebook: str
    teacher: str
    pooled_by: str
    augmentation: AugmentationSettings
    phase: ReasonerPhase
    student: StudentSettings
    pooling: PoolingSettings

    @property
    def optimizer(self) -> OptimizerSettings:
        """Of the phase."""
        return self.phase.optimizer

    @property
    def run(self) -> LoopSettings:
        """Of the phase."""
        return self.phase.run


@dataclass(frozen=True)
class StudentRun(ContenderRun):
    """What decides the second phase of a student, and what its bundle is made of.

    Attributes:
        recipe: name. teacher: identity, or "". reasoner: identity of what the first phase made, or
            "" without one. student, pooling: settings. model: of its planner. vocabulary: that it
            speaks.
    """

    recipe: str
    teacher: str
    reasoner: str
    student: StudentSettings
    pooling: PoolingSettings
    model: PlannerConfig
    vocabulary: Vocabulary = field(default_factory=Vocabulary)


@dataclass(frozen=True)
class ContestRecords:
    """The records of all runs of a seed, and where they are, by what contenders are made of.

    Attributes:
        recipe: with the seed. host: identity. model: of the host's planner.
        scenes: of ``scenes_shown``. codebook: identity. vocabulary: of its codes.
        teacher: identity, or "" where no teacher is read.
    """

    recipe: DistillRecipe
    host: str
    model: PlannerConfig
    scenes: str
    codebook: str
    vocabulary: Vocabulary
    teacher: str = ""

    def _shared(self, contender: str, codebook: str = "") -> dict[str, Any]:
        return {
            "contender": contender,
            "diagnostic": NOT_A_PLANNER,
            "host": self.host,
            "scenes": self.scenes,
            "codebook": codebook,
        }

    def plain(self, contender: str) -> ContenderRun:
        """Return the record of a contender that is told nothing."""
        return ContenderRun(**self._shared(contender), settings=self.recipe.heads.of(contender))

    def pseudo(self, assumed: str) -> PseudoRun:
        """Return the record of the run on pseudo-trajectories; ``assumed``: whose word they are."""
        settings = self.recipe.heads.of(HOST)
        return PseudoRun(**self._shared(PSEUDO), settings=settings, assumed=assumed)

    def online(self) -> TeacherContenderRun:
        """Return the record of the run with the teacher online."""
        return TeacherContenderRun(
            **self._shared(TEACHER, self.codebook),
            settings=self.recipe.heads.of(TEACHER),
            teacher=self.teacher,
            pooling=self.recipe.pooling,
        )

    @property
    def heard(self) -> str:
        """The teacher that the student hears, or ""."""
        return self.teacher if self.recipe.student.hears_teacher else ""

    def reasoner(self, pooled_by: str) -> ReasonerRun:
        """Return the record of a student's first phase; ``pooled_by``: see ``ReasonerRun``."""
        return ReasonerRun(
            **self._shared(STUDENT, self.codebook),
            teacher=self.heard,
            pooled_by=pooled_by,
            augmentation=self.recipe.heads.augmentation,
            phase=self.recipe.reasoner,
            student=self.recipe.student,
            pooling=self.recipe.pooling,
        )

    def student(self, reasoner: str) -> StudentRun:
        """Return the record of a student's second phase; ``reasoner``: see ``StudentRun``."""
        return StudentRun(
            **self._shared(STUDENT, self.codebook),
            settings=self.recipe.heads.of(STUDENT),
            recipe=self.recipe.name,
            teacher=self.heard,
            reasoner=reasoner,
            student=self.recipe.student,
            pooling=self.recipe.pooling,
            model=self.recipe.student.planner_config(self.model),
            vocabulary=self.vocabulary,
        )

    def online_folder(self, seed: Path) -> Path:
        """Return the folder of the run with the teacher online, below that of the seed."""
        return seed / f"{TEACHER}-{self.teacher}"

    def student_folders(self, seed: Path) -> tuple[Path, Path]:
        """Return the folders of a student's two phases, below that of the seed."""
        return student_folders(seed, self.recipe, self.teacher, self.codebook)


def student_folders(
    seed: Path, recipe: DistillRecipe, teacher: str, codebook: str
) -> tuple[Path, Path]:
    """Return the folders of a student's two phases, named after whom it learned of."""
    name = recipe.name
    if recipe.student.taught:
        name += f"-{teacher if recipe.student.hears_teacher else codebook}"
    return seed / f"reasoner-{name}", seed / f"student-{name}"


def scenes_shown(reader: ShardReader) -> str:
    """Return the identity of Scenes, and which drives among them have odometry and labels."""
    found = scenes_identity(reader)
    for what, there in (("odometry", reader.has_odometry), ("labels", reader.labelled)):
        if not there.all():
            drives = "".join(np.unique(reader.columns["token"][there].astype(str)))
            found += f", {what} of {hashlib.sha256(drives.encode()).hexdigest()[:16]}"
    return found
