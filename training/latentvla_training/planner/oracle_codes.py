"""The gate before any teacher: do the true codes, fused into a trained planner, improve its score?

If a planner that is *told* the twelve ego codes of what was driven does not score better, then no
teacher that predicts them can help it, and the codebook is not finished (experiments.md section 5).
Four contenders go on from one host on cached features of its frozen trunk, over the same Scenes in
the same order, disturbed alike: the host itself, the host fused with free queries, with the codes
of other Scenes, and with the true codes. The last knows the future: a diagnostic, never a
contender, and no bundle is ever made of its run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import ContractError
from latentvla_training.engine.loop import run_training
from latentvla_training.latent_action.codes import LatentCodes, scenes_identity
from latentvla_training.planner.contenders import (
    FREE,
    HOST,
    NOT_A_PLANNER,
    PLAIN_SOURCES,
    CodedSplit,
    ContenderRun,
    HeadSettings,
    fresh_planner,
)
from latentvla_training.planner.head_training import (
    CodeStates,
    FeatureSplit,
    HeadTask,
    PlannerOnFeatures,
    Source,
)
from latentvla_training.planner.hosts import Host
from latentvla_training.planner.plan_quality import PlanQuality

SHUFFLED, ORACLE = "shuffled_codes", "oracle_codes"
#: Whom the oracle must beat, and all of them.
CONTROLS = (HOST, FREE, SHUFFLED)
CONTENDERS = (*CONTROLS, ORACLE)


@dataclass(frozen=True)
class OracleRecipe(HeadSettings):
    """How the contenders of the gate are trained.

    Attributes:
        name: of the recipe.
    """

    name: str = field(kw_only=True)

    @property
    def heads(self) -> HeadSettings:
        """The settings without the name."""
        return HeadSettings(**{f.name: getattr(self, f.name) for f in fields(HeadSettings)})


def _source(contender: str, width: int, codes: LatentCodes) -> Source:
    if contender in PLAIN_SOURCES:
        return PLAIN_SOURCES[contender](width)
    if codes.vectors is None:
        wanted = "codes with vectors; give latentvla-train codebook encode again"
        raise ContractError(f"codes of {codes.codebook_id}", "no vectors", wanted)
    return CodeStates(width, codes.vectors)


def told(split: CodedSplit, contender: str, seed: int) -> FeatureSplit:
    """Return what a contender gets: codes of its own Scenes, of others', or none."""
    extras: dict[str, NDArray[np.int8]] = {}
    if contender in (SHUFFLED, ORACLE):
        order = np.arange(len(split.reader))
        if contender == SHUFFLED:
            networks = split.reader.columns["network"]
            order = scenes_elsewhere(networks, split.codes.mask, seed)
        extras["codes"] = split.codes.sequence[order]
    return FeatureSplit(split.reader, split.features, extras)


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
    seed = recipe.run.seed
    planner = fresh_planner(host, seed)
    settings = recipe.heads.of(contender)
    source = _source(contender, planner.config.width, train.codes)
    module = PlannerOnFeatures(
        planner, source, settings.loss, settings.new_factor, quality, settings.proposals_only
    )
    codebook = train.codes.codebook_id if isinstance(source, CodeStates) else ""
    record = ContenderRun(
        contender=contender,
        diagnostic=NOT_A_PLANNER,
        host=host.identity,
        scenes=scenes_identity(train.reader),
        codebook=codebook,
        settings=settings,
    )
    task = HeadTask(module, record, told(train, contender, seed), told(val, contender, seed))
    name = f"{contender}-{codebook}" if codebook else contender
    averaged = run_training(task, record, folder / name, stop_after_steps, progress)
    assert isinstance(averaged, PlannerOnFeatures)
    return averaged


def of_seed(recipe: OracleRecipe, seed: int) -> OracleRecipe:
    """Return the recipe with another seed of weights, order and augmentation."""
    return replace(recipe, run=replace(recipe.run, seed=seed))
