"""What the ego does wrong on a route, each event once.

Kinds and penalties are Bench2Drive's (``scoring.bench2drive``), definitions where ours differ:

- *Collisions*: the ego's box meets another's; one event for each road user or object. Nothing is
  pushed away, the drive goes on through. As in Bench2Drive what runs into a standing ego does not
  count, though hitting the same one later does, and beyond that fault does not matter to the
  score; it is noted by NAVSIM's rule (metrics.md 4.1), so that being run into from behind can be
  told apart.
- *Red light*: the front wheels roll over an approach lane's stop line while it shows red.
- *Off road*: the middle of the box is off the road, or in a lane of the opposite direction outside
  junctions; the share of the driven way lowers the score, as Bench2Drive's "outside route lanes".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import shapely
import torch
from numpy.typing import NDArray

from latentvla_ros.geometry import se2
from latentvla_training.scoring.geometry import convex_intersect
from latentvla_training.scoring.vehicle import ego_corners, oriented_box_corners
from latentvla_training.world.episode import STEP_S, AgentModel, AgentType, EgoVehicle
from latentvla_training.world.expert import EgoState
from latentvla_training.world.road_map import Layer, Prop, RoadMap, SignalState
from latentvla_training.world.traffic import Snapshot

Array = NDArray[np.float64]

#: Below this speed (m/s) something stands, as in NAVSIM's no-at-fault-collision.
STANDING_MPS = 0.05
#: Fault of a collision while the ego stands.
STOPPED_EGO = "stopped_ego"
_BEHIND_RAD = math.radians(150.0)
_NEAR_M = 30.0
_KINDS = {
    AgentType.VEHICLE: "collision_vehicle",
    AgentType.BICYCLE: "collision_vehicle",
    AgentType.PEDESTRIAN: "collision_pedestrian",
    AgentType.CONE: "collision_static",
    AgentType.BARRIER: "collision_static",
}
_DRIVABLE = (Layer.ROADBLOCK, Layer.INTERSECTION, Layer.CARPARK_AREA)
_LANES = (Layer.LANE, Layer.LANE_CONNECTOR)


@dataclass(frozen=True)
class Infraction:
    """One event.

    Attributes:
        kind: as in ``bench2drive.PENALTIES`` and ``UNPENALISED``, or ``off_road``.
        step: of the route. what: whom or what it concerns.
        fault: for a collision ``front``, ``lateral``, ``stopped_track``, ``rear`` or
            ``stopped_ego``; "" otherwise. at_fault: whether NAVSIM would blame the ego.
    """

    kind: str
    step: int
    what: str
    fault: str = ""
    at_fault: bool = True

    @property
    def counts(self) -> bool:
        """Whether it enters the score: a standing ego is not to blame for what runs into it."""
        return self.fault != STOPPED_EGO

    def to_json(self) -> dict[str, object]:
        """Return the event with its time in seconds."""
        return {
            "kind": self.kind,
            "time_s": round(self.step * STEP_S, 1),
            "what": self.what,
            "fault": self.fault,
            "at_fault": self.at_fault,
            "counts": self.counts,
        }


@dataclass(frozen=True)
class _StopLine:
    """End of an approach lane: middle and unit vectors forward and left, half width, its heads."""

    middle: Array
    forward: Array
    left: Array
    half_width: float
    heads: tuple[int, ...]
    lane_id: str


@dataclass
class WatchedRoad:
    """Spatial indices of one network; made by ``watched_road``."""

    road_map: RoadMap
    tree: shapely.STRtree
    props: shapely.STRtree
    prop_kinds: tuple[str, ...]
    stop_lines: tuple[_StopLine, ...]
    _headings: dict[str, tuple[Array, Array]] = field(default_factory=dict)

    def lane_heading(self, lane_id: str, xy: Array) -> float:
        """Heading (rad) of a lane where it is nearest to a point."""
        if lane_id not in self._headings:
            line = self.road_map.lanes[lane_id].centerline
            step = np.diff(line, axis=0)
            self._headings[lane_id] = (line[:-1] + step / 2, np.arctan2(step[:, 1], step[:, 0]))
        middles, headings = self._headings[lane_id]
        return float(headings[int(np.argmin(((middles - xy) ** 2).sum(axis=1)))])


def watched_road(road_map: RoadMap) -> WatchedRoad:
    """Prepare a network for ``InfractionMonitor``; once for all its routes."""
    solids = [(prop.kind, _footprint(prop)) for prop in road_map.props if _reaches_ground(prop)]
    return WatchedRoad(
        road_map=road_map,
        tree=shapely.STRtree([shapely.Polygon(polygon.ring) for polygon in road_map.polygons]),
        props=shapely.STRtree([ring for _, ring in solids]),
        prop_kinds=tuple(kind for kind, _ in solids),
        stop_lines=_stop_lines(road_map),
    )


class InfractionMonitor:
    """Watches one route.

    Attributes:
        events: in order of time.
        driven_m, outside_m: way so far, and of it off the road or in an oncoming lane.
    """

    def __init__(self, road: WatchedRoad, state: EgoState, step: int = 0) -> None:
        self._road = road
        self._step = step
        self._before = _Ego.of(state)
        self._touched: set[str] = set()
        self._leaning: set[str] = set()  # on the standing ego, as long as they stay there
        self._was_outside = False
        self.events: list[Infraction] = []
        self.driven_m = 0.0
        self.outside_m = 0.0

    @property
    def outside_percent(self) -> float:
        """Share of the driven way outside the road's lanes, percent."""
        return 100.0 * self.outside_m / self.driven_m if self.outside_m > 0.0 else 0.0

    def watch(self, step: int, state: EgoState, traffic: Snapshot) -> None:
        """Look at the ego after its move of one step, and at the traffic of the same moment."""
        ego = _Ego.of(state)
        self._step = step
        moved = float(np.hypot(*(ego.center - self._before.center)))
        self.driven_m += moved
        outside = self._outside(ego)
        if outside:
            self.outside_m += moved
            if not self._was_outside:
                self._add("off_road", outside)
        self._was_outside = bool(outside)
        self._watch_agents(ego, traffic, bool(outside))
        self._watch_props(ego)
        self._watch_lights(ego, traffic)
        self._before = ego

    def _add(self, kind: str, what: str, fault: str = "", at_fault: bool = True) -> None:
        self.events.append(Infraction(kind, self._step, what, fault, at_fault))

    def _watch_agents(self, ego: _Ego, traffic: Snapshot, outside: bool) -> None:
        near = np.flatnonzero(np.hypot(*(traffic.center - ego.center).T) < _NEAR_M)
        if not len(near):
            self._leaning.clear()
            return
        boxes = oriented_box_corners(
            torch.from_numpy(traffic.center[near]),
            torch.from_numpy(traffic.yaw[near]),
            torch.from_numpy(traffic.size[near, 0] / 2),
            torch.from_numpy(traffic.size[near, 1] / 2),
        )
        hits = convex_intersect(torch.from_numpy(ego.corners)[None], boxes).numpy()
        self._leaning &= {traffic.ids[index] for index in near[hits]}
        for index, box in zip(near[hits], boxes[torch.from_numpy(hits)], strict=True):
            agent = traffic.ids[index]
            if agent in self._touched or agent in self._leaning:
                continue
            fault, at_fault = _fault(ego, traffic, int(index), box, outside)
            (self._leaning if fault == STOPPED_EGO else self._touched).add(agent)
            model = AgentModel(int(traffic.model[index]))
            what = f"{model.name.lower()} {agent}"
            self._add(_KINDS[model.agent_type], what, fault, at_fault)

    def _watch_props(self, ego: _Ego) -> None:
        found = self._road.props.query(shapely.Polygon(ego.corners), predicate="intersects")
        for index in sorted(found.tolist()):
            name = f"{self._road.prop_kinds[index]} {index}"
            if name not in self._touched:
                self._touched.add(name)
                self._add("collision_static", name, "stopped_track")

    def _watch_lights(self, ego: _Ego, traffic: Snapshot) -> None:
        before, now = self._before.front_axle, ego.front_axle
        for line in self._road.stop_lines:
            start, end = before - line.middle, now - line.middle
            behind, ahead = float(start @ line.forward), float(end @ line.forward)
            if not behind < 0.0 <= ahead:
                continue
            along = start + (end - start) * (-behind / (ahead - behind))
            if abs(float(along @ line.left)) > line.half_width:
                continue
            if all(traffic.signals[head] == SignalState.RED for head in line.heads):
                self._add("red_light", f"lane {line.lane_id}")

    def _outside(self, ego: _Ego) -> str:
        """Return what is wrong with where the ego is, "" when nothing."""
        road_map = self._road.road_map
        found = self._road.tree.query(shapely.Point(ego.center), predicate="intersects")
        polygons = [road_map.polygons[index] for index in found]
        if not any(polygon.layer in _DRIVABLE for polygon in polygons):
            return "off the road"
        if any(polygon.layer == Layer.INTERSECTION for polygon in polygons):
            return ""
        lanes = [p.source_id for p in polygons if p.layer in _LANES]
        headings = [
            self._road.lane_heading(name, ego.center) for name in lanes if name in road_map.lanes
        ]
        against = [math.cos(heading - ego.yaw) < 0.0 for heading in headings]
        return "oncoming lane" if against and all(against) else ""


