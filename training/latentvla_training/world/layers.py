"""SUMO network to NAVSIM layers: edge, lane, internal lane and junction to typed polygons.

The mapping is experiments.md section 1; polygons are grown by 0.2 m so that seams close.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import JOIN_STYLE, LineString, MultiPolygon
from shapely.geometry import Polygon as ShapelyPolygon
from shapely.ops import unary_union

from latentvla_training.world.road_map import (
    Lane,
    Layer,
    Marking,
    MarkingKind,
    Polygon,
    Signal,
)

Array = NDArray[np.float64]

SEAM_M = 0.2
LAMP_HEIGHTS_M = (6.4, 5.4, 4.4)
#: From the stop line: near enough to be read, far enough to be in the front camera's view at it.
GANTRY_MIN_M, GANTRY_MAX_M = 16.0, 30.0


@dataclass(frozen=True)
class RightOfWay:
    """Which connectors cross or merge with a connector, and which of those go first.

    Attributes:
        yields_to: connector id (first internal lane of the link) -> connectors it must let pass.
        foes: connector id -> all connectors in conflict.
    """

    yields_to: dict[str, tuple[str, ...]]
    foes: dict[str, tuple[str, ...]]


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


def deduplicate(points: Any) -> Array:
    """Return a polyline (N, 2) without coinciding neighbours; at least two points stay."""
    line = np.asarray(points, np.float64)[:, :2]
    keep = np.ones(len(line), bool)
    keep[1:] = np.linalg.norm(np.diff(line, axis=0), axis=1) > 1e-3
    line = line[keep]
    return line if len(line) > 1 else np.stack([line[0], line[0] + np.array([1e-2, 0.0])])


def build_lanes(net: Any, signal_of: dict[str, int]) -> dict[str, Lane]:
    """Return every lane and connector; ``signal_of`` gives the head of a controlled connector."""
    turn_of: dict[str, str] = {}
    following: dict[str, list[str]] = {}
    for edge in net.getEdges(withInternal=True):
        for lane in edge.getLanes():
            targets = following.setdefault(lane.getID(), [])
            for link in lane.getOutgoing():
                via = link.getViaLaneID()
                targets.append(via or link.getToLane().getID())
                if via:
                    turn_of[via] = link.getDirection().lower()
    for _ in range(3):  # the second half of a turn that waits inside the junction
        for lane_id, targets in following.items():
            if lane_id in turn_of:
                turn_of.update({name: turn_of[lane_id] for name in targets if name[0] == ":"})
    lanes: dict[str, Lane] = {}
    for edge in net.getEdges(withInternal=True):
        parallel = edge.getLanes()
        internal = edge.getFunction() == "internal"
        for index, lane in enumerate(parallel):
            lanes[lane.getID()] = Lane(
                lane_id=lane.getID(),
                edge_id=edge.getID(),
                is_connector=internal,
                centerline=deduplicate(lane.getShape()),
                width_m=float(lane.getWidth()),
                speed_limit_mps=float(lane.getSpeed()),
                successors=tuple(following.get(lane.getID(), ())),
                left_neighbor=parallel[index + 1].getID() if index + 1 < len(parallel) else None,
                right_neighbor=parallel[index - 1].getID() if index > 0 else None,
                signal=signal_of.get(lane.getID(), -1),
                turn=turn_of.get(lane.getID(), "") if internal else "",
            )
    return lanes


def build_polygons(net: Any, lanes: dict[str, Lane]) -> tuple[Polygon, ...]:
    """Return ROADBLOCK, LANE, LANE_CONNECTOR and INTERSECTION polygons."""
    bands = {name: line_polygon(lane.centerline, lane.width_m) for name, lane in lanes.items()}
    polygons = [
        Polygon(
            Layer.LANE_CONNECTOR if lanes[name].is_connector else Layer.LANE, name, ring_of(band)
        )
        for name, band in bands.items()
    ]
    for edge in net.getEdges(withInternal=False):
        area = unary_union([bands[lane.getID()] for lane in edge.getLanes()])
        polygons.append(Polygon(Layer.ROADBLOCK, edge.getID(), ring_of(area)))
    for node in net.getNodes():
        outline = np.asarray(node.getShape(), np.float64)
        if len(outline) < 3:
            continue
        area = ShapelyPolygon(outline[:, :2]).buffer(SEAM_M, join_style=JOIN_STYLE.mitre)
        inside = [bands[name] for name in _connectors_of(net, node)]
        polygons.append(
            Polygon(Layer.INTERSECTION, node.getID(), ring_of(unary_union([area, *inside])))
        )
    return tuple(polygons)


def _connectors_of(net: Any, node: Any) -> list[str]:
    """Ids of all internal lanes of a junction, whose wide turns may leave its drawn outline."""
    prefix = f":{node.getID()}_"
    return [
        lane.getID()
        for edge in net.getEdges(withInternal=True)
        if edge.getID().startswith(prefix)
        for lane in edge.getLanes()
    ]


def build_signals(net: Any) -> tuple[tuple[Signal, ...], dict[str, int]]:
    """Return one head per signalised approach lane, and the head index of each connector."""
    signals: list[Signal] = []
    signal_of: dict[str, int] = {}
    for edge in sorted(net.getEdges(withInternal=False), key=lambda item: item.getID()):
        outline = np.asarray(edge.getToNode().getShape(), np.float64)
        for lane in edge.getLanes():
            links = [link for link in lane.getOutgoing() if link.getTLSID()]
            if not links:
                continue
            shape = deduplicate(lane.getShape())
            end = shape[-1]
            direction = _heading_at_end(shape)
            left = np.array([-direction[1], direction[0]])
            distance = _far_side(edge, outline, direction)
            head = end + direction * distance
            for link in links:
                if link.getViaLaneID():
                    signal_of[link.getViaLaneID()] = len(signals)
            signals.append(
                Signal(
                    tls_id=links[0].getTLSID(),
                    link_indices=tuple(link.getTLLinkIndex() for link in links),
                    approach_lane=lane.getID(),
                    stop_line=np.stack(
                        [end + left * lane.getWidth() / 2, end - left * lane.getWidth() / 2]
                    ),
                    lamp_centers=np.array([[*head, height] for height in LAMP_HEIGHTS_M]),
                    facing_yaw=math.atan2(-direction[1], -direction[0]),
                )
            )
    return tuple(signals), signal_of


def _heading_at_end(shape: Array, over_m: float = 3.0) -> Array:
    """Unit vector of the last ``over_m`` of a polyline."""
    line = LineString(shape)
    start = np.asarray(line.interpolate(max(line.length - over_m, 0.0)).coords[0])
    vector = shape[-1] - start
    return np.asarray(vector / np.linalg.norm(vector))


def _far_side(edge: Any, outline: Array, direction: Array) -> float:
    """Distance from the stop line to just past the junction, the same for a whole approach."""
    area = ShapelyPolygon(outline[:, :2])
    depths = []
    for lane in edge.getLanes():
        end = np.asarray(lane.getShape()[-1])[:2]
        crossing = LineString([end + 0.5 * direction, end + 60.0 * direction]).intersection(area)
        depths.append(crossing.length)
    return float(np.clip(max(depths) + 1.5, GANTRY_MIN_M, GANTRY_MAX_M))


def build_markings(net: Any, polygons: tuple[Polygon, ...]) -> tuple[Marking, ...]:
    """Return lane dividers, centre lines, edge lines, stop lines and crossings."""
    markings: list[Marking] = []
    for edge in sorted(net.getEdges(withInternal=False), key=lambda item: item.getID()):
        edge_lanes = edge.getLanes()
        for lane in edge_lanes[1:]:
            shape = LineString(deduplicate(lane.getShape()))
            points = _offset(shape, -lane.getWidth() / 2)
            markings.append(Marking(MarkingKind.DASHED, points, 0.15))
        opposite = [
            other
            for other in edge.getToNode().getOutgoing()
            if other.getID()[:-1] == edge.getID()[:-1]  # r12f and r12b are one road
        ]
        leftmost = edge_lanes[-1]
        boundary = _offset(LineString(deduplicate(leftmost.getShape())), leftmost.getWidth() / 2)
        if not opposite:
            markings.append(Marking(MarkingKind.SOLID, boundary, 0.15))
        elif edge.getID() < opposite[0].getID():
            markings.append(Marking(MarkingKind.CENTRE, boundary, 0.15))
        markings += _approach_markings(edge, bool(opposite))
    drivable = unary_union(
        [
            ShapelyPolygon(polygon.ring)
            for polygon in polygons
            if polygon.layer in (Layer.ROADBLOCK, Layer.INTERSECTION)
        ]
    ).buffer(-0.35)
    parts = drivable.geoms if isinstance(drivable, MultiPolygon) else [drivable]
    for part in parts:
        for ring in (part.exterior, *part.interiors):
            if ring.length > 5.0:
                points = np.asarray(ring.simplify(0.03).coords, np.float64)
                markings.append(Marking(MarkingKind.SOLID, points, 0.15))
    return tuple(markings)


def _approach_markings(edge: Any, two_way: bool) -> list[Marking]:
    """Stop line of an approach that is signalised or yields, and the crossing beyond it."""
    links = [link for lane in edge.getLanes() for link in lane.getOutgoing()]
    node = edge.getToNode()
    signalised = any(link.getTLSID() for link in links)
    straight = [link for link in links if link.getDirection() != "l"] or links
    others = [link for link in node.getConnections() if link.getFrom() is not edge]
    yields = any(node.forbids(other, link) for link in straight for other in others)
    if not signalised and not yields:
        return []
    right, left = edge.getLane(0), edge.getLanes()[-1]
    right_end, left_end = np.array(right.getShape()[-1][:2]), np.array(left.getShape()[-1][:2])
    direction = _heading_at_end(deduplicate(right.getShape()))
    normal = np.array([-direction[1], direction[0]])
    half = right.getWidth() / 2
    ends = np.stack([left_end + normal * (half - 0.2), right_end - normal * (half - 0.2)])
    stop = Marking(MarkingKind.STOP_LINE, ends - 0.3 * direction, 0.4 if signalised else 0.25)
    if not signalised:
        return [stop]
    across = len(edge.getLanes()) * right.getWidth() * (2 if two_way else 1)
    start = right_end - normal * (half - 0.3)
    crossing = np.stack([start, start + normal * (across - 0.6)]) + 2.6 * direction
    return [stop, Marking(MarkingKind.CROSSING, crossing, 3.0)]


def _offset(line: LineString, distance: float) -> Array:
    """Parallel of a polyline, positive to the left, in the same direction."""
    moved = line.offset_curve(distance)
    points = np.asarray(largest_line(moved).coords, np.float64)
    first, last = np.asarray(line.coords[0]), np.asarray(line.coords[-1])
    if np.linalg.norm(points[0] - first) > np.linalg.norm(points[0] - last):
        points = points[::-1]
    return points


def largest_line(shape: Any) -> LineString:
    """Return the longest part of a shapely (multi)line."""
    return max(shape.geoms, key=lambda part: part.length) if hasattr(shape, "geoms") else shape


def build_right_of_way(net: Any) -> RightOfWay:
    """Read SUMO's conflict matrices as relations between connectors."""
    yields_to: dict[str, tuple[str, ...]] = {}
    foes: dict[str, tuple[str, ...]] = {}
    for node in net.getNodes():
        links = [link for link in node.getConnections() if link.getViaLaneID()]
        index = {id(link): node.getLinkIndex(link) for link in links}
        for link in links:
            mine = index[id(link)]
            if mine < 0:
                continue
            conflicts = [
                other
                for other in links
                if other is not link
                and other.getFrom() is not link.getFrom()
                and index[id(other)] >= 0
                and node.areFoes(mine, index[id(other)])
            ]
            foes[link.getViaLaneID()] = tuple(other.getViaLaneID() for other in conflicts)
            yields_to[link.getViaLaneID()] = tuple(
                other.getViaLaneID() for other in conflicts if node.forbids(other, link)
            )
    return RightOfWay(yields_to, foes)
