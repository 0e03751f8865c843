"""The teacher's states, pooled by attention and made to fit the host (method.md 3.2 D).

After UniVLA's action decoder: multi-head attention pooling (MAP) with learned latents, a SwiGLU
feed-forward net and post-norm; what the pictures come to initialises the queries that read the
action states.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentvla_ros.contract import NUM_LATENT_ACTIONS
from latentvla_ros.model.attention import Attention
from latentvla_ros.model.torchvision_operators import declare_missing_operators
from latentvla_training.distill.settings import PoolingSettings
from latentvla_training.planner.head_training import Source

#: Entries of a batch: the teacher's states of the pictures (B, P, D_t) and of the places that
#: predict each code (B, 12, D_t).
TEACHER_VISUAL, TEACHER_ACTION = "teacher_visual", "teacher_action"


class AttentionPooling(nn.Module):
    """Some learned latents read tokens (B, S, D_t): (B, L, W).

    The tokens are normalised first (ours): last hidden states of a language model have any scale.
    """

    def __init__(self, token_width: int, latents: int, settings: PoolingSettings) -> None:
        super().__init__()
        declare_missing_operators()
        from timm.layers import SwiGLU

        width = settings.width
        self.latents = nn.Parameter(torch.randn(latents, width) * 0.5)
        self.projection = nn.Sequential(nn.LayerNorm(token_width), nn.Linear(token_width, width))
        self.attention = Attention(width, settings.most_heads)
        self.attention_norm = nn.LayerNorm(width)
        self.feed = SwiGLU(width, 2 * width)
        self.feed_norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, start: Tensor | None = None) -> Tensor:
        """Return what the latents read; ``start`` (B, 1 or L, W) is added to them first."""
        latents = self.latents.expand(len(tokens), -1, -1)
        if start is not None:
            latents = latents + start
        read = self.attention(latents, self.projection(tokens))
        latents = self.attention_norm(latents + read)
        pooled: Tensor = self.feed_norm(latents + self.feed(latents))
        return pooled


class TeacherStates(Source):
    """The teacher online: its pooled states, in the host's width.

    Args:
        teacher_width: of the teacher's states. width: of the host.
    """

    reads = (TEACHER_VISUAL, TEACHER_ACTION)

    def __init__(self, teacher_width: int, width: int, settings: PoolingSettings) -> None:
        super().__init__()
        self.visual = AttentionPooling(teacher_width, settings.visual_latents, settings)
        self.action = AttentionPooling(teacher_width, NUM_LATENT_ACTIONS, settings)
        self.output = nn.Linear(settings.width, width)

    def pool(self, visual: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return pooled pictures (B, V, W) and actions (B, 12, W) of the teacher's states."""
        seen = self.visual(visual.float())
        return seen, self.action(action.float(), seen.mean(dim=1, keepdim=True))

    def forward(self, known: dict[str, Tensor]) -> Tensor | None:
        """Return states (B, V + 12, D)."""
        pooled = self.pool(known[TEACHER_VISUAL], known[TEACHER_ACTION])
        states: Tensor = self.output(torch.cat(pooled, dim=1))
        return states
