"""Settings of a teacher: model, pictures, stages, cache; one YAML file a recipe.

Sources: method.md 3.2 C (16 special tokens, cross-entropy on the 12 ego codes, LoRA r = 8 and
alpha = 16 as the low-memory option). Sizes of ``tiny`` and all about pictures are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from latentvla_ros.contract import ContractError
from latentvla_training.engine.recipe import (
    NOTED,
    DataSettings,
    LoopSettings,
    OptimizerSettings,
    load_record,
)
from latentvla_training.planner.augmentation import AugmentationSettings

#: Where recipes of teachers lie below ``recipes``.
RECIPES = "teacher"

#: Instead of a name on the hub or a folder: the same class, small, made here.
TINY = "tiny"


@dataclass(frozen=True)
class ModelSettings:
    """Which Qwen2.5-VL, and how much of it is trained.

    Attributes:
        source: name on the hub, a local folder, or ``tiny``.
        revision: of the hub's repository; "" for the newest.
        lora_rank: of the adapters in every attention and feed-forward matrix of the language model;
            0 trains all weights. lora_alpha: their scale is alpha / rank.
        freeze_vision: leave the vision tower as it is (with LoRA it always is).
        gradient_checkpointing: recompute activations in the backward pass.
        new_factor: of the learning rate of the ego encoder, which no checkpoint brings.
        vision_width, vision_layers, width, layers, head_width: of ``tiny``, not read otherwise.
    """

    source: str = TINY
    revision: str = ""
    lora_rank: int = 0
    lora_alpha: int = 16
    freeze_vision: bool = False
    gradient_checkpointing: bool = False
    new_factor: float = 1.0
    vision_width: int = 256
    vision_layers: int = 4
    width: int = 320
    layers: int = 6
    head_width: int = 64

    def __post_init__(self) -> None:
        if not self.source:
            raise ContractError("model.source", self.source, f"a hub name, a folder or {TINY}")
        for name in ("lora_alpha", "vision_layers", "layers"):
            if getattr(self, name) < 1:
                raise ContractError(f"model.{name}", getattr(self, name), "at least 1")
        if self.lora_rank < 0:
            raise ContractError("model.lora_rank", self.lora_rank, "at least 0")
        if self.new_factor <= 0:
            raise ContractError("model.new_factor", self.new_factor, "above 0")
        if self.head_width < 8 or self.head_width % 8:
            raise ContractError("model.head_width", self.head_width, "a multiple of 8")
        for name in ("vision_width", "width"):
            if getattr(self, name) < 1 or getattr(self, name) % self.head_width:
                raise ContractError(
                    f"model.{name}", getattr(self, name), f"a multiple of {self.head_width}"
                )


@dataclass(frozen=True)
class PictureSettings:
    """What the Scenes hold, and at which size the teacher sees it.

    The processor's own rule applies: sides become multiples of 28 pixels and the area stays within
    (least, most) pixels.

    Attributes:
        width, height: of the Scenes' views, pixels; others are refused.
        front_pixels, side_pixels: (least, most) area of the front clip and of the other views.
    """

    width: int = 256
    height: int = 128
    front_pixels: tuple[int, int] = (3136, 39200)
    side_pixels: tuple[int, int] = (3136, 15000)

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            if getattr(self, name) < 1:
                raise ContractError(f"pictures.{name}", getattr(self, name), "at least 1")
        for name in ("front_pixels", "side_pixels"):
            least, most = getattr(self, name)
            if not 784 <= least <= most:
                raise ContractError(f"pictures.{name}", (least, most), "784 <= least <= most")


@dataclass(frozen=True)
class VisionSettings:
    """Pre-training of the vision tower on unlabelled frames: hidden patches are to be painted.

    Attributes:
        enabled: whether there is such a stage; a tower that comes pre-trained needs none.
        hidden_share: of the places, each 28 x 28 pixels of all frames of a clip (SimMIM, Xie et al.
            2022: 0.6 with squares of 32).
        optimizer, run: of the stage.
    """

    enabled: bool = True
    hidden_share: float = 0.6
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    run: LoopSettings = field(default_factory=LoopSettings)

    def __post_init__(self) -> None:
        if not 0.0 < self.hidden_share < 1.0:
            raise ContractError("vision.hidden_share", self.hidden_share, "above 0, below 1")


@dataclass(frozen=True)
class CacheSettings:
    """What is kept of the teacher's states.

    Attributes:
        visual_grid: rows and columns to which each picture's last hidden states are averaged.
        prefixes: sampled prefixes that a marginal is averaged over (experiments.md section 4).
        batch_size: Scenes at once. seed: of the samples.
    """

    visual_grid: tuple[int, int] = (2, 4)
    prefixes: int = 8
    batch_size: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.visual_grid) < 1:
            raise ContractError("cache.visual_grid", self.visual_grid, "at least 1 x 1")
        for name in ("prefixes", "batch_size"):
            if getattr(self, name) < 1:
                raise ContractError(f"cache.{name}", getattr(self, name), "at least 1")
        if self.seed < 0:
            raise ContractError("cache.seed", self.seed, "at least 0")


@dataclass(frozen=True)
class BaselineSettings:
    """Training of the nets of ego state and command that the teacher must beat.

    Attributes:
        width, layers: of the nets. steps, batch_size, learning_rate: of AdamW with a cosine.
        drop_ego_state: candidates for the probability of hiding past, acceleration and wheel angle;
            the best on the validation split is kept.
    """

    width: int = 256
    layers: int = 3
    steps: int = 4000
    batch_size: int = 256
    learning_rate: float = 2e-3
    drop_ego_state: tuple[float, ...] = (0.0, 0.5)

    def __post_init__(self) -> None:
        for name in ("width", "layers", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ContractError(f"baseline.{name}", getattr(self, name), "at least 1")
        if self.learning_rate <= 0:
            raise ContractError("baseline.learning_rate", self.learning_rate, "above 0")
        if not self.drop_ego_state or not all(0 <= p <= 1 for p in self.drop_ego_state):
            raise ContractError("baseline.drop_ego_state", self.drop_ego_state, "values in 0 to 1")


@dataclass(frozen=True)
class TeacherRecipe:
    """Everything that decides a teacher.

    Attributes:
        name: of the recipe, and of the run unless another is given.
        codebook, scenes: identities of the codebook and of the Scenes whose codes are learned;
            empty in a recipe that takes any. A run notes them, and goes on with no others.
        blank_images: train on pictures that are all black (the control that cannot see).
        start_from: name of a run beside it whose averaged weights this one goes on from, or of a
            released teacher, instead of a vision stage and an ego encoder; "" for none.
        ego_steps: of a net of ego state and command (``baselines.EgoCodesNet``) whose ego encoder
            the teacher starts from, so that what it has to learn is what pictures tell; 0 for none.
        model, pictures, data, augmentation, vision, cache, baseline: settings.
        optimizer, run: of the training on codes.
    """

    name: str
    codebook: str = ""
    scenes: str = ""
    blank_images: bool = False
    start_from: str = ""
    ego_steps: int = 0
    model: ModelSettings = field(default_factory=ModelSettings)
    pictures: PictureSettings = field(default_factory=PictureSettings)
    data: DataSettings = field(default_factory=DataSettings)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    vision: VisionSettings = field(default_factory=VisionSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    run: LoopSettings = field(default_factory=LoopSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    baseline: BaselineSettings = field(default_factory=BaselineSettings)

    def __post_init__(self) -> None:
        if self.ego_steps < 0:
            raise ContractError("ego_steps", self.ego_steps, "at least 0")
        if self.start_from and (self.vision.enabled or self.ego_steps):
            wanted = "vision.enabled: false and ego_steps: 0, or the weights would be lost"
            raise ContractError("start_from", self.start_from, wanted)
        if self.model.lora_rank and self.vision.enabled:
            raise ContractError(
                "vision.enabled", True, "false with model.lora_rank: adapters need a trained tower"
            )
        if self.model.source != TINY and self.vision.enabled:
            wanted = (
                f"false with model.source {self.model.source}, whose tower comes pre-trained: take "
                "the recipe base or base_lora, or one of your own that says so"
            )
            raise ContractError("vision.enabled", True, wanted)


@dataclass(frozen=True)
class VisionRecipe:
    """Everything that decides the pre-training of a vision tower; its run folder holds it.

    Attributes:
        scenes: identity of the Scenes whose pictures are learned, noted by the run; older runs have
            none.
    """

    name: str
    model: ModelSettings
    pictures: PictureSettings
    data: DataSettings
    hidden_share: float
    optimizer: OptimizerSettings
    run: LoopSettings
    scenes: str = field(default="", metadata=NOTED)


def vision_recipe(recipe: TeacherRecipe) -> VisionRecipe:
    """Return the recipe of the vision stage; it does not hang on the seed of the teacher.

    Its Scenes are those of the teacher, once they are known.
    """
    vision = recipe.vision
    return VisionRecipe(
        f"{recipe.name}_vision",
        recipe.model,
        recipe.pictures,
        recipe.data,
        vision.hidden_share,
        vision.optimizer,
        vision.run,
        recipe.scenes,
    )


def load_teacher_recipe(name_or_path: str) -> TeacherRecipe:
    """Read a recipe that ships (by name) or any YAML file (by path).

    Raises:
        ContractError: no such recipe, an unknown key, or a value that is not allowed.
    """
    return load_record(TeacherRecipe, name_or_path, RECIPES)
