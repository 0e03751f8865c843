"""The student planner: images, calibration and ego state to scored trajectories.

What is unusual in it: calibration is an input, past views are ordinary views, and a latent reasoner
waits behind a gate at zero. Two hosts share all but two parts, what makes BEV tokens and what plans
from them: ``ipad`` (``bev``, ``proposals``) and ``transfuser``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentvla_ros.contract import ContractError
from latentvla_ros.model.attention import DecoderLayer
from latentvla_ros.model.bev import BevEncoder
from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.model.ego_encoder import EgoEncoder, EgoPrior
from latentvla_ros.model.image_encoder import ImageEncoder
from latentvla_ros.model.precision import full_precision
from latentvla_ros.model.proposals import ProposalHead
from latentvla_ros.model.rays import pixel_centres, pixel_rays
from latentvla_ros.model.reasoner import LatentReasoner
from latentvla_ros.model.transfuser import FusedBranches, TrajectoryHead


@dataclass
class Encoded:
    """What the planner knows before it plans.

    Attributes:
        image_features: (B, V, C, h, w) at stride 8.
        bev: (B, D, X, Y). memory: (B, S, D) BEV, view and ego tokens.
        context: (B, K, D) what the plan depends on. ego: (B, D) float32.
        prior: increments and raw curvatures (B, 8) that the ego's own motion suggests.
    """

    image_features: Tensor
    bev: Tensor
    memory: Tensor
    context: Tensor
    ego: Tensor
    prior: tuple[Tensor, Tensor]


class ViewTokens(nn.Module):
    """A few tokens per view by spatial attention; pixels know their ray in the ego frame."""

    pixels: Tensor
    times: Tensor

    def __init__(self, config: PlannerConfig) -> None:
        super().__init__()
        self.config = config
        self.ray = nn.Linear(4, config.image_channels)
        self.attention = nn.Linear(config.image_channels, config.view_tokens)
        self.output = nn.Linear(config.image_channels, config.width)
        pixels = pixel_centres(config.image_width, config.image_height, 8)
        self.register_buffer("pixels", pixels, persistent=False)
        times = torch.tensor(config.view_time_offsets_s).view(1, -1, 1, 1)
        self.register_buffer("times", times, persistent=False)

    def forward(
        self, features: Tensor, view_mask: Tensor, intrinsics: Tensor, ego_from_camera: Tensor
    ) -> Tensor:
        """Return tokens (B, V T, D) from features (B, V, C, h, w) and calibration."""
        batch, views = features.shape[:2]
        with full_precision(features.device):
            ray = pixel_rays(self.pixels, intrinsics, ego_from_camera)
            times = self.times.expand(batch, views, ray.shape[2], 1)
            place = self.ray(torch.cat([ray, times], dim=-1))
        located = features.flatten(3).transpose(2, 3) + place.to(features.dtype)  # (B, V, P, C)
        weights = self.attention(located).float().softmax(dim=2)  # (B, V, P, T)
        read = weights.transpose(2, 3).to(located.dtype) @ located  # (B, V, T, C)
        tokens: Tensor = self.output(read) * view_mask[:, :, None, None].to(read.dtype)
        return tokens.flatten(1, 2)


class StudentPlanner(nn.Module):
    """The network of a bundle; ``forward`` is inference."""

    bev_encoder: BevEncoder | FusedBranches
    head: ProposalHead | TrajectoryHead

    def __init__(self, config: PlannerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.image_encoder = ImageEncoder(config.backbone, config.image_channels)
        lifts = config.host == "ipad"
        self.bev_encoder = BevEncoder(config) if lifts else FusedBranches(config)
        self.ego_encoder = EgoEncoder(width)
        self.ego_prior = EgoPrior()
        self.view_tokens = ViewTokens(config)
        if lifts:
            self.patch = nn.Conv2d(width, width, config.patch, stride=config.patch)
        tokens = config.bev_tokens[0] * config.bev_tokens[1]
        tokens += config.view_tokens * len(config.view_time_offsets_s) + 3
        self.token_position = nn.Parameter(torch.randn(1, tokens, width) * 0.02)
        self.memory_norm = nn.LayerNorm(width)
        self.context_queries = nn.Parameter(torch.randn(1, config.context_tokens, width) * 0.5)
        self.context_layers = nn.ModuleList(
            DecoderLayer(width, config.heads) for _ in range(config.context_layers)
        )
        self.context_norm = nn.LayerNorm(width)
        self.reasoner = LatentReasoner(config)
        self.head = ProposalHead(config) if lifts else TrajectoryHead(config)

    def encode_images(self, images: Tensor) -> Tensor:
        """Map images (B, V, H, W, 3) uint8 to stride-8 features (B, V, C, h, w)."""
        features: Tensor = self.image_encoder(images.flatten(0, 1))
        return features.view(*images.shape[:2], *features.shape[1:])

    def encode(
        self,
        image_features: Tensor,
        view_mask: Tensor,
        intrinsics: Tensor,
        ego_from_camera: Tensor,
        ego_history: Tensor,
        ego_history_mask: Tensor,
        ego_dynamics: Tensor,
        ego_dynamics_mask: Tensor,
        command: Tensor,
        lidar: Tensor | None = None,
    ) -> Encoded:
        """Fuse image features (B, V, C, h, w) with calibration and ego state into tokens.

        Args:
            lidar: (B, 2, X, Y) of ``lidar_histogram``, for the ``transfuser`` host in training; the
                other arguments are named as in ``Observation``.

        Raises:
            ContractError: a histogram for the ``ipad`` host, or one of another shape.
        """
        self._check_lidar(lidar)
        status = (ego_history, ego_history_mask, ego_dynamics, ego_dynamics_mask, command)
        ego_tokens, ego = self.ego_encoder(*status)
        seen = (image_features, view_mask, intrinsics, ego_from_camera)
        if isinstance(self.bev_encoder, FusedBranches):
            patches, bev = self.bev_encoder(*seen, lidar)
        else:
            bev = self.bev_encoder(self.bev_encoder.lift(*seen), ego)
            patches = self.patch(bev).flatten(2).transpose(1, 2)  # (B, tokens, D)
        views = self.view_tokens(*seen)
        joined = torch.cat([patches, views, ego_tokens.to(patches.dtype)], dim=1)
        memory = self.memory_norm(joined + self.token_position)
        context = self.context_queries.expand(memory.shape[0], -1, -1)
        for layer in self.context_layers:
            context = layer(context, memory)
        context = self.context_norm(context)
        return Encoded(image_features, bev, memory, context, ego, self.ego_prior(*status))

    def _check_lidar(self, lidar: Tensor | None) -> None:
        if lidar is None:
            return
        cells = self.config.lidar_cells
        if self.config.host == "ipad" or tuple(lidar.shape[1:]) != (2, *cells):
            wanted = f"(B, 2, {cells[0]}, {cells[1]}) with host transfuser, None with ipad"
            found = f"{tuple(lidar.shape)} with {self.config.host}"
            raise ContractError("lidar", found, wanted)

    def decode(self, encoded: Encoded, latent_states: Tensor | None) -> tuple[list[Tensor], Tensor]:
        """Return candidates (B, M, 8, 3) of every round and scores (B, M) of the last."""
        memory = torch.cat([encoded.memory, encoded.context.to(encoded.memory.dtype)], dim=1)
        rounds: list[Tensor]
        if isinstance(self.head, TrajectoryHead):
            rounds, scores = self.head(memory, encoded.ego, encoded.prior, latent_states)
        else:
            rounds, scores = self.head(
                encoded.bev, memory, encoded.context, encoded.ego, encoded.prior, latent_states
            )
        return rounds, scores

    def forward(
        self,
        images: Tensor,
        view_mask: Tensor,
        intrinsics: Tensor,
        ego_from_camera: Tensor,
        ego_history: Tensor,
        ego_history_mask: Tensor,
        ego_dynamics: Tensor,
        ego_dynamics_mask: Tensor,
        command: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Plan; arguments are ``Observation.INPUTS`` and results ``Plan.OUTPUTS``, batched.

        Returns:
            candidates (B, M, 8, 3) m, rad; scores (B, M); latent logits (B, 12, 16).
        """
        encoded = self.encode(
            self.encode_images(images),
            view_mask,
            intrinsics,
            ego_from_camera,
            ego_history,
            ego_history_mask,
            ego_dynamics,
            ego_dynamics_mask,
            command,
        )
        states, logits = self.reasoner(encoded.memory)
        rounds, scores = self.decode(encoded, states)
        return rounds[-1].float(), scores.float(), logits.float()
