"""Ego history, dynamics and command to tokens, in float32."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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
