"""Scenes of the built-in world: an episode seen through the cameras and odometry of its ego."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import (
    KNOT_INTERVAL_S,
    NUM_KNOTS,
    BundleManifest,
    Command,
    ContractError,
    EgoMotion,
    Rig,
    View,
)
from latentvla_ros.sensing.ego_motion_buffer import EgoMotionBuffer
from latentvla_ros.sensing.observation_builder import compensated_extrinsics
from latentvla_ros.sensing.preprocessing import ViewPreprocessor
from latentvla_training.data.episode_signals import (
    EpisodeCameras,
    OdometryNoise,
    OdometrySamples,
    episode_odometry,
    step_stamp_ns,
)
from latentvla_training.data.expert_scores import with_scores
from latentvla_training.data.image_encoding import JPEG_QUALITY
from latentvla_training.data.labels import (
    AGENT_STEPS,
    HISTORY_STEPS,
    EpisodeLabels,
    RoadIndex,
    event_tags,
)
from latentvla_training.data.recovery import RecoveryDriver
from latentvla_training.data.scene import RECOVERY, Scene
from latentvla_training.world.cameras import Renderer
from latentvla_training.world.episode import STEP_S, Episode
from latentvla_training.world.logged_traffic import LaneFinder
from latentvla_training.world.rig import (
    IMAGE_HEIGHT,
    IMAGE_WIDTH,
    default_rig,
    default_slots,
    jittered_rig,
)
from latentvla_training.world.road_map import RoadMap

#: The views of ``nano`` (experiments.md section 3): the past one shows how fast a leader is.
NANO_VIEWS = (View("front"), View("left"), View("right"), View("front", -0.5))


@dataclass(frozen=True)
class SceneSettings:
    """What a Scene of the world holds.

    Attributes:
        stride_s: time between Scenes of an episode, a multiple of 0.1 s.
        views: camera slots and time offsets (multiples of 0.1 s, back to -1.5 s).
        image_width, image_height: pixels of the published pictures and of the network's input.
        jpeg_quality: of the published pictures.
        range_m: of polygons and road users around the ego.
        noise: of the odometry's twist.
        jitter_rig: every episode's cameras are built in a little differently.
        recovery_share: recovery starts in addition, as a share of the episode's Scenes.
        events_only: only Scenes to which a long-tail event matters.
    """

    stride_s: float = 0.5
    views: tuple[View, ...] = NANO_VIEWS
    image_width: int = IMAGE_WIDTH
    image_height: int = IMAGE_HEIGHT
    jpeg_quality: int = JPEG_QUALITY
    range_m: float = 100.0
    noise: OdometryNoise = field(default_factory=OdometryNoise)
    jitter_rig: bool = False
    recovery_share: float = 0.0
    events_only: bool = False

    def __post_init__(self) -> None:
        if self.stride_s <= 0 or not _is_whole(self.stride_s / STEP_S):
            raise ContractError("scene.stride_s", self.stride_s, "a positive multiple of 0.1 s")
        if not self.views:
            raise ContractError("scene.views", self.views, "at least one view")
        for index, view in enumerate(self.views):
            steps = view.time_offset_s / STEP_S
            if not HISTORY_STEPS[0] - 1e-6 <= steps <= 0 or not _is_whole(steps):
                raise ContractError(
                    f"scene.views[{index}].time_offset_s",
                    view.time_offset_s,
                    "a multiple of 0.1 s in -1.5 ... 0",
                )
        if not 1 <= self.jpeg_quality <= 100:
            raise ContractError("scene.jpeg_quality", self.jpeg_quality, "1 to 100")
        if self.range_m <= 0:
            raise ContractError("scene.range_m", self.range_m, "a positive distance")
        if not 0.0 <= self.recovery_share <= 1.0:
            raise ContractError("scene.recovery_share", self.recovery_share, "0 to 1")


def _is_whole(value: float) -> bool:
    return abs(value - round(value)) < 1e-6


class OdometryPlayer:
    """Feeds an ``EgoMotionBuffer`` as odometry comes in on the car: never from after the moment."""

    def __init__(self, odometry: OdometrySamples) -> None:
        self._samples = iter(odometry)
        self._next = next(self._samples, None)
        self.buffer = EgoMotionBuffer()

    def play_until(self, stamp_ns: int) -> EgoMotionBuffer:
        """Add every sample up to and including ``stamp_ns`` and return the buffer."""
        while self._next is not None and self._next[0] <= stamp_ns:
            stamp, pose, twist = self._next
            self.buffer.add(stamp, pose, (float(twist[0]), float(twist[1]), float(twist[2])))
            self._next = next(self._samples, None)
        return self.buffer


def scene_manifest(settings: SceneSettings) -> BundleManifest:
    """Return what a bundle that reads such Scenes would declare: slots, views, input size."""
    return BundleManifest(
        bundle_id="scenes",
        slots=default_slots(),
        views=settings.views,
        image_width=settings.image_width,
        image_height=settings.image_height,
        horizon_s=NUM_KNOTS * KNOT_INTERVAL_S,
        knot_interval_s=KNOT_INTERVAL_S,
        num_candidates=1,
        base_frame_definition="rear axle centre on the ground",
        codebook_id=None,
        model={},
    )


class ViewGeometry:
    """Calibration of the views of a rig, by the functions of the car's observation builder.

    Args:
        rig: cameras with intrinsics. manifest: slots, views and size of the network's input.

    Raises:
        ContractError: a view has no camera in the rig, or a camera no usable intrinsics.
    """

    def __init__(self, rig: Rig, manifest: BundleManifest) -> None:
        intrinsics, mounts = [], []
        for view in manifest.views:
            camera = rig.camera(view.slot)
            if camera is None or camera.model is None:
                raise ContractError(
                    f"rig.cameras[{view.slot}]", camera, "a camera with intrinsics for the view"
                )
            preprocessor = ViewPreprocessor.for_slot(
                manifest.slot(view.slot),
                camera.model,
                camera.rectified,
                manifest.image_width,
                manifest.image_height,
            )
            intrinsics.append(preprocessor.intrinsics)
            mounts.append(camera.ego_from_camera)
        self.intrinsics: NDArray[np.float32] = np.stack(intrinsics).astype(np.float32)
        self._mounts = mounts

    def ego_from_camera(
        self, buffer: EgoMotionBuffer, t0_ns: int, stamps_ns: list[int]
    ) -> NDArray[np.float32]:
        """Return (V, 4, 4), ego at t0 from each view's camera at its own stamp."""
        return np.stack(
            [
                compensated_extrinsics(buffer, t0_ns, stamp, mount)
                for stamp, mount in zip(stamps_ns, self._mounts, strict=True)
            ]
        )


