"""The latent reasoner: twelve queries that name what happens next, decoded in parallel.

4 codes for each of 3 transitions (0, 1), (1, 2), (2, 4) s, transition-major. Until a codebook is
trained its logits mean nothing and the gate that would let it speak stays at zero.

With 12 layers of width 512, 8 heads and feed-forward nets of 2048 it is the paper's decision
transformer of 50 M parameters (method.md 3.2 E), whatever the width of the host around it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentvla_ros.contract import CODEBOOK_SIZE, NUM_LATENT_ACTIONS
from latentvla_ros.model.attention import DecoderLayer
from latentvla_ros.model.config import PlannerConfig


class LatentReasoner(nn.Module):
    """Parallel decoder of latent actions over the host's tokens, in a width of its own."""

    def __init__(self, config: PlannerConfig) -> None:
        super().__init__()
        host = config.width
        width, heads = config.reasoner_width or host, config.reasoner_heads or config.heads
        hidden = config.reasoner_hidden or 2 * width
        self.queries = nn.Parameter(torch.randn(1, NUM_LATENT_ACTIONS, width) * 0.02)
        self.layers = nn.ModuleList(
            DecoderLayer(width, heads, hidden) for _ in range(config.reasoner_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, CODEBOOK_SIZE)
        same = width == host  # then nothing is projected, and no weight is there to do it
        self.from_host = nn.Identity() if same else nn.Linear(host, width)
        self.to_host = nn.Identity() if same else nn.Linear(width, host)

    def forward(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Return states (B, 12, D) and logits (B, 12, 16) from memory tokens (B, S, D).

        D is the host's width; the codes are read off the states before they are projected to it.
        """
        memory = self.from_host(memory)
        states = self.queries.expand(memory.shape[0], -1, -1)
        for layer in self.layers:
            states = layer(states, memory)
        states = self.norm(states)
        return self.to_host(states), self.classifier(states)
