"""Frozen encoders of a front frame: spatial features that stand for it in every stage.

``own`` is a small convolutional net trained here on unlabelled frames (``pretraining``), ``dinov2``
any DINOv2 of transformers, ``pixels`` the patches themselves. Features are standardised: by place
their mean, by channel their spread over training frames.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from latentvla_ros.contract import ContractError
from latentvla_ros.model.torchvision_operators import declare_missing_operators
from latentvla_training.engine.pretrained import from_pretrained
from latentvla_training.latent_action.settings import DINOV2, OWN, FrameSettings

# Of ImageNet, as DINOv2 was trained with; ours are used to nothing else.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalised(images: Tensor) -> Tensor:
    """Return uint8 images (B, H, W, 3) as float (B, 3, H, W) of about unit spread."""
    pixels = images.permute(0, 3, 1, 2).float() / 255.0
    mean = pixels.new_tensor(_MEAN)[:, None, None]
    return (pixels - mean) / pixels.new_tensor(_STD)[:, None, None]


class OwnTrunk(nn.Module):
    """Convolutions to stride 8 that keep the place of what they see (ours).

    What the whole picture shares (exposure, weather) is taken off at both ends: it hardly changes
    between two frames, and would otherwise be most of what features say.
    """

    def __init__(self, settings: FrameSettings) -> None:
        super().__init__()
        self.level = ImageLevel()
        first, second, third = settings.stem
        self.layers = nn.Sequential(
            *_convolution(3, first, 2),
            *_convolution(first, second, 2),
            *_convolution(second, second, 1),
            *_convolution(second, third, 2),
            *_convolution(third, third, 1),
            *_convolution(third, third, 1),
            nn.Conv2d(third, settings.channels, 1),
        )
        self.to(memory_format=torch.channels_last)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return features (B, C, H/8, W/8) of normalised images (B, 3, H, W)."""
        levelled = self.level(pixels).contiguous(memory_format=torch.channels_last)
        features = self.layers(levelled).float()
        mean = features.mean(dim=(2, 3), keepdim=True)
        return (features - mean) / (features.std(dim=(2, 3), keepdim=True) + 0.05)


class ImageLevel(nn.Module):
    """Brings pictures (B, 3, H, W) to mean 0 and spread 1, each by itself: night as well as day."""

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the levelled pictures."""
        mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
        return (pixels - mean) / (pixels.std(dim=(1, 2, 3), keepdim=True) + 0.05)


def _convolution(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]


class PixelTrunk(nn.Module):
    """Patches of the levelled picture, side by side; nothing is learned."""

    def __init__(self, settings: FrameSettings) -> None:
        super().__init__()
        self.level = ImageLevel()
        self.pool = settings.pool

    def forward(self, pixels: Tensor) -> Tensor:
        """Return (B, 3 pool pool, H/pool, W/pool)."""
        return functional.pixel_unshuffle(self.level(pixels), self.pool)


class DinoTrunk(nn.Module):
    """The patch tokens of a DINOv2 model of transformers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.patch = int(model.config.patch_size)  # type: ignore[union-attr,arg-type]

    def forward(self, pixels: Tensor) -> Tensor:
        """Return patch tokens (B, C, H/14, W/14)."""
        tokens = self.model(pixel_values=pixels).last_hidden_state
        rows, columns = (size // self.patch for size in pixels.shape[-2:])
        patches = tokens[:, -rows * columns :]  # before them: the class and the registers
        return patches.transpose(1, 2).unflatten(2, (rows, columns))


def load_dinov2(name_or_path: str) -> DinoTrunk:
    """Return a DINOv2 by its name on the hub or from a folder.

    Raises:
        ContractError: it is absent, or another model.
    """
    declare_missing_operators()  # transformers imports torchvision
    from transformers import AutoModel

    try:
        model = from_pretrained(AutoModel, name_or_path)
    except (OSError, ValueError) as error:  # absent, or no model's folder
        found = str(error).partition("\n")[0]
        raise ContractError(
            f"frames.pretrained {name_or_path}", found, "a DINOv2 on the hub or in a folder"
        ) from error
    kind = model.config.model_type
    if kind not in ("dinov2", "dinov2_with_registers"):
        raise ContractError(f"frames.pretrained {name_or_path}", kind, "a DINOv2 model")
    return DinoTrunk(model)


class FrameEncoder(nn.Module):
    """A trunk and the standardisation of its features.

    Attributes:
        grid: rows and columns of places. channels: numbers at each.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, settings: FrameSettings, trunk: nn.Module | None = None) -> None:
        super().__init__()
        self.settings = settings
        self.trunk = make_trunk(settings) if trunk is None else trunk
        blank = torch.zeros(1, 3, settings.height, settings.width)
        self.trunk.eval()
        with torch.no_grad():
            _, self.channels, rows, columns = self.trunk(blank).shape
        self.grid = (rows, columns)
        self.register_buffer("centre", torch.zeros(rows * columns, self.channels))
        self.register_buffer("spread", torch.ones(self.channels))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return standardised features (B, places, C) of uint8 images (B, H, W, 3)."""
        settings = self.settings
        wanted = (settings.height, settings.width, 3)
        if tuple(images.shape[1:]) != wanted:
            raise ContractError("images", tuple(images.shape[1:]), str(wanted))
        features = self.trunk(normalised(images)).flatten(2).transpose(1, 2).float()
        return (features - self.centre) / self.spread

    def encode(self, frames: NDArray[Any], batch_size: int = 128) -> Tensor:
        """Return features (N, places, C) of decoded frames (N, H, W, 3)."""
        parts = [
            self(torch.from_numpy(frames[start : start + batch_size]).to(self.centre.device))
            for start in range(0, len(frames), batch_size)
        ]
        return torch.cat(parts)

    @torch.no_grad()
    def standardise(self, frames: NDArray[Any]) -> None:
        """Set mean and spread to those of decoded training frames (N, H, W, 3)."""
        self.centre.zero_()
        self.spread.fill_(1.0)
        features = self.encode(frames)
        centre = features.mean(dim=0)
        spread = (features - centre).square().mean(dim=(0, 1)).sqrt()
        self.centre.copy_(round_to_half(centre))
        self.spread.copy_(round_to_half(spread.clamp(min=1e-3)))

    def identity(self) -> str:
        """Return 16 hex over settings and weights: whose features they are."""
        digest = hashlib.sha256(repr(self.settings).encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


def make_trunk(settings: FrameSettings) -> nn.Module:
    """Return the trunk that settings name; that of ``own`` has random weights."""
    if settings.encoder == OWN:
        return OwnTrunk(settings)
    if settings.encoder == DINOV2:
        return load_dinov2(settings.pretrained)
    return PixelTrunk(settings)


def round_to_half(value: Tensor) -> Tensor:
    """Return what a tensor is once it was stored in half precision."""
    return value.to(torch.float16).to(value.dtype) if value.is_floating_point() else value


@torch.no_grad()
def freeze(module: nn.Module) -> None:
    """Freeze a module as it will be released: in half precision, so that codes stay the same."""
    for value in (*module.parameters(), *module.buffers()):
        value.copy_(round_to_half(value))
    module.eval().requires_grad_(False)
