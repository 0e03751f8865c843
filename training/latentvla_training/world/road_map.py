"""A road network as NAVSIM sees it (experiments.md section 1), and what stands beside the road.

Every array is in the map frame, m and rad, float64 unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Layer(IntEnum):
    """NAVSIM map layers; the values are those of the scoring vectors' ``poly_type``."""

    ROADBLOCK = 0
    LANE = 1
    LANE_CONNECTOR = 2
    INTERSECTION = 3
    CARPARK_AREA = 4


class SignalState(IntEnum):
    """State of a traffic light for one controlled connector."""

    RED = 0
    YELLOW = 1
    GREEN = 2


class MarkingKind(IntEnum):
    """Painted lines and kerbs."""

    SOLID = 0
    DASHED = 1
    STOP_LINE = 2
    CROSSING = 3
    CENTRE = 4


@dataclass(frozen=True)
class Polygon:
    """One map polygon.

    Attributes:
        layer: NAVSIM layer.
        source_id: SUMO id of the edge, lane or junction.
        ring: (K, 2) open ring, counter-clockwise.
    """

    layer: Layer
    source_id: str
    ring: Array


@dataclass(frozen=True)
class Lane:
    """A lane or a lane connector (SUMO internal lane).

    Attributes:
        lane_id, edge_id: SUMO ids.
        is_connector: inside a junction.
        centerline: (N, 2) in the driving direction.
        width_m, speed_limit_mps: of the lane.
        successors: ids of the lanes (connectors, for a lane) that follow.
        left_neighbor, right_neighbor: same-edge lane ids or None.
        signal: index into ``RoadMap.signals`` that controls this connector, or -1.
        turn: for a connector: "l", "s", "r" or "t" (SUMO direction); "" for a lane.
    """

    lane_id: str
    edge_id: str
    is_connector: bool
    centerline: Array
    width_m: float
    speed_limit_mps: float
    successors: tuple[str, ...]
    left_neighbor: str | None
    right_neighbor: str | None
    signal: int
    turn: str


@dataclass(frozen=True)
class Signal:
    """One signal head for one approach lane, on a far-side gantry (experiments.md section 3).

    Attributes:
        tls_id, link_indices: SUMO traffic light and its controlled links shown by this head.
        approach_lane: lane id whose drivers read it.
        stop_line: (2, 2) end points of the stop line.
        lamp_centers: (3, 3) x, y, z of the red, yellow, green lamps, 0.9 m in diameter.
        facing_yaw: direction in which the lamps shine (towards the approaching driver).
    """

    tls_id: str
    link_indices: tuple[int, ...]
    approach_lane: str
    stop_line: Array
    lamp_centers: Array
    facing_yaw: float


@dataclass(frozen=True)
class Marking:
    """A painted polyline: kind, (N, 2) points, width in m."""

    kind: MarkingKind
    points: Array
    width_m: float


@dataclass(frozen=True)
class Prop:
    """A static box beside the road: ``building``, ``tree`` (trunk + crown), ``pole`` or ``gantry``.

    Attributes:
        kind: as above.
        center: (3,) x, y, z of the box's centre.
        size: (3,) length, width, height.
        yaw: heading of the length axis.
        color: (3,) uint8 RGB.
    """

    kind: str
    center: Array
    size: Array
    yaw: float
    color: NDArray[np.uint8]


@dataclass(frozen=True)
class Crosswalk:
    """A pedestrian crossing of a junction.

    Attributes:
        edge_id: SUMO's crossing edge, e.g. ``:n3_c0``.
        ring: (K, 2) open ring.
        signalled: whether pedestrians have a light there (vehicles then obey their own).
    """

    edge_id: str
    ring: Array
    signalled: bool


@dataclass(frozen=True)
class RoadMap:
    """A whole network.

    Attributes:
        name: unique, e.g. ``train-0007``; the unit of bootstrapping.
        polygons: all layers; seams closed by 0.2 m buffering.
        lanes: by lane id, connectors included.
        signals: all heads.
        markings, props: what is painted and what stands there.
        bounds: (4,) x_min, y_min, x_max, y_max of everything drivable.
        kind: generator it was drawn with, e.g. ``grid`` or ``rural``.
        crosswalks: where pedestrians cross. sidewalks: rings (K, 2) of pavements.
    """

    name: str
    polygons: tuple[Polygon, ...]
    lanes: dict[str, Lane]
    signals: tuple[Signal, ...]
    markings: tuple[Marking, ...]
    props: tuple[Prop, ...]
    bounds: Array
    kind: str = ""
    crosswalks: tuple[Crosswalk, ...] = ()
    sidewalks: tuple[Array, ...] = ()
