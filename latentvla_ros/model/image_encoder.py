"""Images to stride-8 features: normalisation, a timm trunk, a light top-down pyramid.

The input is what the camera side hands over, uint8 NHWC pixels; normalisation lives here so that no
caller can get it wrong.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from latentvla_ros.contract import ContractError
from latentvla_ros.model.torchvision_operators import declare_missing_operators

STRIDES = (8, 16, 32)


class ImageEncoder(nn.Module):
    """A randomly initialised timm trunk (no weights are fetched) fused to one map at stride 8.

    Raises:
        ContractError: timm has no such encoder, or its features have other strides.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, backbone: str, channels: int) -> None:
        super().__init__()
        declare_missing_operators()
        import timm

        expected = f"a timm encoder with features at strides {STRIDES}"
        if not timm.is_model(backbone):
            raise ContractError("backbone", backbone, expected)
        self.trunk = timm.create_model(
            backbone, pretrained=False, features_only=True, out_indices=(2, 3, 4)
        )
        reductions = tuple(self.trunk.feature_info.reduction())
        if reductions != STRIDES:
            raise ContractError("backbone", f"{backbone} with {reductions}", expected)
        self.lateral = nn.ModuleList(
            nn.Conv2d(depth, channels, 1) for depth in self.trunk.feature_info.channels()
        )
        self.smooth = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )
        mean = torch.tensor([0.485, 0.456, 0.406]) * 255.0
        deviation = torch.tensor([0.229, 0.224, 0.225]) * 255.0
        self.register_buffer("mean", mean.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", (1.0 / deviation).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, H, W, 3) uint8 to features (N, C, H/8, W/8)."""
        pixels = images.permute(0, 3, 1, 2).to(torch.float32)  # channels last in memory
        levels = self.trunk((pixels - self.mean) * self.scale)
        fused = self.lateral[2](levels[2])
        for index in (1, 0):
            fused = self.lateral[index](levels[index]) + functional.interpolate(
                fused, scale_factor=2.0, mode="nearest"
            )
        features: Tensor = self.smooth(fused)
        return features
