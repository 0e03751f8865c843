"""Settings of a whole run: which recipe, seeds and options each stage takes, and its usual time.

Minutes are CPU minutes on one core, as measured; they decide nothing but the estimates shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from latentvla_ros.contract import ContractError
from latentvla_training.engine.recipe import load_record

#: Where recipes of whole runs lie below ``recipes``.
RECIPES = "all"

StageName = Literal[
    "world",
    "planner",
    "host",
    "codebook",
    "codes",
    "codebook-report",
    "oracle-codes",
    "teacher",
    "teacher-report",
    "teacher-cache",
    "distill",
    "distill-val",
    "distill-report",
    "bundle",
    "report",
]
#: In their order.
STAGES: tuple[StageName, ...] = get_args(StageName)

#: What Scenes are made of, in this order.
SPLITS = ("train", "val", "test", "longtail", "ood")
_SCORED = SPLITS[1:]


@dataclass(frozen=True)
class WorldStage:
    """Scenes.

    Attributes:
        train, val, test, longtail, ood: at most so many episodes; 0: the split's own number.
        minutes: of all splits together.
    """

    train: int = 0
    val: int = 0
    test: int = 0
    longtail: int = 0
    ood: int = 0
    minutes: float = 40.0

    def __post_init__(self) -> None:
        _check(self, "world")
        for split in SPLITS:
            if getattr(self, split) < 0:
                raise ContractError(f"world.{split}", getattr(self, split), "at least 0")


@dataclass(frozen=True)
class PlannerStage:
    """The host.

    Attributes:
        recipe: of its training. fine: of the stage that goes on from it; "" for none.
        seed: of the last of them. minutes: of both.
    """

    recipe: str
    fine: str = ""
    seed: int = 0
    minutes: float = 150.0

    def __post_init__(self) -> None:
        _check(self, "planner")
        if self.seed < 0:
            raise ContractError("planner.seed", self.seed, "at least 0")


@dataclass(frozen=True)
class CodebookStage:
    """Codebooks of seeds; the first is released, and what follows speaks its codes.

    Attributes:
        recipe: of the codebook. seeds: of its runs.
        controls: also train what its report compares it with.
        train_shards: that the probes of the report are fitted on, at most.
        minutes, controls_minutes: of a seed. encode_minutes, report_minutes: of all.
    """

    recipe: str
    seeds: tuple[int, ...] = (0,)
    controls: bool = True
    train_shards: int = 80
    minutes: float = 10.0
    controls_minutes: float = 10.0
    encode_minutes: float = 3.0
    report_minutes: float = 5.0

    def __post_init__(self) -> None:
        _check(self, "codebook")
        if self.train_shards < 1:
            raise ContractError("codebook.train_shards", self.train_shards, "at least 1")


@dataclass(frozen=True)
class OracleStage:
    """The gate of the codebook.

    Attributes:
        recipe: of oracle-codes. seeds: pooled. splits: where it is scored. minutes: of a seed.
    """

    recipe: str
    seeds: tuple[int, ...] = (0,)
    splits: tuple[str, ...] = ("test", "longtail")
    minutes: float = 20.0

    def __post_init__(self) -> None:
        _check(self, "oracle")


@dataclass(frozen=True)
class TeacherStage:
    """Teachers of seeds; the first is cached and distilled.

    Attributes:
        recipe: of the teacher. seeds: of its runs. split: where they are judged.
        vision_minutes: of the vision stage. minutes: of a seed. report_minutes, cache_minutes.
    """

    recipe: str
    seeds: tuple[int, ...] = (0,)
    split: str = "test"
    vision_minutes: float = 8.0
    minutes: float = 25.0
    report_minutes: float = 5.0
    cache_minutes: float = 30.0

    def __post_init__(self) -> None:
        _check(self, "teacher")
        if self.split not in _SCORED:
            raise ContractError("teacher.split", self.split, f"one of {list(_SCORED)}")


@dataclass(frozen=True)
class DistillStage:
    """Host, free queries, teacher online and student.

    Attributes:
        recipe: of the comparison.
        seeds: pooled; the student that is best on validation networks becomes the bundle.
        splits: where they are scored.
        minutes: of a seed. val_minutes, report_minutes: of all.
    """

    recipe: str
    seeds: tuple[int, ...] = (0, 1, 2)
    splits: tuple[str, ...] = ("test", "longtail", "ood")
    minutes: float = 25.0
    val_minutes: float = 5.0
    report_minutes: float = 10.0

    def __post_init__(self) -> None:
        _check(self, "distill")


@dataclass(frozen=True)
class WholeRecipe:
    """Everything that decides a whole run.

    Attributes:
        name: of the recipe and of the bundle. revision: of the bundle.
        apart: all goes below a folder of the recipe's own; otherwise Scenes and the runs of planner
            and codebook are those of the checkout, which the single commands share.
        past_gates: go on where a gate is missed, as ``--past-gates`` does.
        world, planner, codebook, oracle, teacher, distill: settings of the stages.
    """

    name: str
    planner: PlannerStage
    codebook: CodebookStage
    oracle: OracleStage
    teacher: TeacherStage
    distill: DistillStage
    world: WorldStage = field(default_factory=WorldStage)
    revision: int = 1
    apart: bool = False
    past_gates: bool = False

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise ContractError("name", self.name, "a name of a folder")
        if self.revision < 1:
            raise ContractError("revision", self.revision, "at least 1")


def load_whole_recipe(name_or_path: str) -> WholeRecipe:
    """Read a recipe that comes with the package (by name) or any YAML file (by path).

    Raises:
        ContractError: no such recipe, an unknown key, or a value that is not allowed.
    """
    return load_record(WholeRecipe, name_or_path, RECIPES)


def _check(stage: Any, name: str) -> None:
    """Check what stages have in common: minutes, seeds, splits."""
    for entry in fields(stage):
        value = getattr(stage, entry.name)
        if entry.name.endswith("minutes") and value < 0.0:
            raise ContractError(f"{name}.{entry.name}", value, "at least 0")
    seeds: Sequence[int] = getattr(stage, "seeds", (0,))
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise ContractError(f"{name}.seeds", list(seeds), "one or more from 0 on, all different")
    splits: Sequence[str] = getattr(stage, "splits", _SCORED)
    if not splits or not set(splits) <= set(_SCORED):
        raise ContractError(f"{name}.splits", list(splits), f"one or more of {list(_SCORED)}")
