"""Inverse and forward dynamics of a frame pair, on the features of a frozen frame encoder.

The encoder is a transformer over both frames with a causal mask in time: places of the earlier
frame never read the later one. Its queries, one a code, read both. The decoder predicts the later
frame's features from the earlier ones and the codes (method.md 3.2 A: UniVLA; full attention within
and across the two frames instead of alternating space and time is ours: a place seldom shows the
same thing a second later).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentvla_training.latent_action.settings import DynamicsSettings


class Block(nn.Module):
    """Pre-norm self-attention and a feed-forward net, both residual.

    Attention is written out: for a hundred tokens on a CPU in bfloat16 the fused kernel's backward
    pass takes most of a step's time.
    """

    def __init__(self, width: int, heads: int, feed: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.feed_norm = nn.LayerNorm(width)
        self.feed = nn.Sequential(
            nn.Linear(width, feed * width), nn.GELU(), nn.Linear(feed * width, width)
        )

    def forward(self, tokens: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return tokens (B, N, D); ``hidden`` (N, N) is True where row must not read column."""
        batch, count, width = tokens.shape
        projected = self.query_key_value(self.attention_norm(tokens))
        query, key, value = projected.view(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = query @ key.transpose(-1, -2) * (width // self.heads) ** -0.5
        if hidden is not None:
            weights = weights.masked_fill(hidden, -1e4)
        mixed = weights.softmax(dim=-1).to(value.dtype) @ value  # (B, heads, N, D/heads)
        tokens = tokens + self.output(mixed.transpose(1, 2).reshape(batch, count, width))
        output: Tensor = tokens + self.feed(self.feed_norm(tokens))
        return output


class Patches(nn.Module):
    """Between features at places (B, rows columns, C) and tokens of ``patch`` by ``patch`` places.

    Args:
        grid: rows and columns of places; a remainder at the right or bottom is refused by shape.
    """

    def __init__(self, grid: tuple[int, int], patch: int) -> None:
        super().__init__()
        self.grid, self.patch = grid, patch
        self.tokens = (grid[0] // patch) * (grid[1] // patch)

    def split(self, features: Tensor) -> Tensor:
        """Return (B, tokens, patch patch C)."""
        rows, columns = self.grid
        side = self.patch
        cut = features.view(len(features), rows // side, side, columns // side, side, -1)
        return cut.transpose(2, 3).reshape(len(features), self.tokens, -1)

    def join(self, tokens: Tensor) -> Tensor:
        """Return (B, rows columns, C) of (B, tokens, patch patch C)."""
        rows, columns = self.grid
        side = self.patch
        cut = tokens.view(len(tokens), rows // side, columns // side, side, side, -1)
        return cut.transpose(2, 3).reshape(len(tokens), rows * columns, -1)


class InverseDynamics(nn.Module):
    """From a pair of frames to one vector a code.

    Args:
        settings: sizes. patches: of the frames. channels: of their features.
        condition_tokens: how many tokens of width ``settings.width`` come with every pair.
        odometry: numbers of the ego state that come with either frame, as one more token of it.
    """

    hidden: Tensor

    def __init__(
        self,
        settings: DynamicsSettings,
        patches: Patches,
        channels: int,
        condition_tokens: int,
        odometry: int = 0,
    ) -> None:
        super().__init__()
        width, places = settings.width, patches.tokens
        self.state: nn.Module | None = None
        if odometry:
            self.state = nn.Sequential(
                nn.Linear(odometry, width), nn.GELU(), nn.Linear(width, width)
            )
        self.patches = patches
        self.embed = nn.Linear(settings.patch**2 * channels, width)
        self.position = nn.Parameter(torch.randn(places, width) * 0.02)
        self.frame = nn.Parameter(torch.randn(2, 1, width) * 0.02)
        self.queries = nn.Parameter(torch.randn(settings.codes, width) * 0.5)
        self.interval = nn.Embedding(len(settings.intervals_s), width)
        self.blocks = nn.ModuleList(
            Block(width, settings.heads, settings.feed) for _ in range(settings.encoder_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, settings.code_width)
        of_frame = places + (self.state is not None)
        before = condition_tokens + of_frame  # what the earlier frame may read
        total = before + of_frame + settings.codes
        hidden = torch.zeros(total, total, dtype=torch.bool)
        hidden[:before, before:] = True
        hidden[before : -settings.codes, -settings.codes :] = True
        self.register_buffer("hidden", hidden, persistent=False)

    def forward(
        self,
        earlier: Tensor,
        later: Tensor,
        interval: Tensor,
        condition: Tensor,
        odometry: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Return (B, codes, code width).

        Args:
            earlier, later: features (B, places, C). interval: (B,) index of the pair's length.
            condition: tokens (B, K, D), K may be 0.
            odometry: ego states (B, O) at either frame, for networks that read them.
        """
        frames = [self.embed(self.patches.split(features)) for features in (earlier, later)]
        frames = [tokens + self.position + self.frame[i] for i, tokens in enumerate(frames)]
        if self.state is not None and odometry is not None:
            states = [
                self.state(state)[:, None] + self.frame[i] for i, state in enumerate(odometry)
            ]
            frames = [torch.cat(both, dim=1) for both in zip(states, frames, strict=True)]
        queries = self.queries + self.interval(interval)[:, None]
        tokens = torch.cat([condition.to(queries.dtype), *frames, queries], dim=1)
        for block in self.blocks:
            tokens = block(tokens, self.hidden)
        vectors: Tensor = self.project(self.norm(tokens[:, -self.queries.shape[0] :]))
        return vectors


class ForwardDynamics(nn.Module):
    """From the earlier frame and codes to the later frame's features.

    It begins as a copy of the earlier frame: the last layer is zero.
    """

    def __init__(self, settings: DynamicsSettings, patches: Patches, channels: int) -> None:
        super().__init__()
        width = settings.width
        self.patches = patches
        self.embed = nn.Linear(settings.patch**2 * channels, width)
        self.position = nn.Parameter(torch.randn(patches.tokens, width) * 0.02)
        self.lift = nn.Linear(settings.code_width, width)
        self.order = nn.Parameter(torch.randn(settings.codes, width) * 0.02)
        self.interval = nn.Embedding(len(settings.intervals_s), width)
        self.blocks = nn.ModuleList(
            Block(width, settings.heads, settings.feed) for _ in range(settings.decoder_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.change = nn.Linear(width, settings.patch**2 * channels)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def forward(
        self, earlier: Tensor, codes: Tensor, interval: Tensor, condition: Tensor
    ) -> Tensor:
        """Return predicted features (B, places, C).

        Args:
            earlier: features (B, places, C). codes: quantised vectors (B, codes, code width).
            interval: (B,). condition: tokens (B, K, D), K may be 0.
        """
        places = self.embed(self.patches.split(earlier)) + self.position
        places = places + self.interval(interval)[:, None]
        lifted = self.lift(codes) + self.order
        tokens = torch.cat([condition.to(lifted.dtype), lifted, places], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        change = self.change(self.norm(tokens[:, -self.patches.tokens :]))
        return earlier + self.patches.join(change)
