"""Contenders: planners that go on from one host on its frozen trunk, and differ in their states.

All are trained by the same settings, over the same Scenes in the same order, disturbed alike
(experiments.md section 6).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from latentvla_ros.contract import ContractError
from latentvla_ros.model.planner import StudentPlanner
from latentvla_training.data.shards import ShardReader, load_split
from latentvla_training.engine.recipe import DataSettings, LoopSettings, OptimizerSettings
from latentvla_training.latent_action.codes import LatentCodes, load_codes, scenes_identity
from latentvla_training.planner.augmentation import AugmentationSettings
from latentvla_training.planner.cached_encodings import CachedEncodings, ensure_encodings
from latentvla_training.planner.cached_features import CachedFeatures, ensure_features
from latentvla_training.planner.head_training import FreeQueries, NoStates, Source
from latentvla_training.planner.hosts import Host
from latentvla_training.planner.kinematic_codes import NAME as KINEMATIC
from latentvla_training.planner.kinematic_codes import kinematic_codes
from latentvla_training.planner.losses import LossSettings
from latentvla_training.planner.plan_quality import PlanQuality

HOST, FREE = "host", "free_queries"
#: Why no planner is read from a contender's run.
NOT_A_PLANNER = "a contender; distill export makes a bundle of a student"
#: Contenders that know nothing more than the host: by the width of their states.
PLAIN_SOURCES: dict[str, Callable[[int], Source]] = {
    HOST: lambda _: NoStates(),
    FREE: FreeQueries,
}


@dataclass(frozen=True)
class HeadSettings:
    """How the contenders of one comparison are trained.

    Attributes:
        new_factor: of the learning rate of what begins from nothing, fusion and states.
        proposals_only: see ``PlannerOnFeatures``. encodings: how many are cached of each training
            Scene then, disturbed anew each time.
        told_all_proposals: ``loss.all_proposals`` of contenders that are told something; None: as
            the host's. What codes say of the ego's motion holds for every proposal, while a host
            that knows no more keeps proposals that differ.
        data, augmentation, loss, optimizer, run: settings. Colours of cached features cannot
            change, and a host has no auxiliary heads: both must be 0.
    """

    new_factor: float = 10.0
    proposals_only: bool = False
    encodings: int = 3
    told_all_proposals: float | None = None
    data: DataSettings = field(default_factory=DataSettings)
    augmentation: AugmentationSettings = field(
        default_factory=lambda: AugmentationSettings(photometric=0.0)
    )
    loss: LossSettings = field(default_factory=lambda: LossSettings(auxiliary=0.0))
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    run: LoopSettings = field(default_factory=LoopSettings)

    def __post_init__(self) -> None:
        if self.new_factor <= 0.0:
            raise ContractError("new_factor", self.new_factor, "above 0")
        if self.encodings < 1:
            raise ContractError("encodings", self.encodings, "at least 1")
        for name, value, why in (
            ("augmentation.photometric", self.augmentation.photometric, "features are cached"),
            ("loss.auxiliary", self.loss.auxiliary, "a host has no auxiliary heads"),
        ):
            if value != 0.0:
                raise ContractError(name, value, f"0: {why}")

    def of(self, contender: str) -> HeadSettings:
        """Return what a contender is trained by."""
        own = self.told_all_proposals
        loss = self.loss
        if own is not None and contender != HOST:
            loss = replace(loss, all_proposals=own)
        return replace(self, loss=loss, told_all_proposals=None)


@dataclass(frozen=True)
class ContenderRun:
    """What decides the run of a contender; its folder refuses every other.

    Attributes:
        contender: its name. diagnostic: why no planner is read from the run as it is.
        host: identity. scenes: identity of the training Scenes. codebook: "" for who has no codes.
        settings: of the recipe, with the seed.
    """

    contender: str
    diagnostic: str
    host: str
    scenes: str
    codebook: str
    settings: HeadSettings

    @property
    def optimizer(self) -> OptimizerSettings:
        """Of the recipe."""
        return self.settings.optimizer

    @property
    def run(self) -> LoopSettings:
        """Of the recipe."""
        return self.settings.run

    @property
    def augmentation(self) -> AugmentationSettings:
        """Of the recipe."""
        return self.settings.augmentation


@dataclass(frozen=True)
class CodedSplit:
    """Scenes of a split, features of a host's trunk or its encodings, and their codes."""

    reader: ShardReader
    features: CachedFeatures | CachedEncodings
    codes: LatentCodes

    def __post_init__(self) -> None:
        if not np.array_equal(self.codes.tokens, self.reader.columns["token"]):
            raise ContractError(
                "codes.tokens", f"{len(self.codes.tokens)} others", "the tokens of the Scenes"
            )


