"""A view from above for people: roads, route, traffic and lights around the ego, which looks up."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from latentvla_ros.contract import ContractError
from latentvla_ros.geometry import se2
from latentvla_training.world.episode import AgentModel, EgoVehicle, Episode
from latentvla_training.world.road_map import Layer, MarkingKind, RoadMap, SignalState

Array = NDArray[np.float64]
Image = NDArray[np.uint8]
Color = tuple[int, int, int]

_GRASS: Color = (206, 214, 196)
_ASPHALT: Color = (112, 114, 120)
_PAVEMENT: Color = (186, 182, 176)
_BUILDING: Color = (176, 168, 158)
_TREE: Color = (142, 172, 126)
_ROUTE: Color = (66, 150, 232)
_EGO: Color = (20, 90, 190)
_BRAKE: Color = (230, 30, 30)
#: Agents that are shown by kind; cars, vans, trucks and buses have their own colour.
_PEDESTRIAN: Color = (214, 30, 110)
_TWO_WHEELER: Color = (150, 60, 200)
_CONE: Color = (245, 120, 20)
_MARKING: dict[MarkingKind, Color] = {
    MarkingKind.SOLID: (226, 226, 226),
    MarkingKind.DASHED: (190, 190, 190),
    MarkingKind.STOP_LINE: (255, 255, 255),
    MarkingKind.CROSSING: (170, 170, 172),
    MarkingKind.CENTRE: (232, 186, 58),
}
SIGNAL_COLORS: dict[int, Color] = {
    SignalState.RED: (235, 40, 40),
    SignalState.YELLOW: (245, 190, 20),
    SignalState.GREEN: (30, 190, 90),
}
_DRIVABLE = (Layer.ROADBLOCK, Layer.LANE, Layer.LANE_CONNECTOR, Layer.INTERSECTION)
_INK: Color = (40, 40, 44)
_SHIFT = 4


@dataclass(frozen=True)
class _Window:
    """Map to pixels: the ego looks up and stands at three quarters of the height."""

    ego: Array
    size: int
    meters: float

    def pixels(self, points: ArrayLike) -> NDArray[np.int32]:
        """Return map points (N, 2) as fixed-point pixels for OpenCV."""
        local = se2.transform_points(se2.inverse(self.ego), np.asarray(points, np.float64))
        scale = self.size / self.meters
        u = 0.5 * self.size - scale * local[:, 1]
        v = 0.75 * self.size - scale * local[:, 0]
        return np.round(np.stack([u, v], axis=1) * (1 << _SHIFT)).astype(np.int32)

    def shows(self, points: Array) -> bool:
        """Return whether the bounding box of map points (N, 2) comes near the window."""
        center = 0.5 * (points.min(axis=0) + points.max(axis=0))
        reach = 0.5 * float(np.linalg.norm(points.max(axis=0) - points.min(axis=0)))
        return float(np.linalg.norm(center - self.ego[:2])) < reach + self.meters


def draw_birds_eye(
    road_map: RoadMap,
    episode: Episode,
    step: int,
    size: int = 256,
    meters: float = 80.0,
    paths: tuple[tuple[Array, Color], ...] = (),
) -> Image:
    """Return (size, size, 3) uint8 RGB that covers ``meters`` across.

    Args:
        paths: polylines (N, 2) in the **map** frame with their colours, drawn last.

    Raises:
        ContractError: ``step`` outside the episode.
    """
    if not 0 <= step < episode.num_steps:
        raise ContractError("step", step, f"0 to {episode.num_steps - 1} ({episode.name})")
    window = _Window(episode.ego[step, :3], size, meters)
    image = np.full((size, size, 3), _GRASS, np.uint8)
    _draw_map(image, window, road_map)
    _line(image, window, episode.route_centerline, _ROUTE, 2.0)
    for index, signal in enumerate(road_map.signals):
        if window.shows(signal.stop_line):
            color = SIGNAL_COLORS[int(episode.signal_state[step, index])]
            _line(image, window, _own_half(signal.stop_line, road_map, index), color, 3.0)
    for agent in np.flatnonzero(episode.agent_valid[step]):
        _draw_agent(image, window, episode, step, int(agent))
    vehicle = EgoVehicle()
    center = se2.compose(window.ego, [vehicle.rear_axle_to_center_m, 0.0, 0.0])
    _fill(image, window, _box(center, vehicle.length_m, vehicle.width_m), _EGO)
    for points, color in paths:
        _line(image, window, np.asarray(points), color, 2.0)
    return image


def _draw_map(image: Image, window: _Window, road_map: RoadMap) -> None:
    for ring in road_map.sidewalks:
        if window.shows(ring):
            _fill(image, window, ring, _PAVEMENT)
    for polygon in road_map.polygons:
        if polygon.layer in _DRIVABLE and window.shows(polygon.ring):
            _fill(image, window, polygon.ring, _ASPHALT)
    scale = window.size / window.meters
    for marking in road_map.markings:
        if window.shows(marking.points):
            width = max(scale * marking.width_m, 1.0)
            _line(image, window, marking.points, _MARKING[marking.kind], width)
    for crosswalk in road_map.crosswalks:
        if window.shows(crosswalk.ring):
            _outline(image, window, crosswalk.ring, (236, 236, 236))
    for prop in road_map.props:
        pose = np.array([*prop.center[:2], prop.yaw])
        ring = _box(pose, float(prop.size[0]), float(prop.size[1]))
        if prop.kind in ("building", "tree") and window.shows(ring):
            if prop.kind == "building":
                _fill(image, window, ring, _BUILDING)
            else:
                center = tuple(int(value) for value in window.pixels(prop.center[None, :2])[0])
                radius = int(0.5 * prop.size[0] * scale * (1 << _SHIFT))
                cv2.circle(image, center, radius, _TREE, -1, cv2.LINE_AA, _SHIFT)


def _draw_agent(image: Image, window: _Window, episode: Episode, step: int, index: int) -> None:
    pose = episode.agent_state[step, index, :3]
    if np.linalg.norm(pose[:2] - window.ego[:2]) > 1.5 * window.meters:
        return
    model = AgentModel(int(episode.agent_model[index]))
    length, width = (max(float(value), 0.7) for value in episode.agent_size[index, :2])
    box = _box(pose, length, width)
    if model in (AgentModel.PEDESTRIAN, AgentModel.CONE):
        color = _PEDESTRIAN if model == AgentModel.PEDESTRIAN else _CONE
        _dot(image, window, pose[:2], 0.45 if model == AgentModel.PEDESTRIAN else 0.35, color)
        return
    if model == AgentModel.BARRIER:
        _fill(image, window, box, (235, 235, 235))
        _outline(image, window, box, _BRAKE)
        return
    if model in (AgentModel.MOTORCYCLE, AgentModel.BICYCLE):
        _fill(image, window, box, _TWO_WHEELER)
        _outline(image, window, box, _INK)
        return
    red, green, blue = (int(channel) for channel in episode.agent_color[index])
    _fill(image, window, box, (red, green, blue))
    _outline(image, window, box, _INK)
    nose = se2.compose(pose, [[0.15 * length, 0.0, 0.0], [0.5 * length, 0.0, 0.0]])[:, :2]
    _line(image, window, nose, _INK, 1.0)
    if model in (AgentModel.VAN, AgentModel.TRUCK, AgentModel.BUS):
        # A line behind the cab tells them from cars of the same colour.
        cab = [[0.3 * length, 0.5 * width, 0.0], [0.3 * length, -0.5 * width, 0.0]]
        _line(image, window, se2.compose(pose, cab)[:, :2], _INK, 1.0)
    if episode.agent_braking[step, index]:
        tail = [[-0.5 * length, 0.5 * width, 0.0], [-0.5 * length, -0.5 * width, 0.0]]
        _line(image, window, se2.compose(pose, tail)[:, :2], _BRAKE, 2.0)


def _own_half(stop_line: Array, road_map: RoadMap, index: int) -> Array:
    """Return the part of a stop line that lies across its signal's approach lane."""
    lane = road_map.lanes[road_map.signals[index].approach_lane]
    end, before = lane.centerline[-1], lane.centerline[-2]
    forward = (end - before) / np.linalg.norm(end - before)
    left = np.array([-forward[1], forward[0]])
    middle = end + forward * float((stop_line.mean(axis=0) - end) @ forward)
    return np.array([middle - 0.45 * lane.width_m * left, middle + 0.45 * lane.width_m * left])


def _box(pose: Array, length: float, width: float) -> Array:
    x, y = 0.5 * length, 0.5 * width
    return se2.transform_points(pose, np.array([[x, y], [-x, y], [-x, -y], [x, -y]]))


def _fill(image: Image, window: _Window, ring: Array, color: Color) -> None:
    cv2.fillPoly(image, [window.pixels(ring)], color, cv2.LINE_AA, _SHIFT)


def _outline(image: Image, window: _Window, ring: Array, color: Color) -> None:
    cv2.polylines(image, [window.pixels(ring)], True, color, 1, cv2.LINE_AA, _SHIFT)


def _dot(image: Image, window: _Window, point: Array, radius_m: float, color: Color) -> None:
    u, v = (int(value) for value in window.pixels(point[None])[0])
    radius = max(radius_m * window.size / window.meters, 2.5)
    cv2.circle(image, (u, v), int(radius * (1 << _SHIFT)), color, -1, cv2.LINE_AA, _SHIFT)


def _line(image: Image, window: _Window, points: Array, color: Color, width: float) -> None:
    thickness = max(round(width), 1)
    cv2.polylines(image, [window.pixels(points)], False, color, thickness, cv2.LINE_AA, _SHIFT)
