"""Auxiliary targets are where the labels say, in the ego frame."""

from __future__ import annotations

import numpy as np
import pytest
from latentvla_training.data.shards import ShardReader
from latentvla_training.planner.dataset import compute_targets, raster_grid
from latentvla_training.planner.targets import IGNORE, RASTER_PLANES, ROUTE_DISTANCES_M, light_class

from latentvla_ros.model.config import PlannerConfig

FINE = PlannerConfig(bev_cells=(72, 48), patch=(4, 4))  # raster cells of half a metre


def test_targets_of_a_straight_road(reader: ShardReader) -> None:
    grid = raster_grid(FINE)
    target = compute_targets(reader, grid)[1]

    def plane(name: str, x: float, y: float) -> bool:
        row = int((x - grid.x_m[0]) / (grid.x_m[1] - grid.x_m[0]) * grid.cells[0])
        column = int((y - grid.y_m[0]) / (grid.y_m[1] - grid.y_m[0]) * grid.cells[1])
        return bool(target.raster[row, column] >> RASTER_PLANES.index(name) & 1)

    assert plane("drivable", 20, 3.0) and not plane("drivable", 20, 4.5)
    assert plane("on_route", 20, 1.2) and not plane("on_route", 20, 2.5)
    assert plane("occupied", 24, 0) and plane("occupied", 25.5, 0.6)
    assert not plane("occupied", 27, 0) and not plane("occupied", 24, 1.6)
    assert plane("braking", 24, 0) and not plane("braking", 10, 0)
    inside = target.velocity[0] != 0
    np.testing.assert_allclose(0.25 * target.velocity[0][inside], 3.0, atol=0.13)
    np.testing.assert_allclose(0.25 * target.velocity[1][inside], 0.0, atol=0.13)
    expected = np.stack([ROUTE_DISTANCES_M, np.zeros(len(ROUTE_DISTANCES_M))], axis=1)
    np.testing.assert_allclose(target.route, expected, atol=1e-4)
    # Centre 24 m ahead of the rear axle, 2 m half length, ego front 4.049 m: 18 m of gap.
    np.testing.assert_allclose(target.leader, [1.0, 24.0 - 2.0 - 4.049, 3.0], atol=1e-3)
    assert (target.light, target.light_distance_m) == (1, 30.0)


@pytest.mark.parametrize(
    ("state", "distance", "expected"),
    [
        (-1, float("nan"), 0),
        (0, 20.0, 1),
        (2, 0.5, 3),
        (0, 80.0, IGNORE),
        (1, float("nan"), IGNORE),
    ],
)
def test_light_class(state: int, distance: float, expected: int) -> None:
    assert light_class(state, distance) == expected
