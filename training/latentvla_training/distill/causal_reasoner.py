"""A reasoner that says its codes one after the other: for comparison, never on a car.

Its states at a place have read the codes before it and not its own, in training those of the
*teacher's* greedy answer, else its own: a prefix of what was driven would contain the future
(experiments.md section 4).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentvla_ros.contract import CODEBOOK_SIZE, NUM_LATENT_ACTIONS
from latentvla_ros.model.config import PlannerConfig

#: Stands before the first code.
_BEGIN = CODEBOOK_SIZE


class CausalReasoner(nn.Module):
    """Causal decoder of latent actions over memory tokens, of the size of ``LatentReasoner``."""

    mask: Tensor

    def __init__(self, config: PlannerConfig) -> None:
        super().__init__()
        host = config.width
        width, heads = config.reasoner_width or host, config.reasoner_heads or config.heads
        hidden = config.reasoner_hidden or 2 * width
        self.queries = nn.Parameter(torch.randn(1, NUM_LATENT_ACTIONS, width) * 0.02)
        self.meaning = nn.Embedding(CODEBOOK_SIZE + 1, width)
        layer = nn.TransformerDecoderLayer(
            width, heads, hidden, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, config.reasoner_layers, nn.LayerNorm(width))
        self.classifier = nn.Linear(width, CODEBOOK_SIZE)
        same = width == host
        self.from_host = nn.Identity() if same else nn.Linear(host, width)
        self.to_host = nn.Identity() if same else nn.Linear(width, host)
        mask = nn.Transformer.generate_square_subsequent_mask(NUM_LATENT_ACTIONS)
        self.register_buffer("mask", mask, persistent=False)

    def read(self, memory: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states (B, 12, D) and logits (B, 12, 16) that predict each code.

        Args:
            memory: (B, S, D). codes: (B, 12), of which the last is never read.
        """
        begin = codes.new_full((len(codes), 1), _BEGIN).long()
        before = torch.cat([begin, codes[:, :-1].long()], dim=1)
        queries = self.queries + self.meaning(before)
        states = self.decoder(queries, self.from_host(memory), tgt_mask=self.mask)
        return self.to_host(states), self.classifier(states)

    def forward(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Return states and logits after its own greedy codes."""
        codes = torch.zeros(
            (len(memory), NUM_LATENT_ACTIONS), dtype=torch.long, device=memory.device
        )
        with torch.no_grad():
            for place in range(NUM_LATENT_ACTIONS - 1):
                codes[:, place] = self.read(memory, codes)[1][:, place].argmax(dim=-1)
        # Autocast keeps the weights that it has rounded, here without a gradient to go back.
        torch.clear_autocast_cache()
        return self.read(memory, codes)
