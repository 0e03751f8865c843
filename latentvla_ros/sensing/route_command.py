"""The one route-to-command rule, used by the car, the built-in world and the adapters alike.

A junction turn is told from a bending road by how *concentrated* its change of heading is: the
heading of the first and of the last 6 m of every 20 m stretch of the route ahead are compared, and
the first stretch that differs by more than 30 degrees decides. That is a radius under about 27 m
sustained through the stretch: junction turns (6-25 m) count, bends of the open road do not, and
neither does a lane change, whose heading comes back. Only the route's own shape enters, never the
ego's heading, so a vehicle that has drifted or yawed hears the same command.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latentvla_ros.contract import Command

#: The route is read this far ahead: ``max(MIN_LOOKAHEAD_M, LOOKAHEAD_S * speed limit)``.
MIN_LOOKAHEAD_M = 20.0
LOOKAHEAD_S = 3.0
#: With less route than this ahead of the ego nothing is said.
MIN_ROUTE_M = 5.0
#: An ego farther than this from the route is not on it.
MAX_OFFSET_M = 10.0

_STRETCH_M = 20.0
_CHORD_M = 6.0
_TURN_RAD = np.deg2rad(30.0)
_STEP_M = 1.0


def route_command(route_xy: ArrayLike, speed_limit_mps: float) -> Command:
    """Return what the route asks for next.

    Args:
        route_xy: (N, 2) points of the route in driving order, m, ego frame of t0; starts at or
            behind the ego.
        speed_limit_mps: speed limit where the ego is; not finite or negative counts as 0.

    Returns:
        LEFT, RIGHT or STRAIGHT from the route within ``max(20 m, 3 s x limit)`` ahead; UNKNOWN when
        less than 5 m of route lie ahead, the ego is more than 10 m away from it, or a point is not
        finite.
    """
    route = np.asarray(route_xy, np.float64)
    if route.ndim != 2 or route.shape[-1] != 2 or len(route) < 2:
        return Command.UNKNOWN
    if not np.isfinite(route).all() or np.abs(route).max() > 1e7:
        return Command.UNKNOWN
    points, arc = _without_repeats(route)
    if len(points) < 2:
        return Command.UNKNOWN
    start, offset = _project_origin(points, arc)
    ahead = arc[-1] - start
    if ahead < MIN_ROUTE_M or offset > MAX_OFFSET_M:
        return Command.UNKNOWN
    limit = speed_limit_mps if np.isfinite(speed_limit_mps) and speed_limit_mps > 0 else 0.0
    lookahead = min(max(MIN_LOOKAHEAD_M, LOOKAHEAD_S * limit), ahead)

    stretch = min(_STRETCH_M, lookahead)
    chord = min(_CHORD_M, stretch / 2.0)
    steps = int(np.floor((lookahead - chord) / _STEP_M + 1e-9)) + 1
    chord_starts = np.append(np.arange(steps) * _STEP_M, lookahead - chord) + start
    heading = _chord_heading(points, arc, chord_starts, chord)
    # Every stretch is compared from its first chord to its last; the final one ends the look-ahead.
    first = np.append(np.arange(0.0, lookahead - stretch, _STEP_M), lookahead - stretch) + start
    turn = np.interp(first + stretch - chord, chord_starts, heading) - np.interp(
        first, chord_starts, heading
    )
    decisive = np.flatnonzero(np.abs(turn) > _TURN_RAD)
    if len(decisive) == 0:
        return Command.STRAIGHT
    return Command.LEFT if turn[decisive[0]] > 0 else Command.RIGHT


def _without_repeats(
    route: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Drop points that repeat their predecessor; return points (N, 2) and their arc length (N,)."""
    length = np.hypot(*np.diff(route, axis=0).T)
    keep = np.append(True, length > 1e-6)
    points = route[keep]
    return points, np.append(0.0, np.cumsum(np.hypot(*np.diff(points, axis=0).T)))


def _project_origin(points: NDArray[np.float64], arc: NDArray[np.float64]) -> tuple[float, float]:
    """Return arc length and distance of the route's first point that is nearest to the ego."""
    direction = np.diff(points, axis=0)
    squared = np.maximum((direction**2).sum(axis=1), 1e-12)
    fraction = np.clip(-(points[:-1] * direction).sum(axis=1) / squared, 0.0, 1.0)
    distance = np.hypot(*(points[:-1] + fraction[:, None] * direction).T)
    nearest = int(np.argmin(distance))
    position = arc[nearest] + fraction[nearest] * (arc[nearest + 1] - arc[nearest])
    return float(position), float(distance[nearest])


def _chord_heading(
    points: NDArray[np.float64],
    arc: NDArray[np.float64],
    starts: NDArray[np.float64],
    chord: float,
) -> NDArray[np.float64]:
    """Return the continuous heading (M,) of chords of the route that begin at ``starts`` (M,)."""
    ends = starts + chord
    dx = np.interp(ends, arc, points[:, 0]) - np.interp(starts, arc, points[:, 0])
    dy = np.interp(ends, arc, points[:, 1]) - np.interp(starts, arc, points[:, 1])
    return np.asarray(np.unwrap(np.arctan2(dy, dx)))
