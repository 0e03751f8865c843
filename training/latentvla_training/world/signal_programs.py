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


def write_signal_programs(net_path: Path, programs_path: Path, rng: np.random.Generator) -> None:
    """Write one fixed-time program a junction: opposite approaches together, one colour each."""
    import sumolib

    net: Any = sumolib.net.readNet(str(net_path), withInternal=True)
    root = ElementTree.Element("additional")
    for tls in sorted(net.getTrafficLights(), key=lambda item: item.getID()):
        links = [
            (in_lane.getConnection(out_lane), index)
            for in_lane, out_lane, index in tls.getConnections()
        ]
        size = max(index for _, index in links) + 1
        edges = sorted({link.getFrom() for link, _ in links}, key=lambda edge: edge.getID())
        program = ElementTree.SubElement(
            root, "tlLogic", id=tls.getID(), type="static", programID="world",
            offset=str(int(rng.integers(0, 40))),
        )  # fmt: skip
        for stage in _stages(edges):
            active = [(link, index) for link, index in links if link.getFrom() in stage]
            green = ["r"] * size
            for link, index in active:
                node = link.getFrom().getToNode()
                yields = any(
                    other.getFrom() is not link.getFrom() and node.forbids(other, link)
                    for other, _ in active
                )
                green[index] = "g" if yields else "G"
            fast = max(edge.getSpeed() for edge in stage)
            duration = int(rng.integers(8, 13)) + (3 if fast > 12.0 and len(stage) > 1 else 0)
            state = "".join(green)
            yellow = state.replace("G", "y").replace("g", "y")
            for seconds, phase in ((duration, state), (YELLOW_S, yellow), (ALL_RED_S, "r" * size)):
                ElementTree.SubElement(program, "phase", duration=str(seconds), state=phase)
    ElementTree.ElementTree(root).write(programs_path)


def _stages(edges: list[Any]) -> list[list[Any]]:
    """Pair the approaches that face each other best, until two stages (or a rest) are left."""

    def heading(edge: Any) -> float:
        (x0, y0), (x1, y1) = edge.getShape()[-2:]
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
