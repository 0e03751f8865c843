"""The 15 proposals of PDM-Closed: drivers of five speeds on three parallel paths (numba).

Source: Dauner et al. 2023, "Parting with Misconceptions about Learning-based Vehicle Motion
Planning", section 4, and the planner's published rules: a driver follows the nearest of what lies
in its corridor and ahead of it, looked for every 0.2 s at the agents' present velocities.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from latentvla_training.scoring.vehicle import NUM_STATES, PACIFICA, STEP_S

Array = NDArray[np.float64]

SPEED_FRACTIONS = np.array([0.2, 0.4, 0.6, 0.8, 1.0])
LATERAL_OFFSETS_M = np.array([0.0, -1.0, 1.0])
NUM_PROPOSALS = len(SPEED_FRACTIONS) * len(LATERAL_OFFSETS_M)
MIN_GAP_M = 1.0
HEADWAY_S = 1.5
MAX_ACCELERATION = 1.5
MAX_BRAKING = 3.0
EXPONENT = 10
LEADER_EVERY_STEPS = 2

_HALF_WIDTH = PACIFICA.width / 2.0
_HALF_LENGTH = PACIFICA.length / 2.0
_CENTER = PACIFICA.center_offset
_HORIZON_S = (NUM_STATES - 1) * STEP_S


@njit(cache=True)
def _segment_to_box(
    ax: float, ay: float, bx: float, by: float, half_length: float, half_width: float
) -> float:
    """Distance from a segment, in the frame of a box around the origin, to that box."""
    low, high = 0.0, 1.0
    dx, dy = bx - ax, by - ay
    meets = True
    for start, step, half in ((ax, dx, half_length), (ay, dy, half_width)):
        if abs(step) < 1e-12:
            if abs(start) > half:
                meets = False
        else:
            first, second = (-half - start) / step, (half - start) / step
            low, high = max(low, min(first, second)), min(high, max(first, second))
    if meets and low <= high:
        return 0.0
    best = np.inf
    for x, y in ((ax, ay), (bx, by)):
        best = min(best, np.hypot(max(abs(x) - half_length, 0.0), max(abs(y) - half_width, 0.0)))
    squared = max(dx * dx + dy * dy, 1e-18)
    for side in (-1.0, 1.0):
        for end in (-1.0, 1.0):
            cx, cy = end * half_length, side * half_width
            part = min(max(((cx - ax) * dx + (cy - ay) * dy) / squared, 0.0), 1.0)
            best = min(best, np.hypot(ax + part * dx - cx, ay + part * dy - cy))
    return best


@njit(cache=True)
def _ring_to_box(ring: Array, count: int, x: float, y: float, yaw: float, size: Array) -> float:
    """Distance from the outline of a ring (V, 2) to a box; 0 where they meet."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    best = np.inf
    for i in range(count):
        j = (i + 1) % count
        ax, ay = ring[i, 0] - x, ring[i, 1] - y
        bx, by = ring[j, 0] - x, ring[j, 1] - y
        best = min(
            best,
            _segment_to_box(
                cos * ax + sin * ay, cos * ay - sin * ax, cos * bx + sin * by, cos * by - sin * bx,
                size[0] / 2.0, size[1] / 2.0,
            ),
        )  # fmt: skip
        if best == 0.0:
            break
    return best


@njit(cache=True)
def _box_ring(x: float, y: float, yaw: float, size: Array, ring: Array) -> None:
    cos, sin = np.cos(yaw), np.sin(yaw)
    for i in range(4):
        along = (0.5 if i in (0, 3) else -0.5) * size[0]
        aside = (0.5 if i < 2 else -0.5) * size[1]
        ring[i, 0] = x + cos * along - sin * aside
        ring[i, 1] = y + sin * along + cos * aside


@njit(cache=True)
def _inside(x: float, y: float, ring: Array, count: int) -> bool:
    inside = False
    j = count - 1
    for i in range(count):
        if (ring[i, 1] > y) != (ring[j, 1] > y):
            crossing = (ring[j, 0] - ring[i, 0]) * (y - ring[i, 1]) / (ring[j, 1] - ring[i, 1])
            if x < crossing + ring[i, 0]:
                inside = not inside
        j = i
    return inside


@njit(cache=True)
def _arc_length(x: float, y: float, path: Array, lengths: Array) -> float:
    """Arc length of the nearest place of a path (C, 2)."""
    best, found = np.inf, 0.0
    for i in range(len(path) - 1):
        dx, dy = path[i + 1, 0] - path[i, 0], path[i + 1, 1] - path[i, 1]
        squared = dx * dx + dy * dy
        px, py = x - path[i, 0], y - path[i, 1]
        part = 0.0 if squared == 0.0 else min(max((px * dx + py * dy) / squared, 0.0), 1.0)
        distance = (px - part * dx) ** 2 + (py - part * dy) ** 2
        if distance < best:
            best, found = distance, lengths[i] + part * (lengths[i + 1] - lengths[i])
    return found


