"""Pavements, crosswalks, shoulders and verges are painted where the map has them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from latentvla_training.world import backdrop, ground
from latentvla_training.world.crossroads import crossroads_map
from latentvla_training.world.road_map import Crosswalk, MarkingKind
from latentvla_training.world.scenery import COUNTRY_KINDS
from latentvla_training.world.semantics import SemanticClass


@pytest.fixture(scope="module")
def road_map():
    return crossroads_map()


def class_at(raster, x, y):
    return backdrop.ground_class(x, y, raster.origin, raster.tile_index, raster.classes)


def along_strip(raster, x, y0, y1):
    return [class_at(raster, x, y) for y in np.arange(y0, y1, 0.1)]


def test_classes_of_the_junction(road_map):
    raster = ground.paint_ground(road_map)
    assert raster.classes.shape == (len(raster.texels), ground.TILE_TEXELS**2)
    for x, y, expected in (
        (-60.0, -5.2, SemanticClass.ROAD),
        (0.0, 0.0, SemanticClass.ROAD),
        (-60.0, 0.0, SemanticClass.MARKING),
        (-60.0, -8.5, SemanticClass.SIDEWALK),
        (-60.0, -40.0, SemanticClass.TERRAIN),
        (5000.0, 0.0, SemanticClass.TERRAIN),
    ):
        assert class_at(raster, x, y) == expected, (x, y)


@pytest.mark.parametrize("kind", sorted(COUNTRY_KINDS))
def test_country_roads_have_a_shoulder_and_no_pavement(road_map, kind):
    raster = ground.paint_ground(dataclasses.replace(road_map, kind=kind))
    assert not (raster.classes == SemanticClass.SIDEWALK).any()
    arguments = (0.02, 0.0, 0.0, 0.02, raster.origin, raster.tile_index, raster.texels)
    shoulder, verge, meadow = (backdrop.ground(-60.0, y, *arguments) for y in (-7.7, -8.7, -20.0))
    assert shoulder[3] > 200 and np.ptp(shoulder[:3]) < 25  # grey, tinted like asphalt
    assert 40 < verge[3] < 90
    assert meadow[3] < 5


def test_given_pavements_are_painted_and_no_others(road_map):
    ring = np.array([[-80.0, -10.0], [-40.0, -10.0], [-40.0, -7.2], [-80.0, -7.2]])
    raster = ground.paint_ground(dataclasses.replace(road_map, sidewalks=(ring,)))
    assert class_at(raster, -60.0, -9.0) == SemanticClass.SIDEWALK
    assert class_at(raster, -60.0, 9.0) == SemanticClass.TERRAIN
    assert class_at(raster, -60.0, -5.2) == SemanticClass.ROAD


def test_a_crosswalk_is_striped_across_the_walk(road_map):
    ring = np.array([[-62.0, -7.0], [-58.0, -7.0], [-58.0, 7.0], [-62.0, 7.0]])
    crossing = Crosswalk(":x_c0", ring, False)
    raster = ground.paint_ground(dataclasses.replace(road_map, crosswalks=(crossing,)))
    walk = np.array(along_strip(raster, -60.0, -6.8, -0.5)) == SemanticClass.MARKING
    changes = np.count_nonzero(walk[1:] != walk[:-1])
    assert 9 <= changes <= 14  # a stripe and a gap of half a metre each
    along = [class_at(raster, x, -6.75) for x in np.arange(-61.7, -58.3, 0.1)]
    assert len(set(along)) == 1  # the stripes run with the traffic


def test_a_crosswalk_that_a_marking_paints_is_not_painted_twice(road_map):
    zebra = next(m for m in road_map.markings if m.kind == MarkingKind.CROSSING)
    middle = zebra.points.mean(axis=0)
    ring = middle + np.array([[-1.5, -7.0], [1.5, -7.0], [1.5, 7.0], [-1.5, 7.0]])
    plain = ground.paint_ground(road_map)
    both = ground.paint_ground(
        dataclasses.replace(road_map, crosswalks=(Crosswalk(":x_c0", ring, True),))
    )
    np.testing.assert_array_equal(plain.texels, both.texels)
