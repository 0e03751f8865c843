"""The ray-casting kernels against plain numpy, and the ground raster against its map."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from latentvla_training.world import backdrop, ground, ray_casting
from latentvla_training.world.crossroads import crossroads_map
from latentvla_training.world.rig import default_rig

from latentvla_ros.geometry import se3

angle = st.floats(-3.1, 3.1)
place = st.tuples(st.floats(-25.0, 25.0), st.floats(-25.0, 25.0), st.floats(-1.6, 6.0))
half = st.tuples(*[st.floats(0.1, 6.0)] * 3)


def slab_depth(geometry, rays):
    """Return the entry depth (128, 256) of every sample of a 128x64 image, inf where it misses."""
    v, u = np.mgrid[0:128, 0:256] * 0.5 - 0.25
    directions = np.stack([u, v, np.ones_like(u)], axis=-1) @ rays.T
    cos, sin = geometry[6:8]
    to_box = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    local, origin = directions @ to_box.T, -to_box @ geometry[:3]
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = (-geometry[3:6] - origin) / local, (geometry[3:6] - origin) / local
    near = np.minimum(first, second).max(axis=-1)
    far = np.maximum(first, second).min(axis=-1)
    return np.where((near < far) & (near > 0.15), near, np.inf)


@settings(max_examples=60, deadline=None)
@given(angle, angle, place, half)
def test_box_covers_exactly_the_samples_whose_rays_meet_it(heading, yaw, center, size):
    camera = default_rig(128, 64).camera("front")
    mount = se3.from_xyz_rpy((0.0, 0.0, 0.0), (0.0, 0.0, heading)) @ camera.ego_from_camera
    rays = mount[:3, :3] @ np.linalg.inv(camera.model.matrix)
    projection = camera.model.matrix @ mount[:3, :3].T
    geometry = np.array([*center, *size, np.cos(yaw), np.sin(yaw), 0.0, 0.0])
    corners = np.empty((8, 3))
    ray_casting.write_corners(geometry, corners)
    depth = np.full((128, 256), np.float32(1e9))
    owner = np.full((128, 256), np.int32(-1))
    ray_casting.draw(0, ray_casting.BOX, geometry, -1e9, rays, corners, projection, depth, owner, 2)
    expected = slab_depth(geometry, rays)
    hit = owner == 0
    # Rays along an edge may fall on either side.
    assert (hit != np.isfinite(expected)).sum() <= 2
    both = hit & np.isfinite(expected)
    assert depth[both] == pytest.approx(expected[both], rel=1e-4)


def test_ground_shows_paint_kerb_and_grass():
    road_map = crossroads_map()
    raster = ground.paint_ground(road_map)
    no_step = (0.02, 0.0, 0.0, 0.02)

    def look(x, y):
        return np.array(
            backdrop.ground(x, y, *no_step, raster.origin, raster.tile_index, raster.texels)
        )

    asphalt, grass, centre, outside = (
        look(*p) for p in ((-60.0, -5.2), (-60.0, -40.0), (-60.0, 0.0), (5000.0, 0.0))
    )
    assert asphalt[3] > 250 and np.ptp(asphalt[:3]) < 15
    assert grass[3] < 5 and grass[1] > grass[2] + 25
    assert centre[0] > centre[2] + 80
    assert outside[3] < 5


def test_ground_far_away_is_the_mean_of_what_a_pixel_covers():
    road_map = crossroads_map()
    raster = ground.paint_ground(road_map)
    arguments = (raster.origin, raster.tile_index, raster.texels)
    # A pixel 0.3 m wide and 6 m long over the zebra of the western arm, against its fine samples.
    x, y = -20.0, 0.0
    pixel = np.array(backdrop.ground(x, y, 0.3, 0.0, 0.0, 6.0, *arguments))
    grid = [
        backdrop.ground(x + dx, y + dy, 0.01, 0.0, 0.0, 0.01, *arguments)
        for dx in np.linspace(-0.15, 0.15, 7)
        for dy in np.linspace(-3.0, 3.0, 121)
    ]
    assert pixel == pytest.approx(np.mean(grid, axis=0), abs=12.0)


def test_ground_is_the_same_where_fast_clipping_fails(monkeypatch):
    """As it does at test-0011, which without a way out was missing from the test split."""
    plain = ground.paint_ground(crossroads_map())

    def fail(*_):
        raise shapely.GEOSException("IllegalArgumentException: Invalid number of points")

    monkeypatch.setattr(ground.shapely, "clip_by_rect", fail)
    slow = ground.paint_ground(crossroads_map())
    np.testing.assert_array_equal(slow.tile_index, plain.tile_index)
    np.testing.assert_array_equal(slow.texels, plain.texels)


def test_tiles_without_paint_are_not_stored():
    raster = ground.paint_ground(crossroads_map())
    share = np.count_nonzero(raster.tile_index) / raster.tile_index.size
    assert 0.05 < share < 0.5
    assert len(raster.texels) == np.count_nonzero(raster.tile_index) + 1


def test_raster_and_kernels_agree_on_the_layout():
    assert backdrop.RESOLUTION_M == ground.RESOLUTION_M
    assert 1 << backdrop.TILE_BITS == ground.TILE_TEXELS
    assert backdrop.LEVELS == ground.LEVELS
