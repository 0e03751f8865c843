"""Paint on the road: lane dividers, centre and edge lines, stop lines, crossings."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import LineString, MultiPolygon

from latentvla_training.world.layers import (
    deduplicate,
    heading_at_end,
    is_road,
    must_yield,
    opposite_edge,
    road_edges,
    vehicle_lanes,
)
from latentvla_training.world.pavements import crosswalk_axis
from latentvla_training.world.road_map import Crosswalk, Marking, MarkingKind

Array = NDArray[np.float64]


def build_markings(
    net: Any, drivable: Any, crosswalks: tuple[Crosswalk, ...]
) -> tuple[Marking, ...]:
    """Return lane dividers, centre lines, edge lines, stop lines and crossings."""
    markings: list[Marking] = []
    far_from_kerb = drivable.buffer(-1.5)
    for edge in sorted(road_edges(net, internal=False), key=lambda item: str(item.getID())):
        edge_lanes = vehicle_lanes(edge)
        for lane in edge_lanes[1:]:
            shape = LineString(deduplicate(lane.getShape()))
            points = _offset(shape, -lane.getWidth() / 2)
            markings.append(Marking(MarkingKind.DASHED, points, 0.15))
        opposite = opposite_edge(edge)
        leftmost = edge_lanes[-1]
        boundary = _offset(LineString(deduplicate(leftmost.getShape())), leftmost.getWidth() / 2)
        if opposite is None:  # kerbs have their edge line: this one is for what lies beside asphalt
            inner = LineString(boundary).intersection(far_from_kerb)
            markings += [
                Marking(MarkingKind.SOLID, np.asarray(part.coords, np.float64), 0.15)
                for part in getattr(inner, "geoms", [inner])
                if part.length > 3.0
            ]
        elif edge.getID() < opposite.getID():
            markings.append(Marking(MarkingKind.CENTRE, boundary, 0.15))
        markings += _approach_markings(edge)
    markings += _through_lanes(net)
    for crosswalk in crosswalks:
        axis, width = crosswalk_axis(net, crosswalk)
        markings.append(Marking(MarkingKind.CROSSING, axis, width))
    # Opened by 1 m: where two bands meet, their ends stick out by a hand.
    edge_line = drivable.buffer(1.0).buffer(-2.35).buffer(1.0)
    parts = edge_line.geoms if isinstance(edge_line, MultiPolygon) else [edge_line]
    for part in parts:
        for ring in (part.exterior, *part.interiors):
            if ring.length > 5.0:
                points = np.asarray(ring.simplify(0.03).coords, np.float64)
                markings.append(Marking(MarkingKind.SOLID, points, 0.15))
    return tuple(markings)


def _through_lanes(net: Any) -> list[Marking]:
    """Dividers of lanes that run on side by side where one-way roads join or part."""
    markings = []
    for node in net.getNodes():
        if any(opposite_edge(edge) for edge in node.getIncoming() if not edge.getFunction()):
            continue
        for edge in node.getOutgoing():
            lanes = vehicle_lanes(edge) if edge.getFunction() == "internal" else []
            for right, lane in pairwise(lanes):
                shapes = [deduplicate(item.getShape()) for item in (right, lane)]
                if np.linalg.norm(shapes[0][0] - shapes[1][0]) < lane.getWidth() / 2:
                    continue  # one lane becomes two
                points = _offset(LineString(shapes[1]), -lane.getWidth() / 2)
                markings.append(Marking(MarkingKind.DASHED, points, 0.15))
    return markings


def _approach_markings(edge: Any) -> list[Marking]:
    """Stop line of an approach that is signalised or yields, to vehicles or people."""
    node = edge.getToNode()
    lanes = vehicle_lanes(edge)
    links = [link for lane in lanes for link in lane.getOutgoing() if is_road(link.getTo())]
    signalised = any(link.getTLSID() for link in links)
    straight = [link for link in links if link.getDirection() != "l"] or links
    others = [
        link for link in node.getConnections()
        if link.getFrom() is not edge and link.getViaLaneID()
    ]  # fmt: skip
    yields = any(must_yield(node, link, other) for link in straight for other in others)
    zebra = any(
        edge in crossing.getCrossingEdges()
        for crossing in node.getOutgoing()
        if crossing.getFunction() == "crossing"
    )
    if not (signalised or yields or zebra):
        return []
    right, left = lanes[0], lanes[-1]
    right_end, left_end = np.array(right.getShape()[-1][:2]), np.array(left.getShape()[-1][:2])
    direction = heading_at_end(deduplicate(right.getShape()))
    normal = np.array([-direction[1], direction[0]])
    half = right.getWidth() / 2
    ends = np.stack([left_end + normal * (half - 0.2), right_end - normal * (half - 0.2)])
    width = 0.4 if signalised else 0.25
    return [Marking(MarkingKind.STOP_LINE, ends - 0.3 * direction, width)]


def _offset(line: LineString, distance: float) -> Array:
    """Parallel of a polyline, positive to the left, in the same direction."""
    moved = line.offset_curve(distance)
    points = np.asarray(_largest_line(moved).coords, np.float64)
    first, last = np.asarray(line.coords[0]), np.asarray(line.coords[-1])
    if np.linalg.norm(points[0] - first) > np.linalg.norm(points[0] - last):
        points = points[::-1]
    return points


def _largest_line(shape: Any) -> LineString:
    """Return the longest part of a shapely (multi)line."""
    return max(shape.geoms, key=lambda part: part.length) if hasattr(shape, "geoms") else shape
