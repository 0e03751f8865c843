"""What the auxiliary heads learn from a Scene's labels; training only, gone at export.

Imitation alone tells the image trunk little per scene; these targets tell it where the road is,
where others drive, what the own light shows and where the route leads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from latentvla_ros.geometry import se2
from latentvla_training.world.episode import EgoVehicle
from latentvla_training.world.road_map import Layer

#: Boolean planes of ``AuxiliaryTargets.raster``, bit by bit.
RASTER_PLANES = ("drivable", "on_route", "intersection", "occupied", "braking")

#: Distances ahead along the route at which its position is asked for, m.
ROUTE_DISTANCES_M = (5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0)

#: A leader further than this, and a light further than this, count as none.
LEADER_RANGE_M = 60.0
LIGHT_RANGE_M = 55.0

#: ``light`` where the state does not matter: a light too far to be read.
IGNORE = -100

_VELOCITY_STEP = 0.25  # m/s per unit of the int8 velocity planes
_SHIFT = 4  # sub-pixel bits of cv2.fillPoly


@dataclass(frozen=True)
class RasterGrid:
    """The raster of the BEV targets: extents of the BEV at twice its resolution, (x, y) cells."""

    x_m: tuple[float, float]
    y_m: tuple[float, float]
    cells: tuple[int, int]

    def pixels(self, xy: NDArray[np.float64]) -> NDArray[np.int32]:
        """Map ego-frame points (N, 2) to fixed-point (column, row) = (y, x) raster coordinates."""
        row = (xy[:, 0] - self.x_m[0]) / (self.x_m[1] - self.x_m[0]) * self.cells[0] - 0.5
        column = (xy[:, 1] - self.y_m[0]) / (self.y_m[1] - self.y_m[0]) * self.cells[1] - 0.5
        pixels: NDArray[np.int32] = np.round(
            np.stack([column, row], axis=1).clip(-4000, 4000) * (1 << _SHIFT)
        ).astype(np.int32)
        return pixels


@dataclass(frozen=True)
class AuxiliaryTargets:
    """Targets of one Scene, ego frame of t0.

    Attributes:
        raster: (X, Y) uint8, one bit per ``RASTER_PLANES``.
        velocity: (2, X, Y) int8, vx, vy of what occupies a cell in 0.25 m/s.
        route: (8, 2) float32 points on the route at ``ROUTE_DISTANCES_M``; NaN past its end.
        leader: (3,) float32: whether there is one, gap m between bumpers, speed m/s on the route.
        light: 0 none, 1 red, 2 yellow, 3 green, or ``IGNORE``.
        light_distance_m: NaN where there is none.
        lamps: (3, 3) float32 x, y, z of its red, yellow and green lamp; NaN where there is none.
    """

    raster: NDArray[np.uint8]
    velocity: NDArray[np.int8]
    route: NDArray[np.float32]
    leader: NDArray[np.float32]
    light: int
    light_distance_m: float
    lamps: NDArray[np.float32]


def light_class(own_light: int, distance_m: float) -> int:
    """Return the class of ``AuxiliaryTargets.light`` from the labels of a Scene."""
    if own_light < 0:
        return 0
    if not distance_m <= LIGHT_RANGE_M:
        return IGNORE
    return own_light + 1


def unknown_targets(grid: RasterGrid) -> AuxiliaryTargets:
    """Return targets that nothing is learned from, for a Scene without labels."""
    return AuxiliaryTargets(
        raster=np.zeros(grid.cells, np.uint8),
        velocity=np.zeros((2, *grid.cells), np.int8),
        route=np.full((len(ROUTE_DISTANCES_M), 2), np.nan, np.float32),
        leader=np.zeros(3, np.float32),
        light=IGNORE,
        light_distance_m=float("nan"),
        lamps=np.full((3, 3), np.nan, np.float32),
    )


def auxiliary_targets(
    ego_pose: NDArray[np.float64],
    label: Callable[[str], Any],
    own_light: int,
    light_distance_m: float,
    lamps: NDArray[np.float64] | None,
    grid: RasterGrid,
) -> AuxiliaryTargets:
    """Compute the targets of one Scene.

    Args:
        ego_pose: (3,) in the map frame.
        label: returns a heavy label of the Scene by its name (``SceneLabels``).
        own_light, light_distance_m: as ``SceneLabels``.
        lamps: (3, 3) of the own light in the ego frame, None where there is none.
        grid: of the raster.
    """
    map_to_ego = se2.inverse(ego_pose)
    raster = _draw_road(map_to_ego, label, grid)
    state = label("agent_state")[:, 0] if len(label("agent_state")) else np.zeros((0, 5))
    valid = label("agent_valid")[:, 0] if len(state) else np.zeros(0, np.bool_)
    state, size = state[valid], label("agent_size")[valid]
    braking = label("agent_braking")[valid]
    poses = se2.compose(map_to_ego, state[:, :3]) if len(state) else np.zeros((0, 3))
    velocity = _draw_agents(raster, poses, state, size, braking, float(ego_pose[2]), grid)
    route = _ego_route(map_to_ego, label("centerline"))
    return AuxiliaryTargets(
        raster=raster,
        velocity=velocity,
        route=_route_points(route),
        leader=_leader(route, poses, state[:, 3:5], size, float(ego_pose[2])),
        light=light_class(own_light, light_distance_m),
        light_distance_m=light_distance_m,
        lamps=np.full((3, 3), np.nan, np.float32) if lamps is None else lamps.astype(np.float32),
    )


def _draw_road(
    map_to_ego: NDArray[np.float64], label: Callable[[str], Any], grid: RasterGrid
) -> NDArray[np.uint8]:
    points = grid.pixels(se2.transform_points(map_to_ego, label("polygon_xy")))
    offset, layers = label("polygon_offset"), label("polygon_layer")
    on_route = label("polygon_on_route")
    planes = np.zeros((3, *grid.cells), np.uint8)
    rings = [points[offset[i] : offset[i + 1]] for i in range(len(layers))]
    chosen = (
        np.isin(layers, (Layer.LANE, Layer.LANE_CONNECTOR, Layer.INTERSECTION)),
        on_route.astype(bool),
        layers == Layer.INTERSECTION,
    )
    for plane, selected in zip(planes, chosen, strict=True):
        for index in np.flatnonzero(selected):
            cv2.fillPoly(plane, [rings[index]], 1, shift=_SHIFT)
    raster: NDArray[np.uint8] = planes[0] | (planes[1] << 1) | (planes[2] << 2)
    return raster


def _draw_agents(
    raster: NDArray[np.uint8],
    poses: NDArray[np.float64],
    state: NDArray[np.float64],
    size: NDArray[np.float32],
    braking: NDArray[np.bool_],
    ego_yaw: float,
    grid: RasterGrid,
) -> NDArray[np.int8]:
    """Draw boxes into ``raster`` and return the velocity planes (2, X, Y)."""
    velocity = np.zeros((2, *grid.cells), np.int8)
    cos, sin = np.cos(ego_yaw), np.sin(ego_yaw)
    for pose, row, (length, width), brakes in zip(poses, state, size, braking, strict=True):
        corners = 0.5 * np.array(
            [[length, width], [length, -width], [-length, -width], [-length, width]]
        )
        box = np.zeros(grid.cells, np.uint8)
        cv2.fillPoly(box, [grid.pixels(se2.transform_points(pose, corners))], 1, shift=_SHIFT)
        inside = box.astype(bool)
        if not inside.any():
            continue
        raster[inside] |= 8 | (16 if brakes else 0)
        speeds = (cos * row[3] + sin * row[4], cos * row[4] - sin * row[3])
        for plane, speed in zip(velocity, speeds, strict=True):
            plane[inside] = np.clip(round(speed / _VELOCITY_STEP), -127, 127)
    return velocity


def _ego_route(
    map_to_ego: NDArray[np.float64], centerline: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the route (N, 3) from the point beside the ego on, in the ego frame, 1 m spacing."""
    if len(centerline) == 0:
        return np.zeros((0, 3))
    route = se2.compose(map_to_ego, centerline)
    nearest = int(np.hypot(route[:41, 0], route[:41, 1]).argmin())
    return route[nearest:]


