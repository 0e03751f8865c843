"""The world's cameras: images rendered from an episode's state log, identical for a seed."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latentvla_ros.contract import ContractError
from latentvla_ros.geometry import se3
from latentvla_training.world import ray_casting
from latentvla_training.world.atmosphere import packed_atmosphere
from latentvla_training.world.episode import Episode
from latentvla_training.world.ground import paint_ground
from latentvla_training.world.rig import default_rig
from latentvla_training.world.road_map import Prop, RoadMap, Signal

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

_KINDS = {"pole": ray_casting.BOX, "gantry": ray_casting.BOX, "building": ray_casting.BUILDING}
_TRUNK_COLOR = (82.0, 64.0, 48.0)
_HOUSING_COLOR = (24.0, 25.0, 28.0)
#: Housing around the lamp discs: margin beyond a lamp's rim and half depth, m.
_LAMP_RADIUS_M, _HOUSING_MARGIN_M, _HOUSING_HALF_DEPTH_M = 0.45, 0.12, 0.2


@dataclass(frozen=True)
class _StaticParts:
    """Everything that does not move, as ``ray_casting.render`` takes it."""

    kind: NDArray[np.int64]
    geometry: Array
    color: Array
    signal: NDArray[np.int64]
    lamps: Array


class Renderer:
    """Renders any camera anywhere on one road map; threads may share it, it keeps no state."""

    def __init__(self, road_map: RoadMap) -> None:
        """Paint the ground of ``road_map`` and gather its props and signal heads (about 1 s)."""
        self.road_map = road_map
        self._ground = paint_ground(road_map)
        self._static = _gather(road_map.props, road_map.signals)

    def render(
        self,
        episode: Episode,
        step: int,
        intrinsics: ArrayLike,
        width: int,
        height: int,
        ego_from_camera: ArrayLike,
        ego_pose: ArrayLike | None = None,
    ) -> Image:
        """Return the image (height, width, 3) uint8 RGB that a rectified camera sees.

        Args:
            episode: on this renderer's network.
            step: 0 ... episode.num_steps - 1.
            intrinsics: (3, 3), pixels; the centre of the top-left pixel is (0, 0).
            width, height: pixels.
            ego_from_camera: (4, 4), optical axes.
            ego_pose: (3,) x, y, yaw in the map frame instead of the driven one (recovery views).

        Raises:
            ContractError: an argument of the wrong shape, size or range, or another network's
                episode; the message names it.
        """
        rays, projection, eye = self._pinhole(
            episode, step, intrinsics, width, height, ego_from_camera, ego_pose
        )
        image = np.empty((height, width, 3), np.uint8)
        static, ground = self._static, self._ground
        ray_casting.render(
            image,
            rays,
            projection,
            eye,
            static.kind,
            static.geometry,
            static.color,
            static.signal,
            static.lamps,
            episode.signal_state[step],
            episode.agent_type,
            episode.agent_size,
            episode.agent_color,
            episode.agent_state[step],
            episode.agent_valid[step],
            episode.agent_braking[step],
            ground.origin,
            ground.tile_index,
            ground.texels,
            packed_atmosphere(episode.seed),
        )
        return image

    def _pinhole(
        self,
        episode: Episode,
        step: int,
        intrinsics: ArrayLike,
        width: int,
        height: int,
        ego_from_camera: ArrayLike,
        ego_pose: ArrayLike | None,
    ) -> tuple[Array, Array, Array]:
        """Check the arguments of ``render``; return rays, projection and eye in the map frame."""
        matrix = np.asarray(intrinsics, np.float64)
        mount = np.asarray(ego_from_camera, np.float64)
        if matrix.shape != (3, 3):
            raise ContractError("intrinsics.shape", matrix.shape, "(3, 3)")
        if mount.shape != (4, 4):
            raise ContractError("ego_from_camera.shape", mount.shape, "(4, 4)")
        if not np.isfinite(matrix).all() or matrix[0, 0] <= 0.0 or matrix[1, 1] <= 0.0:
            raise ContractError("intrinsics", matrix.tolist(), "finite with positive focal lengths")
        if not np.array_equal(matrix[2], [0.0, 0.0, 1.0]):
            raise ContractError("intrinsics[2]", matrix[2].tolist(), "[0, 0, 1]")
        if not np.isfinite(mount).all() or mount[2, 3] <= 0.0:
            raise ContractError("ego_from_camera", mount.tolist(), "finite, above the ground")
        if width <= 0 or height <= 0:
            raise ContractError("image size", (width, height), "positive pixels")
        if not 0 <= step < episode.num_steps:
            raise ContractError("step", step, f"0 to {episode.num_steps - 1} ({episode.name})")
        if episode.network != self.road_map.name:
            raise ContractError("episode.network", episode.network, self.road_map.name)
        pose = episode.ego[step, :3] if ego_pose is None else np.asarray(ego_pose, np.float64)
        if pose.shape != (3,):
            raise ContractError("ego_pose.shape", pose.shape, "(3,)")
        map_from_camera = se3.from_se2(pose) @ mount
        rays = map_from_camera[:3, :3] @ np.linalg.inv(matrix)
        projection = matrix @ map_from_camera[:3, :3].T
        return np.ascontiguousarray(rays), np.ascontiguousarray(projection), map_from_camera[:3, 3]


def _gather(props: tuple[Prop, ...], signals: tuple[Signal, ...]) -> _StaticParts:
    """Turn props and signal heads into parts."""
    rows: list[tuple[int, list[float], tuple[float, ...], int]] = []
    for prop in props:
        (x, y, z), (length, width, height) = prop.center, prop.size
        turn = [float(np.cos(prop.yaw)), float(np.sin(prop.yaw)), 0.0, 0.0]
        color = tuple(float(channel) for channel in prop.color)
        if prop.kind == "tree":
            base, trunk = z - height / 2.0, 0.04 * height
            half = 0.2 * height
            rows.append(
                (ray_casting.BOX, [x, y, base + half, trunk, trunk, half, *turn], _TRUNK_COLOR, -1)
            )
            crown = [x, y, base + 0.64 * height, length / 2.0, width / 2.0, 0.36 * height, *turn]
            rows.append((ray_casting.CROWN, crown, color, -1))
        elif prop.kind in _KINDS:
            box = [x, y, z, length / 2.0, width / 2.0, height / 2.0, *turn]
            rows.append((_KINDS[prop.kind], box, color, -1))
        else:
            raise ContractError("prop.kind", prop.kind, f"tree or one of {sorted(_KINDS)}")
    lamps = np.zeros((max(len(signals), 1), 3, 2))
    for index, signal in enumerate(signals):
        cos, sin = float(np.cos(signal.facing_yaw)), float(np.sin(signal.facing_yaw))
        offsets = signal.lamp_centers - signal.lamp_centers.mean(axis=0)
        lamps[index, :, 0] = -sin * offsets[:, 0] + cos * offsets[:, 1]
        lamps[index, :, 1] = offsets[:, 2]
        half = np.abs(lamps[index]).max(axis=0) + _LAMP_RADIUS_M + _HOUSING_MARGIN_M
        middle = signal.lamp_centers.mean(axis=0)
        middle = middle - _HOUSING_HALF_DEPTH_M * np.array([cos, sin, 0.0])
        head = [*middle, _HOUSING_HALF_DEPTH_M, *half, cos, sin, 0.0, 0.0]
        rows.append((ray_casting.SIGNAL, head, _HOUSING_COLOR, index))
    return _StaticParts(
        kind=np.array([row[0] for row in rows], np.int64),
        geometry=np.array([row[1] for row in rows], np.float64).reshape(-1, 10),
        color=np.array([row[2] for row in rows], np.float64).reshape(-1, 3),
        signal=np.array([row[3] for row in rows], np.int64),
        lamps=lamps,
    )


def render_benchmark(renderer: Renderer, episode: Episode, frames: int = 120) -> float:
    """Return frames per CPU second of this process; a frame is all cameras of the default rig."""
    rig = default_rig()
    steps = np.linspace(0, episode.num_steps - 1, frames).astype(int)
    began = 0.0
    for index, step in enumerate([0, *steps]):
        if index == 1:  # the first frame compiles
            began = time.process_time()
        for camera in rig.cameras:
            assert camera.model is not None
            model = camera.model
            renderer.render(
                episode, int(step), model.matrix, model.width, model.height, camera.ego_from_camera
            )
    return frames / (time.process_time() - began)


def main() -> None:
    """Print the rate of the default rig on the hand-made junction."""
    from latentvla_training.world.crossroads import crossroads_episode, crossroads_map

    rate = render_benchmark(Renderer(crossroads_map()), crossroads_episode())
    print(f"{rate:.0f} frames/s by CPU time (a frame is 3 cameras of 256x128)")


if __name__ == "__main__":
    main()
