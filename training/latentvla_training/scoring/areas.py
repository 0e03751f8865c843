"""Where the ego stands: lane, off-road and oncoming flags, and the scores made of them alone.

Source: design/metrics.md sections 3.1 (flags), 4.2 (DAC) and 4.3 (DDC).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from latentvla_training.scoring.geometry import points_in_polygons
from latentvla_training.scoring.scene_batch import SceneBatch
from latentvla_training.world.road_map import Layer

DIRECTION_WINDOW = 11  # steps summed, the present one included
DIRECTION_TOLERATED_M = 2.0
DIRECTION_VIOLATED_M = 6.0


@dataclass(frozen=True)
class EgoAreas:
    """Flags (S, B, 41) bool per proposal and time.

    Attributes:
        multiple_lanes: corners in two or more lanes and no lane holds all four.
        non_drivable: a corner lies in no roadblock, intersection or car park.
        oncoming: the box centre lies in no lane of the route.
        center_in_intersection, rear_axle_in_intersection: strictly inside an intersection.
    """

    multiple_lanes: Tensor
    non_drivable: Tensor
    oncoming: Tensor
    center_in_intersection: Tensor
    rear_axle_in_intersection: Tensor


def ego_areas(scenes: SceneBatch, corners: Tensor, center: Tensor, rear_axle: Tensor) -> EgoAreas:
    """Locate ego boxes among the map polygons.

    Args:
        corners: (S, B, T, 4, 2). center, rear_axle: (S, B, T, 2). Global frame.
    """
    count, batch, steps = center.shape[:3]
    # Kind of point first, so that reductions below run over large strides.
    points = torch.cat([corners.permute(0, 3, 1, 2, 4), center[:, None], rear_axle[:, None]], dim=1)
    inside = points_in_polygons(points.reshape(count, -1, 2), scenes.polygons)
    inside = inside.reshape(count, -1, 6, batch, steps)
    layer = scenes.polygon_layer
    lane = (layer == Layer.LANE) | (layer == Layer.LANE_CONNECTOR)
    intersection = layer == Layer.INTERSECTION
    drivable = (layer == Layer.ROADBLOCK) | intersection | (layer == Layer.CARPARK_AREA)

    def of(mask: Tensor) -> Tensor:
        return mask[:, :, None, None]

    corner = [inside[:, :, i] for i in range(4)]
    some = (corner[0] | corner[1] | corner[2] | corner[3]) & of(lane)
    every = corner[0] & corner[1] & corner[2] & corner[3] & of(lane)
    on_road = (inside[:, :, :4] & drivable[:, :, None, None, None]).any(1).all(1)
    return EgoAreas(
        multiple_lanes=(some.sum(1) > 1) & ~every.any(1),
        non_drivable=~on_road,
        oncoming=~(inside[:, :, 4] & of(lane & scenes.polygon_on_route)).any(1),
        center_in_intersection=(inside[:, :, 4] & of(intersection)).any(1),
        rear_axle_in_intersection=(inside[:, :, 5] & of(intersection)).any(1),
    )


def drivable_area_compliance(areas: EgoAreas) -> Tensor:
    """DAC (S, B) in {0, 1}: never a corner off the road."""
    return (~areas.non_drivable.any(-1)).to(torch.float64)


def driving_direction_compliance(
    areas: EgoAreas, center: Tensor, forgive_intersections: bool
) -> Tensor:
    """DDC (S, B) in {0, 0.5, 1}: metres driven against the route within about a second.

    Args:
        center: (S, B, 41, 2) box centres.
        forgive_intersections: v2 does not count metres inside an intersection, v1 does.
    """
    moved = torch.zeros_like(center[..., 0])
    moved[..., 1:] = torch.linalg.vector_norm(torch.diff(center, dim=-2), dim=-1)
    counted = areas.oncoming
    if forgive_intersections:
        counted = counted & ~areas.center_in_intersection
    moved = torch.where(counted, moved, 0.0)
    padded = torch.nn.functional.pad(moved, (DIRECTION_WINDOW - 1, 0))
    worst = padded.unfold(-1, DIRECTION_WINDOW, 1).sum(-1).amax(-1)
    score = torch.ones_like(worst, dtype=torch.float64)
    score[worst >= DIRECTION_TOLERATED_M] = 0.5
    score[worst >= DIRECTION_VIOLATED_M] = 0.0
    return score
