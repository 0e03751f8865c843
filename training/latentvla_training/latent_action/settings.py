"""Settings of a codebook: what its frames, networks, losses and stages are; one YAML file a recipe.

Sources: method.md 3.1 and 3.2 A, B (LatentVLA, UniVLA, DynVLA); choices of ours are said to be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from latentvla_ros.contract import ContractError
from latentvla_training.engine.recipe import (
    LoopSettings,
    OptimizerSettings,
    build,
    read_recipe,
)
from latentvla_training.latent_action.codes import (
    CODES_PER_TRANSITION,
    TRANSITIONS_S,
    Vocabulary,
)

#: Where recipes of codebooks lie below ``recipes``.
RECIPES = "codebook"

OWN, DINOV2, PIXELS = "own", "dinov2", "pixels"
#: Stage 0, which trains our own frame encoder.
FRAMES = "frames"


@dataclass(frozen=True)
class FrameSettings:
    """Front frames and the spatial features that stand for them: the target of every stage.

    Attributes:
        encoder: ``own`` (trained here on unlabelled frames), ``dinov2`` (frozen), ``pixels``.
        pretrained: with ``dinov2``: name on the hub, or a folder.
        source_width, source_height: of the Scenes' front frames, pixels; others are refused.
        width, height: that the encoder sees, pixels.
        channels, stem: of the own encoder: of its features, of its three strided stages.
        pool: with ``pixels``: side of a patch. Features of others have the encoder's own stride.
    """

    encoder: str = OWN
    pretrained: str = ""
    source_width: int = 256
    source_height: int = 128
    width: int = 128
    height: int = 64
    channels: int = 32
    stem: tuple[int, int, int] = (32, 64, 96)
    pool: int = 8

    def __post_init__(self) -> None:
        if self.encoder not in (OWN, DINOV2, PIXELS):
            raise ContractError("frames.encoder", self.encoder, f"{OWN}, {DINOV2} or {PIXELS}")
        if (self.encoder == DINOV2) != bool(self.pretrained):
            raise ContractError(
                "frames.pretrained", self.pretrained, f"a name or folder, with {DINOV2} only"
            )
        for name in ("source_width", "source_height", "channels", "pool"):
            if getattr(self, name) < 1:
                raise ContractError(f"frames.{name}", getattr(self, name), "at least 1")
        stride = {OWN: 8, PIXELS: self.pool}.get(self.encoder, 14)
        for name in ("width", "height"):
            if getattr(self, name) < stride or getattr(self, name) % stride:
                raise ContractError(
                    f"frames.{name}", getattr(self, name), f"a multiple of the stride {stride}"
                )


@dataclass(frozen=True)
class DynamicsSettings:
    """Networks of both stages and the transitions that they are about.

    Attributes:
        width, heads: of every transformer. encoder_layers, decoder_layers: blocks.
        feed: width of their feed-forward nets, in widths.
        patch: features of so many by so many places are one token (ours; 1: every place is one).
        codebook_size, code_width: entries and their numbers. codes: of one transition.
        times_s: where transitions begin and end; each pair of neighbours is one.
        odometry: the encoders of stages that are not told the trajectory read the ego state at
            either frame beside its picture (speed, yaw rate, ...; never a pose or the command), and
            the regulariser asks for motion beyond what the state at the earlier frame foretells.
            Ours: over a second that is half a metre, less than pictures of nano's size show.
        unexplained_change: the encoder of stage 1 also reads where the picture changes in ways that
            the driven motion does not explain (``unexplained_change``). Ours: to features of a
            place a road user is a small part of what changes.
    """

    width: int = 128
    heads: int = 4
    encoder_layers: int = 3
    decoder_layers: int = 3
    feed: int = 4
    patch: int = 2
    codebook_size: int = 16
    code_width: int = 32
    codes: int = 4
    times_s: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0)
    odometry: bool = False
    unexplained_change: bool = False

    def __post_init__(self) -> None:
        counts = (
            "width",
            "heads",
            "encoder_layers",
            "decoder_layers",
            "feed",
            "patch",
            "code_width",
        )
        for name in counts:
            if getattr(self, name) < 1:
                raise ContractError(f"model.{name}", getattr(self, name), "at least 1")
        if self.width % self.heads:
            raise ContractError("model.width", self.width, f"a multiple of heads ({self.heads})")
        if not 2 <= self.codebook_size <= 127 or self.codes < 1:
            found = (self.codebook_size, self.codes)
            raise ContractError("model.codebook_size", found, "2 to 127 entries, 1 code or more")
        steps = [later - earlier for earlier, later in self.transitions]
        if not steps or min(steps) <= 0 or self.times_s[0] != 0:
            raise ContractError("model.times_s", self.times_s, "0 first, then rising")

    @property
    def transitions(self) -> tuple[tuple[float, float], ...]:
        """Seconds after t0 of the earlier and later frame of each transition."""
        return tuple(zip(self.times_s[:-1], self.times_s[1:], strict=True))

    @property
    def intervals_s(self) -> tuple[float, ...]:
        """The different lengths of transitions, rising; each has an embedding."""
        return tuple(sorted({later - earlier for earlier, later in self.transitions}))

    def vocabulary(self) -> Vocabulary:
        """Return which codes there are.

        Raises:
            ContractError: more or fewer a Scene than ``LatentCodes`` and later work are made for.
        """
        found = (len(self.transitions), self.codes)
        wanted = (len(TRANSITIONS_S), CODES_PER_TRANSITION)
        if found != wanted:
            raise ContractError("codebook (transitions, codes of each)", found, str(wanted))
        return Vocabulary(self.codebook_size, self.times_s)


@dataclass(frozen=True)
class DynamicsLoss:
    """Weights of the losses of a stage.

    Attributes:
        commitment: of the encoder to its code (0.25: UniVLA).
        change: share of a place's weight that grows with how much it changes between the frames;
            the rest is equal for all (experiments.md section 5).
        largest_change: most that a place counts, in mean changes of its batch.
        decorrelation: of the codes' vectors, so that no position repeats another (ours).
        ego_motion: of the regulariser that reads the ego motion off the codes of stage 2 (DynVLA).
        unexplained_change: of the regulariser that reads off the codes of stage 1 what its encoder
            reads of unexplained change (ours).
        dead_share: an entry used less than this share of equal use is revived.
        revive_until: share of the run after which none is revived, so that the end can settle.
    """

    commitment: float = 0.25
    change: float = 0.8
    largest_change: float = 4.0
    decorrelation: float = 0.04
    ego_motion: float = 0.0
    unexplained_change: float = 0.0
    dead_share: float = 0.2
    revive_until: float = 0.7

    def __post_init__(self) -> None:
        for name in ("commitment", "decorrelation", "ego_motion", "unexplained_change"):
            if getattr(self, name) < 0:
                raise ContractError(f"loss.{name}", getattr(self, name), "at least 0")
        for name in ("change", "dead_share", "revive_until"):
            if not 0 <= getattr(self, name) <= 1:
                raise ContractError(f"loss.{name}", getattr(self, name), "0 to 1")
        if not self.largest_change >= 1 or not math.isfinite(self.largest_change):
            raise ContractError("loss.largest_change", self.largest_change, "at least 1")


@dataclass(frozen=True)
class CodebookData:
    """Where unlabelled driving comes from: pictures and odometry, nothing else.

    Attributes:
        train_split, val_split: splits of the built-in world.
        recordings: folders of shards (``latentvla-train bag import``) to train on as well.
        max_shards: at most so many of the training split's shards; 0: all.
        odometry_share: of those shards (see ``data.hidden.spread``) come with odometry; of the
            others pictures alone are read.
    """

    train_split: str = "train"
    val_split: str = "val"
    recordings: tuple[str, ...] = ()
    max_shards: int = 0
    odometry_share: float = 1.0

    def __post_init__(self) -> None:
        if self.max_shards < 0:
            raise ContractError("data.max_shards", self.max_shards, "at least 0")
        if not 0.0 < self.odometry_share <= 1.0:
            raise ContractError("data.odometry_share", self.odometry_share, "above 0, at most 1")


@dataclass(frozen=True)
class StageSettings:
    """Optimiser and length of one stage. The seed is that of the recipe."""

    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    run: LoopSettings = field(default_factory=LoopSettings)


@dataclass(frozen=True)
class CodebookRecipe:
    """Everything that decides a codebook.

    Attributes:
        name: of the recipe. seed: of all its stages.
        data, frames, model, loss: settings.
        pretraining: of the own frame encoder (stage 0; nothing is trained with another encoder).
        environment, ego: stages 1 and 2; the controls train as long as stage 2.
        pictures: of the reader that stands in for stage 1 where there is no odometry; nothing is
            trained of it where all drives have some.
    """

    name: str
    seed: int = 0
    data: CodebookData = field(default_factory=CodebookData)
    frames: FrameSettings = field(default_factory=FrameSettings)
    model: DynamicsSettings = field(default_factory=DynamicsSettings)
    loss: DynamicsLoss = field(default_factory=DynamicsLoss)
    pretraining: StageSettings = field(default_factory=StageSettings)
    environment: StageSettings = field(default_factory=StageSettings)
    ego: StageSettings = field(default_factory=StageSettings)
    pictures: StageSettings = field(default_factory=StageSettings)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ContractError("seed", self.seed, "at least 0")
        weight = self.loss.unexplained_change
        if weight and not self.model.unexplained_change:
            raise ContractError("loss.unexplained_change", weight, "model.unexplained_change: true")
        if self.pictures_alone and self.model.odometry:
            expected = "false where data.odometry_share is below 1"
            raise ContractError("model.odometry", self.model.odometry, expected)

    @property
    def pictures_alone(self) -> bool:
        """Whether codes are read off pictures alone, because not all drives have odometry."""
        return self.data.odometry_share < 1.0

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages that are trained, in their order; controls are not among them."""
        own = (FRAMES,) if self.frames.encoder == OWN else ()
        return (*own, "environment", *(("pictures",) if self.pictures_alone else ()), "ego")

    def dynamics(self, stage: str) -> tuple[DynamicsSettings, DynamicsLoss]:
        """Return networks and losses of a stage; stage 1 is the same whatever decides stage 2."""
        if stage != "environment":
            return (
                replace(self.model, unexplained_change=False),
                replace(self.loss, unexplained_change=0.0),
            )
        return replace(self.model, odometry=False), replace(self.loss, ego_motion=0.0)

    def stage(self, name: str) -> StageSettings:
        """Return the settings of a stage (controls: those of stage 2) with the recipe's seed."""
        stages = {
            FRAMES: self.pretraining,
            "environment": self.environment,
            "pictures": self.pictures,
        }
        found = stages.get(name, self.ego)
        return replace(found, run=replace(found.run, seed=self.seed))


def load_codebook_recipe(name_or_path: str) -> CodebookRecipe:
    """Read a recipe that ships (by name) or any YAML file (by path).

    Raises:
        ContractError: no such recipe, an unknown key, a value that is not allowed, or loader
            workers for a stage that is trained: none has a loader.
    """
    values, where = read_recipe(name_or_path, RECIPES)
    recipe = build(CodebookRecipe, values, where)
    for stage in recipe.stages:
        key = "pretraining" if stage == FRAMES else stage
        workers = values.get(key, {}).get("run", {}).get("workers", 0)
        if workers:
            expected = "0: pairs come from features that are kept, there is no loader"
            raise ContractError(f"{where}.{key}.run.workers", workers, expected)
    return recipe
