"""The ``transfuser`` host: image and BEV branches that attend to each other, then trajectories.

After TransFuser and its camera-only latent variant LTF (method.md section 7): the BEV branch starts
from a LiDAR histogram, or from a learned grid where there is no LiDAR; at several scales the tokens
of both branches go through transformer layers and come back as additions to their maps; what is
left are 8 x 8 BEV tokens (at ``base``), which trajectory queries read in a decoder of 3 layers.

Ours differs in four things. The image branch goes on from the stride-8 features that both hosts
share, so that one trunk serves both. Pixels know their ray, mount and time where TransFuser
stitches three images: calibration is an input. The queries read view, ego and context tokens too.
A trajectory is path increments and curvatures around the ego prior's, as in ``proposals``; there
may be several, with a score.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from latentvla_ros.contract import NUM_KNOTS
from latentvla_ros.model.attention import DecoderLayer, EncoderLayer, GatedFusion
from latentvla_ros.model.bev import ResidualBlock
from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.model.kinematics import bounded_curvature, rollout
from latentvla_ros.model.precision import full_precision
from latentvla_ros.model.proposals import ProposalStart
from latentvla_ros.model.rays import pixel_centres, pixel_rays

SCALES = 3  # images at strides 8, 16 and 32; BEV at 1, 1/2 and 1/4 of its cells
_LAYERS = 2  # of the transformer at each scale
_HIDDEN = 4  # width of feed-forward nets in widths


def _halve(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(inplace=True),
    )


def _enlarge(maps: Tensor, factor: int) -> Tensor:
    return functional.interpolate(maps, scale_factor=float(factor), mode="bilinear")


class ScaleFusion(nn.Module):
    """Tokens of both branches at one scale attend to each other and are added to their maps.

    Args:
        channels: of the image map.
        image_pool, bev_pool: cells (rows, columns) of a map that one token averages.
        last: the images are not read after this one, and get nothing back.
    """

    def __init__(
        self,
        config: PlannerConfig,
        channels: int,
        image_pool: int,
        bev_pool: tuple[int, int],
        last: bool,
    ) -> None:
        super().__init__()
        width = config.width
        self.image_pool, self.bev_pool = image_pool, bev_pool
        tokens_x, tokens_y = config.bev_tokens
        self.from_image = nn.Linear(channels, width)
        self.place = nn.Linear(7, width)
        self.position = nn.Parameter(torch.randn(1, tokens_x * tokens_y, width) * 0.02)
        self.layers = nn.ModuleList(
            EncoderLayer(width, config.heads, _HIDDEN * width) for _ in range(_LAYERS)
        )
        self.norm = nn.LayerNorm(width)
        self.to_image = None if last else nn.Linear(width, channels)
        self.to_bev = nn.Linear(width, width)

    def forward(
        self, images: Tensor, bev: Tensor, place: Tensor, known: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return both maps with what they learned of each other.

        Args:
            images: (B, V, C, h, w). bev: (B, D, X, Y).
            place: (B, V, P, 7) of image tokens: ray, mount, time. known: (B, V, 1, 1), 0 where a
                view is missing: then neither its pixels nor its calibration are seen.
        """
        batch, views = images.shape[:2]
        pooled = functional.avg_pool2d(images.flatten(0, 1), self.image_pool)
        size = pooled.shape[-2:]
        seen = pooled.reshape(batch, views, -1, size[0] * size[1]).transpose(2, 3)  # (B, V, P, C)
        tokens = (self.from_image(seen) + self.place(place).to(seen.dtype)) * known.to(seen.dtype)
        ground = functional.avg_pool2d(bev, self.bev_pool)
        cells = ground.flatten(2).transpose(1, 2) + self.position  # (B, S, D)
        joined = torch.cat([cells, tokens.flatten(1, 2).to(cells.dtype)], dim=1)
        for layer in self.layers:
            joined = layer(joined)
        joined = self.norm(joined)
        count = cells.shape[1]
        change = self.to_bev(joined[:, :count]).transpose(1, 2).reshape(ground.shape)
        bev = bev + functional.interpolate(change, size=bev.shape[-2:], mode="bilinear")
        if self.to_image is not None:
            back = self.to_image(joined[:, count:]).transpose(1, 2)  # (B, C, V P)
            back = back.reshape(batch, -1, views, *size).transpose(1, 2).flatten(0, 1)
            images = images + _enlarge(back, self.image_pool).view(images.shape)
        return images, bev


