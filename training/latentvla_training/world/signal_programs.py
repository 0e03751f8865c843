"""Fixed-time signal programs in which every lane of an approach always shows one colour.

netconvert's own programs give lanes a separate phase for left turns; with one visible head for each
approach lane, a shared lane would then have no single colour to show.
"""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np

#: Yellow is long enough to leave the junction when it is too late to stop (experiments.md, TLC).
YELLOW_S, ALL_RED_S = 5, 1
#: Of people clearing a crossing, m/s; least time that a walk light is green, s.
WALKING_SPEED, LEAST_WALK_S = 1.2, 5


def write_signal_programs(net_path: Path, programs_path: Path, rng: np.random.Generator) -> None:
    """Write one fixed-time program a junction: opposite approaches together, one colour each.

    People walk over an arm while its own approach is red and all that may enter it is turning and
    lets them pass; their light goes red early enough to be across before the colours change.
    """
    import sumolib

    net: Any = sumolib.net.readNet(str(net_path), withInternal=True)
    root = ElementTree.Element("additional")
    for tls in sorted(net.getTrafficLights(), key=lambda item: item.getID()):
        every = [
            (in_lane.getConnection(out_lane), index)
            for in_lane, out_lane, index in tls.getConnections()
        ]
        links = [(link, index) for link, index in every if not link.getFrom().getFunction()]
        walks = [(link, index) for link, index in every if link.getTo().getFunction() == "crossing"]
        size = max(index for _, index in every) + 1
        edges = sorted({link.getFrom() for link, _ in links}, key=lambda edge: edge.getID())
        program = ElementTree.SubElement(
            root, "tlLogic", id=tls.getID(), type="static", programID="world",
            offset=str(int(rng.integers(0, 40))),
        )  # fmt: skip
        stranded = {index: link for link, index in walks}
        for stage in _stages(edges):
            active = [(link, index) for link, index in links if link.getFrom() in stage]
            open_walks = [(link, index) for link, index in walks if _may_walk(link, active)]
            crossed = {edge for link, _ in open_walks for edge in link.getTo().getCrossingEdges()}
            green = ["r"] * size
            for link, index in active:
                node = link.getFrom().getToNode()
                yields = link.getTo() in crossed or any(
                    other.getFrom() is not link.getFrom() and node.forbids(other, link)
                    for other, _ in active
                )
                green[index] = "g" if yields else "G"
            fast = max(edge.getSpeed() for edge in stage)
            duration = int(rng.integers(8, 13)) + (3 if fast > 12.0 and len(stage) > 1 else 0)
            state = "".join(green)
            phases = [(duration, state)]
            if open_walks:
                for _, index in open_walks:
                    green[index] = "G"
                    stranded.pop(index, None)
                clearing = max(0, _clearing_time([link for link, _ in open_walks]) - YELLOW_S)
                phases = [(max(duration - clearing, LEAST_WALK_S), "".join(green))]
                phases += [(clearing, state)] if clearing else []
            yellow = state.replace("G", "y").replace("g", "y")
            phases += [(YELLOW_S, yellow), (ALL_RED_S, "r" * size)]
            for seconds, phase in phases:
                ElementTree.SubElement(program, "phase", duration=str(seconds), state=phase)
        if stranded:  # at a fork: somebody drives straight over it in every stage
            state = "".join("G" if index in stranded else "r" for index in range(size))
            clearing = _clearing_time(list(stranded.values()))
            for seconds, phase in ((LEAST_WALK_S, state), (clearing, "r" * size)):
                ElementTree.SubElement(program, "phase", duration=str(seconds), state=phase)
    ElementTree.ElementTree(root).write(programs_path)


def _clearing_time(walks: list[Any]) -> int:
    """Time that people need over the longest of some crossings, s."""
    return math.ceil(max(link.getTo().getLength() for link in walks) / WALKING_SPEED)


def _may_walk(walk: Any, active: list[tuple[Any, int]]) -> bool:
    """Whether the moving links leave a crossing alone or turn into it and can yield."""
    crossed = set(walk.getTo().getCrossingEdges())
    return all(
        link.getFrom() not in crossed
        and (link.getTo() not in crossed or link.getDirection() in "lrLR")
        for link, _ in active
    )


def _stages(edges: list[Any]) -> list[list[Any]]:
    """Pair the approaches that face each other best, until two stages (or a rest) are left."""

    def heading(edge: Any) -> float:
        (x0, y0), (x1, y1) = (point[:2] for point in edge.getShape()[-2:])
        return math.atan2(y1 - y0, x1 - x0)

    def opposition(pair: tuple[Any, Any]) -> float:
        turn = heading(pair[0]) - heading(pair[1]) - math.pi
        return abs(math.remainder(turn, 2 * math.pi))

    remaining, stages = list(edges), list[list[Any]]()
    while len(remaining) > 1 and len(stages) + len(remaining) > 2:
        best = min(itertools.combinations(remaining, 2), key=opposition)
        stages.append(list(best))
        remaining = [edge for edge in remaining if edge not in best]
    return stages + [[edge] for edge in remaining]
