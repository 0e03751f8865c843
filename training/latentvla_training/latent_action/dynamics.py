"""One stage of the codebook: encoder, bottleneck and decoder, and what they are conditioned on.

Stage 1 is told the driven trajectory and the ego state, so that its codes need not say them and are
left with the *environment*; with ``model.unexplained_change`` its encoder also reads, and its codes
must say, where the picture changes for another reason than the ego's motion. Stage 2 is told the
codes of stage 1, which is frozen, and no trajectory (with ``model.odometry`` its encoder reads
speed and yaw rate at either frame beside the picture): what is left for its codes is the *ego*.
Controls: one stage that is told nothing, and stage 2 with a continuous bottleneck.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from latentvla_ros.contract import ContractError
from latentvla_training.latent_action.bottleneck import Bottleneck, Encoded
from latentvla_training.latent_action.networks import ForwardDynamics, InverseDynamics, Patches
from latentvla_training.latent_action.pairs import (
    ODOMETRY_WIDTH,
    STATE_WIDTH,
    TRAJECTORY_POINTS,
)
from latentvla_training.latent_action.settings import DynamicsLoss, DynamicsSettings
from latentvla_training.latent_action.unexplained_change import WIDTH as CHANGE_WIDTH

ENVIRONMENT, EGO = "environment", "ego"
ONE_STAGE, CONTINUOUS = "one_stage", "continuous"
#: Controls of ``latentvla-train codebook report``.
CONTROLS = (ONE_STAGE, CONTINUOUS)

#: What of a stage's weights only its training uses.
TRAINING_ONLY = ("embed_avg", "cluster_size", "initted", "bottleneck.steps")

#: Beyond so many spreads a regulariser's target counts linearly: turns are rare, far out, wanted.
ROBUST = 3.0

Batch = dict[str, Tensor]


class DrivenCondition(nn.Module):
    """Two tokens that say what was driven: the trajectory and the ego state before it."""

    count = 2

    def __init__(self, width: int) -> None:
        super().__init__()
        self.trajectory = _two_layers(3 * TRAJECTORY_POINTS, width)
        self.state = _two_layers(STATE_WIDTH, width)

    def forward(self, batch: Batch) -> Tensor:
        """Return (B, 2, D) of ``trajectory`` (B, 15) and ``state`` (B, 16)."""
        parts = [self.trajectory(batch["trajectory"]), self.state(batch["state"])]
        return torch.stack(parts, dim=1)


class UnexplainedChange(nn.Module):
    """Maps of unexplained change: one token for the encoder, and a reader of them off the codes.

    The reader is linear in the codes, so that each must say its part plainly: whatever the others
    say, and without the earlier frame. What was driven it is told.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, settings: DynamicsSettings) -> None:
        super().__init__()
        width = settings.width
        shape = (len(settings.intervals_s), CHANGE_WIDTH)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("spread", torch.ones(shape))
        self.token = _two_layers(CHANGE_WIDTH, width)
        self.codes = nn.Linear(settings.codes * settings.code_width, CHANGE_WIDTH)
        self.driven = nn.Sequential(
            nn.Linear(3 * TRAJECTORY_POINTS + STATE_WIDTH, width),
            nn.GELU(),
            nn.Linear(width, CHANGE_WIDTH),
        )

    def standardise(self, maps: Tensor, interval: Tensor) -> None:
        """Take mean and spread from the maps (P, CHANGE_WIDTH) of pairs of each length (P,)."""
        for index in range(len(self.mean)):
            found = maps[interval == index] if (interval == index).sum() > 1 else maps
            self.mean[index], self.spread[index] = found.mean(0), found.std(0).clamp(min=1e-3)

    def standard(self, batch: Batch) -> Tensor:
        """Return the batch's maps (B, CHANGE_WIDTH) with mean zero and spread one."""
        interval = batch["interval"]
        maps: Tensor = (batch["change"] - self.mean[interval]) / self.spread[interval]
        return maps

    def read(self, batch: Batch, vectors: Tensor) -> Tensor:
        """Return what ``vectors`` (B, codes, code width) say of them, (B, CHANGE_WIDTH)."""
        driven = self.driven(torch.cat([batch["trajectory"], batch["state"]], dim=1))
        found: Tensor = self.codes(vectors.flatten(1)) + driven
        return found


class CodeCondition(nn.Module):
    """One token for each environment code of ``environment`` (B, codes)."""

    def __init__(self, settings: DynamicsSettings) -> None:
        super().__init__()
        self.count = settings.codes
        entries = settings.codebook_size * settings.codes
        self.embed = nn.Embedding(entries, settings.width)
        self.first = settings.codebook_size

    def forward(self, batch: Batch) -> Tensor:
        """Return (B, codes, D); a code means something else at every position."""
        position = torch.arange(self.count, device=batch["environment"].device)
        tokens: Tensor = self.embed(batch["environment"] + self.first * position)
        return tokens


class NoCondition(nn.Module):
    """No tokens."""

    count = 0

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, batch: Batch) -> Tensor:
        """Return (B, 0, D)."""
        return batch["earlier"].new_zeros(len(batch["earlier"]), 0, self.width)


def _two_layers(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, width))


