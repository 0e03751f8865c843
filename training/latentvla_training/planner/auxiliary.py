"""Auxiliary heads that exist during training only, and their losses."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from latentvla_ros.model.bev import project
from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.model.planner import Encoded
from latentvla_ros.model.precision import full_precision
from latentvla_training.planner.targets import (
    IGNORE,
    LEADER_RANGE_M,
    RASTER_PLANES,
    ROUTE_DISTANCES_M,
)

#: Weight of the positive class by raster plane: road users fill few cells.
_POSITIVE = (1.0, 2.0, 2.0, 6.0, 6.0)
_PLANE_WEIGHT = (0.5, 1.0, 0.25, 1.0, 0.5)
_LIGHT_WEIGHT = (0.5, 1.0, 2.0, 1.0)  # none, red, yellow, green
_LAMP_WEIGHT = (0.1, 1.0, 4.0, 1.5)

# Which context token carries what; the rest are free.
_LIGHT, _LEADER, _ROUTE = 0, 1, 2


class AuxiliaryHeads(nn.Module):
    """Read road, road users, route, leader and own light out of the planner's insides.

    The own light is read three times: from the image features where its lamps project, and by
    attention over all of them, which trains the trunk to see it; and from a context token, which
    brings it to the plan.
    """

    positive: Tensor
    plane_weight: Tensor
    light_weight: Tensor

    def __init__(self, config: PlannerConfig) -> None:
        super().__init__()
        self.current = tuple(i for i, t in enumerate(config.view_time_offsets_s) if t == 0.0)
        self.raster = nn.Conv2d(config.width, 4 * (len(RASTER_PLANES) + 2), 1)
        self.look = nn.Conv2d(config.image_channels, 1, 1)
        self.seen_light = nn.Linear(config.image_channels, 4)
        self.lamps = nn.Linear(3 * config.image_channels, 4)
        self.light = nn.Linear(config.width, 5)  # four states and the distance
        self.leader = nn.Linear(config.width, 3)
        self.route = nn.Linear(config.width, 2 * len(ROUTE_DISTANCES_M))
        view = (1, -1, 1, 1)
        self.register_buffer("positive", torch.tensor(_POSITIVE).view(view), persistent=False)
        self.register_buffer(
            "plane_weight", torch.tensor(_PLANE_WEIGHT).view(view), persistent=False
        )
        self.register_buffer("light_weight", torch.tensor(_LIGHT_WEIGHT), persistent=False)

    def forward(self, encoded: Encoded, with_images: bool = True) -> dict[str, Tensor]:
        """Return predictions by name, float32; ``with_images=False`` leaves the trunk's out."""
        raster = functional.pixel_shuffle(self.raster(encoded.bev), 2).float()
        context = encoded.context
        result = {
            "raster": raster[:, : len(RASTER_PLANES)],
            "velocity": raster[:, len(RASTER_PLANES) :],
            "light": self.light(context[:, _LIGHT]).float(),
            "leader": self.leader(context[:, _LEADER]).float(),
            "route": self.route(context[:, _ROUTE]).float().view(-1, len(ROUTE_DISTANCES_M), 2),
        }
        if with_images:
            features = encoded.image_features[:, self.current]  # (B, V0, C, h, w)
            batch, _, channels = features.shape[:3]
            flat = features.flatten(0, 1)
            weights = self.look(flat).float().view(batch, -1).softmax(dim=1)
            values = features.float().transpose(1, 2).reshape(batch, channels, -1)
            pooled = (values * weights[:, None]).sum(-1)
            result["seen_light"] = self.seen_light(pooled.to(flat.dtype)).float()
        return result

    def read_lamps(
        self, encoded: Encoded, batch: dict[str, Tensor], config: PlannerConfig
    ) -> tuple[Tensor, Tensor]:
        """Classify the own lamps in every view that shows them, and as many random places.

        Args:
            batch: ``lamps`` (B, 3, 3), ``light`` (B,), ``labelled`` (B,), ``view_mask`` and
                calibration.

        Returns:
            logits (2 B V, 4) none, red, yellow, green, and their classes (2 B V,) or ``IGNORE``.
        """
        views = batch["view_mask"].shape[1]
        known = torch.isfinite(batch["lamps"]).all(dim=2).all(dim=1) & (batch["light"] > 0)
        with full_precision(batch["lamps"].device):
            grid, visible = project(
                torch.nan_to_num(batch["lamps"]).repeat_interleave(views, dim=0),
                batch["intrinsics"].flatten(0, 1),
                batch["ego_from_camera"].flatten(0, 1),
                config.image_width,
                config.image_height,
            )  # (B V, 3, 2)
            seen = (visible > 0).all(dim=1) & batch["view_mask"].flatten()
            shown = seen & known.repeat_interleave(views)
            elsewhere = grid - grid.mean(dim=1, keepdim=True)
            elsewhere = elsewhere.clamp(-0.3, 0.3) + 1.8 * torch.rand_like(grid[:, :1]) - 0.9
            features = encoded.image_features.flatten(0, 1).float()
            places = torch.cat([grid, elsewhere], dim=1)[:, :, None]
            sampled = functional.grid_sample(features, places, align_corners=False)[..., 0]
            rows = sampled.transpose(1, 2).reshape(len(grid), 2, -1).transpose(0, 1).flatten(0, 1)
            logits = self.lamps(rows)
        light = batch["light"].repeat_interleave(views)
        read = (batch["view_mask"] & batch["labelled"][:, None]).flatten()
        classes = torch.cat(
            [torch.where(shown, light, IGNORE), torch.where(read, 0, IGNORE)],
        )
        return logits, classes


