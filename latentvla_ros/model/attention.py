"""Pre-norm attention blocks over a few dozen tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Multi-head attention of ``queries`` (B, N, D) over ``memory`` (B, S, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """Return (B, N, D)."""
        batch, count, width = queries.shape
        size = memory.shape[1]
        query = self.query(queries).view(batch, count, self.heads, -1).transpose(1, 2)
        key, value = (
            part.view(batch, size, self.heads, -1).transpose(1, 2)
            for part in self.key_value(memory).chunk(2, dim=-1)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)  # (B, heads, N, D/heads)
        output: Tensor = self.output(mixed.transpose(1, 2).reshape(batch, count, width))
        return output


def _feed_forward(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width)
    )


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward net, each residual."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_norm = nn.LayerNorm(width)
        self.self_attention = Attention(width, heads)
        self.feed_norm = nn.LayerNorm(width)
        self.feed = _feed_forward(width, hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens (B, N, D) that have read each other."""
        normed = self.self_norm(tokens)
        tokens = tokens + self.self_attention(normed, normed)
        output: Tensor = tokens + self.feed(self.feed_norm(tokens))
        return output


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention to a memory and a feed-forward net, each residual.

    Args:
        width: of queries and memory. heads: of both attentions.
        hidden: width of the feed-forward net; twice ``width`` by default.
    """

    def __init__(self, width: int, heads: int, hidden: int | None = None) -> None:
        super().__init__()
        self.self_norm = nn.LayerNorm(width)
        self.self_attention = Attention(width, heads)
        self.cross_norm = nn.LayerNorm(width)
        self.cross_attention = Attention(width, heads)
        self.feed_norm = nn.LayerNorm(width)
        self.feed = _feed_forward(width, hidden or 2 * width)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """Return queries (B, N, D) that have read ``memory`` (B, S, D), normalised already."""
        normed = self.self_norm(queries)
        queries = queries + self.self_attention(normed, normed)
        queries = queries + self.cross_attention(self.cross_norm(queries), memory)
        output: Tensor = queries + self.feed(self.feed_norm(queries))
        return output


class GatedFusion(nn.Module):
    """Cross-attention into extra tokens behind a gate that starts at zero.

    With the gate at zero the output equals the input bit for bit: the plain planner (method.md
    3.2 D).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.gate = nn.Parameter(torch.zeros(()))

    @torch.no_grad()
    def open(self) -> None:
        """Open the gate before an attention that says nothing yet: the output still is the input.

        To be trained from. At a gate of zero nothing behind it learns, and in front of it noise
        decides for hundreds of steps which way it opens; a silent output learns from the first step
        (as the zero convolutions of ControlNet, arXiv 2302.05543).
        """
        self.gate.fill_(1.0)
        nn.init.zeros_(self.attention.output.weight)
        nn.init.zeros_(self.attention.output.bias)

    def forward(self, queries: Tensor, states: Tensor) -> Tensor:
        """Return queries (B, N, D) plus the gated reading of ``states`` (B, S, D)."""
        output: Tensor = queries + torch.tanh(self.gate) * self.attention(
            self.norm(queries), states
        )
        return output