def scene_steps(episode: Episode, stride_s: float = 0.5) -> range:
    """Return the steps at which an episode has Scenes: from 1.5 s until 5 s before its end."""
    return range(-HISTORY_STEPS[0], episode.num_steps - AGENT_STEPS, round(stride_s / STEP_S))


class SceneSink(Protocol):
    """Told what was left out while the Scenes of an episode are made."""

    def __call__(self, token: str) -> None:
        """Called with the token of a recovery start that the expert could not save."""


def episode_scenes(
    episode: Episode,
    road_map: RoadMap | RoadIndex,
    stride_s: float = 0.5,
    settings: SceneSettings | None = None,
    renderer: Renderer | None = None,
    lanes: LaneFinder | None = None,
    left_out: SceneSink | None = None,
) -> Iterator[Scene]:
    """Yield the Scenes of an episode, oldest first, then its recovery starts.

    Every one carries its PDM-Closed reference and the expert's scores. Recovery starts from which
    the expert itself scores 0 are left out.

    Args:
        episode: the state log. road_map: its network (an index of it saves time over episodes).
        stride_s: time between Scenes; ``settings`` wins where it is given.
        settings: contents of the Scenes.
        renderer, lanes: of the network, where the caller has them already.
        left_out: told the tokens of the recovery starts left out.

    Raises:
        ContractError: the episode belongs to another network.
    """
    settings = settings or SceneSettings(stride_s=stride_s)
    road = road_map if isinstance(road_map, RoadIndex) else RoadIndex(road_map)
    maker = _SceneMaker(road, renderer or Renderer(road.road_map), settings, episode.seed)
    steps: Sequence[int] = scene_steps(episode, settings.stride_s)
    if settings.events_only:
        steps = [step for step in steps if event_tags(episode, step)]
    yield from with_scores(list(maker.scenes(episode, steps)))
    if settings.recovery_share == 0.0:
        return
    driver = RecoveryDriver(episode, road.road_map, lanes or LaneFinder(road.road_map))
    starts = []
    for start in driver.starts(steps, settings.recovery_share):
        (scene,) = maker.scenes(start.episode, [start.moment], start.start_m)
        labels = replace(scene.labels, tags=f"{scene.labels.tags},{RECOVERY}")
        token, stamp_ns = f"{episode.name}/{start.step:05d}r", step_stamp_ns(start.step)
        starts.append(replace(scene, token=token, stamp_ns=stamp_ns, labels=labels))
    for scene in with_scores(starts):
        if scene.labels.expert_pdms > 0.0 and scene.labels.expert_epdms > 0.0:
            yield scene
        elif left_out is not None:
            left_out(scene.token)


