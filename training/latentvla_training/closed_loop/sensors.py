"""What the ego's sensors say while it is driven: the pictures and the command of its Scenes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import Command, Rig
from latentvla_training.data.episode_signals import step_stamp_ns
from latentvla_training.data.image_encoding import encode_jpeg
from latentvla_training.world.cameras import Renderer
from latentvla_training.world.drivers import SensorFrame
from latentvla_training.world.episode import Episode
from latentvla_training.world.expert import EgoState
from latentvla_training.world.networks import build_road_map
from latentvla_training.world.session import EpisodeSession
from latentvla_training.world.simulation import log_episode
from latentvla_training.world.traffic import Snapshot

Array = NDArray[np.float64]


@lru_cache(maxsize=1)
def renderer_of(network: str) -> Renderer:
    """Painted once for the routes of a network that one process drives in a row."""
    return Renderer(build_road_map(network))


class Eyes:
    """The cameras of a live session, as ``episode_scenes`` would see the same moment."""

    def __init__(self, session: EpisodeSession, rig: Rig) -> None:
        self._session, self._rig = session, rig
        self._renderer: Renderer | None = None

    def frame(self, step: int, state: EgoState, traffic: Snapshot, pictures: bool) -> SensorFrame:
        """Return what the sensors say while the ego is at ``state``."""
        moment = log_episode(self._session, log_row(state)[None], [traffic])
        jpegs = self._jpegs(moment) if pictures else {}
        return SensorFrame(
            stamp_ns=step_stamp_ns(step),
            jpegs=jpegs,
            pose=np.array([state.x, state.y, state.yaw]),
            twist=np.array([state.speed, 0.0, state.yaw_rate]),
            command=Command(int(moment.command[0])),
        )

    def _jpegs(self, moment: Episode) -> dict[str, bytes]:
        if self._renderer is None:
            self._renderer = renderer_of(self._session.network)
        jpegs = {}
        for camera in self._rig.cameras:
            model = camera.model
            assert model is not None
            image = self._renderer.render(
                moment, 0, model.matrix, model.width, model.height, camera.ego_from_camera
            )
            jpegs[camera.slot] = encode_jpeg(image)
        return jpegs


def log_row(state: EgoState) -> Array:
    """Return a state as a row (7,) of ``Episode.ego``."""
    return np.array(
        [state.x, state.y, state.yaw, state.speed, state.acceleration, state.wheel_angle,
         state.yaw_rate]
    )  # fmt: skip