@njit(cache=True)
def _pose_at(s: float, path: Array, yaw: Array, lengths: Array, pose: Array) -> None:
    """Pose (3,) at an arc length; straight on past the path's ends."""
    i = min(max(np.searchsorted(lengths, s, side="right") - 1, 0), len(path) - 2)
    length = lengths[i + 1] - lengths[i]
    part = (s - lengths[i]) / length
    pose[0] = path[i, 0] + part * (path[i + 1, 0] - path[i, 0])
    pose[1] = path[i, 1] + part * (path[i + 1, 1] - path[i, 1])
    turn = (yaw[i + 1] - yaw[i] + np.pi) % (2.0 * np.pi) - np.pi
    pose[2] = yaw[i] + min(max(part, 0.0), 1.0) * turn


@njit(cache=True)
def _in_corridor(
    path: Array, first: int, last: int, x: float, y: float, yaw: float, size: Array
) -> bool:
    """Whether a box comes within half the ego's width of path points first ... last."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    reach = np.hypot(size[0], size[1]) / 2.0 + _HALF_WIDTH
    i = first
    while i < last:
        ax, ay = path[i, 0] - x, path[i, 1] - y
        bx, by = path[i + 1, 0] - x, path[i + 1, 1] - y
        step = np.hypot(bx - ax, by - ay)
        clear = np.hypot(ax, ay) - reach - step
        if clear > 0.0:
            # No place nearer along the path than this can touch the box.
            i += 1 + int(clear / 1.5)
            continue
        if (
            _segment_to_box(
                cos * ax + sin * ay, cos * ay - sin * ax, cos * bx + sin * by, cos * by - sin * bx,
                size[0] / 2.0, size[1] / 2.0,
            )
            <= _HALF_WIDTH
        ):  # fmt: skip
            return True
        i += 1
    return False


@njit(cache=True)
def _ring_in_corridor(path: Array, first: int, last: int, ring: Array, count: int) -> bool:
    """Whether a ring (a red connector) comes within half the ego's width of the path."""
    for i in range(first, last + 1):
        if _inside(path[i, 0], path[i, 1], ring, count):
            return True
    point = np.zeros(2)
    for i in range(first, last + 1):
        if _ring_to_box(ring, count, path[i, 0], path[i, 1], 0.0, point) <= _HALF_WIDTH:
            return True
    return False


@njit(cache=True)
def _headings(path: Array) -> Array:
    """Heading (C,) at each point of a path: from the point before it to the one after."""
    last = len(path) - 1
    yaw = np.empty(len(path))
    for i in range(len(path)):
        before, after = path[max(i - 1, 0)], path[min(i + 1, last)]
        yaw[i] = np.arctan2(after[1] - before[1], after[0] - before[0])
    return yaw


@njit(cache=True)
def _parallel(path: Array, yaw: Array, offset: float) -> Array:
    moved = path.copy()
    for i in range(len(path)):
        moved[i, 0] -= offset * np.sin(yaw[i])
        moved[i, 1] += offset * np.cos(yaw[i])
    return moved


