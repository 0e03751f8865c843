"""The cameras of the world's vehicle: what a bundle trained here expects, as rig and as slots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latentvla_ros.contract import CameraModel, CameraSlot, ContractError, Rig, RigCamera
from latentvla_ros.geometry import se3

#: Published image size, pixels.
IMAGE_WIDTH, IMAGE_HEIGHT = 256, 128


@dataclass(frozen=True)
class MountedCamera:
    """A camera of the world's vehicle: slot, field of view, place (m) and yaw in the ego frame."""

    slot: str
    horizontal_fov_deg: float
    xyz: tuple[float, float, float]
    yaw_deg: float

    def __post_init__(self) -> None:
        if not 5.0 <= self.horizontal_fov_deg <= 150.0:
            raise ContractError(
                f"camera[{self.slot}].horizontal_fov_deg", self.horizontal_fov_deg, "5 to 150"
            )


#: Front 60 degrees so that a lamp at 45 m covers 3 px and more (experiments.md section 3).
DEFAULT_CAMERAS = (
    MountedCamera("front", 60.0, (1.8, 0.0, 1.6), 0.0),
    MountedCamera("left", 90.0, (1.6, 0.5, 1.6), 55.0),
    MountedCamera("right", 90.0, (1.6, -0.5, 1.6), -55.0),
)


def camera_model(
    horizontal_fov_deg: float, width: int = IMAGE_WIDTH, height: int = IMAGE_HEIGHT
) -> CameraModel:
    """Return the intrinsics of a rectified camera with square pixels.

    The field of view is measured between the outer edges of the image; the centre of the top-left
    pixel is (0, 0), so the principal point lies at ((width - 1) / 2, (height - 1) / 2).
    """
    focal = 0.5 * width / np.tan(np.radians(horizontal_fov_deg) / 2.0)
    matrix = np.array(
        [[focal, 0.0, (width - 1) / 2.0], [0.0, focal, (height - 1) / 2.0], [0.0, 0.0, 1.0]]
    )
    return CameraModel(width, height, matrix, "", np.zeros(0))


def default_rig(width: int = IMAGE_WIDTH, height: int = IMAGE_HEIGHT) -> Rig:
    """Return the rig of the world's vehicle, intrinsics for width x height pixels included."""
    cameras = tuple(
        RigCamera(
            slot=camera.slot,
            topic=f"/sensing/camera/{camera.slot}/image/compressed",
            camera_info_topic=f"/sensing/camera/{camera.slot}/camera_info",
            message_type="compressed",
            frame_id=f"camera_{camera.slot}_optical_frame",
            ego_from_camera=se3.camera_mount(camera.xyz, np.radians(camera.yaw_deg)),
            model=camera_model(camera.horizontal_fov_deg, width, height),
        )
        for camera in DEFAULT_CAMERAS
    )
    return Rig("world", "base_link", "front", cameras)


def default_slots() -> tuple[CameraSlot, ...]:
    """Return the slots of a model trained on ``default_rig`` and how far a vehicle may differ."""
    return tuple(
        CameraSlot(
            name=camera.slot,
            required=camera.slot == "front",
            horizontal_fov_deg=camera.horizontal_fov_deg,
            fov_range_deg=(camera.horizontal_fov_deg - 15.0, camera.horizontal_fov_deg + 15.0),
            yaw_deg=camera.yaw_deg,
            yaw_tolerance_deg=15.0,
            pitch_range_deg=(-8.0, 8.0),
            x_range_m=(camera.xyz[0] - 1.5, camera.xyz[0] + 1.5),
            y_range_m=(camera.xyz[1] - 0.8, camera.xyz[1] + 0.8),
            z_range_m=(1.0, 2.4),
        )
        for camera in DEFAULT_CAMERAS
    )
