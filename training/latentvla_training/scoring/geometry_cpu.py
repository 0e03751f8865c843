"""Compiled CPU kernels of ``geometry``: the same predicates with culling (numba).

Rings that are not finite contain nothing and are never indexed.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from latentvla_training.scoring.scene_batch import PolygonBatch, PolylineBatch

Array = NDArray[np.floating]
Index = NDArray[np.int64]

_SLABS = 64


def points_in_polygons(points: Tensor, polygons: PolygonBatch) -> Tensor:
    """See ``geometry.points_in_polygons``."""
    inside = np.zeros((*polygons.vertices.shape, points.shape[1]), np.bool_)
    _points_in_polygons(
        points.contiguous().numpy(), polygons.rings.numpy(), polygons.vertices.numpy(), inside
    )
    return torch.from_numpy(inside)


def first_contacts(
    boxes: Tensor,
    shifts: Tensor,
    active: Tensor,
    frames: Tensor,
    agents: Tensor,
    agent_valid: Tensor,
) -> Tensor:
    """See ``geometry.first_contacts``."""
    first = np.full((*active.shape[:2], agents.shape[1]), -1, np.int64)
    _first_contacts(
        boxes.contiguous().numpy(),
        shifts.contiguous().numpy(),
        active.contiguous().numpy(),
        frames.contiguous().numpy(),
        agents.contiguous().numpy(),
        agent_valid.contiguous().numpy(),
        first,
    )
    return torch.from_numpy(first)


def boxes_touch_polygons(boxes: Tensor, wanted: Tensor, polygons: PolygonBatch) -> Tensor:
    """See ``geometry.boxes_touch_polygons``."""
    touched = np.zeros(tuple(boxes.shape[:2]), np.bool_)
    _boxes_touch_polygons(
        boxes.contiguous().numpy(),
        wanted.contiguous().numpy(),
        polygons.rings.contiguous().numpy(),
        polygons.vertices.numpy(),
        touched,
    )
    return torch.from_numpy(touched)


def project_onto_polylines(points: Tensor, lines: PolylineBatch) -> tuple[Tensor, Tensor]:
    """See ``geometry.project_onto_polylines``."""
    array = points.contiguous().numpy()
    arc, distance = np.empty(array.shape[:2], array.dtype), np.empty(array.shape[:2], array.dtype)
    _project_onto_polylines(array, lines.points.contiguous().numpy(), arc, distance)
    return torch.from_numpy(arc), torch.from_numpy(distance)


@njit(cache=True, nogil=True)
def _bounds(ring: Array) -> tuple[float, float, float, float]:
    low_x = high_x = ring[0, 0]
    low_y = high_y = ring[0, 1]
    for j in range(1, ring.shape[0]):
        low_x, high_x = min(low_x, ring[j, 0]), max(high_x, ring[j, 0])
        low_y, high_y = min(low_y, ring[j, 1]), max(high_y, ring[j, 1])
    return low_x, low_y, high_x, high_y


@njit(cache=True, nogil=True)
def _edge_crossing(x: float, y: float, x1: float, y1: float, x2: float, y2: float) -> int:
    """1 when the ray from the point towards +x crosses the edge, -1 on the edge, else 0."""
    if (y1 > y) != (y2 > y):
        cross = (x1 - x) * (y2 - y) - (y1 - y) * (x2 - x)
        if cross == 0.0:
            return -1
        return 1 if (cross > 0.0) == (y2 > y1) else 0
    if y1 == y or y2 == y:
        # Not crossing the ray, but perhaps under the point: a vertex or a horizontal edge.
        if (x2 == x and y2 == y) or (x1 == x and y1 == y):
            return -1
        if y1 == y2 and min(x1, x2) <= x <= max(x1, x2):
            return -1
    return 0


@njit(cache=True, nogil=True)
def _point_in_ring(x: float, y: float, ring: Array, count: int) -> bool:
    odd = False
    i = count - 1
    for j in range(count):
        crossing = _edge_crossing(x, y, ring[i, 0], ring[i, 1], ring[j, 0], ring[j, 1])
        if crossing < 0:
            return False
        if crossing == 1:
            odd = not odd
        i = j
    return odd


@njit(cache=True, nogil=True)
def _index_edges(
    ring: Array, count: int, low_y: float, scale: float, start: Index, edges: Index
) -> None:
    """List the edges that meet each horizontal slab: edges[start[i]:start[i + 1]] of slab i.

    Edge j ends at vertex j. A point and an edge that share a y share a slab, since the same
    monotone expression numbers both.
    """
    start[:] = 0
    for j in range(count):
        y1, y2 = ring[j - 1 if j > 0 else count - 1, 1], ring[j, 1]
        for slab in range(
            int((min(y1, y2) - low_y) * scale), int((max(y1, y2) - low_y) * scale) + 1
        ):
            start[slab + 1] += 1
    for slab in range(_SLABS):
        start[slab + 1] += start[slab]
    fill = start.copy()
    for j in range(count):
        y1, y2 = ring[j - 1 if j > 0 else count - 1, 1], ring[j, 1]
        for slab in range(
            int((min(y1, y2) - low_y) * scale), int((max(y1, y2) - low_y) * scale) + 1
        ):
            edges[fill[slab]] = j
            fill[slab] += 1


@njit(cache=True, nogil=True)
def _points_in_polygons(
    points: Array, rings: Array, vertices: NDArray[np.int64], inside: NDArray[np.bool_]
) -> None:
    start = np.empty(_SLABS + 1, np.int64)
    edges = np.empty(_SLABS * rings.shape[2], np.int64)
    for s in range(points.shape[0]):
        for p in range(rings.shape[1]):
            count = vertices[s, p]
            if count == 0:
                continue
            ring = rings[s, p]
            if not np.isfinite(ring[:count]).all():
                continue  # numbering slabs from NaN would write anywhere
            low_x, low_y, high_x, high_y = _bounds(ring[:count])
            # Strictly below _SLABS for every y up to high_y, whatever the rounding.
            scale = (_SLABS - 0.5) / max(high_y - low_y, 1e-9)
            _index_edges(ring, count, low_y, scale, start, edges)
            for n in range(points.shape[1]):
                x, y = points[s, n, 0], points[s, n, 1]
                if not (low_x < x < high_x and low_y < y < high_y):
                    continue
                slab = int((y - low_y) * scale)
                odd, boundary = False, False
                for e in range(start[slab], start[slab + 1]):
                    j = edges[e]
                    i = j - 1 if j > 0 else count - 1
                    crossing = _edge_crossing(x, y, ring[i, 0], ring[i, 1], ring[j, 0], ring[j, 1])
                    if crossing == 1:
                        odd = not odd
                    elif crossing < 0:
                        boundary = True
                        break
                inside[s, p, n] = odd and not boundary


@njit(cache=True, nogil=True)
def _separated(first: Array, second: Array) -> bool:
    """Whether an edge of the convex ring ``first`` separates it strictly from ``second``."""
    count = first.shape[0]
    for j in range(count):
        k = (j + 1) % count
        x1, y1 = first[j, 0], first[j, 1]
        edge_x, edge_y = first[k, 0] - x1, first[k, 1] - y1
        own_low = own_high = 0.0
        for m in range(count):
            side = edge_x * (first[m, 1] - y1) - edge_y * (first[m, 0] - x1)
            own_low, own_high = min(own_low, side), max(own_high, side)
        low, high = np.inf, -np.inf
        for m in range(second.shape[0]):
            side = edge_x * (second[m, 1] - y1) - edge_y * (second[m, 0] - x1)
            low, high = min(low, side), max(high, side)
        if low > own_high or high < own_low:
            return True
    return False


@njit(cache=True, nogil=True)
def _first_contacts(
    boxes: Array,
    shifts: Array,
    active: NDArray[np.bool_],
    frames: Index,
    agents: Array,
    agent_valid: NDArray[np.bool_],
    first: Index,
) -> None:
    scenes, batch, steps, offsets = shifts.shape[:4]
    count = agents.shape[1]
    agent_bounds = np.empty((count, agents.shape[2], 4), agents.dtype)
    box = np.empty((4, 2), boxes.dtype)
    for s in range(scenes):
        for a in range(count):
            for f in range(agents.shape[2]):
                low_x, low_y, high_x, high_y = _bounds(agents[s, a, f])
                agent_bounds[a, f, 0], agent_bounds[a, f, 1] = low_x, low_y
                agent_bounds[a, f, 2], agent_bounds[a, f, 3] = high_x, high_y
        for b in range(batch):
            open_agents = count
            for t in range(steps):
                if open_agents == 0:
                    break
                if not active[s, b, t]:
                    continue
                for k in range(offsets):
                    frame = frames[t, k]
                    for j in range(4):
                        box[j, 0] = boxes[s, b, t, j, 0] + shifts[s, b, t, k, 0]
                        box[j, 1] = boxes[s, b, t, j, 1] + shifts[s, b, t, k, 1]
                    low_x, low_y, high_x, high_y = _bounds(box)
                    for a in range(count):
                        if first[s, b, a] >= 0 or not agent_valid[s, a, frame]:
                            continue
                        if (
                            low_x > agent_bounds[a, frame, 2]
                            or low_y > agent_bounds[a, frame, 3]
                            or high_x < agent_bounds[a, frame, 0]
                            or high_y < agent_bounds[a, frame, 1]
                        ):
                            continue
                        other = agents[s, a, frame]
                        if not _separated(box, other) and not _separated(other, box):
                            first[s, b, a] = t * offsets + k
                            open_agents -= 1


@njit(cache=True, nogil=True)
def _box_touches_ring(box: Array, ring: Array, count: int) -> bool:
    low_x, low_y, high_x, high_y = _bounds(box)
    segment = np.empty((2, 2), ring.dtype)
    for j in range(count):
        k = (j + 1) % count
        if (
            max(ring[j, 0], ring[k, 0]) < low_x
            or min(ring[j, 0], ring[k, 0]) > high_x
            or max(ring[j, 1], ring[k, 1]) < low_y
            or min(ring[j, 1], ring[k, 1]) > high_y
        ):
            continue
        segment[0, 0], segment[0, 1] = ring[j, 0], ring[j, 1]
        segment[1, 0], segment[1, 1] = ring[k, 0], ring[k, 1]
        if not _separated(box, segment) and not _separated(segment, box):
            return True
    # No edge meets the box: it lies wholly inside or wholly outside.
    return _point_in_ring(box[0, 0], box[0, 1], ring, count)


@njit(cache=True, nogil=True)
def _boxes_touch_polygons(
    boxes: Array,
    wanted: NDArray[np.bool_],
    rings: Array,
    vertices: NDArray[np.int64],
    touched: NDArray[np.bool_],
) -> None:
    scenes, batch, steps = boxes.shape[:3]
    for s in range(scenes):
        for p in range(rings.shape[1]):
            count = vertices[s, p]
            if count == 0:
                continue
            ring = rings[s, p]
            ring_low_x, ring_low_y, ring_high_x, ring_high_y = _bounds(ring[:count])
            for b in range(batch):
                if touched[s, b]:
                    continue
                for t in range(steps):
                    if not wanted[s, p, t]:
                        continue
                    low_x, low_y, high_x, high_y = _bounds(boxes[s, b, t])
                    if (
                        low_x > ring_high_x
                        or low_y > ring_high_y
                        or high_x < ring_low_x
                        or high_y < ring_low_y
                    ):
                        continue
                    if _box_touches_ring(boxes[s, b, t], ring, count):
                        touched[s, b] = True
                        break


@njit(cache=True, nogil=True)
def _project_onto_polylines(points: Array, lines: Array, arc: Array, distance: Array) -> None:
    knots = lines.shape[1]
    lengths = np.empty(knots - 1)
    for s in range(points.shape[0]):
        line = lines[s]
        for j in range(knots - 1):
            dx, dy = line[j + 1, 0] - line[j, 0], line[j + 1, 1] - line[j, 1]
            lengths[j] = np.sqrt(dx * dx + dy * dy)
        near = 0
        for n in range(points.shape[1]):
            x, y = points[s, n, 0], points[s, n, 1]
            # A knot near the previous point bounds the distance of this one.
            bx, by = x - line[near, 0], y - line[near, 1]
            bound = np.sqrt(bx * bx + by * by)
            best, best_arc, travelled = np.inf, 0.0, 0.0
            for j in range(knots - 1):
                length = lengths[j]
                rx, ry = x - line[j, 0], y - line[j, 1]
                to_start = rx * rx + ry * ry
                # The segment cannot come nearer than the distance to its start minus its length;
                # the margin keeps rounding from culling the knot that made the bound.
                reach = (bound + length) * 1.000001 + 1e-6
                if to_start > reach * reach:
                    travelled += length
                    continue
                ex, ey = line[j + 1, 0] - line[j, 0], line[j + 1, 1] - line[j, 1]
                squared = ex * ex + ey * ey
                fraction = 0.0
                if squared > 0.0:
                    fraction = (rx * ex + ry * ey) / squared
                if fraction <= 0.0:
                    here, at = np.sqrt(to_start), travelled
                elif fraction >= 1.0:
                    bx, by = x - line[j + 1, 0], y - line[j + 1, 1]
                    here, at = np.sqrt(bx * bx + by * by), travelled + length
                else:
                    here = abs((rx * ey - ry * ex) / squared) * np.sqrt(squared)
                    at = travelled + fraction * length
                if here < best:
                    best, best_arc, near = here, at, j
                    bound = min(bound, best)
                travelled += length
            arc[s, n], distance[s, n] = best_arc, best
