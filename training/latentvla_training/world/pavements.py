"""Where people walk: crosswalks and pavements of a SUMO network, as rings."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from latentvla_training.world.road_map import Crosswalk

Array = NDArray[np.float64]


def build_crosswalks(net: Any, drivable: shapely.Geometry) -> tuple[Crosswalk, ...]:
    """Return the crossings of a network, from kerb to kerb, in order of their edges."""
    crosswalks = []
    for edge in sorted(net.getEdges(withInternal=True), key=lambda item: str(item.getID())):
        if edge.getFunction() != "crossing":
            continue
        lane = edge.getLanes()[0]
        line = shapely.LineString(np.asarray(lane.getShape(), np.float64)[:, :2])
        band = line.buffer(lane.getWidth() / 2, cap_style="flat", join_style="mitre")
        ring = _rings(band.intersection(drivable))
        if ring:
            signalled = edge.getFromNode().getType() == "traffic_light"
            crosswalks.append(Crosswalk(edge.getID(), ring[0], signalled))
    return tuple(crosswalks)


def crosswalk_axis(net: Any, crosswalk: Crosswalk) -> tuple[Array, float]:
    """Return the middle line (2, 2) from kerb to kerb that people walk along, and its width."""
    lane = net.getEdge(crosswalk.edge_id).getLanes()[0]
    line = shapely.LineString(np.asarray(lane.getShape(), np.float64)[:, :2])
    inside = line.intersection(shapely.Polygon(crosswalk.ring).buffer(0.01))
    parts = getattr(inside, "geoms", [inside])
    return (
        np.asarray(max(parts, key=lambda part: part.length).coords, np.float64),
        float(lane.getWidth()),
    )


def build_sidewalks(net: Any, drivable: shapely.Geometry) -> tuple[Array, ...]:
    """Return the pavements along roads and around corners, without what vehicles use."""
    shapes = []
    for edge in net.getEdges(withInternal=True):
        for lane in edge.getLanes():
            points = np.asarray(lane.getShape(), np.float64)[:, :2]
            if edge.getFunction() == "walkingarea" and len(points) > 2:
                shapes.append(shapely.make_valid(shapely.Polygon(points)))
            elif (
                not edge.getFunction()
                and lane.allows("pedestrian")
                and not lane.allows("passenger")
            ):
                shapes.append(
                    shapely.LineString(points).buffer(lane.getWidth() / 2, cap_style="flat")
                )
    if not shapes:
        return ()
    # A seam of 5 cm between a pavement and the next would split a corner off.
    area = shapely.union_all(shapes).buffer(0.05).difference(drivable)
    return tuple(ring for part in _parts(area) for ring in _rings(part))


def _parts(shape: shapely.Geometry, piece_m: float = 60.0) -> list[shapely.Geometry]:
    """Cut an area into tiles: a pavement around a block has a hole, which a ring has not."""
    x_min, y_min, x_max, y_max = shape.bounds
    cuts = [
        np.append(np.arange(low, high, piece_m), high)
        for low, high in ((x_min, x_max), (y_min, y_max))
    ]
    return [
        shape.intersection(shapely.box(x0, y0, x1, y1))
        for x0, x1 in zip(cuts[0][:-1], cuts[0][1:], strict=True)
        for y0, y1 in zip(cuts[1][:-1], cuts[1][1:], strict=True)
    ]


def _rings(shape: shapely.Geometry, least_m2: float = 0.5) -> list[Array]:
    """Open counter-clockwise rings (K, 2) of the polygons of a geometry, largest first."""
    parts = [part for part in getattr(shape, "geoms", [shape]) if part.geom_type == "Polygon"]
    rings = []
    for part in sorted(parts, key=lambda item: -item.area):
        if part.area < least_m2:
            continue
        coordinates = np.asarray(part.simplify(0.02).exterior.coords, np.float64)[:-1]
        ccw = shapely.LinearRing(coordinates).is_ccw
        rings.append(np.ascontiguousarray(coordinates if ccw else coordinates[::-1]))
    return rings
