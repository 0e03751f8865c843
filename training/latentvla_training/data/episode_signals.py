"""What the sensors of an episode's ego would have said: stamps, 50 Hz odometry, camera pictures.

World Scenes and exported bags both start from here, so that they carry identical inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicHermiteSpline

from latentvla_ros.contract import CameraModel, ContractError, Rig
from latentvla_ros.geometry import se2
from latentvla_training.data.image_encoding import JPEG_QUALITY, encode_jpeg
from latentvla_training.world.episode import STEP_S, Episode

if TYPE_CHECKING:
    from latentvla_training.world.cameras import Renderer

#: Stamp of step 0 of every episode, so that recordings are reproducible.
EPOCH_NS = 1_700_000_000_000_000_000
STEP_NS = round(STEP_S * 1e9)
ODOMETRY_PERIOD_NS = 20_000_000


def step_stamp_ns(step: int) -> int:
    """Return the stamp of a 10 Hz step of an episode."""
    return EPOCH_NS + step * STEP_NS


@dataclass(frozen=True)
class OdometryNoise:
    """Gaussian noise of the odometry's twist: standard deviations, and the seed."""

    speed_mps: float = 0.0
    yaw_rate_radps: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("speed_mps", "yaw_rate_radps"):
            if getattr(self, name) < 0:
                raise ContractError(f"odometry_noise.{name}", getattr(self, name), ">= 0")


@dataclass(frozen=True)
class OdometrySamples:
    """N odometry messages, oldest first.

    Attributes:
        stamp_ns: (N,) int64.
        pose: (N, 3) x, y, yaw of the rear axle in the odometry frame (the map frame here).
        twist: (N, 3) vx, vy, yaw rate in the body frame.
    """

    stamp_ns: NDArray[np.int64]
    pose: NDArray[np.float64]
    twist: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.stamp_ns)

    def __iter__(self) -> Iterator[tuple[int, NDArray[np.float64], NDArray[np.float64]]]:
        return zip(self.stamp_ns.tolist(), self.pose, self.twist, strict=True)


class EgoPath:
    """The ego's motion between the 10 Hz steps of an episode (cubic, exact at the steps)."""

    def __init__(self, episode: Episode) -> None:
        times = np.arange(episode.num_steps) * STEP_S
        x, y, yaw, speed, _, _, yaw_rate = episode.ego.T
        unwrapped = np.unwrap(yaw)
        values = np.stack([x, y, unwrapped], axis=1)
        slopes = np.stack([speed * np.cos(yaw), speed * np.sin(yaw), yaw_rate], axis=1)
        self._pose = CubicHermiteSpline(times, values, slopes)
        self._times, self._speed, self._yaw_rate = times, speed, yaw_rate

    def pose(self, time_s: ArrayLike) -> NDArray[np.float64]:
        """Return (..., 3) x, y, yaw in the map frame at times (...), held at the ends."""
        pose = self._pose(np.clip(time_s, self._times[0], self._times[-1]))
        pose[..., 2] = se2.wrap_angle(pose[..., 2])
        return np.asarray(pose, np.float64)

    def twist(self, time_s: ArrayLike) -> NDArray[np.float64]:
        """Return vx, vy, yaw rate (..., 3) in the body frame (the rear axle does not slip)."""
        times = np.asarray(time_s, np.float64)
        speed = np.interp(times, self._times, self._speed)
        yaw_rate = np.interp(times, self._times, self._yaw_rate)
        return np.stack([speed, np.zeros_like(speed), yaw_rate], axis=-1)


def episode_odometry(episode: Episode, noise: OdometryNoise | None = None) -> OdometrySamples:
    """Return the 50 Hz odometry of an episode, from its first to its last step.

    Args:
        episode: the state log.
        noise: noise on the twist; none by default.
    """
    duration_ns = (episode.num_steps - 1) * STEP_NS
    offsets_ns = np.arange(0, duration_ns + 1, ODOMETRY_PERIOD_NS, dtype=np.int64)
    path = EgoPath(episode)
    twist = path.twist(offsets_ns * 1e-9)
    if noise is not None:
        generator = np.random.default_rng((noise.seed, episode.seed))
        drawn = generator.standard_normal((len(twist), 2))
        twist[:, 0] += noise.speed_mps * drawn[:, 0]
        twist[:, 2] += noise.yaw_rate_radps * drawn[:, 1]
    return OdometrySamples(EPOCH_NS + offsets_ns, path.pose(offsets_ns * 1e-9), twist)


class EpisodeCameras:
    """The pictures of an episode's cameras as JPEG, rendered when asked for.

    Args:
        renderer: of the episode's road network.
        episode: the state log.
        rig: cameras with their intrinsics (``RigCamera.model``) and mounts.
        jpeg_quality: 1 to 100.

    Raises:
        ContractError: a camera of the rig has no intrinsics, or its picture is not rectified.
    """

    def __init__(
        self, renderer: Renderer, episode: Episode, rig: Rig, jpeg_quality: int = JPEG_QUALITY
    ) -> None:
        self._models: dict[str, CameraModel] = {}
        for camera in rig.cameras:
            if camera.model is None or not camera.rectified:
                raise ContractError(
                    f"rig.cameras[{camera.slot}]",
                    "no intrinsics" if camera.model is None else "rectified: false",
                    "a rectified camera with intrinsics: the world renders pinhole pictures",
                )
            self._models[camera.slot] = camera.model
        self._renderer, self._episode, self._rig = renderer, episode, rig
        self._path, self._quality = EgoPath(episode), jpeg_quality

    def jpeg(self, slot: str, step: int, skew_ns: int = 0) -> bytes:
        """Return the picture of ``slot`` at a step, exposed ``skew_ns`` after it.

        Under a skew the camera has moved along the ego's path; other road users stay where they
        are at the step (a few centimetres in as many milliseconds).
        """
        camera, model = self._rig.camera(slot), self._models[slot]
        assert camera is not None
        image = self._renderer.render(
            self._episode,
            step,
            model.matrix,
            model.width,
            model.height,
            camera.ego_from_camera,
            ego_pose=self._path.pose(step * STEP_S + skew_ns * 1e-9) if skew_ns else None,
        )
        return encode_jpeg(image, self._quality)
