"""What stands beside the road: buildings, trees, and the gantries that carry the signals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import shapely
import shapely.affinity
from numpy.typing import NDArray

from latentvla_training.world.polyline import resample_polyline
from latentvla_training.world.road_map import Lane, Polygon, Prop, Signal

Array = NDArray[np.float64]

#: Generators whose roads lie out of town: no pavement, few and low buildings, more trees.
COUNTRY_KINDS = frozenset({"rural", "merge", "split"})

#: Least distance of a building or tree from anything drivable, m.
CLEARANCE_M = 3.5
#: Bends of a country road that are tighter are overgrown on the inside, m.
THICKET_RADIUS_M = 260.0
#: How far back from a stop line its lamps must be seen past every prop, m.
SIGHT_M = 90.0

_FACADES = ((196, 178, 150), (170, 120, 98), (150, 156, 162), (206, 200, 188), (128, 134, 146))
_LEAVES = ((70, 104, 52), (84, 118, 58), (58, 92, 50), (104, 116, 56))
_STEEL = np.array([88, 92, 96], np.uint8)
_BEAM_HALF_M, _POLE_HALF_M, _BEAM_ABOVE_LAMP_M = 0.1, 0.14, 0.75


@dataclass(frozen=True)
class _Candidate:
    """A place for a prop, tried in order of distance along the road."""

    kind: str
    xy: Array
    yaw: float
    size: Array
    color: tuple[int, int, int]


def place_props(
    polygons: Sequence[Polygon],
    lanes: Mapping[str, Lane],
    signals: Sequence[Signal],
    bounds: Array,
    seed: int,
    kind: str = "",
) -> tuple[Prop, ...]:
    """Place buildings and trees along the roads and a gantry over every group of signal heads.

    Buildings and trees stand at least ``CLEARANCE_M`` off every polygon, overlap nothing, and leave
    the view of each lamp free over the last ``SIGHT_M`` of its approach lane. Deterministic.

    Args:
        polygons, lanes, signals: of the road map.
        bounds: (4,) x_min, y_min, x_max, y_max of everything drivable; props stay within 60 m.
        seed: of the network. kind: ``RoadMap.kind``; out of town few buildings stand.
    """
    rng = np.random.default_rng([seed & 0xFFFFFFFF, 0x7EE])
    drivable = shapely.union_all(
        shapely.make_valid(np.array([shapely.Polygon(p.ring) for p in polygons], object))
    )
    shapely.prepare(drivable)
    gantries = [prop for group in _groups(signals) for prop in _gantry(group, drivable)]
    keep_out = shapely.STRtree(
        [
            drivable.buffer(CLEARANCE_M),
            *(_sight_line(signal, lanes) for signal in signals),
            *(shapely.box(*(p.center[:2] - 1.0), *(p.center[:2] + 1.0)) for p in gantries),
        ]
    )
    placed: list[Prop] = []
    footprints = _FootprintGrid()
    window = shapely.box(*(np.asarray(bounds[:2]) - 60.0), *(np.asarray(bounds[2:]) + 60.0))
    thickets = _thickets(lanes, rng) if kind == "rural" else ()
    for candidate in chain(thickets, _candidates(lanes, rng, kind in COUNTRY_KINDS)):
        length, width, height = candidate.size
        shape = shapely.box(-length / 2.0, -width / 2.0, length / 2.0, width / 2.0)
        shape = shapely.affinity.rotate(shape, candidate.yaw, (0.0, 0.0), use_radians=True)
        shape = shapely.affinity.translate(shape, *candidate.xy)
        if not window.contains(shape) or len(keep_out.query(shape, "intersects")):
            continue
        if not footprints.add(shape):
            continue
        placed.append(
            Prop(
                candidate.kind,
                np.array([*candidate.xy, height / 2.0]),
                candidate.size,
                candidate.yaw,
                np.array(candidate.color, np.uint8),
            )
        )
    return (*placed, *gantries)


class _FootprintGrid:
    """Footprints placed so far, found by cells of 30 m."""

    def __init__(self) -> None:
        self._cells: dict[tuple[int, int], list[shapely.Polygon]] = {}

    def add(self, shape: shapely.Polygon) -> bool:
        """Keep ``shape`` and return True, unless it touches one that is already there."""
        low = np.floor((np.array(shape.bounds[:2]) - 0.5) / 30.0).astype(int)
        high = np.floor((np.array(shape.bounds[2:]) + 0.5) / 30.0).astype(int)
        cells = [(i, j) for i in range(low[0], high[0] + 1) for j in range(low[1], high[1] + 1)]
        grown = shape.buffer(0.5)
        if any(grown.intersects(other) for cell in cells for other in self._cells.get(cell, ())):
            return False
        for cell in cells:
            self._cells.setdefault(cell, []).append(shape)
        return True


def _candidates(
    lanes: Mapping[str, Lane], rng: np.random.Generator, country: bool
) -> Iterator[_Candidate]:
    """Yield places along the right-hand side of every edge, and farther off behind them."""
    for lane_id in sorted(lanes):
        lane = lanes[lane_id]
        if lane.is_connector or lane.right_neighbor is not None:
            continue
        line = shapely.LineString(lane.centerline)
        urban, wooded = rng.uniform(0.15, 0.85), 0.5
        if country:
            urban, wooded = 0.15 * urban, 0.9
        facade = rng.permutation(len(_FACADES))
        along = float(rng.uniform(3.0, 12.0))
        while along < line.length:
            here = shapely.get_coordinates(line.interpolate(along))[0]
            ahead = shapely.get_coordinates(line.interpolate(min(along + 0.5, line.length)))[0]
            behind = shapely.get_coordinates(line.interpolate(max(along - 0.5, 0.0)))[0]
            yaw = float(np.arctan2(*(ahead - behind)[::-1]))
            right = np.array([np.sin(yaw), -np.cos(yaw)])
            verge = lane.width_m / 2.0 + CLEARANCE_M
            if rng.uniform() < urban:
                length, width = rng.uniform(9.0, 22.0), rng.uniform(9.0, 15.0)
                floors = rng.integers(2, 7)
                if country:
                    floors = 1 + floors % 2
                size = np.array([length, width, 3.2 * floors])
                setback = verge + 3.0 + size[1] / 2.0 + rng.uniform(0.0, 6.0)
                color = _FACADES[facade[int(rng.integers(3))]]
                yield _Candidate("building", here + setback * right, yaw, size, color)
            if rng.uniform() < 0.75:
                yield _tree(here, right, verge + rng.uniform(2.0, 4.0), rng)
            if rng.uniform() < wooded:
                yield _tree(here, right, verge + rng.uniform(12.0, 40.0), rng)
            along += float(rng.uniform(7.0, 15.0))


def _thickets(lanes: Mapping[str, Lane], rng: np.random.Generator) -> Iterator[_Candidate]:
    """Yield rows of bushes on the inside of bends, which hide what comes behind the bend."""
    for lane_id in sorted(lanes):
        lane = lanes[lane_id]
        if lane.is_connector:
            continue
        points = resample_polyline(lane.centerline, 3.0)
        yaw = np.unwrap(np.arctan2(*np.gradient(points, axis=0).T[::-1]))
        for index in range(4, len(points) - 4):
            turn = (yaw[index - 4] - yaw[index + 4]) / 24.0  # to the right, 1/m
            if turn < 1.0 / THICKET_RADIUS_M:
                continue
            right = np.array([np.sin(yaw[index]), -np.cos(yaw[index])])
            for row in (0.0, 3.6):
                crown, height = rng.uniform(3.0, 3.6), rng.uniform(2.0, 2.5)
                setback = lane.width_m / 2.0 + CLEARANCE_M + 3.2 + row + rng.uniform(0.0, 0.6)
                color = _LEAVES[int(rng.integers(len(_LEAVES)))]
                size = np.array([crown, crown, height])
                yield _Candidate("tree", points[index] + setback * right, 0.0, size, color)


def _tree(here: Array, right: Array, setback: float, rng: np.random.Generator) -> _Candidate:
    height = rng.uniform(5.0, 10.0)
    crown = min(rng.uniform(0.45, 0.7) * height, 5.5)
    color = _LEAVES[int(rng.integers(len(_LEAVES)))]
    size = np.array([crown, crown, height])
    return _Candidate("tree", here + setback * right, float(rng.uniform(-3.1, 3.1)), size, color)


def _sight_line(signal: Signal, lanes: Mapping[str, Lane]) -> shapely.Geometry:
    """Return the ground under every line from the approach lane to the lamps."""
    lane = shapely.LineString(lanes[signal.approach_lane].centerline)
    tail = shapely.get_coordinates(
        lane.interpolate(np.arange(max(lane.length - SIGHT_M, 0.0), lane.length, 2.0))
    )
    lamp = signal.lamp_centers[:, :2].mean(axis=0)
    fans = [
        shapely.MultiPoint([tail[i], tail[i + 1], lamp]).convex_hull for i in range(len(tail) - 1)
    ]
    return shapely.union_all(fans).buffer(2.0)


def _groups(signals: Sequence[Signal]) -> list[list[Signal]]:
    """Group heads that hang side by side: same light, same direction, within 15 m."""
    groups: list[list[Signal]] = []
    for signal in signals:
        for group in groups:
            first = group[0]
            turn = np.cos(signal.facing_yaw - first.facing_yaw)
            gap = min(
                float(np.linalg.norm(signal.lamp_centers[0, :2] - other.lamp_centers[0, :2]))
                for other in group
            )
            if signal.tls_id == first.tls_id and turn > 0.95 and gap < 15.0:
                group.append(signal)
                break
        else:
            groups.append([signal])
    return groups


def _gantry(group: list[Signal], drivable: shapely.Geometry) -> Iterator[Prop]:
    """Yield the beam that the heads of a group hang from and the pole beside the road."""
    yaw = group[0].facing_yaw
    back = -np.array([np.cos(yaw), np.sin(yaw)])
    left = np.array([-np.sin(yaw), np.cos(yaw)])
    centers = np.array([signal.lamp_centers.mean(axis=0) for signal in group])
    # Behind the rearmost head: a group may be staggered at a skewed junction.
    mean = centers[:, :2].mean(axis=0)
    origin = mean + (float(((centers[:, :2] - mean) @ back).max()) + 0.45) * back
    across = (centers[:, :2] - origin) @ left
    # Above the heads, where it crosses no other approach's view of its lamps.
    height = float(max(signal.lamp_centers[:, 2].max() for signal in group)) + _BEAM_ABOVE_LAMP_M
    for side in (left, -left):
        # Out of the drivable area on the nearer side; at most 40 m.
        reach = float(np.max(across if side is left else -across)) + 0.9
        while reach < 40.0 and drivable.distance(shapely.Point(origin + reach * side)) < 1.0:
            reach += 0.5
        if side is left:
            left_reach = reach
    right_reach = reach
    if left_reach < right_reach:
        foot, far = left_reach, float(across.min())
    else:
        foot, far = -right_reach, float(across.max())
    middle, length = origin + 0.5 * (foot + far) * left, abs(foot - far) + 2 * _POLE_HALF_M
    turn = float(np.arctan2(left[1], left[0]))
    beam = np.array([length, 2 * _BEAM_HALF_M, 3 * _BEAM_HALF_M])
    yield Prop("gantry", np.array([*middle, height]), beam, turn, _STEEL)
    top = height + 3 * _BEAM_HALF_M
    pole = np.array([2 * _POLE_HALF_M, 2 * _POLE_HALF_M, top])
    yield Prop("pole", np.array([*(origin + foot * left), top / 2.0]), pole, turn, _STEEL)
