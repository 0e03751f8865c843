"""What stands in the street: parked and double-parked cars, and road works with cones and barriers.

Parked cars stand beyond the kerb and SUMO knows nothing of them. What takes a lane, a
double-parked car or closed piece of lane, is a standing vehicle to SUMO too, so traffic goes round.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from latentvla_training.world.episode import AgentModel
from latentvla_training.world.polyline import polyline_length
from latentvla_training.world.road_map import Lane, Layer, RoadMap
from latentvla_training.world.vehicle_models import MODEL_BY_NAME, Looks, draw_looks

Array = NDArray[np.float64]

#: Kerb kept free before a stop line, for the view of it and of who crosses, and behind a junction.
CLEAR_BEFORE_STOP_M, CLEAR_AFTER_JUNCTION_M = 20.0, 14.0
#: Nobody parks beside a faster road.
PARKING_LIMIT_MPS = 14.5
_SLOT_M = 6.6
#: How far into its own road a parked car reaches on average, the gutter and the grown seam; where a
#: road is widened in bends it would be more. And how much of any other road it may take.
_OVERLAP_M, _OVERLAP_M2 = 0.7, 0.6
#: From the edge of the lane to the near side of a parked car, m.
_PARKED_BEYOND_M = 0.25


@dataclass(frozen=True)
class StandingAgent:
    """A thing that never moves: id, looks, centre (2,), yaw."""

    name: str
    looks: Looks
    center: Array
    yaw: float


@dataclass(frozen=True)
class StandingVehicle:
    """What stands on a lane as SUMO knows it; without ``looks`` nothing of it is seen."""

    name: str
    lane_id: str
    front_m: float
    length_m: float
    looks: Looks | None


@dataclass(frozen=True)
class StreetFurniture:
    """Everything that stands in the street in one episode.

    Attributes:
        agents: beside or on the road, unknown to SUMO. vehicles: on lanes, known to SUMO.
        taken_edges: edges along whose kerb something stands.
    """

    agents: tuple[StandingAgent, ...]
    vehicles: tuple[StandingVehicle, ...]
    taken_edges: frozenset[str]


def draw_street_furniture(road_map: RoadMap, seed: int) -> StreetFurniture:
    """Draw what stands in the street in the episode with ``seed``."""
    rng = np.random.default_rng((seed, 3))
    occupied = float(rng.choice((0.0, 0.25, 0.5, 0.8)))  # of the slots of a kerb that is used
    used_kerbs = float(rng.uniform(0.3, 0.6))
    double_parked = int(rng.choice((0, 0, 0, 1, 2, 3)))
    road_works = int(rng.choice((0, 0, 1, 2)))
    ground = _Ground(road_map)
    agents: list[StandingAgent] = []
    vehicles: list[StandingVehicle] = []
    taken: set[str] = set()
    kerbs = [lane for _, lane in sorted(road_map.lanes.items()) if is_kerb_lane(road_map, lane)]
    works = [lane for lane in kerbs if polyline_length(lane.centerline) > 85.0]
    for number in range(min(road_works, len(works))):
        lane = works[int(rng.integers(len(works)))]
        if lane.edge_id not in taken:
            taken.add(lane.edge_id)
            close_lane = has_left_neighbor(road_map, lane) and rng.random() < 0.6
            things, blocker = _road_works(lane, f"w{number}", close_lane, rng)
            agents += things
            vehicles += [blocker] if blocker else []
    for lane in kerbs:
        if rng.random() >= used_kerbs or lane.edge_id in taken or not may_park(lane):
            continue
        cars = _parked_row(lane, occupied, ground, rng)
        agents += [StandingAgent(f"k{len(agents) + i}", *car) for i, car in enumerate(cars)]
        if cars:
            taken.add(lane.edge_id)
    wide = [lane for lane in works if has_left_neighbor(road_map, lane) and may_park(lane)]
    for number in range(min(double_parked, len(wide))):
        lane = wide[int(rng.integers(len(wide)))]
        if any(vehicle.lane_id == lane.lane_id for vehicle in vehicles):
            continue
        looks = _draw_car(rng)
        front = float(rng.uniform(30.0, polyline_length(lane.centerline) - 45.0))
        vehicles.append(StandingVehicle(f"d{number}", lane.lane_id, front, looks.size[0], looks))
    return StreetFurniture(tuple(agents), tuple(vehicles), frozenset(taken))


def is_kerb_lane(road_map: RoadMap, lane: Lane) -> bool:
    """Whether ``lane`` is a road's rightmost lane for vehicles."""
    return not lane.is_connector and (
        lane.right_neighbor is None or lane.right_neighbor not in road_map.lanes
    )


def has_left_neighbor(road_map: RoadMap, lane: Lane) -> bool:
    """Whether traffic can go round something on ``lane``."""
    return lane.left_neighbor is not None and lane.left_neighbor in road_map.lanes


def may_park(lane: Lane) -> bool:
    """Whether the road is slow enough for cars at its kerb."""
    return lane.speed_limit_mps <= PARKING_LIMIT_MPS


def beside(lane: Lane, along_m: float, right_m: float) -> tuple[Array, float]:
    """Return the point (2,) ``right_m`` to the right of the lane's centreline, and its yaw."""
    line = lane.centerline
    step = np.diff(line, axis=0)
    s = np.append(0.0, np.cumsum(np.linalg.norm(step, axis=1)))
    index = int(np.clip(np.searchsorted(s, along_m) - 1, 0, len(step) - 1))
    yaw = math.atan2(step[index, 1], step[index, 0])
    point = line[index] + step[index] * (along_m - s[index]) / max(s[index + 1] - s[index], 1e-9)
    return point + right_m * np.array([math.sin(yaw), -math.cos(yaw)]), yaw


