"""Ego area flags, driving direction and lane keeping by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import rectangle, straight_road
from latentvla_training.scoring.areas import EgoAreas, driving_direction_compliance, ego_areas
from latentvla_training.scoring.progress import lane_keeping, raw_progress
from latentvla_training.scoring.scene_batch import SceneBatch
from latentvla_training.scoring.vehicle import box_center, ego_corners
from latentvla_training.world.road_map import Layer


def areas_at(y: float, **changes: object) -> EgoAreas:
    scenes = SceneBatch.from_arrays([replace(straight_road(), **changes)])  # type: ignore[arg-type]
    states = torch.zeros(1, 1, 1, 11, dtype=torch.float64)
    states[..., 1] = y
    return ego_areas(scenes, ego_corners(states), box_center(states), states[..., :2])


@pytest.mark.parametrize(
    ("y", "multiple", "off", "oncoming"),
    [
        (0.0, False, False, False),  # in the lane of the route
        (4.0, False, False, True),  # in the other lane
        (1.5, True, False, False),  # across both, centre still in ours
        (2.5, True, False, True),
        (-1.5, False, True, False),  # right wheels off the road
        (2.0, True, False, True),  # centre on the lane boundary: in neither
    ],
)
def test_flags(y: float, multiple: bool, off: bool, oncoming: bool) -> None:
    areas = areas_at(y)
    assert bool(areas.multiple_lanes) == multiple
    assert bool(areas.non_drivable) == off
    assert bool(areas.oncoming) == oncoming


def test_lanes_alone_are_not_drivable() -> None:
    road = straight_road()
    layers = road.polygon_layer.copy()
    layers[0] = Layer.LANE
    assert bool(areas_at(0.0, polygon_layer=layers).non_drivable)
    layers[0] = Layer.CARPARK_AREA
    assert not bool(areas_at(0.0, polygon_layer=layers).non_drivable)


def test_a_seam_without_overlap_is_off_road() -> None:
    # The corner's lateral edge at y = 1.1485 lies exactly on the seam: boundary is outside.
    road = straight_road()
    polygons = [rectangle(-50, -6, 150, 1.1485), rectangle(-50, 1.1485, 150, 6)]
    changes = {
        "polygons": [*polygons, *road.polygons[1:]],
        "polygon_layer": np.array([Layer.ROADBLOCK, Layer.ROADBLOCK, Layer.LANE, Layer.LANE]),
        "polygon_on_route": np.array([False, False, True, False]),
    }
    assert bool(areas_at(0.0, **changes).non_drivable)
    assert not bool(areas_at(0.1, **changes).non_drivable)


def flags(oncoming: list[bool], in_intersection: list[bool]) -> EgoAreas:
    shape = (1, 1, len(oncoming))
    none = torch.zeros(shape, dtype=torch.bool)
    return EgoAreas(
        multiple_lanes=none,
        non_drivable=none,
        oncoming=torch.tensor(oncoming).reshape(shape),
        center_in_intersection=torch.tensor(in_intersection).reshape(shape),
        rear_axle_in_intersection=none,
    )


@pytest.mark.parametrize(
    ("step_m", "oncoming_steps", "expected"),
    [
        (0.5, 3, 1.0),  # 1.5 m
        (0.5, 4, 0.5),  # 2.0 m: not below the first threshold
        (0.5, 11, 0.5),  # 5.5 m: the window holds 11 steps
        (0.5, 30, 0.5),  # ... and no more
        (0.625, 30, 0.0),  # 6.875 m
    ],
)
def test_driving_direction(step_m: float, oncoming_steps: int, expected: float) -> None:
    center = torch.zeros(1, 1, 41, 2, dtype=torch.float64)
    center[..., 0] = step_m * torch.arange(41)
    oncoming = [5 <= t < 5 + oncoming_steps for t in range(41)]
    for forgive in (False, True):
        areas = flags(oncoming, [False] * 41)
        assert float(driving_direction_compliance(areas, center, forgive)) == expected
    inside = flags(oncoming, [True] * 41)
    assert float(driving_direction_compliance(inside, center, True)) == 1.0
    assert float(driving_direction_compliance(inside, center, False)) == expected


@pytest.mark.parametrize(
    ("away", "skipped", "expected"),
    [
        (range(19), (), 1.0),
        (range(20), (), 0.0),
        (range(21, 41), (), 0.0),
        (range(25), range(10, 15), 0.0),  # 20 counted steps around a skipped intersection
        (range(24), range(10, 15), 1.0),
        ([*range(15), *range(16, 31)], (), 1.0),  # one step back resets
    ],
)
def test_lane_keeping_counts(away, skipped, expected: float) -> None:
    scenes = SceneBatch.from_arrays([straight_road()])
    center = torch.zeros(1, 1, 41, 2, dtype=torch.float64)
    center[..., 0] = torch.arange(41)
    center[0, 0, list(away), 1] = 0.6
    skip = torch.zeros(1, 1, 41, dtype=torch.bool)
    skip[0, 0, list(skipped)] = True
    assert float(lane_keeping(scenes, center, skip)) == expected


def test_half_a_metre_is_still_in_the_lane() -> None:
    scenes = SceneBatch.from_arrays([straight_road()])
    center = torch.full((1, 1, 41, 2), 0.5, dtype=torch.float64)
    none = torch.zeros(1, 1, 41, dtype=torch.bool)
    assert float(lane_keeping(scenes, center, none)) == 1.0


def test_progress_never_is_negative_and_clamps_at_the_ends() -> None:
    scenes = SceneBatch.from_arrays([straight_road()])
    center = torch.zeros(1, 3, 41, 2, dtype=torch.float64)
    center[0, 0, -1, 0] = 12.5
    center[0, 1, -1, 0] = -5.0
    center[0, 2, -1, 0] = 500.0
    assert raw_progress(scenes, center).tolist() == [[12.5, 0.0, 120.0]]