class FusedBranches(nn.Module):
    """Image features and a LiDAR histogram, or a grid in its place, to BEV tokens and a BEV map."""

    pixels: Tensor
    times: Tensor

    def __init__(self, config: PlannerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        x, y = (torch.linspace(-1.0, 1.0, count) for count in config.lidar_cells)
        # In place of LiDAR: where a cell is, to begin with (LTF), and learned.
        self.latent = nn.Parameter(torch.stack(torch.meshgrid(x, y, indexing="ij"))[None])
        self.stem = nn.Sequential(_halve(2, width // 4), _halve(width // 4, width))
        self.image_branch = nn.ModuleList(
            _halve(config.image_channels if index == 0 else width, width)
            for index in range(SCALES - 1)
        )
        self.bev_branch = nn.ModuleList()
        self.fusions = nn.ModuleList()
        for scale in range(SCALES):
            first = nn.Identity() if scale == 0 else _halve(width, width)
            blocks = (ResidualBlock(width, 1) for _ in range(config.bev_blocks))
            self.bev_branch.append(nn.Sequential(first, *blocks))
            self.fusions.append(
                ScaleFusion(
                    config,
                    channels=width if scale else config.image_channels,
                    image_pool=2 ** (SCALES - 1 - scale),
                    bev_pool=(config.patch[0] // 2**scale, config.patch[1] // 2**scale),
                    last=scale == SCALES - 1,
                )
            )
        smallest = 2 ** (SCALES - 1)
        self.last_pool = (config.patch[0] // smallest, config.patch[1] // smallest)
        pixels = pixel_centres(config.image_width, config.image_height, 32)
        self.register_buffer("pixels", pixels, persistent=False)
        times = torch.tensor(config.view_time_offsets_s).view(1, -1, 1, 1)
        self.register_buffer("times", times, persistent=False)

    def _place(self, intrinsics: Tensor, ego_from_camera: Tensor) -> Tensor:
        """Return ray, mount (5 m units) and time of every image token, (B, V, P, 7)."""
        with full_precision(intrinsics.device):
            rays = pixel_rays(self.pixels, intrinsics, ego_from_camera)
            mount = (0.2 * ego_from_camera[:, :, None, :3, 3]).expand_as(rays)
            times = self.times.expand(*rays.shape[:2], rays.shape[2], 1)
            return torch.cat([rays, mount, times], dim=-1)

    def forward(
        self,
        image_features: Tensor,
        view_mask: Tensor,
        intrinsics: Tensor,
        ego_from_camera: Tensor,
        lidar: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Fuse what cameras and LiDAR see.

        Args:
            image_features: (B, V, C, h, w) at stride 8. view_mask: (B, V) bool.
            intrinsics: (B, V, 3, 3). ego_from_camera: (B, V, 4, 4).
            lidar: (B, 2, X, Y) of ``lidar_histogram``, or None.

        Returns:
            BEV tokens (B, S, D), x-major, and a BEV map (B, D, X, Y) of all scales.
        """
        batch, views = view_mask.shape
        place = self._place(intrinsics, ego_from_camera)
        known = view_mask[:, :, None, None]
        images = image_features
        bev = self.stem(self.latent if lidar is None else lidar).expand(batch, -1, -1, -1)
        levels = []
        for scale in range(SCALES):
            if scale:
                smaller = self.image_branch[scale - 1](images.flatten(0, 1))
                images = smaller.view(batch, views, *smaller.shape[1:])
            images, bev = self.fusions[scale](images, self.bev_branch[scale](bev), place, known)
            levels.append(bev)
        tokens = functional.avg_pool2d(bev, self.last_pool).flatten(2).transpose(1, 2)
        fine = levels[-1]
        for level in reversed(levels[:-1]):
            fine = level + _enlarge(fine, 2)
        return tokens, fine


class TrajectoryHead(ProposalStart):
    """M trajectory queries, a decoder, one trajectory and one score each."""

    def __init__(self, config: PlannerConfig) -> None:
        super().__init__(config.proposals)
        width, heads = config.width, config.heads
        self.bev_tokens = config.bev_tokens[0] * config.bev_tokens[1]
        self.queries = nn.Parameter(torch.randn(1, config.proposals, width) * 0.5)
        self.fusion = GatedFusion(width, heads) if config.latent_fusion else None
        self.layers = nn.ModuleList(
            DecoderLayer(width, heads, _HIDDEN * width) for _ in range(config.rounds)
        )
        self.control_norm = nn.LayerNorm(width)
        self.control = self.control_net(width)
        self.score = nn.Sequential(
            nn.Linear(width, width), nn.GELU(approximate="tanh"), nn.Linear(width, 1)
        )
        self.score_bias = nn.Parameter(self.distance_from_prior())

    def forward(
        self,
        memory: Tensor,
        ego: Tensor,
        prior: tuple[Tensor, Tensor],
        latent_states: Tensor | None,
    ) -> tuple[list[Tensor], Tensor]:
        """Plan from tokens.

        Args:
            memory: (B, S, D) tokens, the BEV's first. ego: (B, D) what the queries know from the
                start.
            prior: increments and raw curvatures (B, 8) of ``EgoPrior``.
            latent_states: (B, 12, D) of the reasoner, or None to leave the fusion out.

        Returns:
            poses (B, M, 8, 3) as after the one and only round, and scores (B, M).
        """
        if self.fusion is not None and latent_states is not None:
            fused = self.fusion(memory[:, : self.bev_tokens], latent_states)
            memory = torch.cat([fused, memory[:, self.bev_tokens :]], dim=1)
        queries = self.queries + ego[:, None].to(memory.dtype)
        for layer in self.layers:
            queries = layer(queries, memory)
        with full_precision(memory.device):
            read = self.control_norm(queries.float())
            steps, curvature = self.first_controls(prior)
            change = self.control(read)
            steps = steps + change[..., :NUM_KNOTS]
            curvature = curvature + 0.1 * change[..., NUM_KNOTS:]
            poses = rollout(steps, bounded_curvature(curvature))
            return [poses], self.score(read)[..., 0] + self.score_bias
