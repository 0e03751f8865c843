"""Bird's-eye view: 3-D anchors are projected into every view, image features are sampled there.

Calibration is an input and sampling is ``grid_sample``, so one network serves other cameras and the
graph exports without custom operators. Views of one time are averaged; different times stay apart
in the channels, so that the encoder can read motion from their difference.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.model.precision import full_precision

#: Anchors nearer to the image plane than this (m) do not project.
NEAR_M = 0.5

#: Anchors fade out over this part of an image's half width and height at its edge, and over this
#: part of a metre at ``NEAR_M``: a rounding error must not switch a cell on or off.
FADE = 1e-3


def project(
    points: Tensor, intrinsics: Tensor, ego_from_camera: Tensor, width: int, height: int
) -> tuple[Tensor, Tensor]:
    """Project ego-frame points into views.

    Args:
        points: (P, 3) m, or (N, P, 3) where every view has its own.
        intrinsics: (N, 3, 3), the centre of the top-left pixel at (0, 0).
        ego_from_camera: (N, 4, 4).
        width, height: of the images, pixels.

    Returns:
        ``grid_sample`` coordinates (N, P, 2) for ``align_corners=False``, and how far a point is in
        view (N, P): 1 in front of the camera and inside the image, 0 elsewhere, ``FADE`` between.
    """
    offset = points - ego_from_camera[:, None, :3, 3]  # (N, P, 3)
    # Written without matmul: autocast must not touch geometry.
    rotation = ego_from_camera[:, None, :3, :3]
    camera = (offset[..., :, None] * rotation).sum(-2)  # R^T (p - t)
    image = (intrinsics[:, None] * camera[..., None, :]).sum(-1)
    depth = image[..., 2]
    in_front = depth > NEAR_M
    safe = torch.where(in_front, depth, torch.ones_like(depth))
    grid_x = (image[..., 0] / safe + 0.5) * (2.0 / width) - 1.0
    grid_y = (image[..., 1] / safe + 0.5) * (2.0 / height) - 1.0
    outermost = torch.maximum(grid_x.abs(), grid_y.abs())
    visible = ((1.0 - outermost) / FADE).clamp(0.0, 1.0) * ((depth - NEAR_M) / FADE).clamp(0.0, 1.0)
    grid = torch.stack([grid_x, grid_y], dim=-1).clamp(-2.0, 2.0)
    return grid, visible


def to_bev_grid(xy: Tensor, config: PlannerConfig) -> Tensor:
    """Map ego-frame x, y (..., 2) to ``grid_sample`` coordinates of a BEV map (B, C, X, Y)."""
    (x_min, x_max), (y_min, y_max) = config.bev_x_m, config.bev_y_m
    along_x = (xy[..., 0] - x_min) * (2.0 / (x_max - x_min)) - 1.0
    along_y = (xy[..., 1] - y_min) * (2.0 / (y_max - y_min)) - 1.0
    return torch.stack([along_y, along_x], dim=-1)  # the last axis of the map is y


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, the second one dilated."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, C, X, Y)."""
        return functional.relu(features + self.body(features))


class BevEncoder(nn.Module):
    """Lift image features to a BEV map and let its cells talk to each other."""

    anchors: Tensor

    def __init__(self, config: PlannerConfig) -> None:
        super().__init__()
        self.config = config
        cells_x, cells_y = config.bev_cells
        x = torch.linspace(*config.bev_x_m, 2 * cells_x + 1)[1::2]
        y = torch.linspace(*config.bev_y_m, 2 * cells_y + 1)[1::2]
        z = torch.tensor(config.anchor_heights_m)
        anchors = torch.stack(torch.meshgrid(z, x, y, indexing="ij"), dim=-1)
        anchors = anchors[..., [1, 2, 0]].reshape(-1, 3)  # (Z X Y, 3) as x, y, z
        self.register_buffer("anchors", anchors, persistent=False)
        slices = len(config.time_groups) * len(config.anchor_heights_m)
        self.reduce = nn.Sequential(
            nn.Conv2d(slices * (config.image_channels + 1), config.width, 1, bias=False),
            nn.BatchNorm2d(config.width),
        )
        self.position = nn.Parameter(torch.randn(1, config.width, cells_x, cells_y) * 0.02)
        self.ego = nn.Linear(config.width, config.width)
        self.blocks = nn.Sequential(
            *(ResidualBlock(config.width, 2**index) for index in range(config.bev_blocks))
        )

    def lift(
        self, features: Tensor, view_mask: Tensor, intrinsics: Tensor, ego_from_camera: Tensor
    ) -> Tensor:
        """Sample image features at the anchors.

        Args:
            features: (B, V, C, h, w).
            view_mask: (B, V) bool. intrinsics: (B, V, 3, 3). ego_from_camera: (B, V, 4, 4).

        Returns:
            (B, G Z (C + 1), X, Y): for every time group and height the mean over the views that see
            the anchor, and whether any does.
        """
        config = self.config
        batch, views, channels = features.shape[:3]
        with full_precision(features.device):
            grid, visible = project(
                self.anchors,
                intrinsics.flatten(0, 1),
                ego_from_camera.flatten(0, 1),
                config.image_width,
                config.image_height,
            )
            weight = visible * view_mask.reshape(-1, 1).to(visible.dtype)  # (B V, P)
            sampled = functional.grid_sample(
                features.flatten(0, 1).float(),
                grid[:, :, None],
                mode="bilinear",
                padding_mode="zeros",
                align_corners=False,
            )[..., 0]  # (B V, C, P)
            sampled = (sampled * weight[:, None]).view(batch, views, channels, -1)
            weight = weight.view(batch, views, 1, -1)
            slices = []
            for time in config.time_groups:
                members = [i for i, t in enumerate(config.view_time_offsets_s) if t == time]
                total = torch.stack([sampled[:, i] for i in members]).sum(0)
                count = torch.stack([weight[:, i] for i in members]).sum(0)
                slices += [total / count.clamp(min=1.0), count.clamp(max=1.0)]
            lifted = torch.cat(slices, dim=1)  # (B, G (C + 1), P)
            heights = len(config.anchor_heights_m)
            return (
                lifted.view(batch, -1, *config.bev_cells)
                if heights == 1
                else (lifted.view(batch, lifted.shape[1], heights, *config.bev_cells).flatten(1, 2))
            )

    def forward(self, lifted: Tensor, ego: Tensor) -> Tensor:
        """Return the BEV map (B, D, X, Y) from ``lift``'s output and the ego vector (B, D)."""
        bev = self.reduce(lifted) + self.position + self.ego(ego)[:, :, None, None]
        encoded: Tensor = self.blocks(functional.relu(bev))
        return encoded
