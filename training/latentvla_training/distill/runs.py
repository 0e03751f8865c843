"""What decides the run of each contender; a run's folder holds it and refuses every other."""

from __future__ import annotations

from dataclasses import dataclass, field

from latentvla_ros.model.config import PlannerConfig
from latentvla_training.distill.settings import PoolingSettings, ReasonerPhase, StudentSettings
from latentvla_training.engine.recipe import LoopSettings, OptimizerSettings
from latentvla_training.latent_action.codes import Vocabulary
from latentvla_training.planner.augmentation import AugmentationSettings
from latentvla_training.planner.contenders import ContenderRun


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
