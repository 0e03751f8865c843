"""A whole drive on one picture from above: the network around it, the way driven, its start."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.geometry import se2
from latentvla_training.world.birds_eye import draw_birds_eye
from latentvla_training.world.episode import Episode
from latentvla_training.world.road_map import RoadMap

#: Metres around the drive.
_MARGIN_M = 40.0
_DRIVEN = (230, 30, 120)


def draw_drive(road_map: RoadMap, episode: Episode, size: int = 1200) -> NDArray[np.uint8]:
    """Return (size, size, 3) uint8 RGB: the moment at which an episode begins, and all its way.

    The ego looks up at three quarters of the height, as in ``draw_birds_eye``.
    """
    ahead, left = se2.relative(episode.ego[0, :3], episode.ego[:, :3])[:, :2].T
    meters = max(
        float(ahead.max()) / 0.75, -float(ahead.min()) / 0.25, 2.0 * float(np.abs(left).max())
    )
    paths = ((episode.ego[:, :2], _DRIVEN),)
    return draw_birds_eye(road_map, episode, 0, size, meters + 2.0 * _MARGIN_M, paths)
