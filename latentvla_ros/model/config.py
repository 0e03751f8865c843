"""Settings of the student planner: one frozen record that rebuilds the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from latentvla_ros.contract import ContractError

#: The planner that latent states are fused into: see ``proposals`` and ``transfuser``.
HOSTS = ("ipad", "transfuser")

#: Cells of a LiDAR histogram along one BEV cell; 64 of those make TransFuser's 256.
LIDAR_CELLS_PER_BEV_CELL = 4


@dataclass(frozen=True)
class PlannerConfig:
    """Shape of ``StudentPlanner``; everything in m and s, ego frame.

    Attributes:
        view_time_offsets_s: one per view, in the order of the manifest's views.
        image_width, image_height: of every view, pixels.
        backbone: name of a timm encoder that yields features at strides 8, 16 and 32.
        image_channels: channels of the fused stride-8 image features.
        width: channels of BEV, tokens and queries.
        heads: attention heads.
        bev_x_m, bev_y_m: (min, max) of the BEV grid; bev_cells: its (x, y) cells.
        anchor_heights_m: heights of the 3-D anchors of a cell; one near the signal heads (``ipad``;
            ``transfuser`` lifts nothing).
        bev_blocks: residual blocks of the BEV encoder, of each of its scales in ``transfuser``.
        patch: (x, y) cells that one BEV token summarises; multiples of 4 in ``transfuser``.
        view_tokens: tokens that summarise one view directly.
        context_tokens: learned queries that gather what the plan depends on.
        context_layers, reasoner_layers: attention layers of context and latent reasoner.
        proposals: candidates M (TransFuser itself has 1).
        rounds: refinements with shared weights (``ipad``), layers of the decoder (``transfuser``).
        latent_fusion: whether the latent reasoner is fused into the proposals (through a gate that
            starts at zero); without it the plain planner is built.
        host: ``ipad`` or ``transfuser``.
        reasoner_width, reasoner_heads: of the latent reasoner; 0: those of the host.
        reasoner_hidden: width of its feed-forward nets; 0: twice its own.
    """

    view_time_offsets_s: tuple[float, ...] = (0.0, 0.0, 0.0, -0.5)
    image_width: int = 256
    image_height: int = 128
    backbone: str = "regnetx_002"
    image_channels: int = 64
    width: int = 128
    heads: int = 4
    bev_x_m: tuple[float, float] = (-8.0, 64.0)
    bev_y_m: tuple[float, float] = (-24.0, 24.0)
    bev_cells: tuple[int, int] = (24, 24)
    anchor_heights_m: tuple[float, ...] = (0.0, 1.2, 5.5)
    bev_blocks: int = 3
    patch: tuple[int, int] = (4, 4)
    view_tokens: int = 4
    context_tokens: int = 8
    context_layers: int = 2
    reasoner_layers: int = 2
    proposals: int = 24
    rounds: int = 3
    latent_fusion: bool = True
    host: str = "ipad"
    reasoner_width: int = 0
    reasoner_heads: int = 0
    reasoner_hidden: int = 0

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, list):
                object.__setattr__(self, entry.name, tuple(value))
        for name in ("image_width", "image_height"):
            if getattr(self, name) <= 0 or getattr(self, name) % 32:
                raise ContractError(name, getattr(self, name), "a positive multiple of 32")
        for name in (
            *("image_channels", "width", "heads", "bev_blocks", "view_tokens", "rounds"),
            *("context_tokens", "context_layers", "reasoner_layers", "proposals"),
        ):
            if getattr(self, name) < 1:
                raise ContractError(name, getattr(self, name), "at least 1")
        if self.width % (2 * self.heads):
            raise ContractError("width", self.width, f"a multiple of {2 * self.heads}")
        for name in ("reasoner_width", "reasoner_heads", "reasoner_hidden"):
            if getattr(self, name) < 0:
                raise ContractError(name, getattr(self, name), "at least 1, or 0")
        width, heads = self.reasoner_width or self.width, self.reasoner_heads or self.heads
        if width % heads:
            raise ContractError("reasoner_width", width, f"a multiple of {heads}")
        if self.host not in HOSTS:
            raise ContractError("host", self.host, f"one of {HOSTS}")
        for name in ("bev_x_m", "bev_y_m"):
            low, high = getattr(self, name)
            if not low < 0 < high:
                raise ContractError(name, (low, high), "min < 0 < max, so that the ego is inside")
        for cells, patch in zip(self.bev_cells, self.patch, strict=True):
            if cells < 1 or patch < 1 or cells % patch:
                raise ContractError("patch", self.patch, f"divisors of bev_cells {self.bev_cells}")
            if self.host == "transfuser" and patch % 4:
                raise ContractError("patch", self.patch, "multiples of 4: three scales end in it")
        if not self.anchor_heights_m:
            raise ContractError("anchor_heights_m", self.anchor_heights_m, "at least one height")
        if not self.view_time_offsets_s or max(self.view_time_offsets_s) != 0.0:
            raise ContractError(
                "view_time_offsets_s", self.view_time_offsets_s, "values <= 0, one of them 0"
            )

    @property
    def time_groups(self) -> tuple[float, ...]:
        """Distinct view times, newest first; the views of one time are fused into one BEV slice."""
        return tuple(sorted(set(self.view_time_offsets_s), reverse=True))

    @property
    def bev_tokens(self) -> tuple[int, int]:
        """BEV tokens along x and y."""
        return self.bev_cells[0] // self.patch[0], self.bev_cells[1] // self.patch[1]

    @property
    def lidar_cells(self) -> tuple[int, int]:
        """Cells of a LiDAR histogram along x and y, over the extent of the BEV."""
        factor = LIDAR_CELLS_PER_BEV_CELL
        return factor * self.bev_cells[0], factor * self.bev_cells[1]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PlannerConfig:
        """Rebuild the settings from a manifest or recipe.

        Raises:
            ContractError: a key is unknown or a value is not allowed.
        """
        known = {entry.name for entry in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ContractError("model", unknown, f"only the keys {sorted(known)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-ready values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }
