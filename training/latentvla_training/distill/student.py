"""The student: the planner's own reasoner, taught on cached features (method.md 3.2 E).

Two phases: the reasoner alone on the tokens of the host as it is; then fusion and host on its
states. Where those tokens move, the lessons go on meanwhile (ours: it is to keep pace).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from latentvla_ros.contract import NUM_LATENT_ACTIONS, ContractError
from latentvla_ros.model.planner import StudentPlanner
from latentvla_training.distill.causal_reasoner import CausalReasoner
from latentvla_training.distill.losses import code_loss, divergence, feature_loss, kl_loss
from latentvla_training.distill.settings import PoolingSettings, StudentSettings
from latentvla_training.planner.dataset import collate, scenes_to_learn_from
from latentvla_training.planner.head_training import (
    MEMORY,
    FeatureDataset,
    FeatureSplit,
    HeadTask,
    PlannerOnFeatures,
    Source,
    quick_attention,
)
from latentvla_training.planner.losses import LossSettings

#: Entries of a batch that a student is taught with: codes of what was driven (B, 12); of the
#: teacher its distributions (B, 12, 16), greedy codes (B, 12) and pooled states.
CODES, PROBABILITIES, GREEDY = "codes", "teacher_probabilities", "teacher_codes"
POOLED_VISUAL, POOLED_ACTION = "teacher_pooled_visual", "teacher_pooled_action"


class PooledReadout(nn.Module):
    """The student's states (B, 12, D) as the teacher's pooled pictures and actions; linear."""

    def __init__(self, width: int, settings: PoolingSettings) -> None:
        super().__init__()
        self.action = nn.Linear(width, settings.width)
        self.places = nn.Linear(NUM_LATENT_ACTIONS, settings.visual_latents)
        self.visual = nn.Linear(width, settings.width)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return pictures (B, V, W) and actions (B, 12, W)."""
        mixed = self.places(states.transpose(1, 2)).transpose(1, 2)
        return self.visual(mixed), self.action(states)


