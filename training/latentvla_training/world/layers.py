"""A SUMO network's lanes, signals and right of way, as ``RoadMap`` and routes have them.

SUMO's lane 0 may be a pavement and lane 1 a gutter, and crossings are edges too: whatever cars may
not use is left out here, while ids stay SUMO's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import LineString
from shapely.geometry import Polygon as ShapelyPolygon

from latentvla_training.world.road_map import Lane, Signal

Array = NDArray[np.float64]

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


def is_road(edge: Any) -> bool:
    """Whether an edge is a road or a junction's inside, neither crossing nor walking area."""
    return edge.getFunction() in ("", "internal")


def vehicle_lanes(edge: Any) -> list[Any]:
    """Return an edge's lanes for cars, rightmost first: SUMO's lane 0 may be a pavement."""
    return [lane for lane in edge.getLanes() if lane.allows("passenger")]


def road_edges(net: Any, internal: bool) -> list[Any]:
    """Return the edges with lanes for cars, in SUMO's order; ``internal``: junctions' too."""
    edges = net.getEdges(withInternal=internal)
    return [edge for edge in edges if is_road(edge) and vehicle_lanes(edge)]


def opposite_edge(edge: Any) -> Any | None:
    """Return the other direction of a two-way road, ``r12b`` of ``r12f``, if there is one."""
    name = str(edge.getID())
    if name[-1] not in "fb":
        return None
    other = name[:-1] + ("b" if name[-1] == "f" else "f")
    return next((out for out in edge.getToNode().getOutgoing() if out.getID() == other), None)


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
    for edge in road_edges(net, internal=True):
        for lane in vehicle_lanes(edge):
            targets = following.setdefault(lane.getID(), [])
            for link in lane.getOutgoing():
                if not is_road(link.getTo()):
                    continue
                via = link.getViaLaneID()
                targets.append(via or link.getToLane().getID())
                if via:
                    turn_of[via] = link.getDirection().lower()
    for _ in range(3):  # the second half of a turn that waits inside the junction
        for lane_id, targets in following.items():
            if lane_id in turn_of:
                turn_of.update({name: turn_of[lane_id] for name in targets if name[0] == ":"})
    lanes: dict[str, Lane] = {}
    for edge in road_edges(net, internal=True):
        parallel = vehicle_lanes(edge)
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


def build_signals(net: Any) -> tuple[tuple[Signal, ...], dict[str, int]]:
    """Return one head per signalised approach lane, and the head index of each connector."""
    signals: list[Signal] = []
    signal_of: dict[str, int] = {}
    for edge in sorted(road_edges(net, internal=False), key=lambda item: str(item.getID())):
        outline = np.asarray(edge.getToNode().getShape(), np.float64)
        for lane in vehicle_lanes(edge):
            links = [
                link for link in lane.getOutgoing() if link.getTLSID() and is_road(link.getTo())
            ]
            if not links:
                continue
            shape = deduplicate(lane.getShape())
            end = shape[-1]
            direction = heading_at_end(shape)
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


def heading_at_end(shape: Array, over_m: float = 3.0) -> Array:
    """Unit vector of the last ``over_m`` of a polyline."""
    line = LineString(shape)
    start = np.asarray(line.interpolate(max(line.length - over_m, 0.0)).coords[0])
    vector = shape[-1] - start
    return np.asarray(vector / np.linalg.norm(vector))


def _far_side(edge: Any, outline: Array, direction: Array) -> float:
    """Distance from the stop line to just past the junction, the same for a whole approach."""
    area = ShapelyPolygon(outline[:, :2])
    depths = []
    for lane in vehicle_lanes(edge):
        end = np.asarray(lane.getShape()[-1])[:2]
        crossing = LineString([end + 0.5 * direction, end + 60.0 * direction]).intersection(area)
        depths.append(crossing.length)
    return float(np.clip(max(depths) + 1.5, GANTRY_MIN_M, GANTRY_MAX_M))


def must_yield(node: Any, link: Any, other: Any) -> bool:
    """Whether who takes ``link`` through a junction lets ``other`` pass first.

    SUMO's traffic at a merge ("zipper") lets each other in; by the rules the minor road yields.
    """
    if node.getType() == "zipper":
        foes = node.areFoes(node.getLinkIndex(link), node.getLinkIndex(other))
        return bool(foes and link.getFrom().getPriority() < other.getFrom().getPriority())
    return bool(node.forbids(other, link))


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
                other.getViaLaneID() for other in conflicts if must_yield(node, link, other)
            )
    return RightOfWay(yields_to, foes)