def auxiliary_loss(
    heads: AuxiliaryHeads, predicted: dict[str, Tensor], batch: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Return the weighted losses by name.

    Args:
        batch: ``AuxiliaryTargets`` by field name, and ``labelled`` (B,) whether they are known.
    """
    labelled = batch["labelled"].float()
    scenes = labelled.sum().clamp(min=1.0)
    bits = torch.arange(len(RASTER_PLANES), device=batch["raster"].device).view(1, -1, 1, 1)
    raster = ((batch["raster"][:, None].to(torch.int64) >> bits) & 1).float()
    per_cell = functional.binary_cross_entropy_with_logits(
        predicted["raster"], raster, pos_weight=heads.positive, reduction="none"
    )
    occupied = raster[:, 3:4]
    velocity = 0.25 * batch["velocity"].float()
    speed_error = functional.smooth_l1_loss(predicted["velocity"], 0.2 * velocity, reduction="none")
    losses = {
        "raster": ((per_cell * heads.plane_weight).mean(dim=(1, 2, 3)) * labelled).sum() / scenes,
        "velocity": 2.0 * (speed_error * occupied).sum() / occupied.sum().clamp(min=1.0),
    }
    light = batch["light"]
    # A sum over a count keeps every parameter in the graph when no light can be read at all.
    readable = heads.light_weight[light.clamp(min=0)] * (light != IGNORE)
    for name, weight in (("light", 0.6), ("seen_light", 0.3)):
        if name in predicted:
            error = functional.cross_entropy(
                predicted[name][:, :4],
                light,
                heads.light_weight,
                ignore_index=IGNORE,
                reduction="sum",
            )
            losses[name] = weight * error / readable.sum().clamp(min=1.0)
    known = (light > 0).float()
    distance = torch.nan_to_num(batch["light_distance_m"]) * 0.05
    if "lamps" in predicted:
        logits, classes = predicted["lamps"], batch["lamp_classes"]
        weights = logits.new_tensor(_LAMP_WEIGHT)
        error = functional.cross_entropy(
            logits, classes, weights, ignore_index=IGNORE, reduction="sum"
        )
        counted = weights[classes.clamp(min=0)] * (classes != IGNORE)
        losses["lamps"] = error / counted.sum().clamp(min=1.0)
    off = (predicted["light"][:, 4] - distance).abs() * known
    losses["light_distance"] = 0.3 * off.sum() / known.sum().clamp(min=1.0)
    exists = batch["leader"][:, 0]
    gap = batch["leader"][:, 1].clamp(max=LEADER_RANGE_M) * 0.05
    count = exists.sum().clamp(min=1.0)
    leader = predicted["leader"]
    sees = functional.binary_cross_entropy_with_logits(leader[:, 0], exists, reduction="none")
    losses["leader"] = (
        0.3 * (sees * labelled).sum() / scenes
        + 0.3 * ((leader[:, 1] - gap).abs() * exists).sum() / count
        + 0.3 * ((leader[:, 2] - 0.2 * batch["leader"][:, 2]).abs() * exists).sum() / count
    )
    ahead = torch.isfinite(batch["route"])
    error = (predicted["route"] - 0.1 * torch.nan_to_num(batch["route"])).abs()
    losses["route"] = (error * ahead).sum() / ahead.sum().clamp(min=1)
    return losses
