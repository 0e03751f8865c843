"""The latent reasoner: twelve queries that name what happens next, decoded in parallel.

4 codes for each of 3 transitions (0, 1), (1, 2), (2, 4) s, transition-major. Until a codebook is
trained its logits mean nothing and the gate that would let it speak stays at zero.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentvla_ros.contract import CODEBOOK_SIZE, NUM_LATENT_ACTIONS
from latentvla_ros.model.attention import DecoderLayer


class LatentReasoner(nn.Module):
    """Parallel decoder of latent actions over BEV and ego tokens."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, NUM_LATENT_ACTIONS, width) * 0.02)
        self.layers = nn.ModuleList(DecoderLayer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, CODEBOOK_SIZE)

    def forward(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Return states (B, 12, D) and logits (B, 12, 16) from memory tokens (B, S, D)."""
        states = self.queries.expand(memory.shape[0], -1, -1)
        for layer in self.layers:
            states = layer(states, memory)
        states = self.norm(states)
        return states, self.classifier(states)