class _Ground:
    """Where there is room beside the road: no carriageway of anybody, no prop."""

    def __init__(self, road_map: RoadMap) -> None:
        layers = (Layer.ROADBLOCK, Layer.INTERSECTION)
        rings = [polygon.ring for polygon in road_map.polygons if polygon.layer in layers]
        crossings = [crosswalk.ring for crosswalk in road_map.crosswalks]
        props = [
            shapely.Point(prop.center[:2]).buffer(0.6)
            if prop.kind in ("tree", "pole")
            else shapely.box(*(prop.center[:2] - 0.4), *(prop.center[:2] + 0.4))
            for prop in road_map.props
            if prop.kind in ("tree", "pole", "gantry")
        ]
        self._road = shapely.STRtree([shapely.make_valid(shapely.Polygon(r)) for r in rings])
        self._owner = [p.source_id for p in road_map.polygons if p.layer in layers]
        self._keep_out = shapely.STRtree(
            [shapely.Polygon(r).buffer(3.0) for r in crossings] + props
        )

    def free(
        self, edge_id: str, center: Array, yaw: float, size: tuple[float, float, float]
    ) -> bool:
        """Whether a box beside an edge takes its gutter alone and nothing of other roads."""
        box = _box(center, yaw, size)
        if len(self._keep_out.query(box, "intersects")):
            return False
        own = other = 0.0
        for index in self._road.query(box, "intersects"):
            area = self._road.geometries[index].intersection(box).area
            if self._owner[index] == edge_id:
                own += area
            else:
                other += area
        return own < _OVERLAP_M * size[0] and other < _OVERLAP_M2


def _box(center: Array, yaw: float, size: tuple[float, float, float]) -> shapely.Polygon:
    ahead = np.array([math.cos(yaw), math.sin(yaw)]) * size[0] / 2
    left = np.array([-math.sin(yaw), math.cos(yaw)]) * size[1] / 2
    return shapely.Polygon(
        [center + ahead + left, center - ahead + left, center - ahead - left, center + ahead - left]
    )


def _parked_row(
    lane: Lane, occupied: float, ground: _Ground, rng: np.random.Generator
) -> list[tuple[Looks, Array, float]]:
    """Park cars along a kerb, slot by slot."""
    row = []
    last = polyline_length(lane.centerline) - CLEAR_BEFORE_STOP_M
    along = CLEAR_AFTER_JUNCTION_M + float(rng.uniform(0.0, 4.0))
    while along < last:
        looks, jitter = _draw_car(rng), rng.uniform(-1.0, 1.0, 3)
        if rng.random() < occupied:
            right = lane.width_m / 2 + looks.size[1] / 2 + _PARKED_BEYOND_M + 0.08 * jitter[0]
            center, yaw = beside(lane, along + 0.4 * jitter[1], right)
            yaw += 0.02 * jitter[2]
            if ground.free(lane.edge_id, center, yaw, looks.size):
                row.append((looks, center, yaw))
        along += _SLOT_M
    return row


def _draw_car(rng: np.random.Generator) -> Looks:
    """Looks of a parked car: cars mostly, some vans."""
    names = ("hatchback", "saloon", "suv", "van")
    return draw_looks(MODEL_BY_NAME[str(rng.choice(names, p=(0.34, 0.3, 0.22, 0.14)))], rng)


def _road_works(
    lane: Lane, name: str, close_lane: bool, rng: np.random.Generator
) -> tuple[list[StandingAgent], StandingVehicle | None]:
    """Cones and barriers along the verge, or round a closed piece of the rightmost lane."""
    half, length = lane.width_m / 2, polyline_length(lane.centerline)
    works = float(rng.uniform(12.0, 22.0))
    start = float(rng.uniform(24.0, length - 40.0 - works))
    inner = -half + 0.25 if close_lane else half - 0.05  # of the line of cones, to the right
    outer = half + 0.5
    taper = 9.0 if close_lane else 3.0
    places: list[tuple[AgentModel, float, float, float]] = []
    for share in np.linspace(0.0, 1.0, 5 if close_lane else 2):
        places.append(
            (AgentModel.CONE, start - taper * (1 - share), outer + share * (inner - outer), 0)
        )
    for along in np.arange(start + 2.5, start + works, 3.0):
        places.append((AgentModel.CONE, float(along), inner, 0.0))
    middle = (inner + half) / 2 if close_lane else half + 1.0
    for along in (start + 3.0, start + works - 2.0):
        places.append((AgentModel.BARRIER, along, middle, math.pi / 2))
    things = []
    for number, (model, along, right, turn) in enumerate(places):
        center, yaw = beside(lane, along, right)
        things.append(StandingAgent(f"{name}c{number}", _works_looks(model), center, yaw + turn))
    if not close_lane:
        return things, None
    return things, StandingVehicle(name, lane.lane_id, start + works, works + 4.0, None)


def _works_looks(model: AgentModel) -> Looks:
    """Looks of a cone or a barrier."""
    if model is AgentModel.CONE:
        return Looks(model, (0.4, 0.4, 0.75), np.array([230, 96, 30], np.uint8))
    return Looks(model, (2.0, 0.45, 1.0), np.array([214, 214, 208], np.uint8))
