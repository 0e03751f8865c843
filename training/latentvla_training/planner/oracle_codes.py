"""The gate before any teacher: do the true codes, fused into a trained planner, improve its score?

If a planner that is *told* the twelve ego codes of what was driven does not score better, then no
teacher that predicts them can help it, and the codebook is not finished (experiments.md section 5).
Four contenders go on from one host on cached features of its frozen trunk, over the same Scenes in
the same order, disturbed alike: the host itself, the host fused with free queries, with the codes
of other Scenes, and with the true codes. The last knows the future: a diagnostic, never a
contender, and no bundle is ever made of its run.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from latentvla_ros.contract import ContractError
from latentvla_training.data.shards import ShardReader, load_split
from latentvla_training.engine.loop import run_training
from latentvla_training.engine.recipe import DataSettings, LoopSettings, OptimizerSettings
from latentvla_training.latent_action.codes import LatentCodes, load_codes, scenes_identity
from latentvla_training.planner.augmentation import AugmentationSettings
from latentvla_training.planner.cached_features import CachedFeatures, ensure_features
from latentvla_training.planner.head_training import (
    CodeStates,
    FeatureSplit,
    FreeQueries,
    HeadTask,
    NoStates,
    PlannerOnFeatures,
    Source,
)
from latentvla_training.planner.hosts import Host
from latentvla_training.planner.kinematic_codes import NAME as KINEMATIC
from latentvla_training.planner.kinematic_codes import kinematic_codes
from latentvla_training.planner.losses import LossSettings
from latentvla_training.planner.plan_quality import PlanQuality

HOST, FREE, SHUFFLED, ORACLE = "host", "free_queries", "shuffled_codes", "oracle_codes"
#: Whom the oracle must beat, and all of them.
CONTROLS = (HOST, FREE, SHUFFLED)
CONTENDERS = (*CONTROLS, ORACLE)
_SOURCES: dict[str, Callable[[int], Source]] = {
    HOST: lambda _: NoStates(),
    FREE: FreeQueries,
    SHUFFLED: CodeStates,
    ORACLE: CodeStates,
}


@dataclass(frozen=True)
class OracleRecipe:
    """How the contenders are trained.

    Attributes:
        name: of the recipe.
        new_factor: of the learning rate of what begins from nothing, fusion and states.
        gate_factor, proposals_only: see ``PlannerOnFeatures``.
        data, augmentation, loss, optimizer, run: settings. Colours of cached features cannot
            change, and a host has no auxiliary heads: both must be 0.
    """

    name: str
    new_factor: float = 10.0
    gate_factor: float = 100.0
    proposals_only: bool = False
    data: DataSettings = field(default_factory=DataSettings)
    augmentation: AugmentationSettings = field(
        default_factory=lambda: AugmentationSettings(photometric=0.0)
    )
    loss: LossSettings = field(default_factory=lambda: LossSettings(auxiliary=0.0))
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    run: LoopSettings = field(default_factory=LoopSettings)

    def __post_init__(self) -> None:
        for name, value in (("new_factor", self.new_factor), ("gate_factor", self.gate_factor)):
            if value <= 0.0:
                raise ContractError(name, value, "above 0")
        for name, value, why in (
            ("augmentation.photometric", self.augmentation.photometric, "features are cached"),
            ("loss.auxiliary", self.loss.auxiliary, "a host has no auxiliary heads"),
        ):
            if value != 0.0:
                raise ContractError(name, value, f"0: {why}")


@dataclass(frozen=True)
class ContenderRecipe:
    """What decides the run of one contender; its folder refuses every other.

    Attributes:
        contender: one of ``CONTENDERS``. diagnostic: why no bundle is made of the run.
        host: identity. scenes: identity of the training Scenes. codebook: "" for who has no codes.
        settings: of the recipe, with the seed.
    """

    contender: str
    diagnostic: str
    host: str
    scenes: str
    codebook: str
    settings: OracleRecipe

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
    """Scenes of a split, the features of a host's trunk, and their codes."""

    reader: ShardReader
    features: CachedFeatures
    codes: LatentCodes

    def __post_init__(self) -> None:
        if not np.array_equal(self.codes.tokens, self.reader.columns["token"]):
            raise ContractError(
                "codes.tokens", f"{len(self.codes.tokens)} others", "the tokens of the Scenes"
            )

    def told(self, contender: str, seed: int) -> FeatureSplit:
        """Return what a contender gets: codes of its own Scenes, of others', or none."""
        extras: dict[str, NDArray[np.int8]] = {}
        if contender in (SHUFFLED, ORACLE):
            order = np.arange(len(self.reader))
            if contender == SHUFFLED:
                networks = self.reader.columns["network"]
                order = scenes_elsewhere(networks, self.codes.mask, seed)
            extras["codes"] = self.codes.sequence[order]
        return FeatureSplit(self.reader, self.features, extras)


