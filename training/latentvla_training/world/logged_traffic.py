"""An episode's log as the snapshots a driver sees: who is where, on which lane, at every step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from latentvla_training.world.episode import AgentModel, AgentType, Episode
from latentvla_training.world.polyline import resample_polyline
from latentvla_training.world.road_map import RoadMap
from latentvla_training.world.street_furniture import draw_street_furniture
from latentvla_training.world.traffic import BICYCLE_OFFSET_M, Snapshot

Array = NDArray[np.float64]

#: Who is farther than this from every lane is on none, m.
MAX_DISTANCE_M = 4.0
#: One radian off a lane's heading counts as so many metres beside it.
_HEADING_M = 4.0
_SPACING_M = 1.0


class LaneFinder:
    """Finds the lane or connector that somebody drives on, by place and heading."""

    def __init__(self, road_map: RoadMap) -> None:
        features, self._names, number, along = [], [], [], []
        for index, (name, lane) in enumerate(sorted(road_map.lanes.items())):
            points = resample_polyline(lane.centerline)
            step = np.gradient(points, axis=0)
            yaw = np.arctan2(step[:, 1], step[:, 0])
            features.append(_features(points, yaw))
            self._names.append(name)
            number.append(np.full(len(points), index))
            lengths = np.hypot(*np.diff(points, axis=0).T)
            along.append(np.append(0.0, np.cumsum(lengths)))
        self._tree = cKDTree(np.concatenate(features))
        self._number, self._along = np.concatenate(number), np.concatenate(along)

    def find(self, front: Array, yaw: Array) -> tuple[tuple[str, ...], Array]:
        """Return lane ids, "" for none, and arc lengths on them, of bumpers (N, 2), (N,)."""
        if not len(front):
            return (), np.zeros(0)
        distance, index = self._tree.query(
            _features(front, yaw), distance_upper_bound=MAX_DISTANCE_M
        )
        found = np.isfinite(distance)
        index = np.where(found, index, 0)
        names = tuple(
            self._names[self._number[i]] if known else ""
            for i, known in zip(index, found, strict=True)
        )
        return names, np.where(found, self._along[index], 0.0)


def _features(points: Array, yaw: Array) -> Array:
    return np.column_stack([points, _HEADING_M * np.cos(yaw), _HEADING_M * np.sin(yaw)])


class LoggedTraffic:
    """The traffic of an episode as it was logged.

    Args:
        episode: the state log. lanes: of its network.
    """

    def __init__(self, episode: Episode, lanes: LaneFinder, road_map: RoadMap) -> None:
        self._episode, self._lanes = episode, lanes
        self._fixed = _standing_for_good(episode, road_map)
        self._ids = np.array([f"agent{index}" for index in range(len(episode.agent_type))])

    def at(self, step: int) -> Snapshot:
        """Return the snapshot of a step; what stands for good is on no lane, as in the world."""
        episode = self._episode
        here = np.flatnonzero(episode.agent_valid[step])
        state, model = episode.agent_state[step, here], episode.agent_model[here]
        size, yaw = episode.agent_size[here], state[:, 2]
        forward = np.stack([np.cos(yaw), np.sin(yaw)], axis=1)
        left = np.stack([-forward[:, 1], forward[:, 0]], axis=1)
        beside = np.where(model == AgentModel.BICYCLE, BICYCLE_OFFSET_M, 0.0)[:, None]
        front = state[:, :2] + forward * size[:, :1] / 2 + left * beside
        names, along = self._lanes.find(front, yaw)
        # Persons never drive: any name will do that says that they can move.
        person = episode.agent_type[here] == AgentType.PEDESTRIAN
        fixed = self._fixed[here]
        return Snapshot(
            ids=tuple(self._ids[here].tolist()),
            center=state[:, :2],
            yaw=yaw,
            speed=np.hypot(state[:, 3], state[:, 4]),
            size=size,
            model=model,
            lane_ids=tuple(
                "" if still else "walk" if walks else name or "off"
                for name, walks, still in zip(names, person, fixed, strict=True)
            ),
            lane_position=along,
            braking=episode.agent_braking[step, here],
            signals=episode.signal_state[step],
        )


def _standing_for_good(episode: Episode, road_map: RoadMap) -> NDArray[np.bool_]:
    """(A,) cones, barriers and the parked vehicles that the episode's seed puts in the street."""
    fixed = episode.agent_type >= AgentType.CONE
    centers = [agent.center for agent in draw_street_furniture(road_map, episode.seed).agents]
    if not centers or not len(fixed):
        return np.asarray(fixed)
    first = episode.agent_valid.argmax(axis=0)
    place = episode.agent_state[first, np.arange(len(first)), :2]
    distance, _ = cKDTree(np.array(centers)).query(place)
    moves = (np.abs(episode.agent_state[..., 3:]).max(axis=(0, 2), initial=0.0)) > 0.0
    return np.asarray(fixed | ((distance < 0.02) & ~moves))