class LatentDynamics(nn.Module):
    """Inverse and forward dynamics of one stage.

    Args:
        stage: ``environment``, ``ego``, or a control. settings, loss: of the recipe.
        grid, channels: of the frame encoder's features.
        steps, batch_size: of the run, which decide when entries of the codebook are revived.
    """

    def __init__(
        self,
        stage: str,
        settings: DynamicsSettings,
        loss: DynamicsLoss,
        grid: tuple[int, int],
        channels: int,
        steps: int = 0,
        batch_size: int = 0,
    ) -> None:
        super().__init__()
        if grid[0] % settings.patch or grid[1] % settings.patch:
            raise ContractError("model.patch", settings.patch, f"a divisor of the places {grid}")
        self.stage, self.settings, self.loss = stage, settings, loss
        self.condition = make_condition(stage, settings)
        patches = Patches(grid, settings.patch)
        self.odometry = settings.odometry and stage != ENVIRONMENT
        self.change = UnexplainedChange(settings) if settings.unexplained_change else None
        self.encoder = InverseDynamics(
            settings,
            patches,
            channels,
            self.condition.count + (self.change is not None),
            ODOMETRY_WIDTH if self.odometry else 0,
        )
        self.bottleneck = Bottleneck(
            settings,
            loss,
            stage == CONTINUOUS,
            int(loss.revive_until * steps),
            batch_size * settings.codes,
        )
        self.decoder = ForwardDynamics(settings, patches, channels)
        self.motion: nn.Module | None = None
        if stage != ENVIRONMENT and loss.ego_motion > 0:
            inputs = settings.codes * settings.code_width
            outputs = 3 * TRAJECTORY_POINTS if self.odometry else 3
            self.motion = nn.Sequential(
                nn.Linear(inputs, settings.width), nn.GELU(), nn.Linear(settings.width, outputs)
            )

    def encode(self, batch: Batch) -> Encoded:
        """Return the codes of pairs ``earlier``, ``later`` (B, places, C), ``interval`` (B,)."""
        condition = self.condition(batch)
        if self.change is not None:
            token = self.change.token(self.change.standard(batch))
            condition = torch.cat([condition, token[:, None]], dim=1)
        odometry = None
        if self.odometry:
            odometry = (
                batch["state"][:, :ODOMETRY_WIDTH],
                batch["later_state"][:, :ODOMETRY_WIDTH],
            )
        vectors = self.encoder(
            batch["earlier"], batch["later"], batch["interval"], condition, odometry
        )
        encoded: Encoded = self.bottleneck(vectors, batch["interval"])
        return encoded

    def decode(self, batch: Batch, vectors: Tensor) -> Tensor:
        """Return predicted features (B, places, C) of the later frame."""
        condition = self.condition(batch)
        predicted: Tensor = self.decoder(batch["earlier"], vectors, batch["interval"], condition)
        return predicted

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted losses of a batch of pairs."""
        encoded = self.encode(batch)
        predicted = self.decode(batch, encoded.vectors).float()
        losses = {
            "features": change_weighted_error(
                predicted, batch["earlier"], batch["later"], self.loss
            ),
            "commitment": encoded.commitment,
            "redundancy": self.loss.decorrelation * encoded.redundancy,
        }
        if self.motion is not None:
            losses["ego_motion"] = self.loss.ego_motion * self._motion_error(batch, encoded.vectors)
        if self.change is not None:
            said = self.change.read(batch, encoded.vectors).float()
            error = nn.functional.huber_loss(said, self.change.standard(batch), delta=ROBUST)
            losses["unexplained_change"] = self.loss.unexplained_change * error
        return losses

    def _motion_error(self, batch: Batch, vectors: Tensor) -> Tensor:
        """Return how far the ego motion that is read off the codes is from the true one."""
        assert self.motion is not None
        wanted = batch["unforeseen" if self.odometry else "motion"]
        found = self.motion(vectors.flatten(1)).float()
        known = batch.get("known")
        if known is None:
            return nn.functional.huber_loss(found, wanted, delta=ROBUST)
        errors = nn.functional.huber_loss(found, wanted, delta=ROBUST, reduction="none").mean(1)
        return (errors * known).sum() / known.sum().clamp(min=1)


def weights_hash(module: nn.Module, leave_out: tuple[str, ...] = ()) -> str:
    """Return 16 hex over the weights of a module, but those whose name ends with ``leave_out``."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if not name.endswith(leave_out or ("\0",)):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def make_condition(stage: str, settings: DynamicsSettings) -> nn.Module:
    """Return what a stage is told; DynamicsSettings decide its size."""
    if stage == ENVIRONMENT:
        return DrivenCondition(settings.width)
    if stage == ONE_STAGE:
        return NoCondition(settings.width)
    return CodeCondition(settings)


def change_weights(earlier: Tensor, later: Tensor, loss: DynamicsLoss) -> Tensor:
    """Return weights (B, places), one on average, that grow with how much a place changes."""
    change = (later - earlier).square().mean(dim=-1)
    relative = (change / change.mean().clamp(min=1e-6)).clamp(max=loss.largest_change)
    weights = (1.0 - loss.change) + loss.change * relative
    return weights / weights.mean().clamp(min=1e-6)


def change_weighted_error(
    predicted: Tensor, earlier: Tensor, later: Tensor, loss: DynamicsLoss
) -> Tensor:
    """Return the mean squared error of features (B, places, C), weighted by change.

    Copying the earlier frame makes the plain error small; where nothing changes there is nothing to
    learn (experiments.md section 5).
    """
    weights = change_weights(earlier, later, loss)
    return (weights * (predicted - later).square().mean(dim=-1)).mean()


def gain_over_copy(predicted: Tensor, earlier: Tensor, later: Tensor) -> tuple[Tensor, Tensor]:
    """Return sums of squared errors of the prediction and of the copied earlier frame, (B,)."""
    error = (predicted - later).square().sum(dim=(1, 2))
    return error, (earlier - later).square().sum(dim=(1, 2))
