"""Settings of a comparison with a teacher: pooling, student, contenders; one YAML file a recipe.

A recipe may go on from another (``base``), of which it changes a few values: an ablation. Where it
changes the student alone, it shares the runs of all other contenders with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from latentvla_ros.contract import ContractError
from latentvla_ros.model.config import PlannerConfig
from latentvla_training.engine.recipe import LoopSettings, OptimizerSettings, build, read_recipe
from latentvla_training.planner.contenders import FREE, HOST, HeadSettings

#: Where the recipes lie below ``recipes``.
RECIPES = "distill"

TEACHER, STUDENT = "teacher", "student"
#: The host that also imitates pseudo-trajectories, where a recipe has some.
PSEUDO = "pseudo_trajectories"
CONTENDERS = (HOST, FREE, TEACHER, STUDENT)

#: Settings of a planner that a student may have otherwise than its host.
_SHAPE = ("reasoner_width", "reasoner_heads", "reasoner_layers", "reasoner_hidden")


@dataclass(frozen=True)
class PoolingSettings:
    """Attention pooling of the teacher's states (method.md 3.2 D; the sizes of ``nano`` are ours).

    Attributes:
        width: of the pooled states. heads: at most so many attention heads; the most that divide
            the width are taken. visual_latents: learned queries that summarise the pictures.
    """

    width: int = 512
    heads: int = 8
    visual_latents: int = 16

    def __post_init__(self) -> None:
        for name in ("width", "heads", "visual_latents"):
            if getattr(self, name) < 1:
                raise ContractError(f"pooling.{name}", getattr(self, name), "at least 1")

    @property
    def most_heads(self) -> int:
        """Heads that divide the width."""
        return next(heads for heads in range(self.heads, 0, -1) if self.width % heads == 0)


@dataclass(frozen=True)
class StudentSettings:
    """What the student learns, and what its states do (method.md 3.2 E; weights of 0: left out).

    Attributes:
        kl: of the divergence from the teacher's marginals. temperature: of both distributions.
        cross_entropy: of the codes of what was driven. features: of the L1 distance from the
            teacher's pooled states.
        fusion: whether its states go into the plan.
        end_to_end: whether, in the second phase, the reasoner also learns from imitation and the
            planner's tokens, where they are not frozen, also from the teacher. Without it the two
            only meet in the fusion.
        autoregressive: decode one code after the other: for comparison, no bundle is made of it.
        reasoner_width, reasoner_heads, reasoner_layers, reasoner_hidden: shape of the student's own
            reasoner (see ``PlannerConfig``); 0: as the host's.
    """

    kl: float = 1.0
    temperature: float = 2.0
    cross_entropy: float = 0.5
    features: float = 1.0
    fusion: bool = True
    end_to_end: bool = False
    autoregressive: bool = False
    reasoner_width: int = 0
    reasoner_heads: int = 0
    reasoner_layers: int = 0
    reasoner_hidden: int = 0

    def __post_init__(self) -> None:
        for name in ("kl", "cross_entropy", "features", *_SHAPE):
            if getattr(self, name) < 0:
                raise ContractError(f"student.{name}", getattr(self, name), "at least 0")
        if self.temperature <= 0.0:
            raise ContractError("student.temperature", self.temperature, "above 0")
        for name, meaningless in (
            ("fusion", not self.fusion),
            ("kl, cross_entropy, features", not self.taught),
        ):
            if meaningless and not self.end_to_end:
                wanted = "end_to_end: true, or nothing of the student reaches the plan"
                raise ContractError(f"student.{name}", "left out", wanted)

    @property
    def taught(self) -> bool:
        """Whether anybody teaches it; otherwise it is a control of the same shape."""
        return max(self.kl, self.cross_entropy, self.features) > 0.0

    @property
    def says_codes(self) -> bool:
        """Whether anybody teaches it codes; otherwise those that it says mean nothing."""
        return max(self.kl, self.cross_entropy) > 0.0

    @property
    def hears_teacher(self) -> bool:
        """Whether anything of a teacher is read; otherwise it learns of the codes alone."""
        return max(self.kl, self.features) > 0.0 or self.autoregressive

    def planner_config(self, host: PlannerConfig) -> PlannerConfig:
        """Return the settings of the student's planner: the host's, with its own reasoner.

        Raises:
            ContractError: it does not allow the value.
        """
        own = {name: getattr(self, name) for name in _SHAPE if getattr(self, name)}
        return replace(host, **own)


@dataclass(frozen=True)
class ReasonerPhase:
    """The first phase of a student: its reasoner alone, on the tokens of the host as it is."""

    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    run: LoopSettings = field(default_factory=LoopSettings)


@dataclass(frozen=True)
class DistillRecipe:
    """Everything that decides a comparison.

    Attributes:
        name: of the recipe. base: name of the one that it shares all but the student with, or "".
        heads: how all contenders are trained. pooling: of the teacher's states.
        reasoner: the student's first phase. student: what it learns.
        pseudo_odometry: recipe of ``latentvla-train pseudo-odometry``, for the contender that
            imitates what its net says of drives without odometry; "" for no such one.
    """

    name: str
    base: str = ""
    heads: HeadSettings = field(default_factory=HeadSettings)
    pooling: PoolingSettings = field(default_factory=PoolingSettings)
    reasoner: ReasonerPhase = field(default_factory=ReasonerPhase)
    student: StudentSettings = field(default_factory=StudentSettings)
    pseudo_odometry: str = ""

    def __post_init__(self) -> None:
        if not self.name or set(self.name) & set("-:/"):
            raise ContractError("name", self.name, "a name of folders and rows, without - : /")
        if self.heads.proposals_only and not self.student.fusion:
            wanted = "heads.proposals_only: false, or nothing of the student reaches the plan"
            raise ContractError("student.fusion", False, wanted)
        if self.pseudo_odometry and self.heads.data.odometry_share == 1.0:
            wanted = "heads.data.odometry_share below 1: nothing is to be guessed"
            raise ContractError("pseudo_odometry", self.pseudo_odometry, wanted)

    @property
    def contenders(self) -> tuple[str, ...]:
        """What is compared, beside students of other recipes."""
        return (*CONTENDERS, PSEUDO) if self.pseudo_odometry else CONTENDERS

    @property
    def family(self) -> str:
        """Recipes of one family share the runs of all contenders but the student."""
        return self.base or self.name


def load_distill_recipe(name_or_path: str) -> DistillRecipe:
    """Read a recipe that comes with the package (by name) or any YAML file (by path).

    Raises:
        ContractError: no such recipe, a base that goes back to itself, or a value that is not
            allowed.
    """
    values, where = _with_base(name_or_path, ())
    return build(DistillRecipe, values, where)


def _with_base(name_or_path: str, above: tuple[str, ...]) -> tuple[Any, str]:
    """Return a recipe's values in the places of its base's, and where it was read.

    ``base`` becomes the name of the recipe whose contenders it shares: none where it changes more
    than the student.
    """
    values, where = read_recipe(name_or_path, RECIPES)
    base = str(values.get("base") or "") if isinstance(values, dict) else ""
    if not base:
        return values, where
    if base in above:
        raise ContractError(f"{where}.base", base, "a recipe that does not go on from this one")
    lower, _ = _with_base(base, (*above, base))
    own = {"heads", "pooling"} & set(values)
    family = "" if own else lower.get("base") or lower["name"]
    return _over(lower, {**values, "base": family}), where


def _over(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``lower`` with the values of ``upper`` in their places."""
    merged = dict(lower)
    for name, value in upper.items():
        below = merged.get(name)
        both = isinstance(below, dict) and isinstance(value, dict)
        merged[name] = _over(below, value) if both else value
    return merged


def of_seed(recipe: DistillRecipe, seed: int) -> DistillRecipe:
    """Return the recipe with another seed of weights, order and augmentation."""
    heads = replace(recipe.heads, run=replace(recipe.heads.run, seed=seed))
    phase = replace(recipe.reasoner, run=replace(recipe.reasoner.run, seed=seed))
    return replace(recipe, heads=heads, reasoner=phase)