def _route_points(route: NDArray[np.float64]) -> NDArray[np.float32]:
    points = np.full((len(ROUTE_DISTANCES_M), 2), np.nan, np.float32)
    for index, distance in enumerate(ROUTE_DISTANCES_M):
        if distance < len(route):
            points[index] = route[int(distance), :2]
    return points


def _leader(
    route: NDArray[np.float64],
    poses: NDArray[np.float64],
    velocity: NDArray[np.float64],
    size: NDArray[np.float32],
    ego_yaw: float,
) -> NDArray[np.float32]:
    """Return (exists, gap, speed) of the nearest road user whose box is on the route ahead."""
    ego = EgoVehicle()
    front = ego.rear_axle_to_center_m + 0.5 * ego.length_m
    best = np.array([0.0, LEADER_RANGE_M, 0.0], np.float32)
    if not len(route) or not len(poses):
        return best
    distance = np.hypot(
        route[None, :, 0] - poses[:, None, 0], route[None, :, 1] - poses[:, None, 1]
    )
    nearest = distance.argmin(axis=1)
    for agent, along in enumerate(nearest):
        gap = float(along) - 0.5 * float(size[agent, 0]) - front
        if distance[agent, along] > 1.2 + 0.5 * size[agent, 1] or along < front or gap >= best[1]:
            continue
        heading = route[along, 2] + ego_yaw
        speed = velocity[agent, 0] * np.cos(heading) + velocity[agent, 1] * np.sin(heading)
        best[:] = (1.0, max(gap, 0.0), speed)
    return best
