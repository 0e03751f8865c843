"""The drivable area: lanes, roads and junctions as NAVSIM's polygons, as wide as cars need.

The mapping is experiments.md section 1; polygons are grown by 0.2 m so that seams close.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import JOIN_STYLE, LineString, MultiPolygon
from shapely.geometry import Polygon as ShapelyPolygon
from shapely.ops import unary_union

from latentvla_training.world.episode import EgoVehicle
from latentvla_training.world.layers import opposite_edge, road_edges, vehicle_lanes
from latentvla_training.world.network_plan import GUTTER_M
from latentvla_training.world.polyline import resample_polyline
from latentvla_training.world.road_map import Lane, Layer, Polygon

Array = NDArray[np.float64]

SEAM_M = 0.2
#: Radius of the kerbs at junction corners by kind of network, m. Where roads part at a sharp angle
#: a large one would pave the wedge between them.
KERB_RADIUS_M = {
    "grid": 8.0,
    "spider": 8.0,
    "random": 8.0,
    "rural": 10.0,
    "merge": 1.0,
    "split": 1.0,
    "roundabout": 8.0,
}
#: How far an approach belongs to the corner that is rounded, m.
CORNER_REACH_M = 12.0
#: How much farther than the car reaches, its rear axle in the middle of a lane, asphalt goes in
#: bends, m: on a straight road as far as the gutter.
SWEPT_MARGIN_M = 1.4


def build_polygons(net: Any, lanes: dict[str, Lane], kerb_radius: float) -> tuple[Polygon, ...]:
    """Return ROADBLOCK, LANE, LANE_CONNECTOR and INTERSECTION polygons.

    An intersection is what its connectors and the car on them sweep, its corners rounded.

    Args:
        kerb_radius: of the corners, m.
    """
    bands = {name: line_polygon(lane.centerline, lane.width_m) for name, lane in lanes.items()}
    polygons = [
        Polygon(
            Layer.LANE_CONNECTOR if lanes[name].is_connector else Layer.LANE, name, ring_of(band)
        )
        for name, band in bands.items()
    ]
    roads = {
        edge.getID(): largest(unary_union(_road_parts(edge, lanes, bands)))
        for edge in road_edges(net, internal=False)
    }
    polygons += [Polygon(Layer.ROADBLOCK, name, ring_of(area)) for name, area in roads.items()]
    for node in net.getNodes():
        inside = _connectors_of(net, node)
        if not inside:
            continue
        core = unary_union([bands[name] for name in inside])
        near = core.buffer(CORNER_REACH_M)
        arms = unary_union(
            [
                roads[edge.getID()].intersection(near)
                for edge in (*node.getIncoming(), *node.getOutgoing())
                if edge.getID() in roads
            ]
        )
        swept = unary_union([core, *(swept_area(lanes[name].centerline) for name in inside)])
        rounded = unary_union([swept, arms]).buffer(kerb_radius, quad_segs=8)
        # The arms are roadblocks themselves: they only give the corners their shape.
        corners = rounded.buffer(-kerb_radius, quad_segs=8).difference(arms)
        beside = [
            part.buffer(SEAM_M, join_style=JOIN_STYLE.mitre)
            for part in getattr(corners, "geoms", [corners])
            if part.area > 0.01 and part.distance(core) < 0.05
        ]
        area = unary_union([core, *beside])
        polygons.append(Polygon(Layer.INTERSECTION, node.getID(), ring_of(area)))
    return tuple(polygons)


def drivable_area(polygons: tuple[Polygon, ...]) -> Any:
    """Return the union of all roadblocks and intersections."""
    layers = (Layer.ROADBLOCK, Layer.INTERSECTION)
    return unary_union([ShapelyPolygon(p.ring).buffer(0.0) for p in polygons if p.layer in layers])


def line_polygon(points: Array, width: float) -> ShapelyPolygon:
    """Return the band of ``width`` m around a polyline (N, 2), square ends, seams grown."""
    flat = LineString(points).buffer(
        width / 2 + SEAM_M, cap_style="flat", join_style=JOIN_STYLE.round, quad_segs=4
    )
    ends = [
        LineString([end, end + SEAM_M * (end - inner) / max(np.linalg.norm(end - inner), 1e-9)])
        .buffer(width / 2 + SEAM_M, cap_style="flat")
        for end, inner in ((points[0], points[1]), (points[-1], points[-2]))
    ]  # fmt: skip
    return largest(unary_union([flat, *ends]))


def swept_area(centerline: Array) -> Any:
    """Return what the ego covers when its rear axle follows a connector, with a margin."""
    ego = EgoVehicle()
    points = resample_polyline(centerline)
    heading = np.gradient(points, axis=0)
    heading /= np.linalg.norm(heading, axis=1, keepdims=True)
    left = np.stack([-heading[:, 1], heading[:, 0]], axis=1)
    half = ego.width_m / 2 + SWEPT_MARGIN_M
    front = ego.rear_axle_to_center_m + ego.length_m / 2 + SWEPT_MARGIN_M
    rear = ego.rear_axle_to_center_m - ego.length_m / 2 - SWEPT_MARGIN_M
    boxes = np.stack(
        [
            points + along * heading + across * left
            for along, across in ((front, half), (rear, half), (rear, -half), (front, -half))
        ],
        axis=1,
    )
    hulls = shapely.convex_hull(
        shapely.multipoints(np.concatenate([boxes[:-1], boxes[1:]], axis=1))
    )
    return unary_union(hulls)


def _road_parts(edge: Any, lanes: dict[str, Lane], bands: dict[str, Any]) -> list[Any]:
    """Return the lanes of an edge and the asphalt beside them, up to the kerbs."""
    own = [lanes[lane.getID()] for lane in vehicle_lanes(edge)]
    parts = [bands[lane.lane_id] for lane in own]
    kerbs = [(own[0], -1.0)] if opposite_edge(edge) else [(own[0], -1.0), (own[-1], 1.0)]
    for lane, left in kerbs:
        reach = lane.width_m / 2 + SEAM_M + GUTTER_M
        line = LineString(lane.centerline)
        parts.append(line.buffer(left * reach, single_sided=True, join_style=JOIN_STYLE.round))
        swept = swept_area(lane.centerline)
        half = line.buffer(left * 2 * reach, single_sided=True, join_style=JOIN_STYLE.round)
        parts.append(swept.intersection(half))
    return parts


def _connectors_of(net: Any, node: Any) -> list[str]:
    """Ids of all internal lanes of a junction that cars use."""
    prefix = f":{node.getID()}_"
    return [
        lane.getID()
        for edge in road_edges(net, internal=True)
        if edge.getID().startswith(prefix)
        for lane in vehicle_lanes(edge)
    ]


def largest(shape: Any) -> ShapelyPolygon:
    """Return the largest part of a shapely (multi)polygon."""
    if isinstance(shape, MultiPolygon):
        return max(shape.geoms, key=lambda part: part.area)
    return shape


def ring_of(shape: Any) -> Array:
    """Return the open counter-clockwise exterior ring (K, 2) of a shapely polygon."""
    outline = largest(shape).simplify(0.02)
    ring = np.asarray(outline.exterior.coords, np.float64)[:-1]
    if not outline.exterior.is_ccw:
        ring = ring[::-1]
    return np.ascontiguousarray(ring)
