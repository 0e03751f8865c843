"""Contenders with a teacher, online or distilled, beside those without: trained, or read again.

    runs/distill/<family>/seed<N>/host, free_queries           as every comparison has them
                                  pseudo_trajectories          where a recipe has some
                                  teacher-<teacher>            its states, pooled, in the plan
                                  reasoner-<recipe>-<teacher>  first phase of a student; without a
                                  student-<recipe>-<teacher>   teacher of a codebook, or of nothing

A folder refuses the run of other settings, another host, codebook, teacher or other Scenes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from latentvla_ros.contract import CODEBOOK_SIZE, ContractError
from latentvla_ros.model.planner import StudentPlanner
from latentvla_training.distill.pooling import TeacherStates
from latentvla_training.distill.runs import ContestRecords, scenes_shown
from latentvla_training.distill.settings import (
    PSEUDO,
    STUDENT,
    TEACHER,
    DistillRecipe,
)
from latentvla_training.distill.student import (
    CODES,
    ReasonerOnFeatures,
    ReasonerTask,
    StudentOnFeatures,
    make_source,
)
from latentvla_training.distill.teaching import Teaching, check_vocabulary
from latentvla_training.engine.checkpoint import load_checkpoint
from latentvla_training.engine.launch import first_process_first
from latentvla_training.engine.loop import check_folder, run_training
from latentvla_training.planner.contenders import (
    HOST,
    PLAIN_SOURCES,
    CodedSplit,
    HeadSettings,
    features_for_heads,
    fresh_planner,
)
from latentvla_training.planner.head_training import (
    FeatureSplit,
    HeadTask,
    NoStates,
    PlannerOnFeatures,
)
from latentvla_training.planner.hosts import Host
from latentvla_training.planner.plan_quality import PlanQuality
from latentvla_training.planner.pseudo_odometry import pseudo_file, with_pseudo_odometry
from latentvla_training.teacher.model import weights_identity


@dataclass(frozen=True)
class Contest:
    """All that the contenders of one seed share.

    Attributes:
        host: that they go on from. recipe: with the seed.
        splits: with codes; at least those to train and to validate on.
        teaching: of the same splits; None where no teacher is read.
        folder: of the seed's runs. quality: of plans on the training Scenes.
        may_train: False: runs are read, and one that is not finished is an error.
    """

    host: Host
    recipe: DistillRecipe
    splits: Mapping[str, CodedSplit]
    teaching: Teaching | None
    folder: Path
    quality: PlanQuality | None = None
    may_train: bool = True

    def __post_init__(self) -> None:
        found = next(iter(self.splits.values())).codes.codebook_id
        if self.host.codebook not in (None, found):
            raise ContractError(
                f"codebook of the host {self.host.identity}", self.host.codebook, found
            )

    @property
    def seed(self) -> int:
        """Of weights, order and augmentation."""
        return self.recipe.heads.run.seed

    @property
    def train(self) -> CodedSplit:
        """The split to train on."""
        return self.splits[self.recipe.heads.data.train_split]

    def taught(self) -> Teaching:
        """Return the teaching.

        Raises:
            ContractError: there is none.
        """
        if self.teaching is None:
            raise ContractError("--teacher", "", "the teacher that a contender hears")
        return self.teaching

    @property
    def records(self) -> ContestRecords:
        """What decides the runs."""
        return ContestRecords(
            self.recipe,
            self.host.identity,
            self.host.planner.config,
            scenes_shown(self.train.reader),
            self.train.codes.codebook_id,
            self.train.codes.vocabulary,
            "" if self.teaching is None else self.teaching.teacher,
        )


@dataclass(frozen=True)
class Contender:
    """A trained contender. ``features``: by split, what it is told."""

    module: PlannerOnFeatures
    folder: Path
    features: Mapping[str, FeatureSplit]


def train_contender(contender: str, contest: Contest, progress: bool = True) -> Contender:
    """Train a contender (or continue, or read it); returns its averaged module.

    Raises:
        ContractError: a folder holds another run; the host's gate is open; host, codes, teacher and
            student have different vocabularies.
        FileNotFoundError: nothing may be trained, and the run is not finished.
    """
    own = {TEACHER: _teacher, STUDENT: _student, PSEUDO: _pseudo}
    make = own.get(contender, _plain)
    return make(contender, contest, progress)


def _module(
    kind: type[PlannerOnFeatures],
    planner: StudentPlanner,
    source: Any,
    contest: Contest,
    heads: HeadSettings,
) -> PlannerOnFeatures:
    quality = contest.quality
    loss = heads.loss if contest.may_train else replace(heads.loss, pdm=0.0)
    return kind(planner, source, loss, heads.new_factor, quality, heads.proposals_only)


def _run(
    module: PlannerOnFeatures,
    record: Any,
    folder: Path,
    contest: Contest,
    features: Mapping[str, FeatureSplit],
    progress: bool,
    task: type[HeadTask] = HeadTask,
) -> PlannerOnFeatures:
    """Train ``module`` where that may be; return what the finished run holds, as its host is."""
    if contest.may_train:
        data = contest.recipe.heads.data
        made = task(module, record, features[data.train_split], features[data.val_split])
        trained = run_training(made, record, folder, progress=progress)
        assert isinstance(trained, PlannerOnFeatures)
        module = trained
    # Read also what was trained here: several processes go on from what the first has kept.
    module.load_state_dict(_finished(record, folder))
    # Features may have moved the host to a GPU, where no source or reasoner of its own has been.
    return module.to(contest.host.planner.token_position.device).eval()


def _finished(record: Any, folder: Path) -> Mapping[str, Any]:
    """Return the averaged weights of a finished run."""
    state = load_checkpoint(folder) if check_folder(folder, record) else None
    if state is None or state["step"] < record.run.steps:
        done = 0 if state is None else state["step"]
        raise FileNotFoundError(
            f"{folder}: {done} of {record.run.steps} steps; finish it with distill train"
        )
    averaged: Mapping[str, Any] = state["averaged"]
    return averaged


def _untold(contest: Contest) -> dict[str, FeatureSplit]:
    """Return the splits for who is told nothing beside its features."""
    splits = contest.splits.items()
    return {name: FeatureSplit(split.reader, split.features) for name, split in splits}


def _plain(contender: str, contest: Contest, progress: bool) -> Contender:
    planner = fresh_planner(contest.host, contest.seed)
    source = PLAIN_SOURCES[contender](planner.config.width)
    record = contest.records.plain(contender)
    module = _module(PlannerOnFeatures, planner, source, contest, record.settings)
    features = _untold(contest)
    folder = contest.folder / contender
    module = _run(module, record, folder, contest, features, progress)
    return Contender(module, folder, features)


def _pseudo(contender: str, contest: Contest, progress: bool) -> Contender:
    """The host again, which also imitates what pictures say of drives without odometry."""
    planner = fresh_planner(contest.host, contest.seed)
    heads = contest.recipe.heads.of(HOST)
    name, said_by = heads.data.train_split, contest.recipe.pseudo_odometry
    if not said_by:
        raise ContractError("contender", contender, "a recipe with pseudo_odometry")
    reader = with_pseudo_odometry(contest.train.reader, pseudo_file(said_by, name))
    record = contest.records.pseudo(reader.assumed)
    features = _untold(contest)
    if contest.may_train:
        with first_process_first():
            encoded = features_for_heads(contest.host.planner, reader, name, heads, True, progress)
        features[name] = FeatureSplit(reader, encoded)
    module = _module(PlannerOnFeatures, planner, NoStates(), contest, heads)
    folder = contest.folder / contender
    module = _run(module, record, folder, contest, features, progress)
    return Contender(module, folder, features)


def _teacher(_: str, contest: Contest, progress: bool) -> Contender:
    teaching, pooling = contest.taught(), contest.recipe.pooling
    planner = fresh_planner(contest.host, contest.seed)
    source = TeacherStates(teaching.width, planner.config.width, pooling)
    record = contest.records.online()
    module = _module(PlannerOnFeatures, planner, source, contest, record.settings)
    features = {name: split.for_teacher() for name, split in teaching.splits.items()}
    folder = contest.records.online_folder(contest.folder)
    module = _run(module, record, folder, contest, features, progress)
    return Contender(module, folder, features)


def _student(_: str, contest: Contest, progress: bool) -> Contender:
    recipe = contest.recipe
    settings, records = recipe.student, contest.records
    pooled_by, pooling = "", None
    if settings.hears_teacher:
        check_vocabulary(contest.host.planner, contest.taught())
    if settings.features > 0.0:
        online = train_contender(TEACHER, contest, progress).module.source
        assert isinstance(online, TeacherStates)
        pooling, pooled_by = online, weights_identity(online)
    features = _lessons(contest, pooling)
    first, second = records.student_folders(contest.folder)
    planner = _student_planner(contest)
    source = make_source(planner, settings, recipe.pooling)
    reasoner = ""
    if settings.taught:
        phase = records.reasoner(pooled_by)
        learned = _run(
            ReasonerOnFeatures(planner, source),
            phase, first, contest, features, progress, ReasonerTask
        ).source  # fmt: skip
        reasoner = weights_identity(learned)
        planner = _student_planner(contest)
        source = make_source(planner, settings, recipe.pooling)
        source.load_state_dict(learned.state_dict())
    record = records.student(reasoner)
    module = _module(StudentOnFeatures, planner, source, contest, record.settings)
    module = _run(module, record, second, contest, features, progress)
    return Contender(module, second, features)


def _lessons(contest: Contest, pooling: TeacherStates | None) -> dict[str, FeatureSplit]:
    """Return what the student is taught with; on splits to be scored it is told nothing."""
    recipe = contest.recipe
    found = _untold(contest)
    if not contest.may_train:
        return found
    for name in (recipe.heads.data.train_split, recipe.heads.data.val_split):
        if recipe.student.hears_teacher:
            found[name] = contest.taught().splits[name].for_student(recipe.student, pooling)
        else:
            split = contest.splits[name]
            codes = {CODES: split.codes.sequence}
            found[name] = FeatureSplit(split.reader, split.features, codes)
    return found


def _student_planner(contest: Contest) -> StudentPlanner:
    """Return the host's planner, with a reasoner of the student's shape where it has its own."""
    planner = fresh_planner(contest.host, contest.seed)
    config = contest.recipe.student.planner_config(planner.config)
    entries = contest.train.codes.vocabulary.entries
    if config == planner.config and entries == CODEBOOK_SIZE:
        return planner
    own = StudentPlanner(config)
    if entries != CODEBOOK_SIZE:  # an ablation, which no car speaks
        own.reasoner.classifier = nn.Linear(own.reasoner.classifier.in_features, entries)
    kept = {
        name: value
        for name, value in planner.state_dict().items()
        if not name.startswith("reasoner.")
    }
    missing, unexpected = own.load_state_dict(kept, strict=False)
    assert not unexpected and all(name.startswith("reasoner.") for name in missing)
    return own
