"""Heads trained on what one frozen host knows of a Scene, told more than images by latent states.

What is cached is the features of its trunk, or where the head alone learns all that it encodes.

Contenders that share a trunk differ in their *source*: a module that maps what it may read to
latent states (B, 12, D), which the planner's gated fusion puts into the proposals. All begin with
the weights of one host and see the same Scenes, disturbed in the same way, in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset, Subset

from latentvla_ros.contract import NUM_LATENT_ACTIONS, ContractError
from latentvla_ros.model.planner import Encoded, StudentPlanner
from latentvla_training.data.shards import ShardReader
from latentvla_training.engine.recipe import LoopSettings
from latentvla_training.planner.augmentation import AugmentationSettings
from latentvla_training.planner.cached_encodings import (
    FEATURES,
    INPUTS,
    CachedEncodings,
    feature_item,
    from_batch,
)
from latentvla_training.planner.cached_features import CachedFeatures
from latentvla_training.planner.dataset import (
    Item,
    collate,
    evenly,
    run_batches,
    scenes_to_imitate,
)
from latentvla_training.planner.losses import LossSettings, imitation_loss, selected_ade
from latentvla_training.planner.plan_quality import PlanQuality

#: What the planner itself knows of the Scene, (B, S, D): for a source that reads it.
MEMORY = "memory"


@dataclass(frozen=True)
class FeatureSplit:
    """Scenes of a split with the features of a trunk, or the encodings of a host.

    Attributes:
        reader: the Scenes. features: of the same Scenes.
        extras: arrays (N, ...) by name that go into every batch, e.g. latent codes.
    """

    reader: ShardReader
    features: CachedFeatures | CachedEncodings
    extras: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, count in (
            ("features", len(self.features)),
            *((f"extras.{name}", len(array)) for name, array in self.extras.items()),
        ):
            if count != len(self.reader):
                raise ContractError(name, f"{count} scenes", f"{len(self.reader)}, as the split")


class FeatureDataset(Dataset[Item]):
    """Features with the network's other inputs, or encodings; the driven future; extras.

    Args:
        split: the Scenes.
        augmentation: None for none. Colours cannot change any more; the rest can. Encodings were
            made with it: one of a Scene's is drawn.
        seed: of the augmentation.
    """

    def __init__(
        self, split: FeatureSplit, augmentation: AugmentationSettings | None = None, seed: int = 0
    ) -> None:
        self.split, self.seed = split, seed
        self.augmentation = None if augmentation is None else replace(augmentation, photometric=0.0)

    def __len__(self) -> int:
        return len(self.split.reader)

    def __getitem__(self, address: int | tuple[int, int]) -> Item:
        """Return Scene ``index``, or (position in the run, index) for an augmented sample."""
        position, index = address if isinstance(address, tuple) else (0, int(address))
        split, rng = self.split, np.random.default_rng((self.seed, position))
        if isinstance(split.features, CachedEncodings):
            draws = split.features.draws
            item = split.features.read(index, int(rng.integers(draws)) if draws > 1 else 0)
        else:
            item = feature_item(split.reader, split.features, index, self.augmentation, rng)
        columns = split.reader.columns
        item["future"] = columns["future_2hz"][index]
        item["future_mask"] = columns["future_mask"][index]
        item["index"] = np.int64(index)
        for name, array in split.extras.items():
            item[name] = array[index]
        return item


class Source(nn.Module):
    """Where the latent states of a contender come from.

    Attributes:
        reads: entries of a batch that it is given, and ``MEMORY``. Nothing else reaches it: not the
            driven future, not what other sources read.
    """

    reads: tuple[str, ...] = ()

    def forward(self, known: dict[str, Tensor]) -> Tensor | None:
        """Return states (B, T, D), or None to leave the fusion out."""
        raise NotImplementedError


class NoStates(Source):
    """The plain planner: the fusion is left out."""

    def forward(self, _known: dict[str, Tensor]) -> Tensor | None:
        """Return None."""
        return None


class FreeQueries(Source):
    """Learned states that know nothing of the Scene: the capacity of a fusion without its news."""

    reads = (MEMORY,)  # how many Scenes there are

    def __init__(self, width: int) -> None:
        super().__init__()
        self.states = nn.Parameter(torch.randn(NUM_LATENT_ACTIONS, width) * 0.5)

    def forward(self, known: dict[str, Tensor]) -> Tensor | None:
        """Return states (B, 12, D), the same for all."""
        return self.states.expand(len(known[MEMORY]), -1, -1)


class CodeStates(Source):
    """Codes as states, at each of the twelve places in its own way.

    A state is linear in what its code stands for, which a few thousand Scenes suffice to learn,
    plus what is learned of the code at its place beyond that.

    Args:
        width: of the states. vectors: (12, 16, W) what codes stand for; see ``LatentCodes``.
    """

    reads = ("codes",)
    vectors: Tensor
    places: Tensor

    def __init__(self, width: int, vectors: NDArray[np.float32]) -> None:
        super().__init__()
        places, entries, given = vectors.shape
        self.register_buffer("vectors", torch.from_numpy(vectors.copy()), persistent=False)
        self.register_buffer("places", torch.arange(places), persistent=False)
        self.lift = nn.Parameter(torch.randn(places, given, width) * 0.5 / given**0.5)
        self.beyond = nn.Parameter(torch.zeros(places, entries, width))
        self.missing = nn.Parameter(torch.zeros(places, width))
        self.place = nn.Parameter(torch.randn(places, width) * 0.5)

    def forward(self, known: dict[str, Tensor]) -> Tensor | None:
        """Return states (B, 12, D) of ``codes`` (B, 12); of a missing one (below 0) it says so."""
        codes = known["codes"].long()
        there = codes.clamp(min=0)
        means = self.vectors[self.places, there]  # (B, 12, W)
        own = torch.einsum("bpw,pwd->bpd", means, self.lift) + self.beyond[self.places, there]
        states: Tensor = torch.where(codes[..., None] < 0, self.missing, own) + self.place
        return states


class PlannerOnFeatures(nn.Module):
    """A planner whose trunk is frozen and not run; maps a batch to weighted losses.

    Where there are states, the fusion begins open but silent (``GatedFusion.open``).

    Args:
        planner: the host, with its weights; the trunk, the ego prior and the reasoner are frozen.
        source: of its latent states.
        loss: of imitation.
        new_factor: the fusion and the source begin from nothing and learn so much faster.
        quality: tells the PDM scores of proposals of the training split where ``loss.pdm`` asks
            for them.
        proposals_only: what encodes the scene is frozen too and the proposal head alone learns,
            which costs less, and a third where batches hold encodings.

    Raises:
        ContractError: the planner has no fusion for the states; ``loss.pdm`` without ``quality``.
    """

    def __init__(
        self,
        planner: StudentPlanner,
        source: Source,
        loss: LossSettings,
        new_factor: float = 1.0,
        quality: PlanQuality | None = None,
        proposals_only: bool = False,
    ) -> None:
        super().__init__()
        if loss.pdm > 0 and quality is None:
            raise ContractError("loss.pdm", loss.pdm, "0 without labels to score plans by")
        self.planner, self.source, self.loss, self.quality = planner, source, loss, quality
        fusion, plain = planner.head.fusion, isinstance(source, NoStates)
        if fusion is None and not plain:
            raise ContractError("model.latent_fusion", False, "True, for states to be fused")
        self.proposals_only = proposals_only
        planner.requires_grad_(not proposals_only)
        planner.head.requires_grad_(True)
        for frozen in (planner.image_encoder, planner.ego_prior, planner.reasoner):
            frozen.requires_grad_(False)
        if fusion is not None:
            fusion.requires_grad_(not plain)
            if not plain:
                fusion.open()
        self.learning_rate_factors = {
            "planner.head.fusion.": new_factor,
            "source.": new_factor,
        }

    def train(self, mode: bool = True) -> PlannerOnFeatures:
        """Set the mode; what is frozen infers, also in training."""
        super().train(mode)
        if self.proposals_only:
            self.planner.train(False)
            self.planner.head.train(mode)
        return self

    def encode(self, batch: dict[str, Tensor]) -> Encoded:
        """Return what the planner knows of a batch, of features or of encodings.

        Raises:
            ContractError: encodings, and the encoder learns.
        """
        if FEATURES not in batch:
            if self.training and not self.proposals_only:
                raise ContractError("batch", "encodings", "features, for the encoder learns")
            return from_batch(batch)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.proposals_only):
            inputs = [batch[name] for name in INPUTS]
            return self.planner.encode(batch[FEATURES].float(), *inputs)

    def states(self, batch: dict[str, Tensor], encoded: Encoded) -> Tensor | None:
        """Return the states of the source, which is given nothing but what it reads."""
        offered = {**batch, MEMORY: encoded.memory}
        return self.source({name: offered[name] for name in self.source.reads})

    def decode(self, batch: dict[str, Tensor]) -> tuple[list[Tensor], Tensor]:
        """Return candidates (B, M, 8, 3) of every round and scores (B, M) of the last."""
        with quick_attention(self.planner.token_position.device):
            encoded = self.encode(batch)
            return self.planner.decode(encoded, self.states(batch, encoded))

    def imitate(
        self, rounds: list[Tensor], scores: Tensor, batch: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the losses of what ``decode`` returned."""
        quality = None
        if self.quality is not None and self.loss.pdm > 0:
            quality = self.quality(batch["index"], rounds[-1])
        future, mask = batch["future"], batch["future_mask"]
        return imitation_loss(rounds, scores, future, mask, self.loss, quality)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the losses of a batch."""
        return self.imitate(*self.decode(batch), batch)

    @torch.inference_mode()
    def plan(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the selected plans (B, 8, 3)."""
        rounds, scores = self.decode(batch)
        return rounds[-1][torch.arange(len(scores)), scores.argmax(dim=1)]