@njit(cache=True)
def unroll(
    ego: Array,
    centerline: Array,
    limits: Array,
    agents: Array,
    sizes: Array,
    static: NDArray[np.bool_],
    rings: Array,
    ring_sizes: NDArray[np.int64],
    fractions: Array,
    offsets: Array,
    out: Array,
) -> None:
    """Drive all proposals of one scene.

    Args:
        ego: (>= 4,) x, y, heading, vx of the rear axle. centerline: (C, 2) distinct points.
        limits: (C,) m/s. agents: (A, 5) x, y, yaw, vx, vy at t = 0. sizes: (A, 2).
        static: (A,) classes that cannot move. rings: (R, V, 2) red connectors on the route.
        ring_sizes: (R,). fractions: (5,) of the limit. offsets: (3,) to the left, m.
        out: (15, 41, 3) poses to fill, path by path, slowest first.
    """
    count, num_rings = len(agents), len(rings)
    ego_size = np.array([2.0 * _HALF_LENGTH, 2.0 * _HALF_WIDTH])
    ego_x, ego_y = ego[0] + _CENTER * np.cos(ego[2]), ego[1] + _CENTER * np.sin(ego[2])
    box = np.empty((4, 2))
    # What the ego stands in already is not in its way; a red connector only when wholly inside.
    ignored = np.zeros(count + num_rings, np.bool_)
    for a in range(count):
        _box_ring(agents[a, 0], agents[a, 1], agents[a, 2], sizes[a], box)
        ignored[a] = _ring_to_box(box, 4, ego_x, ego_y, ego[2], ego_size) == 0.0
    _box_ring(ego_x, ego_y, ego[2], ego_size, box)
    for r in range(num_rings):
        ignored[count + r] = True
        for i in range(4):
            if not _inside(box[i, 0], box[i, 1], rings[r], ring_sizes[r]):
                ignored[count + r] = False
    base_yaw = _headings(centerline)
    for path_index in range(len(offsets)):
        path = _parallel(centerline, base_yaw, offsets[path_index])
        yaw = _headings(path)
        lengths = np.zeros(len(path))
        for i in range(1, len(path)):
            step = np.hypot(path[i, 0] - path[i - 1, 0], path[i, 1] - path[i - 1, 1])
            lengths[i] = lengths[i - 1] + max(step, 1e-6)
        start = _arc_length(ego[0], ego[1], path, lengths)
        reach = start + limits.max() * (_HORIZON_S + 1.0)
        first = min(max(np.searchsorted(lengths, start) - 1, 0), len(path) - 2)
        last = min(max(np.searchsorted(lengths, reach), first + 1), len(path) - 1)
        ring_s = np.full(num_rings, -np.inf)
        for r in range(num_rings):
            if not ignored[count + r] and _ring_in_corridor(
                path, first, last, rings[r], ring_sizes[r]
            ):
                middle_x = rings[r, : ring_sizes[r], 0].mean()
                middle_y = rings[r, : ring_sizes[r], 1].mean()
                ring_s[r] = _arc_length(middle_x, middle_y, path, lengths)
        s = np.full(len(fractions), start)
        speed = np.full(len(fractions), ego[3])
        lead_s, lead_speed = np.full(len(fractions), np.inf), np.zeros(len(fractions))
        agent_s = np.empty(count)
        pose = np.empty(3)
        for f in range(len(fractions)):
            _pose_at(start, path, yaw, lengths, out[path_index * len(fractions) + f, 0])
        for step_index in range(1, NUM_STATES):
            if step_index == 1 or step_index % LEADER_EVERY_STEPS == 0:
                time = (step_index // LEADER_EVERY_STEPS) * LEADER_EVERY_STEPS * STEP_S
                for a in range(count):
                    agent_s[a] = -np.inf
                    moving = 0.0 if static[a] else time
                    x, y = (
                        agents[a, 0] + moving * agents[a, 3],
                        agents[a, 1] + moving * agents[a, 4],
                    )
                    if not ignored[a] and _in_corridor(
                        path, first, last, x, y, agents[a, 2], sizes[a]
                    ):
                        agent_s[a] = _arc_length(x, y, path, lengths)
                for f in range(len(fractions)):
                    _pose_at(s[f], path, yaw, lengths, pose)
                    x = pose[0] + _CENTER * np.cos(pose[2])
                    y = pose[1] + _CENTER * np.sin(pose[2])
                    nearest, velocity = np.inf, 0.0
                    for a in range(count):
                        if agent_s[a] <= s[f]:
                            continue
                        moving = 0.0 if static[a] else time
                        _box_ring(
                            agents[a, 0] + moving * agents[a, 3],
                            agents[a, 1] + moving * agents[a, 4],
                            agents[a, 2], sizes[a], box,
                        )  # fmt: skip
                        distance = _ring_to_box(box, 4, x, y, pose[2], ego_size)
                        if distance < nearest:
                            nearest = distance
                            total = 0.0 if static[a] else np.hypot(agents[a, 3], agents[a, 4])
                            velocity = total * np.cos(agents[a, 2] - pose[2])
                    for r in range(num_rings):
                        if ring_s[r] > s[f]:
                            distance = _ring_to_box(
                                rings[r], ring_sizes[r], x, y, pose[2], ego_size
                            )
                            if distance < nearest:
                                nearest, velocity = distance, 0.0
                    lead_s[f], lead_speed[f] = s[f] + nearest, velocity
            for f in range(len(fractions)):
                target = max(fractions[f] * np.interp(s[f], lengths, limits), 0.1)
                v = speed[f]
                gap = max(lead_s[f] - s[f], MIN_GAP_M)
                closing = v * (v - lead_speed[f]) / (2.0 * np.sqrt(MAX_ACCELERATION * MAX_BRAKING))
                wanted = MIN_GAP_M + v * HEADWAY_S + closing
                change = MAX_ACCELERATION * (1.0 - (v / target) ** EXPONENT - (wanted / gap) ** 2)
                change = min(max(change, -MAX_BRAKING), MAX_ACCELERATION)
                s[f] += STEP_S * v
                # The published rule lets the speed fall below 0; a car that stands stays.
                speed[f] = max(v + STEP_S * change, min(v, 0.0))
                row = out[path_index * len(fractions) + f, step_index]
                _pose_at(s[f], path, yaw, lengths, row)
