"""Whether one point can be seen from another past the boxes that stand between them, from above."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latentvla_training.world.road_map import RoadMap

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Occluders:
    """N boxes that nobody sees through: centres (N, 2), yaws (N,), lengths and widths (N, 2)."""

    center: Array
    yaw: Array
    size: Array

    def clear(self, eye: ArrayLike, target: ArrayLike) -> bool:
        """Whether the straight line between two points (2,) in the map frame touches no box."""
        return bool((~self._cuts(np.asarray(eye, float), np.asarray(target, float))).all())

    def _cuts(self, eye: Array, target: Array) -> NDArray[np.bool_]:
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        low, high = np.zeros(len(cos)), np.ones(len(cos))
        apart = np.zeros(len(cos), bool)
        for axis, (along, across) in enumerate(((cos, sin), (-sin, cos))):
            start = (eye[0] - self.center[:, 0]) * along + (eye[1] - self.center[:, 1]) * across
            step = (target[0] - eye[0]) * along + (target[1] - eye[1]) * across
            half = self.size[:, axis] / 2
            parallel = np.abs(step) < 1e-9
            apart |= parallel & (np.abs(start) > half)
            safe = np.where(parallel, 1.0, step)
            first, second = (-half - start) / safe, (half - start) / safe
            low = np.where(parallel, low, np.maximum(low, np.minimum(first, second)))
            high = np.where(parallel, high, np.minimum(high, np.maximum(first, second)))
        return np.asarray(~apart & (low <= high))


def prop_occluders(road_map: RoadMap) -> Occluders:
    """Return the buildings and trees of a map, trees as wide as their crowns."""
    props = [prop for prop in road_map.props if prop.kind in ("building", "tree")]
    return Occluders(
        center=np.array([prop.center[:2] for prop in props]).reshape(-1, 2),
        yaw=np.array([prop.yaw for prop in props], float),
        size=np.array([prop.size[:2] for prop in props]).reshape(-1, 2),
    )