def quick_attention(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context with the attention that is fastest for a few dozen tokens.

    On a CPU the fused kernel takes a quarter of a training step, plain matrix products nearly none.
    """
    return sdpa_kernel([SDPBackend.MATH]) if device.type == "cpu" else nullcontext()


class HeadRecipe(Protocol):
    """What ``HeadTask`` reads of a recipe."""

    @property
    def augmentation(self) -> AugmentationSettings: ...

    @property
    def run(self) -> LoopSettings: ...


class HeadTask:
    """``engine.loop.Task`` of a planner on cached features."""

    def __init__(
        self, module: PlannerOnFeatures, recipe: HeadRecipe, train: FeatureSplit, val: FeatureSplit
    ) -> None:
        self.module: nn.Module = module
        self.run = recipe.run
        self.train = FeatureDataset(train, recipe.augmentation, recipe.run.seed)
        chosen = evenly(np.arange(len(val.reader)), recipe.run.validate_scenes)
        self.val = Subset(FeatureDataset(val), chosen.tolist())

    def scenes(self) -> NDArray[np.int64]:
        """Return the Scenes to learn from."""
        return scenes_to_imitate(self.train.split.reader)

    def batches(self, start_step: int, process: int, processes: int) -> Iterable[dict[str, Tensor]]:
        """Yield the batches of this process; each takes its share of every step's Scenes."""
        return run_batches(self.train, self.scenes(), self.run, start_step, process, processes)

    @torch.no_grad()
    def validate(self, averaged: nn.Module, device: torch.device) -> dict[str, float]:
        """Return the ADE (m) over the validation Scenes, and how far the fusion's gate is open."""
        assert isinstance(averaged, PlannerOnFeatures)
        averaged.eval()
        found = []
        for batch in DataLoader(self.val, batch_size=32, collate_fn=collate):
            moved = {name: value.to(device) for name, value in batch.items()}
            with torch.autocast(device.type, torch.bfloat16):
                rounds, scores = averaged.decode(moved)
            found.append(selected_ade(rounds[-1], scores, moved["future"], moved["future_mask"]))
        fusion = averaged.planner.head.fusion
        gate = {} if fusion is None else {"gate": float(torch.tanh(fusion.gate))}
        return {"ade": float(torch.cat(found).mean()), **gate}


def plans_on_features(
    module: PlannerOnFeatures, split: FeatureSplit, batch_size: int = 32
) -> NDArray[np.float32]:
    """Return the selected plans (N, 8, 3) of every Scene, computed in float32."""
    module.eval()
    device = module.planner.token_position.device
    loader = DataLoader(FeatureDataset(split), batch_size=batch_size, collate_fn=collate)
    plans = [
        module.plan({name: value.to(device) for name, value in batch.items()}).float().cpu().numpy()
        for batch in loader
    ]
    return np.concatenate(plans)
