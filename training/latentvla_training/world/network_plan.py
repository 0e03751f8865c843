"""What netconvert is asked to build: nodes, one-way edges, connections and crossings, as plain XML.

Every generator of the world (streets, carriageways, roundabouts) ends in a ``NetworkPlan``.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SIDEWALK_WIDTH_M = 2.5
CROSSING_WIDTH_M = 3.5
#: Asphalt between the outer lane and the kerb: a car that comes out of a turn runs that wide. A
#: road with a pavement has a lane of its own for it in SUMO, so that people keep off it.
GUTTER_M = 0.6


class NetworkBuildError(RuntimeError):
    """SUMO could not build a usable network from this seed."""


@dataclass(frozen=True)
class PlanNode:
    """A junction.

    Attributes:
        position: (2,). radius: of its kerbs, m.
        control: SUMO's type: ``priority``, ``traffic_light``, or ``zipper`` where two lanes become
            one and traffic lets each other in at speed.
    """

    position: Array
    radius: float
    control: str = "priority"


@dataclass(frozen=True)
class PlanEdge:
    """A one-way road whose lanes lie to the right of ``shape``.

    Attributes:
        source, target: node ids.
        lanes, speed, priority: number of lanes, limit in m/s, SUMO priority.
        shape: (N, 2) left edge of the lanes; where it does not begin or end at its node, that is
            where the edge leaves the junction.
        sidewalk: whether a pavement runs along its right-hand side.
    """

    source: str
    target: str
    lanes: int
    speed: float
    priority: int
    shape: Array
    sidewalk: bool = False


@dataclass(frozen=True)
class PlanConnection:
    """Lane ``from_lane`` of an edge leads to lane ``to_lane`` of another; 0 is the rightmost.

    Attributes:
        shape: (N, 2) middle of the way inside the junction; netconvert's curve when not given.
        sight_m: from where a driver who must yield sees the others; netconvert's 4.5 m makes
            everybody all but stop.
    """

    source: str
    target: str
    from_lane: int
    to_lane: int
    shape: Array | None = None
    sight_m: float | None = None


@dataclass(frozen=True)
class PlanCrossing:
    """Pedestrians cross ``edges`` at ``node``; vehicles must let them where there is no light."""

    node: str
    edges: tuple[str, ...]


@dataclass
class NetworkPlan:
    """A network before netconvert.

    Attributes:
        nodes, edges: by id. A two-way road is a pair of edges ``<id>f`` and ``<id>b``.
        connections: explicit ones; a junction none of whose edges has any gets netconvert's.
        crossings: where pedestrians cross.
    """

    nodes: dict[str, PlanNode] = field(default_factory=dict)
    edges: dict[str, PlanEdge] = field(default_factory=dict)
    connections: list[PlanConnection] = field(default_factory=list)
    crossings: list[PlanCrossing] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write ``plain.nod.xml``, ``plain.edg.xml`` and ``plain.con.xml`` into ``folder``."""
        root = ElementTree.Element("nodes")
        for name in sorted(self.nodes):
            node = self.nodes[name]
            x, y = node.position
            ElementTree.SubElement(
                root, "node", id=name, x=f"{x:.3f}", y=f"{y:.3f}", radius=f"{node.radius:g}",
                type=node.control,
            )  # fmt: skip
        ElementTree.ElementTree(root).write(folder / "plain.nod.xml")
        root = ElementTree.Element("edges")
        for name, edge in self.edges.items():
            item = ElementTree.SubElement(
                root, "edge", {"id": name, "from": edge.source, "to": edge.target},
                numLanes=str(edge.lanes + edge.sidewalk), speed=f"{edge.speed:.3f}",
                priority=str(edge.priority), spreadType="right", shape=_coordinates(edge.shape),
            )  # fmt: skip
            if edge.sidewalk:
                item.set("sidewalkWidth", f"{SIDEWALK_WIDTH_M:g}")
                ElementTree.SubElement(
                    item, "lane", index="0", disallow="all", width=f"{GUTTER_M:g}"
                )
        ElementTree.ElementTree(root).write(folder / "plain.edg.xml")
        root = ElementTree.Element("connections")
        for link in self.connections:
            # netconvert counts the pavement as lane 0, the gutter as lane 1.
            first = link.from_lane + 2 * self.edges[link.source].sidewalk
            second = link.to_lane + 2 * self.edges[link.target].sidewalk
            item = ElementTree.SubElement(
                root, "connection", {"from": link.source, "to": link.target},
                fromLane=str(first), toLane=str(second),
            )  # fmt: skip
            if link.shape is not None:
                item.set("shape", _coordinates(link.shape))
            if link.sight_m is not None:
                item.set("visibility", f"{link.sight_m:g}")
        for crossing in self.crossings:
            ElementTree.SubElement(
                root, "crossing", node=crossing.node, edges=" ".join(crossing.edges),
                priority="1", width=f"{CROSSING_WIDTH_M:g}",
            )  # fmt: skip
        ElementTree.ElementTree(root).write(folder / "plain.con.xml")


def _coordinates(points: Array) -> str:
    return " ".join(f"{x:.3f},{y:.3f}" for x, y in points)