def scenes_elsewhere(
    networks: NDArray[np.str_], known: NDArray[np.bool_], seed: int
) -> NDArray[np.int64]:
    """Return for every Scene another one, each taken once, of another network where that can be.

    Scenes are exchanged among those whose codes are known of the same transitions (``known``
    (N, 3)): that a code is missing says that a recording ends, which is no news of the codes. The
    network is another one where none has more than half of the Scenes that are exchanged.
    """
    shuffled = np.random.default_rng(seed).permutation(len(networks))
    kind = known @ (1 << np.arange(known.shape[1]))
    other = np.empty(len(networks), np.int64)
    for value in np.unique(kind):
        members = shuffled[kind[shuffled] == value]
        members = members[np.argsort(networks[members], kind="stable")]
        largest = int(np.unique(networks[members], return_counts=True)[1].max())
        other[members] = np.roll(members, largest)
    return other


def open_splits(
    host: Host, recipe: OracleRecipe, codes: str, names: tuple[str, ...], progress: bool = True
) -> dict[str, CodedSplit]:
    """Open the recipe's splits and those to be scored, with features and codes.

    Args:
        codes: folder with ``<split>.safetensors``, or ``kinematic`` for codes made of the future.
        names: of the splits to be scored.

    Raises:
        FileNotFoundError: Scenes or codes are absent.
        ContractError: codes of other Scenes, or of several codebooks.
    """
    train, val = recipe.data.train_split, recipe.data.val_split
    readers = {name: load_split(name) for name in dict.fromkeys((train, val, *names))}
    found = (
        kinematic_codes(readers[train], readers)
        if codes == KINEMATIC
        else _read_codes(Path(codes), readers)
    )
    result = {}
    for name, reader in readers.items():
        own = found[name]
        if name == train and recipe.data.max_shards:
            reader = ShardReader(reader.paths[: recipe.data.max_shards])
            count = len(reader)
            own = replace(
                own,
                tokens=own.tokens[:count],
                environment=own.environment[:count],
                ego=own.ego[:count],
            )
        features = ensure_features(host.planner, reader, name, progress=progress)
        result[name] = CodedSplit(reader, features, own)
    return result


def _read_codes(folder: Path, readers: Mapping[str, ShardReader]) -> dict[str, LatentCodes]:
    found: dict[str, LatentCodes] = {}
    codebook: str | None = None
    for name, reader in readers.items():
        path = folder / f"{name}.safetensors"
        found[name] = load_codes(path, codebook, scenes_identity(reader))
        codebook = found[name].codebook_id
    return found


def train_contender(
    contender: str,
    host: Host,
    recipe: OracleRecipe,
    splits: Mapping[str, CodedSplit],
    folder: Path,
    quality: PlanQuality | None = None,
    stop_after_steps: int | None = None,
    progress: bool = True,
) -> PlannerOnFeatures:
    """Train a contender below ``folder`` (or continue there); returns its averaged module.

    Args:
        quality: of plans on the training Scenes (see ``plan_quality``).

    Raises:
        ContractError: its folder holds another run, or the host's gate is open already.
    """
    train, val = splits[recipe.data.train_split], splits[recipe.data.val_split]
    planner, seed = copy.deepcopy(host.planner), recipe.run.seed
    fusion = planner.head.fusion
    gate = 0.0 if fusion is None else float(fusion.gate.detach())
    if gate != 0.0:
        raise ContractError("host.gate", gate, "0, a planner without states")
    torch.manual_seed(seed)
    source = _SOURCES[contender](planner.config.width)
    module = PlannerOnFeatures(
        planner,
        source,
        recipe.loss,
        recipe.new_factor,
        recipe.gate_factor,
        quality,
        recipe.proposals_only,
    )
    codebook = train.codes.codebook_id if isinstance(source, CodeStates) else ""
    record = ContenderRecipe(
        contender=contender,
        diagnostic="a contender of the oracle-codes gate",
        host=host.identity,
        scenes=scenes_identity(train.reader),
        codebook=codebook,
        settings=recipe,
    )
    task = HeadTask(module, record, train.told(contender, seed), val.told(contender, seed))
    name = f"{contender}-{codebook}" if codebook else contender
    averaged = run_training(task, record, folder / name, stop_after_steps, progress)
    assert isinstance(averaged, PlannerOnFeatures)
    return averaged


def plan_quality(
    recipe: OracleRecipe, splits: Mapping[str, CodedSplit], progress: bool = True
) -> PlanQuality | None:
    """Return what tells the PDM scores of training proposals, where the recipe asks for them."""
    if recipe.loss.pdm == 0:
        return None
    return PlanQuality(splits[recipe.data.train_split].reader, progress)


def of_seed(recipe: OracleRecipe, seed: int) -> OracleRecipe:
    """Return the recipe with another seed of weights, order and augmentation."""
    return replace(recipe, run=replace(recipe.run, seed=seed))