class _SceneMaker:
    """Makes Scenes of episodes that one vehicle drove: its rig, seen through one renderer."""

    def __init__(
        self, road: RoadIndex, renderer: Renderer, settings: SceneSettings, seed: int
    ) -> None:
        rig = default_rig(settings.image_width, settings.image_height)
        self._rig = jittered_rig(rig, seed) if settings.jitter_rig else rig
        self._geometry = ViewGeometry(self._rig, scene_manifest(settings))
        # Of the stored pictures, which are not cropped: the car crops what is wider than its slot.
        models = {camera.slot: camera.model for camera in self._rig.cameras}
        matrices = [models[view.slot].matrix for view in settings.views]  # type: ignore[union-attr]
        self._intrinsics = np.stack(matrices).astype(np.float32)
        self._road, self._renderer, self._settings = road, renderer, settings

    def scenes(
        self, episode: Episode, steps: Sequence[int], start_m: float = 0.0
    ) -> Iterator[Scene]:
        """Yield the Scenes at ascending steps; ``start_m`` as for ``EpisodeLabels``."""
        settings = self._settings
        labels = EpisodeLabels(episode, self._road, settings.range_m, start_m)
        cameras = EpisodeCameras(self._renderer, episode, self._rig, settings.jpeg_quality)
        player = OdometryPlayer(episode_odometry(episode, settings.noise))
        offsets = [round(view.time_offset_s / STEP_S) for view in settings.views]
        pictures: dict[tuple[str, int], bytes] = {}
        for step in steps:
            t0_ns = step_stamp_ns(step)
            buffer = player.play_until(t0_ns)
            wanted = [
                (view.slot, step + offset)
                for view, offset in zip(settings.views, offsets, strict=True)
            ]
            pictures = {key: value for key, value in pictures.items() if key[1] >= step - 15}
            for key in wanted:
                if key not in pictures:
                    pictures[key] = cameras.jpeg(*key)
            stamps = [step_stamp_ns(view_step) for _, view_step in wanted]
            yield make_scene(
                episode,
                step,
                tuple(pictures[key] for key in wanted),
                self._intrinsics,
                self._geometry.ego_from_camera(buffer, t0_ns, stamps),
                buffer.at(t0_ns),
                labels,
            )


def make_scene(
    episode: Episode,
    step: int,
    view_jpegs: tuple[bytes, ...],
    intrinsics: NDArray[np.float32],
    ego_from_camera: NDArray[np.float32],
    motion: EgoMotion,
    labels: EpisodeLabels,
) -> Scene:
    """Put one Scene of an episode together."""
    return Scene(
        token=f"{episode.name}/{step:05d}",
        network=episode.network,
        stamp_ns=motion.stamp_ns,
        ego_pose=episode.ego[step, :3].copy(),
        view_jpegs=view_jpegs,
        view_mask=np.ones(len(view_jpegs), np.bool_),
        intrinsics=intrinsics,
        ego_from_camera=ego_from_camera,
        ego_history=motion.history,
        ego_history_mask=motion.history_mask,
        ego_dynamics=motion.dynamics,
        ego_dynamics_mask=motion.dynamics_mask,
        command=Command(int(episode.command[step])).one_hot(),
        labels=labels.at(step),
    )
