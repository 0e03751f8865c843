"""What cameras must beat: constant velocity and turn rate, and a net of ego status and command."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from latentvla_ros.contract import Command, ContractError
from latentvla_ros.geometry.trajectory import constant_turn_rate
from latentvla_ros.model.ego_encoder import EgoPrior
from latentvla_ros.model.kinematics import bounded_curvature, rollout
from latentvla_training.data.hidden import HIDDEN_ODOMETRY
from latentvla_training.data.shards import ShardReader
from latentvla_training.planner.augmentation import hide_ego_state
from latentvla_training.planner.dataset import EGO_INPUTS, scenes_to_imitate


def constant_velocity_plans(reader: ShardReader) -> NDArray[np.float32]:
    """Return plans (N, 8, 3): speed and yaw rate at t0 go on for 4 s."""
    dynamics = reader.columns["ego_dynamics"]
    plans = [constant_turn_rate(float(row[0]), float(row[2]), 4.0) for row in dynamics]
    return np.asarray(plans, np.float32).reshape(-1, 8, 3)


@dataclass(frozen=True)
class EgoStatusSettings:
    """Settings of the ego-status net and of its training, long enough to converge.

    On the validation split of the built-in world 4,000 steps at 1e-3 end at 1.07 m, 24,000 at 0.95
    and 12,000 at 3e-3 at 0.94. A baseline that still learns would flatter what it is compared with.

    Attributes:
        width, layers: of the net.
        steps, batch_size, learning_rate, weight_decay: of AdamW with a cosine.
        drop_ego_state: candidates for the probability of hiding history, acceleration and wheel
            angle together; the one that is best on the validation split is kept.
        drop_command: probability that the command is unknown. hide_odometry: that all is.
        seed: of weights and order.
    """

    width: int = 256
    layers: int = 3
    steps: int = 12000
    batch_size: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    drop_ego_state: tuple[float, ...] = (0.0, 0.5)
    drop_command: float = 0.0
    hide_odometry: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("width", "layers", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ContractError(f"ego_status.{name}", getattr(self, name), "at least 1")
        if not self.drop_ego_state or not all(0 <= p <= 1 for p in self.drop_ego_state):
            raise ContractError(
                "ego_status.drop_ego_state", self.drop_ego_state, "values in 0 to 1"
            )


class EgoStatusNet(nn.Module):
    """History, dynamics and command to one trajectory: the planner's ego prior, on its own."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.prior = EgoPrior(width, layers)

    def forward(self, *status: Tensor) -> Tensor:
        """Return plans (B, 8, 3); inputs are ``EGO_INPUTS``, batched."""
        steps, curvature = self.prior(*status)
        return rollout(steps, bounded_curvature(curvature))


@dataclass
class TrainedEgoStatus:
    """A trained ego-status net, its validation ADE by dropout probability and the one kept."""

    net: EgoStatusNet
    settings: EgoStatusSettings
    drop_ego_state: float
    val_ade: dict[float, float] = field(default_factory=dict)


def ego_columns(reader: ShardReader) -> list[NDArray[np.generic]]:
    """Return copies of the columns ``EGO_INPUTS`` of a split."""
    return [reader.columns[name].copy() for name in EGO_INPUTS]


def ego_status_plans(net: EgoStatusNet, reader: ShardReader) -> NDArray[np.float32]:
    """Return plans (N, 8, 3) of every Scene of a split."""
    with torch.inference_mode():
        plans = net.eval()(*(torch.from_numpy(column) for column in ego_columns(reader)))
    return plans.numpy()


def _mean_ade(plans: NDArray[np.float32], reader: ShardReader) -> float:
    offset = plans[..., :2] - reader.columns["future_2hz"][..., :2]
    return float(np.hypot(offset[..., 0], offset[..., 1]).mean())


def train_ego_status(
    train: ShardReader, val: ShardReader, settings: EgoStatusSettings
) -> TrainedEgoStatus:
    """Train one net per dropout probability and keep the one that is best on ``val``."""
    results: dict[float, tuple[float, EgoStatusNet]] = {}
    for probability in settings.drop_ego_state:
        net = train_ego_prior(train, settings, probability)
        results[probability] = (_mean_ade(ego_status_plans(net, val), val), net)
    best = min(results, key=lambda probability: results[probability][0])
    figures = {probability: ade for probability, (ade, _) in results.items()}
    return TrainedEgoStatus(results[best][1], settings, best, figures)


def train_ego_prior(
    train: ShardReader, settings: EgoStatusSettings, drop_probability: float
) -> EgoStatusNet:
    """Train an ego-status net to the least mean distance from the driven future."""
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    net = EgoStatusNet(settings.width, settings.layers)
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    columns = ego_columns(train)
    future, scenes = train.columns["future_2hz"], scenes_to_imitate(train)
    for _ in range(settings.steps):
        chosen = rng.choice(scenes, settings.batch_size)
        batch = [column[chosen].copy() for column in columns]
        hidden = rng.random(settings.batch_size) < drop_probability
        parts = [array[hidden] for array in batch[:4]]
        hide_ego_state(*parts)  # type: ignore[arg-type]
        for array, part in zip(batch, parts, strict=False):
            array[hidden] = part
        unknown = rng.random(settings.batch_size) < settings.drop_command
        batch[4][unknown] = Command.UNKNOWN.one_hot()
        if settings.hide_odometry:
            nothing = rng.random(settings.batch_size) < settings.hide_odometry
            for name, array in zip(EGO_INPUTS, batch, strict=True):
                array[nothing] = HIDDEN_ODOMETRY[name]
        plans = net(*(torch.from_numpy(array) for array in batch))
        target = torch.from_numpy(future[chosen])
        distance = ((plans - target)[..., :2].square().sum(-1) + 1e-4).sqrt().mean()
        turn = plans[..., 2] - target[..., 2]
        loss = distance + torch.atan2(torch.sin(turn), torch.cos(turn)).abs().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()
