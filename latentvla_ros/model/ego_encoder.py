"""What the ego knows about itself, in float32: as tokens, and as a first guess of where it goes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentvla_ros.contract import NUM_KNOTS
from latentvla_ros.model.kinematics import MAX_CURVATURE
from latentvla_ros.model.precision import full_precision


class EgoEncoder(nn.Module):
    """Three tokens (history, dynamics, command) and one vector that mixes them."""

    history_scale: Tensor
    dynamics_scale: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.history = nn.Linear(16, width)
        self.dynamics = nn.Linear(12, width)
        self.command = nn.Linear(4, width)
        self.mix = nn.Sequential(
            nn.Linear(3 * width, width), nn.GELU(approximate="tanh"), nn.Linear(width, width)
        )
        history_scale = torch.tensor([0.1, 1.0, 5.0])  # m, m, rad to about unit size
        dynamics_scale = torch.tensor([0.1, 1.0, 5.0, 0.5, 0.5, 5.0])
        self.register_buffer("history_scale", history_scale, persistent=False)
        self.register_buffer("dynamics_scale", dynamics_scale, persistent=False)

    def forward(
        self,
        history: Tensor,
        history_mask: Tensor,
        dynamics: Tensor,
        dynamics_mask: Tensor,
        command: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Encode what the ego knows about itself; shapes as ``Observation`` with a batch dimension.

        Returns:
            tokens (B, 3, D) and the mixed vector (B, D), float32.
        """
        with full_precision(history.device):
            known = history_mask.to(torch.float32)
            past = history * self.history_scale * known[..., None]
            present = dynamics_mask.to(torch.float32)
            state = dynamics * self.dynamics_scale * present
            tokens = torch.stack(
                [
                    self.history(torch.cat([past.flatten(1), known], dim=1)),
                    self.dynamics(torch.cat([state, present], dim=1)),
                    self.command(command),
                ],
                dim=1,
            )
            return tokens, self.mix(tokens.flatten(1))


class EgoPrior(nn.Module):
    """A first plan from history, dynamics and command alone: path increments and raw curvatures.

    It is the ego-status net that the planner is compared with. The planner starts from it, so that
    what images teach is what the ego's own motion does not tell.
    """

    scale: Tensor

    def __init__(self, width: int = 256, layers: int = 3) -> None:
        super().__init__()
        blocks: list[nn.Module] = [nn.Linear(32, width), nn.GELU(approximate="tanh")]
        for _ in range(layers - 1):
            blocks += [nn.Linear(width, width), nn.GELU(approximate="tanh")]
        last = nn.Linear(width, 2 * NUM_KNOTS)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.body = nn.Sequential(*blocks, last)
        scale = torch.tensor([0.1, 1.0, 5.0] * 4 + [1.0] * 4 + [0.1, 1.0, 5.0, 0.5, 0.5, 5.0])
        self.register_buffer("scale", torch.cat([scale, torch.ones(10)]), persistent=False)

    def forward(
        self,
        history: Tensor,
        history_mask: Tensor,
        dynamics: Tensor,
        dynamics_mask: Tensor,
        command: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return increments (B, 8) m per half second and raw curvatures (B, 8) 1/m, float32.

        Inputs are shaped as ``Observation`` with a batch dimension. Untrained, it keeps speed and
        turn rate.
        """
        with full_precision(history.device):
            known, present = history_mask.to(torch.float32), dynamics_mask.to(torch.float32)
            past, state = history * known[..., None], dynamics * present
            inputs = torch.cat([past.flatten(1), known, state, present, command], dim=1)
            change = self.body(inputs * self.scale)
            speed, yaw_rate = state[:, :1], state[:, 2:3]
            curvature = (yaw_rate / speed.clamp(min=2.0)).clamp(-MAX_CURVATURE, MAX_CURVATURE)
            return 0.5 * speed + change[:, :NUM_KNOTS], curvature + 0.1 * change[:, NUM_KNOTS:]