@dataclass(frozen=True)
class _Ego:
    """Points of the ego's body in the map frame."""

    rear_axle: Array
    yaw: float
    speed: float
    center: Array
    front_axle: Array
    corners: Array

    @staticmethod
    def of(state: EgoState) -> _Ego:
        vehicle = EgoVehicle()
        pose = np.array([state.x, state.y, state.yaw])
        forward = np.array([math.cos(state.yaw), math.sin(state.yaw)])
        return _Ego(
            rear_axle=pose[:2],
            yaw=state.yaw,
            speed=state.speed,
            center=pose[:2] + vehicle.rear_axle_to_center_m * forward,
            front_axle=pose[:2] + vehicle.wheelbase_m * forward,
            corners=ego_corners(torch.from_numpy(pose)).numpy(),
        )


def _fault(
    ego: _Ego, traffic: Snapshot, index: int, box: torch.Tensor, outside: bool
) -> tuple[str, bool]:
    """Return NAVSIM's kind of a collision and whether it blames the ego.

    A lateral one is blamed outside the lanes alone; NAVSIM also blames it while changing lanes.
    """
    static = AgentModel(int(traffic.model[index])).agent_type >= AgentType.CONE
    if abs(ego.speed) <= STANDING_MPS:
        return STOPPED_EGO, False
    if static or traffic.speed[index] <= STANDING_MPS:
        return "stopped_track", True
    offset = traffic.center[index] - ego.rear_axle
    angle = abs(float(se2.wrap_angle(math.atan2(offset[1], offset[0]) - ego.yaw)))
    if angle > _BEHIND_RAD:
        return "rear", False
    front_edge = torch.from_numpy(ego.corners[[0, 3]])
    if bool(convex_intersect(front_edge, box)):
        return "front", True
    return "lateral", outside


