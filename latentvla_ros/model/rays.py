"""Where the pixels of a view look: rays in the ego frame."""

from __future__ import annotations

import torch
from torch import Tensor


def pixel_centres(width: int, height: int, stride: int) -> Tensor:
    """Return the centres (P, 3) of an image's cells of ``stride`` pixels as u, v, 1, row-major."""
    v, u = torch.meshgrid(
        (torch.arange(height // stride) + 0.5) * stride - 0.5,
        (torch.arange(width // stride) + 0.5) * stride - 0.5,
        indexing="ij",
    )
    return torch.stack([u, v, torch.ones_like(u)], dim=-1).reshape(-1, 3)


def pixel_rays(pixels: Tensor, intrinsics: Tensor, ego_from_camera: Tensor) -> Tensor:
    """Return unit rays (B, V, P, 3) in the ego frame.

    Args:
        pixels: (P, 3) as u, v, 1. intrinsics: (B, V, 3, 3). ego_from_camera: (B, V, 4, 4).
    """
    focal = torch.stack([intrinsics[..., 0, 0], intrinsics[..., 1, 1]], dim=-1)
    centre = intrinsics[..., :2, 2]
    plane = (pixels[None, None, :, :2] - centre[:, :, None]) / focal[:, :, None]
    camera = torch.cat([plane, torch.ones_like(plane[..., :1])], dim=-1)  # (B, V, P, 3)
    # Written without matmul: autocast must not touch geometry.
    rotation = ego_from_camera[:, :, None, :3, :3]
    ray = (rotation * camera[..., None, :]).sum(-1)
    return ray / ray.square().sum(-1, keepdim=True).sqrt()
