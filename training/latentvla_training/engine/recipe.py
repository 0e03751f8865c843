"""Recipes: one YAML file a recipe, read into frozen dataclasses; an unknown key is an error."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from latentvla_ros.contract import ContractError
from latentvla_ros.model.config import PlannerConfig
from latentvla_training.planner.augmentation import AugmentationSettings
from latentvla_training.planner.losses import LossSettings

Record = TypeVar("Record")


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW with warm-up and a cosine to ``final_fraction`` of the rate, once or in cycles.

    Attributes:
        learning_rate, weight_decay: of AdamW. clip: largest gradient norm.
        warmup_steps: of linear warm-up. final_fraction: of the rate at the end.
        cycles: equal parts of the run, each with its own warm-up and cosine (a part that ends is a
            usable planner). cycle_factor: of the rate from one cycle to the next.
        ema_decay: of the averaged weights that are validated and exported.
    """

    learning_rate: float = 3e-4
    weight_decay: float = 0.01
    clip: float = 5.0
    warmup_steps: int = 100
    final_fraction: float = 0.02
    cycles: int = 1
    cycle_factor: float = 0.6
    ema_decay: float = 0.998

    def __post_init__(self) -> None:
        for name in ("learning_rate", "clip"):
            if getattr(self, name) <= 0:
                raise ContractError(f"optimizer.{name}", getattr(self, name), "above 0")
        for name in ("final_fraction", "ema_decay"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ContractError(f"optimizer.{name}", getattr(self, name), "0 to below 1")
        if self.cycles < 1 or not 0.0 < self.cycle_factor <= 1.0:
            raise ContractError(
                "optimizer.cycles",
                (self.cycles, self.cycle_factor),
                "cycles >= 1, a factor in (0, 1]",
            )
        if self.warmup_steps < 0 or self.weight_decay < 0:
            raise ContractError("optimizer.warmup_steps", self.warmup_steps, "at least 0")


@dataclass(frozen=True)
class LoopSettings:
    """Length and housekeeping of a run of ``engine.loop``.

    Attributes:
        passes: samples shown to the network in all. batch_size: samples a step, over all processes.
        workers: processes that decode and augment. threads: of torch on a CPU; 0: its default.
        mixed_precision: ``bf16`` or ``no``.
        checkpoint_minutes: wall time between checkpoints. log_steps: between TensorBoard entries.
        validate_passes: samples between validations. validate_scenes: at most so many.
        seed: of weights, order and augmentation.
    """

    passes: int = 60_000
    batch_size: int = 32
    workers: int = 1
    threads: int = 0
    mixed_precision: str = "bf16"
    checkpoint_minutes: float = 5.0
    log_steps: int = 20
    validate_passes: int = 10_000
    validate_scenes: int = 400
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("passes", "batch_size", "log_steps", "validate_passes", "validate_scenes"):
            if getattr(self, name) < 1:
                raise ContractError(f"run.{name}", getattr(self, name), "at least 1")
        for name in ("workers", "threads", "checkpoint_minutes", "seed"):
            if getattr(self, name) < 0:
                raise ContractError(f"run.{name}", getattr(self, name), "at least 0")
        if self.mixed_precision not in ("bf16", "no"):
            raise ContractError("run.mixed_precision", self.mixed_precision, "bf16 or no")

    @property
    def steps(self) -> int:
        """Optimiser steps of the run."""
        return max(1, self.passes // self.batch_size)


@dataclass(frozen=True)
class RunSettings(LoopSettings):
    """Length and housekeeping of a planner's run.

    Attributes:
        prior_steps: of 256 scenes that the ego prior is trained for before all else (no images).
        hide_odometry: probability that an example shows nothing that odometry says, nor the
            command, as drives without look to whoever reads their pictures.
        labelled_repeats: how often an epoch shows a Scene with labels of maps and road users, where
            ``data.labelled_share`` leaves others without.
    """

    prior_steps: int = 3000
    labelled_repeats: int = 1
    hide_odometry: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.hide_odometry < 1.0:
            raise ContractError("run.hide_odometry", self.hide_odometry, "0 to below 1")
        for name in ("prior_steps", "labelled_repeats"):
            if getattr(self, name) < 1:
                raise ContractError(f"run.{name}", getattr(self, name), "at least 1")


#: Metadata of a field that a run fills in: where either of two leaves it empty, it is not compared.
NOTED = {"noted": True}

#: Settings of ``DataSettings`` that say of how many drives something may be read.
SHARES = ("labelled_share", "odometry_share")


@dataclass(frozen=True)
class DataSettings:
    """Splits to train and validate on.

    Attributes:
        train_split, val_split: names. max_shards: at most so many of the first; 0: all. Where not
            all have odometry, those that do are among them besides.
        labelled_share: of those shards whose maps, road users and lights may be read; of the others
            there are pictures and odometry (``scarce_maps`` of experiments.md section 6).
        odometry_share: of those shards whose odometry may be read, labels included; of the others
            there are pictures alone (``scarce_odometry``).
    """

    train_split: str = "train"
    val_split: str = "val"
    max_shards: int = 0
    labelled_share: float = 1.0
    odometry_share: float = 1.0

    def __post_init__(self) -> None:
        if self.max_shards < 0:
            raise ContractError("data.max_shards", self.max_shards, "at least 0")
        for name in SHARES:
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ContractError(f"data.{name}", getattr(self, name), "above 0, at most 1")

    def check_told(self, what: str, other: DataSettings) -> None:
        """Check that what is built upon was told no more than may be read here.

        Args:
            what: and who. other: its settings.

        Raises:
            ContractError: it knows labels or odometry of more drives; names both shares.
        """
        for name in SHARES:
            found, allowed = getattr(other, name), getattr(self, name)
            if found > allowed:
                raise ContractError(f"{name} of {what}", found, f"at most {allowed}, as here")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run.

    Attributes:
        name: of the recipe, and of the run unless another is given.
        start_from: name of a run whose averaged weights this one begins with; "" for none.
        trunk_from: name of a run of ``pretrain-trunk`` whose image trunk it begins with; "": none.
        blank_images: train on images that are all zero (the baseline that cannot see).
        model, data, augmentation, loss, optimizer, run: settings.
    """

    name: str
    start_from: str = ""
    trunk_from: str = ""
    blank_images: bool = False
    model: PlannerConfig = field(default_factory=PlannerConfig)
    data: DataSettings = field(default_factory=DataSettings)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    run: RunSettings = field(default_factory=RunSettings)

    def __post_init__(self) -> None:
        if self.trunk_from and (self.start_from or self.blank_images):
            wanted = '"" with start_from or blank images, which leave no trunk to begin with'
            raise ContractError("trunk_from", self.trunk_from, wanted)


def build(record: type[Record], values: Any, where: str) -> Record:
    """Build a dataclass from a mapping; nested dataclasses from nested mappings.

    Raises:
        ContractError: an unknown key, a missing one, a value of the wrong type or not allowed.
    """
    if not isinstance(values, dict):
        raise ContractError(where, values, "a mapping")
    hints = get_type_hints(record)
    known = {entry.name for entry in fields(record)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise ContractError(where, unknown, f"only the keys {sorted(known)}")
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        hint, place = hints[name], f"{where}.{name}"
        if is_dataclass(hint):
            arguments[name] = build(hint, value, place)  # type: ignore[arg-type]
            continue
        if hint is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if hint in (int, float, str, bool) and type(value) is not hint:
            raise ContractError(place, value, f"a value of type {hint.__name__}")
        if get_origin(hint) is tuple:
            value = _numbers(value, get_args(hint), place)
        arguments[name] = value
    try:
        return record(**arguments)
    except TypeError as error:
        raise ContractError(where, sorted(values), str(error)) from error


def _numbers(values: Any, types: tuple[Any, ...], place: str) -> tuple[float, ...]:
    """Check a list against the arguments of ``tuple[...]``; whole numbers do for floats."""
    kind = types[0]
    wanted = f"a list of {'any number of' if types[-1] is ... else len(types)} {kind.__name__}s"
    if not isinstance(values, list) or (types[-1] is not ... and len(values) != len(types)):
        raise ContractError(place, values, wanted)
    allowed = (int, float) if kind is float else (kind,)
    if not all(type(value) in allowed for value in values):
        raise ContractError(place, values, wanted)
    return tuple(kind(value) for value in values)


def different_settings(there: Any, here: Any) -> list[str]:
    """Return what differs between two recipes of one kind: dotted name and both values."""
    return [
        f"{name}: {old!r} there, {new!r} here"
        for (name, old, noted), (_, new, _) in zip(_settings(there), _settings(here), strict=True)
        if old != new and not (noted and "" in (old, new))
    ]


def _settings(record: Any, prefix: str = "") -> list[tuple[str, Any, bool]]:
    """Return (dotted name, value, whether it is ``NOTED``) of every setting of a recipe."""
    found: list[tuple[str, Any, bool]] = []
    for entry in fields(record):
        value, name = getattr(record, entry.name), f"{prefix}{entry.name}"
        if is_dataclass(value):
            found += _settings(value, f"{name}.")
        else:
            found.append((name, value, bool(entry.metadata.get("noted"))))
    return found


def load_recipe(name_or_path: str) -> Recipe:
    """Read a planner's recipe; see ``load_record``."""
    return load_record(Recipe, name_or_path)


def load_record(record: type[Record], name_or_path: str, kind: str = "") -> Record:
    """Read a recipe that comes with the package (by name) or any YAML file (by path).

    Args:
        record: the dataclass that it describes. kind: sub-folder of ``recipes`` with those by name.

    Raises:
        ContractError: no such recipe, or one of its values is not allowed.
    """
    return build(record, *read_recipe(name_or_path, kind))


def read_recipe(name_or_path: str, kind: str = "") -> tuple[Any, str]:
    """Return the values of a recipe, not checked yet, and its name; see ``load_record``.

    Raises:
        ContractError: no such recipe, or no YAML.
    """
    folder = Path(__file__).parent.parent / "recipes" / kind
    path = folder / f"{name_or_path}.yaml"
    if not path.is_file():
        path = Path(name_or_path)
    if not path.is_file():
        shipped = sorted(entry.stem for entry in folder.glob("*.yaml"))
        raise ContractError("recipe", name_or_path, f"a YAML file or one of {shipped}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ContractError(f"recipe {path}", str(error), "valid YAML") from error
    return values, path.stem