def _stop_lines(road_map: RoadMap) -> tuple[_StopLine, ...]:
    heads: dict[str, list[int]] = {}
    for index, signal in enumerate(road_map.signals):
        heads.setdefault(signal.approach_lane, []).append(index)
    lines = []
    for lane_id, indices in heads.items():
        lane = road_map.lanes[lane_id]
        end, before = lane.centerline[-1], lane.centerline[-2]
        forward = (end - before) / np.linalg.norm(end - before)
        left = np.array([-forward[1], forward[0]])
        lines.append(_StopLine(end, forward, left, lane.width_m / 2, tuple(indices), lane_id))
    return tuple(lines)


def _reaches_ground(prop: Prop) -> bool:
    return float(prop.center[2] - prop.size[2] / 2) < EgoVehicle().height_m


def _footprint(prop: Prop) -> shapely.Polygon:
    """Return the ground plan of a prop; of a tree its trunk, as the cameras draw it."""
    length, width = float(prop.size[0]), float(prop.size[1])
    if prop.kind == "tree":
        length = width = 0.08 * float(prop.size[2])
    x, y = length / 2, width / 2
    pose = np.array([prop.center[0], prop.center[1], prop.yaw])
    box = np.array([[x, y], [-x, y], [-x, -y], [x, -y]])
    return shapely.Polygon(se2.transform_points(pose, box))
