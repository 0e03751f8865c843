"""Planar predicates of the scores in batched torch, with the sense of GEOS.

Point in polygon is strict (the boundary is outside), intersection is closed (touching counts), and
distance and projection follow GEOS's formulas, as NAVSIM uses shapely for all of them
(design/metrics.md sections 3 and 4). All functions run on any device; on the CPU they hand over to
the compiled kernels of ``geometry_cpu``, which give the same answers. Why kernels: 256 plans on one
scene take 26 ms (v1) with them and 519 ms in torch alone (``latentvla-train bench-scoring``, with
and without LATENTVLA_SCORING_GEOMETRY=torch, one core).
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

from latentvla_training.scoring.scene_batch import PolygonBatch, PolylineBatch

_CHUNK_ELEMENTS = 1 << 20


def uses_cpu_kernels(tensor: Tensor) -> bool:
    """Whether this tensor's geometry runs in the compiled kernels.

    The environment variable LATENTVLA_SCORING_GEOMETRY=torch keeps everything in torch.
    """
    return (
        tensor.device.type == "cpu"
        and os.environ.get("LATENTVLA_SCORING_GEOMETRY", "auto") != "torch"
    )


def points_in_polygons(points: Tensor, polygons: PolygonBatch) -> Tensor:
    """Return (S, P, N) bool: point strictly inside polygon (even-odd rule, boundary outside).

    Args:
        points: (S, N, 2). polygons: of the same S scenes; padding polygons contain nothing.
    """
    if uses_cpu_kernels(points):
        from latentvla_training.scoring import geometry_cpu

        return geometry_cpu.points_in_polygons(points, polygons)
    rings = polygons.rings
    low, high = rings.amin(-2)[:, :, None], rings.amax(-2)[:, :, None]
    inside = polygons.present[:, :, None] & (points[:, None] > low).all(-1)
    inside = inside & (points[:, None] < high).all(-1)
    scene, polygon, point = torch.nonzero(inside, as_tuple=True)
    chunk = max(1, _CHUNK_ELEMENTS // rings.shape[2])
    for begin in range(0, len(scene), chunk):
        s, p, n = (index[begin : begin + chunk] for index in (scene, polygon, point))
        inside[s, p, n] = _points_in_rings(points[s, n], rings[s, p])
    return inside


def _points_in_rings(points: Tensor, rings: Tensor) -> Tensor:
    """Broadcast points (..., 2) against rings (..., V, 2) padded by their last vertex."""
    x, y = points[..., 0, None], points[..., 1, None]
    x1, y1 = rings[..., 0], rings[..., 1]
    x2, y2 = torch.roll(x1, -1, dims=-1), torch.roll(y1, -1, dims=-1)
    cross = (x1 - x) * (y2 - y) - (y1 - y) * (x2 - x)
    straddles = (y1 > y) != (y2 > y)
    crosses = straddles & ((cross > 0) == (y2 > y1)) & (cross != 0)
    on_edge = (
        (cross == 0)
        & (torch.minimum(x1, x2) <= x)
        & (x <= torch.maximum(x1, x2))
        & (torch.minimum(y1, y2) <= y)
        & (y <= torch.maximum(y1, y2))
    )
    return (crosses.sum(-1) % 2 == 1) & ~on_edge.any(-1)


def first_contacts(
    boxes: Tensor,
    shifts: Tensor,
    active: Tensor,
    frames: Tensor,
    agents: Tensor,
    agent_valid: Tensor,
) -> Tensor:
    """Find, per proposal and agent, the first query whose shifted box intersects the agent's.

    Query t * K + k is the box of step t moved by its k-th shift, against agent frame
    ``frames[t, k]``.

    Args:
        boxes: (S, B, T, 4, 2) corners of the ego. shifts: (S, B, T, K, 2) m.
        active: (S, B, T) bool, steps that count. frames: (T, K) int64.
        agents: (S, A, F, 4, 2) corners. agent_valid: (S, A, F) bool.

    Returns:
        (S, B, A) int64 index of the first query in contact, -1 when none.
    """
    if uses_cpu_kernels(boxes):
        from latentvla_training.scoring import geometry_cpu

        return geometry_cpu.first_contacts(boxes, shifts, active, frames, agents, agent_valid)
    scenes, batch, steps, offsets = shifts.shape[:4]
    none = steps * offsets
    first = torch.full((scenes, batch, agents.shape[1]), none, device=boxes.device)
    moved = boxes[:, :, :, None] + shifts[..., None, :]
    low, high = moved.amin(-2), moved.amax(-2)
    agent_low, agent_high = agents.amin(-2), agents.amax(-2)
    for agent in range(agents.shape[1]):
        # (S, T, K, ...) of this agent at the frame of each query
        near = active[..., None] & agent_valid[:, agent, frames][:, None]
        near = near & (low <= agent_high[:, agent, frames][:, None]).all(-1)
        near = near & (high >= agent_low[:, agent, frames][:, None]).all(-1)
        scene, proposal, step, offset = torch.nonzero(near, as_tuple=True)
        other = agents[scene, agent, frames[step, offset]]
        touching = convex_intersect(moved[scene, proposal, step, offset], other)
        query = torch.where(touching, step * offsets + offset, none)
        slot = (scene * batch + proposal) * agents.shape[1] + agent
        first.view(-1).scatter_reduce_(0, slot, query, "amin")
    return torch.where(first == none, -1, first)


def convex_intersect(first: Tensor, second: Tensor) -> Tensor:
    """Closed intersection of convex rings (..., V, 2) and (..., W, 2), any orientation.

    Separating axes over the edges of both; a ring of two vertices is a segment.
    """
    return ~(_separated_by_edges(first, second) | _separated_by_edges(second, first))


def _separated_by_edges(edges_of: Tensor, other: Tensor) -> Tensor:
    start, end = edges_of, torch.roll(edges_of, -1, dims=-2)
    edge = (end - start)[..., :, None, :]  # (..., V, 1, 2)
    relative = other[..., None, :, :] - start[..., :, None, :]  # (..., V, W, 2)
    side = edge[..., 0] * relative[..., 1] - edge[..., 1] * relative[..., 0]
    own = edges_of[..., None, :, :] - start[..., :, None, :]
    own_side = edge[..., 0] * own[..., 1] - edge[..., 1] * own[..., 0]
    # The ring itself lies on one side of each of its edges; the other must be strictly beyond.
    above = side.amin(-1) > own_side.amax(-1).clamp(min=0.0)
    below = side.amax(-1) < own_side.amin(-1).clamp(max=0.0)
    return (above | below).any(-1)


def boxes_touch_polygons(boxes: Tensor, wanted: Tensor, polygons: PolygonBatch) -> Tensor:
    """Return (S, B) bool: any box of a proposal intersects (closed) a wanted polygon.

    Args:
        boxes: (S, B, T, 4, 2) corners.
        wanted: (S, P, T) bool, polygon p counts at time t.
        polygons: any simple rings of the same S scenes.
    """
    if uses_cpu_kernels(boxes):
        from latentvla_training.scoring import geometry_cpu

        return geometry_cpu.boxes_touch_polygons(boxes, wanted, polygons)
    touched = torch.zeros(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
    low, high = boxes.amin(-2), boxes.amax(-2)
    for polygon in range(polygons.rings.shape[1]):
        ring = polygons.rings[:, polygon]
        use = wanted[:, polygon] & polygons.present[:, polygon, None]  # (S, T)
        near = use[:, None] & (low <= ring.amax(-2)[:, None, None]).all(-1)
        near &= (high >= ring.amin(-2)[:, None, None]).all(-1)
        scene, proposal, step = torch.nonzero(near, as_tuple=True)
        chunk = max(1, _CHUNK_ELEMENTS // (16 * ring.shape[1]))
        for begin in range(0, len(scene), chunk):
            s, b, t = (index[begin : begin + chunk] for index in (scene, proposal, step))
            box, outline = boxes[s, b, t], ring[s]
            edges = torch.stack([outline, torch.roll(outline, -1, dims=-2)], dim=-2)
            crossing = convex_intersect(box[:, None], edges).any(-1)
            inside = _points_in_rings(box[:, 0], outline)
            hit = crossing | inside
            touched[s[hit], b[hit]] = True
    return touched


def project_onto_polylines(points: Tensor, lines: PolylineBatch) -> tuple[Tensor, Tensor]:
    """Return (S, N) arc length of the nearest point and (S, N) distance to each scene's polyline.

    Both clamp at the ends of the line; of equally near segments the first counts (GEOS).
    """
    if uses_cpu_kernels(points):
        from latentvla_training.scoring import geometry_cpu

        return geometry_cpu.project_onto_polylines(points, lines)
    start, end = lines.points[:, None, :-1], lines.points[:, None, 1:]
    edge = end - start
    squared = (edge * edge).sum(-1)
    length = torch.sqrt(squared)
    arc_start = torch.cumsum(length, dim=-1) - length
    chunk = max(1, _CHUNK_ELEMENTS // max(1, points.shape[0] * lines.points.shape[1]))
    arcs, distances = [], []
    for begin in range(0, points.shape[1], chunk):
        point = points[:, begin : begin + chunk, None]
        relative = point - start
        safe = torch.where(squared > 0, squared, 1.0)
        fraction = torch.where(squared > 0, (relative * edge).sum(-1) / safe, 0.0)
        across = (relative[..., 0] * edge[..., 1] - relative[..., 1] * edge[..., 0]) / safe
        distance = torch.abs(across) * length
        to_start = torch.sqrt((relative * relative).sum(-1))
        beyond = point - end
        to_end = torch.sqrt((beyond * beyond).sum(-1))
        distance = torch.where(fraction <= 0, to_start, distance)
        distance = torch.where(fraction >= 1, to_end, distance)
        nearest = distance.argmin(-1, keepdim=True)
        arc = arc_start + fraction.clamp(0.0, 1.0) * length
        arcs.append(torch.gather(arc, -1, nearest)[..., 0])
        distances.append(torch.gather(distance, -1, nearest)[..., 0])
    return torch.cat(arcs, -1), torch.cat(distances, -1)
