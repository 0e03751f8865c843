"""Props stand beside the road, apart from each other, and never before a lamp."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
import shapely.affinity
from latentvla_training.world.crossroads import crossroads_map
from latentvla_training.world.scenery import CLEARANCE_M, place_props


@pytest.fixture(scope="module")
def road_map():
    return crossroads_map()


def drivable(road_map):
    return shapely.union_all([shapely.Polygon(p.ring).buffer(0.0) for p in road_map.polygons])


def footprint(prop):
    length, width = prop.size[:2] / 2.0
    box = shapely.affinity.rotate(
        shapely.box(-length, -width, length, width), prop.yaw, (0.0, 0.0), use_radians=True
    )
    return shapely.affinity.translate(box, *prop.center[:2])


def standing(props):
    return [prop for prop in props if prop.kind in ("building", "tree")]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_props_keep_clear_of_the_road_and_of_each_other(road_map, seed):
    props = place_props(road_map.polygons, road_map.lanes, road_map.signals, road_map.bounds, seed)
    kinds = {prop.kind for prop in props}
    assert kinds == {"building", "tree", "gantry", "pole"}
    road = drivable(road_map)
    shapes = [footprint(prop) for prop in standing(props)]
    assert min(shape.distance(road) for shape in shapes) >= CLEARANCE_M - 0.05
    for index, shape in enumerate(shapes):
        assert not any(shape.intersects(other) for other in shapes[:index])
    for prop in props:
        if prop.kind == "pole":
            assert footprint(prop).distance(road) > 0.5
        assert prop.center[2] >= prop.size[2] / 2.0 - 1e-9


def test_no_prop_hides_a_lamp_from_its_approach_lane(road_map):
    # Beams hang above the lamps; everything else stands in the way where it is crossed.
    upright = [prop for prop in road_map.props if prop.kind != "gantry"]
    shapes = shapely.STRtree([footprint(prop) for prop in upright])
    lowest_beam = min(p.center[2] - p.size[2] / 2 for p in road_map.props if p.kind == "gantry")
    assert lowest_beam > max(s.lamp_centers[:, 2].max() for s in road_map.signals) + 0.45
    for signal in road_map.signals:
        lane = shapely.LineString(road_map.lanes[signal.approach_lane].centerline)
        for back in np.arange(0.0, 80.0, 5.0):
            eye = lane.interpolate(lane.length - back)
            for lamp in signal.lamp_centers:
                sight = shapely.LineString([eye, shapely.Point(lamp[:2])])
                assert len(shapes.query(sight, "intersects")) == 0


def test_every_head_hangs_on_a_beam_that_a_pole_carries(road_map):
    beams = [footprint(prop) for prop in road_map.props if prop.kind == "gantry"]
    poles = [footprint(prop) for prop in road_map.props if prop.kind == "pole"]
    assert len(beams) == len(poles) == 4
    for signal in road_map.signals:
        head = shapely.Point(signal.lamp_centers[:, :2].mean(axis=0))
        nearest = min(beams, key=head.distance)
        assert head.distance(nearest) < 1.0
        assert min(nearest.distance(pole) for pole in poles) < 0.1


def test_placing_depends_on_the_seed_alone(road_map):
    arguments = (road_map.polygons, road_map.lanes, road_map.signals, road_map.bounds)
    shuffled = dict(reversed(list(road_map.lanes.items())))
    first = place_props(*arguments, seed=4)
    again = place_props(road_map.polygons, shuffled, *arguments[2:], seed=4)
    assert len(first) == len(again)
    for one, other in zip(first, again, strict=True):
        assert one.kind == other.kind
        assert np.array_equal(one.center, other.center)
        assert np.array_equal(one.color, other.color)
    different = place_props(*arguments, seed=5)
    assert [p.center.tolist() for p in first] != [p.center.tolist() for p in different]