def open_splits(
    host: Host, settings: HeadSettings, codes: str, names: Sequence[str], progress: bool = True
) -> dict[str, CodedSplit]:
    """Open the splits to train and validate on and those to be scored, with features and codes.

    Where the head alone learns, what the host encodes takes the place of features.

    Args:
        settings: of the contenders.
        codes: folder with ``<split>.safetensors``, or ``kinematic`` for codes made of the future.
        names: of the splits to be scored.

    Raises:
        FileNotFoundError: Scenes or codes are absent.
        ContractError: codes of other Scenes, or of several codebooks; a host of another rig; a host
            or codes that were told more than ``data`` allows.
    """
    data = settings.data
    data.check_told(f"host {host.identity}", host.data)
    if codes == KINEMATIC and data.odometry_share < 1.0:
        wanted = "codes of a codebook: these are the odometry of all drives"
        raise ContractError("--codes", codes, wanted)
    train, val = data.train_split, data.val_split
    readers = {name: load_split(name) for name in dict.fromkeys((train, val, *names))}
    for reader in readers.values():
        host.check_views(reader)
    found = (
        kinematic_codes(readers[train], readers)
        if codes == KINEMATIC
        else _read_codes(Path(codes), readers)
    )
    result = {}
    for name, reader in readers.items():
        own = found[name]
        if name == train:
            own.check_told(data.odometry_share)
            reader = reader.part(data.max_shards, data.labelled_share, data.odometry_share)
            own = own.of_scenes(reader)
        features = features_for_heads(host.planner, reader, name, settings, name == train, progress)
        result[name] = CodedSplit(reader, features, own)
    return result


def features_for_heads(
    planner: StudentPlanner,
    reader: ShardReader,
    name: str,
    settings: HeadSettings,
    disturbed: bool,
    progress: bool = True,
) -> CachedFeatures | CachedEncodings:
    """Return what heads learn from on a split, made where it is absent.

    Args:
        name: of the split. disturbed: as in training, where the head alone learns.
    """
    trunk = ensure_features(planner, reader, name, progress=progress)
    if not settings.proposals_only:
        return trunk
    how = (settings.augmentation, settings.encodings) if disturbed else (None, 1)
    return ensure_encodings(planner, reader, trunk, name, *how, progress=progress)


def _read_codes(folder: Path, readers: Mapping[str, ShardReader]) -> dict[str, LatentCodes]:
    found: dict[str, LatentCodes] = {}
    codebook: str | None = None
    for name, reader in readers.items():
        path = folder / f"{name}.safetensors"
        found[name] = load_codes(path, codebook, scenes_identity(reader))
        codebook = found[name].codebook_id
    return found


def fresh_planner(host: Host, seed: int) -> StudentPlanner:
    """Return a copy of the host's planner to go on from, with torch's random numbers set.

    Raises:
        ContractError: the host's gate is open already: it has states of its own.
    """
    fusion = host.planner.head.fusion
    gate = 0.0 if fusion is None else float(fusion.gate.detach())
    if gate != 0.0:
        raise ContractError("host.gate", gate, "0, a planner without states")
    torch.manual_seed(seed)
    return copy.deepcopy(host.planner)


def opened_gate(planner: StudentPlanner) -> float:
    """Return how far the gate of a planner's fusion is open, -1 to 1; 0 without a fusion."""
    fusion = planner.head.fusion
    return 0.0 if fusion is None else round(float(torch.tanh(fusion.gate.detach())), 6)


def plan_quality(
    settings: HeadSettings, reader: ShardReader, progress: bool = True
) -> PlanQuality | None:
    """Return what tells the PDM scores of training proposals, where the settings ask for them."""
    return None if settings.loss.pdm == 0 else PlanQuality(reader, progress)
