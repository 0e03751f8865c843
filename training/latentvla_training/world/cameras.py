"""The world's cameras: images rendered from an episode's state log, identical for a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latentvla_ros.contract import ContractError
from latentvla_ros.geometry import se3
from latentvla_training.world import picture, ray_casting
from latentvla_training.world.atmosphere import packed_atmosphere
from latentvla_training.world.episode import Episode, Weather
from latentvla_training.world.ground import paint_ground
from latentvla_training.world.lamplight import LAMPS_AHEAD_M, LAMPS_UP_M
from latentvla_training.world.road_map import Prop, RoadMap, Signal
from latentvla_training.world.scene_parts import Floor, Moving, Standing, View
from latentvla_training.world.semantics import CLASS_OF_MODEL, SemanticClass

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

_KINDS = {"pole": ray_casting.BOX, "gantry": ray_casting.BOX, "building": ray_casting.BUILDING}
_CLASSES = {
    "pole": SemanticClass.POLE,
    "gantry": SemanticClass.POLE,
    "building": SemanticClass.BUILDING,
}
_TRUNK_COLOR = (82.0, 64.0, 48.0)
_HOUSING_COLOR = (24.0, 25.0, 28.0)
#: Housing around the lamp discs: margin beyond a lamp's rim and half depth, m.
_LAMP_RADIUS_M, _HOUSING_MARGIN_M, _HOUSING_HALF_DEPTH_M = 0.45, 0.12, 0.2


class Renderer:
    """Renders any camera anywhere on one road map; threads may share it, it keeps no state."""

    def __init__(self, road_map: RoadMap) -> None:
        """Paint the ground of ``road_map`` and gather its props and signal heads (about 1 s)."""
        self.road_map = road_map
        ground = paint_ground(road_map)
        self._floor = Floor(ground.origin, ground.tile_index, ground.texels, ground.classes)
        self._standing = _gather(road_map.props, road_map.signals)

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
        view = self._view(episode, step, intrinsics, width, height, ego_from_camera, ego_pose)
        image = np.empty((height, width, 3), np.uint8)
        streaks = lens = 0
        if episode.weather == Weather.RAIN:
            key = [episode.seed & 0xFFFFFFFF, *np.abs(1e4 * view.mount).astype(int)]
            draw = np.random.SeedSequence(key).generate_state(2) % 1_000_003
            streaks, lens = int(draw[0]) + 7919 * step, int(draw[1]) + step // 20
        picture.draw_picture(
            image,
            view.kernel,
            self._standing,
            _moving(episode, step),
            self._floor,
            packed_atmosphere(episode.seed, episode.weather),
            streaks,
            lens,
        )
        return image

    def render_depth(
        self,
        episode: Episode,
        step: int,
        intrinsics: ArrayLike,
        width: int,
        height: int,
        ego_from_camera: ArrayLike,
        ego_pose: ArrayLike | None = None,
    ) -> NDArray[np.float32]:
        """Return optical depth (height, width) float32 at pixel centres, m, inf in the sky.

        Arguments and errors are those of ``render``.
        """
        arguments = (episode, step, intrinsics, width, height, ego_from_camera, ego_pose)
        return self._ranges(*arguments)[0]

    def render_semantic(
        self,
        episode: Episode,
        step: int,
        intrinsics: ArrayLike,
        width: int,
        height: int,
        ego_from_camera: ArrayLike,
        ego_pose: ArrayLike | None = None,
    ) -> Image:
        """Return the ``SemanticClass`` (height, width) uint8 of what each pixel centre shows.

        Arguments and errors are those of ``render``.
        """
        arguments = (episode, step, intrinsics, width, height, ego_from_camera, ego_pose)
        return self._ranges(*arguments)[1]

    def _ranges(
        self,
        episode: Episode,
        step: int,
        intrinsics: ArrayLike,
        width: int,
        height: int,
        ego_from_camera: ArrayLike,
        ego_pose: ArrayLike | None,
    ) -> tuple[NDArray[np.float32], Image]:
        view = self._view(episode, step, intrinsics, width, height, ego_from_camera, ego_pose)
        depth, semantic = np.empty((height, width), np.float32), np.empty((height, width), np.uint8)
        moving = _moving(episode, step)
        picture.draw_ranges(depth, semantic, view.kernel, self._standing, moving, self._floor)
        return depth, semantic

    def _view(
        self,
        episode: Episode,
        step: int,
        intrinsics: ArrayLike,
        width: int,
        height: int,
        ego_from_camera: ArrayLike,
        ego_pose: ArrayLike | None,
    ) -> _View:
        """Check the arguments of ``render``; return the camera in the map frame."""
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
        eye = np.ascontiguousarray(map_from_camera[:3, 3])
        heading = np.array([np.cos(pose[2]), np.sin(pose[2])])
        lamps = pose[:2] + LAMPS_AHEAD_M * heading - eye[:2]
        beam = np.array([*lamps, LAMPS_UP_M - eye[2], *heading])
        kernel = View(np.ascontiguousarray(rays), np.ascontiguousarray(projection), eye, beam)
        return _View(kernel, mount[:3].ravel())


@dataclass(frozen=True)
class _View:
    """A checked camera: as the kernels take it, and how it is mounted (12,)."""

    kernel: View
    mount: Array


def _moving(episode: Episode, step: int) -> Moving:
    """Return one step of an episode as the kernels take it; they rely on its shapes."""
    count = episode.agent_state.shape[1]
    for name in ("agent_model", "agent_size", "agent_color"):
        if len(getattr(episode, name)) != count:
            raise ContractError(f"episode.{name}", len(getattr(episode, name)), f"{count} agents")
    return Moving(
        model=episode.agent_model,
        size=episode.agent_size,
        color=episode.agent_color,
        state=episode.agent_state[step],
        valid=episode.agent_valid[step],
        braking=episode.agent_braking[step],
        semantic=CLASS_OF_MODEL[episode.agent_model],
        signals=episode.signal_state[step],
    )


def _gather(props: tuple[Prop, ...], signals: tuple[Signal, ...]) -> Standing:
    """Turn props and signal heads into parts."""
    rows: list[tuple[int, list[float], tuple[float, ...], int, SemanticClass]] = []
    for prop in props:
        (x, y, z), (length, width, height) = prop.center, prop.size
        turn = [float(np.cos(prop.yaw)), float(np.sin(prop.yaw)), 0.0, 0.0]
        color = tuple(float(channel) for channel in prop.color)
        if prop.kind == "tree":
            green = SemanticClass.VEGETATION
            base, trunk = z - height / 2.0, 0.04 * height
            half = 0.2 * height
            stem = [x, y, base + half, trunk, trunk, half, *turn]
            rows.append((ray_casting.BOX, stem, _TRUNK_COLOR, -1, green))
            crown = [x, y, base + 0.64 * height, length / 2.0, width / 2.0, 0.36 * height, *turn]
            rows.append((ray_casting.CROWN, crown, color, -1, green))
        elif prop.kind in _KINDS:
            box = [x, y, z, length / 2.0, width / 2.0, height / 2.0, *turn]
            rows.append((_KINDS[prop.kind], box, color, -1, _CLASSES[prop.kind]))
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
        rows.append((ray_casting.SIGNAL, head, _HOUSING_COLOR, index, SemanticClass.SIGNAL))
    return Standing(
        kind=np.array([row[0] for row in rows], np.int64),
        geometry=np.array([row[1] for row in rows], np.float64).reshape(-1, 10),
        color=np.array([row[2] for row in rows], np.float64).reshape(-1, 3),
        signal=np.array([row[3] for row in rows], np.int64),
        semantic=np.array([row[4] for row in rows], np.uint8),
        lamps=lamps,
    )