class ReasonerStates(Source):
    """The states of a reasoner that reads the planner's own tokens: nothing of a teacher.

    Args:
        reasoner: the planner's own, or a ``CausalReasoner``. width: of its states.
        settings: what it learns. pooling: of the teacher's states, for the readout.
    """

    reads = (MEMORY,)

    def __init__(
        self, reasoner: nn.Module, width: int, settings: StudentSettings, pooling: PoolingSettings
    ) -> None:
        super().__init__()
        self.reasoner, self.settings = reasoner, settings
        self.readout = PooledReadout(width, pooling) if settings.features > 0.0 else None

    def memory(self, memory: Tensor) -> Tensor:
        """Return the tokens (B, S, D) as it reads them."""
        return memory if self.settings.end_to_end else memory.detach()

    @property
    def leaves_weights_out(self) -> bool:
        """Whether some weight may learn nothing: what says codes, or maps to the host's width."""
        return self.readout is None or not self.settings.says_codes

    def read(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Return states (B, 12, D) and logits (B, 12, 16)."""
        states, logits = self.reasoner(self.memory(memory))
        return states, logits

    def fused(self, states: Tensor) -> Tensor | None:
        """Return the states as the fusion gets them, or None to leave it out."""
        if not self.settings.fusion:
            return None
        return states if self.settings.end_to_end else states.detach()

    def forward(self, known: dict[str, Tensor]) -> Tensor | None:
        """Return states (B, 12, D), or None where they are not fused."""
        return self.fused(self.read(known[MEMORY])[0])

    def lessons(self, memory: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return states and logits as they are taught: after the teacher's codes where causal."""
        if isinstance(self.reasoner, CausalReasoner):
            return self.reasoner.read(self.memory(memory), batch[GREEDY])
        return self.read(memory)

    def taught(self, states: Tensor, logits: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the weighted losses of what ``lessons`` returned."""
        settings = self.settings
        losses: dict[str, Tensor] = {}
        if settings.kl > 0.0:
            loss = kl_loss(logits, batch[PROBABILITIES], settings.temperature)
            losses["kl"] = settings.kl * loss
        if settings.cross_entropy > 0.0:
            losses["codes"] = settings.cross_entropy * code_loss(logits, batch[CODES])
        if self.readout is not None:
            pooled = (batch[POOLED_VISUAL], batch[POOLED_ACTION])
            losses["features"] = settings.features * feature_loss(self.readout(states), pooled)
        return losses


def make_source(
    planner: StudentPlanner, settings: StudentSettings, pooling: PoolingSettings
) -> ReasonerStates:
    """Return the states of a planner's own reasoner, or of a causal one of the same size."""
    config = planner.config
    reasoner = CausalReasoner(config) if settings.autoregressive else planner.reasoner
    return ReasonerStates(reasoner, config.width, settings, pooling)


class ReasonerOnFeatures(PlannerOnFeatures):
    """First phase: the host is frozen and infers, the reasoner learns.

    Raises:
        ContractError: there is nothing to learn.
    """

    source: ReasonerStates

    def __init__(self, planner: StudentPlanner, source: ReasonerStates) -> None:
        super().__init__(planner, source, LossSettings(), proposals_only=True)
        if not source.settings.taught:
            raise ContractError("student", "no weight above 0", "a student that is taught")
        planner.requires_grad_(False)
        source.requires_grad_(True)
        self.learning_rate_factors = {}
        self.leaves_weights_out = source.leaves_weights_out

    def train(self, mode: bool = True) -> ReasonerOnFeatures:
        """Set the mode of the reasoner; the host infers."""
        super().train(mode)
        self.planner.train(False)
        self.source.train(mode)
        return self

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the losses of a batch."""
        with quick_attention(self.planner.token_position.device):
            with torch.no_grad():
                memory = self.encode(batch).memory
            return self.source.taught(*self.source.lessons(memory, batch), batch)


class StudentOnFeatures(PlannerOnFeatures):
    """Second phase: fusion and host learn on the student's states.

    It goes on learning where the host's tokens do, or where imitation reaches it (``end_to_end``).

    Args: as ``PlannerOnFeatures``.
    """

    source: ReasonerStates

    def __init__(self, planner: StudentPlanner, source: ReasonerStates, *settings: Any) -> None:
        super().__init__(planner, source, *settings)
        self.goes_on = source.settings.end_to_end or not self.proposals_only
        source.requires_grad_(self.goes_on)
        self.leaves_weights_out = self.goes_on and source.leaves_weights_out
        if not source.settings.fusion and planner.head.fusion is not None:
            planner.head.fusion.requires_grad_(False)
        if source.settings.taught:  # it has learned already; only the fusion begins from nothing
            self.learning_rate_factors = {**self.learning_rate_factors, "source.": 1.0}
        else:
            new = self.learning_rate_factors["source."]
            self.learning_rate_factors = {**self.learning_rate_factors, "planner.reasoner.": new}

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the losses of a batch."""
        source = self.source
        with quick_attention(self.planner.token_position.device):
            encoded = self.encode(batch)
            said = source.read(encoded.memory)
            rounds, scores = self.planner.decode(encoded, source.fused(said[0]))
            losses = self.imitate(rounds, scores, batch)
            if not (source.settings.taught and self.goes_on):
                return losses
            if isinstance(source.reasoner, CausalReasoner):
                said = source.lessons(encoded.memory, batch)
            return losses | source.taught(*said, batch)


class ReasonerTask(HeadTask):
    """``engine.loop.Task`` of the first phase: the same Scenes in the same order as the second.

    Where drives come without odometry also those of them, which can be taught and not imitated.
    """

    def scenes(self) -> NDArray[np.int64]:
        """Return the Scenes to learn from."""
        return scenes_to_learn_from(self.train.split.reader)

    @torch.no_grad()
    def validate(self, averaged: nn.Module, device: torch.device) -> dict[str, float]:
        """Return nats and accuracy by the codes of the validation Scenes, nats by the teacher."""
        assert isinstance(averaged, ReasonerOnFeatures)
        averaged.eval()
        sums = {"nll": 0.0, "accuracy": 0.0, "kl": 0.0}
        codes_known, places = 0, 0
        for batch in DataLoader(self.val, batch_size=32, collate_fn=collate):
            moved = {name: value.to(device) for name, value in batch.items()}
            with torch.autocast(device.type, torch.bfloat16):
                logits = averaged.source.read(averaged.encode(moved).memory)[1]
            codes = moved[CODES].long()
            known = codes >= 0
            codes_known += int(known.sum())
            places += codes.numel()
            sums["nll"] += float(code_loss(logits, codes) * known.sum())
            sums["accuracy"] += float((logits.argmax(dim=-1) == codes)[known].sum())
            if PROBABILITIES in moved:
                sums["kl"] += float(divergence(logits, moved[PROBABILITIES]).sum())
        figures = {name: sums[name] / max(codes_known, 1) for name in ("nll", "accuracy")}
        taught = PROBABILITIES in self.train.split.extras
        return figures | ({"kl": sums["kl"] / places} if taught else {})


def student_planner(module: PlannerOnFeatures) -> StudentPlanner:
    """Return the planner of a trained student: reasoner and fusion are its own, no teacher in it.

    Raises:
        ContractError: it is another contender, or an autoregressive student.
    """
    source = module.source
    if not isinstance(source, ReasonerStates):
        raise ContractError("contender", type(source).__name__, "a student, which needs no teacher")
    if source.reasoner is not module.planner.reasoner:
        raise ContractError("student.autoregressive", True, "false: a car's reasoner is parallel")
    return module.planner


@torch.inference_mode()
def student_answers(
    module: PlannerOnFeatures, split: FeatureSplit, batch_size: int = 32
) -> tuple[NDArray[np.float32], Tensor]:
    """Return plans (N, 8, 3) and logits (N, 12, 16) of a student, computed in float32."""
    source = module.source
    assert isinstance(source, ReasonerStates)
    module.eval()
    device = module.planner.token_position.device
    plans, said = [], []
    for batch in DataLoader(FeatureDataset(split), batch_size=batch_size, collate_fn=collate):
        moved = {name: value.to(device) for name, value in batch.items()}
        with quick_attention(device):
            encoded = module.encode(moved)
            states, logits = source.read(encoded.memory)
            rounds, scores = module.planner.decode(encoded, source.fused(states))
        best = rounds[-1][torch.arange(len(scores)), scores.argmax(dim=1)]
        plans.append(best.float().cpu().numpy())
        said.append(logits.float().cpu())
    return np.concatenate(plans), torch.cat(said)
