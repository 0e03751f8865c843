"""Where pedestrians walk: along sidewalks and over crossings, read from SUMO's network file."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from latentvla_training.world.networks import network_files
from latentvla_training.world.road_map import RoadMap

#: Sidewalks of a walk; about 400 m, more than anyone covers in an episode.
_EDGES_PER_WALK = 5


@dataclass(frozen=True)
class Walk:
    """One pedestrian's way: edges with sidewalks, m along the first and the last of them."""

    edges: tuple[str, ...]
    depart_m: float
    arrival_m: float


@dataclass(frozen=True)
class SidewalkGraph:
    """Edges with a sidewalk and how they are joined.

    Attributes:
        length: m by edge. ends: junctions at the edge's first and last point.
        joined: edges reached from an edge over walking areas and crossings.
    """

    length: dict[str, float]
    ends: dict[str, tuple[str, str]]
    joined: dict[str, tuple[str, ...]]


def draw_walks(
    road_map: RoadMap,
    rng: np.random.Generator,
    persons_per_km: float,
    barred_edges: frozenset[str],
) -> list[Walk]:
    """Draw walks all over the network, none along ``barred_edges``; none without sidewalks."""
    graph = read_sidewalks(road_map.name)
    names = sorted(set(graph.length) - barred_edges)
    if not names:
        return []
    weights = np.array([graph.length[name] for name in names])
    walks = []
    for _ in range(round(weights.sum() / 1000.0 * persons_per_km)):
        first = names[int(rng.choice(len(names), p=weights / weights.sum()))]
        edges, node = [first], graph.ends[first][int(rng.integers(2))]
        while len(edges) < _EDGES_PER_WALK:
            options = [
                edge
                for edge in graph.joined[edges[-1]]
                if node in graph.ends[edge] and edge not in barred_edges and edge not in edges
            ]
            if not options:
                break
            edges.append(options[int(rng.integers(len(options)))])
            start, end = graph.ends[edges[-1]]
            node = end if node == start else start
        depart = float(rng.uniform(1.0, max(graph.length[first] - 1.0, 1.1)))
        if len(edges) > 1:  # one alone would soon stand at its end
            forward = node == graph.ends[edges[-1]][1]
            arrival = graph.length[edges[-1]] - 1.0 if forward else 1.0
            walks.append(Walk(tuple(edges), depart, arrival))
    return walks


@lru_cache(maxsize=4)
def read_sidewalks(network: str) -> SidewalkGraph:
    """Return the sidewalks of ``network``; all empty when it has none."""
    root = ElementTree.parse(network_files(network).net).getroot()
    length: dict[str, float] = {}
    joined: dict[str, set[str]] = defaultdict(set)
    walking: set[str] = set()
    nodes: dict[str, tuple[str, str]] = {}
    for edge in root.iter("edge"):
        name, lanes = edge.get("id", ""), edge.findall("lane")
        if edge.get("function") in ("crossing", "walkingarea"):
            walking.add(name)
        elif edge.get("function") != "internal":
            sidewalk = [lane for lane in lanes if lane.get("allow") == "pedestrian"]
            if sidewalk:
                length[name] = float(sidewalk[0].get("length", "0"))
                nodes[name] = (edge.get("from", ""), edge.get("to", ""))
    for link in root.iter("connection"):
        source, target = link.get("from", ""), link.get("to", "")
        if source in walking or target in walking:
            joined[source].add(target)
            joined[target].add(source)
    reached = {
        name: tuple(sorted(_reached(name, joined, walking) & set(length) - {name}))
        for name in length
    }
    return SidewalkGraph(length, nodes, reached)


def _reached(edge: str, joined: dict[str, set[str]], walking: set[str]) -> set[str]:
    """Edges reached from ``edge`` over walking areas and crossings alone."""
    reached, stack = set[str](), [area for area in joined[edge] if area in walking]
    seen = set(stack)
    while stack:
        for other in joined[stack.pop()]:
            if other not in walking:
                reached.add(other)
            elif other not in seen:
                seen.add(other)
                stack.append(other)
    return reached
