"""The cameras of the world's vehicles: what a bundle trained here expects, as rig and as slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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

#: All around, with overlap: front 60 degrees as above, sides 80, rear 90.
SIX_CAMERAS = (
    MountedCamera("front", 60.0, (1.8, 0.0, 1.6), 0.0),
    MountedCamera("front_left", 80.0, (1.6, 0.5, 1.6), 55.0),
    MountedCamera("front_right", 80.0, (1.6, -0.5, 1.6), -55.0),
    MountedCamera("rear_left", 80.0, (0.9, 0.5, 1.6), 115.0),
    MountedCamera("rear_right", 80.0, (0.9, -0.5, 1.6), -115.0),
    MountedCamera("rear", 90.0, (-0.6, 0.0, 1.6), 180.0),
)


@dataclass(frozen=True)
class RigJitter:
    """How far one vehicle of a fleet may differ from the drawing: bounds of uniform draws.

    Attributes:
        focal_share: of the focal length. principal_share: of the width, shift of the image centre.
        angle_deg: yaw, pitch and roll of each camera. shift_m: along each axis of the vehicle.
    """

    focal_share: float = 0.03
    principal_share: float = 0.01
    angle_deg: float = 2.0
    shift_m: float = 0.05

    def __post_init__(self) -> None:
        for field, most in (
            ("focal_share", 0.2),
            ("principal_share", 0.1),
            ("angle_deg", 8.0),
            ("shift_m", 0.5),
        ):
            if not 0.0 <= getattr(self, field) <= most:
                raise ContractError(f"jitter.{field}", getattr(self, field), f"0 to {most}")


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
    return _rig("world", DEFAULT_CAMERAS, width, height)


def six_camera_rig(width: int = IMAGE_WIDTH, height: int = IMAGE_HEIGHT) -> Rig:
    """Return a rig that sees all around, ``config/rig/six_cameras.yaml``."""
    return _rig("world_six", SIX_CAMERAS, width, height)


def default_slots() -> tuple[CameraSlot, ...]:
    """Return the slots of a model trained on ``default_rig`` and how far a vehicle may differ."""
    return _slots(DEFAULT_CAMERAS)


def six_camera_slots() -> tuple[CameraSlot, ...]:
    """Return the slots of a model trained on ``six_camera_rig``; only the front is required."""
    return _slots(SIX_CAMERAS)


def jittered_rig(rig: Rig, seed: int, jitter: RigJitter | None = None) -> Rig:
    """Return ``rig`` as built into one particular vehicle, drawn from ``seed``.

    Focal length, principal point, place and direction of each camera differ within ``jitter``. The
    defaults stay well within the envelopes of ``default_slots`` and ``six_camera_slots``.

    Raises:
        ContractError: a camera without intrinsics.
    """
    bounds = jitter or RigJitter()
    rng = np.random.default_rng([seed & 0xFFFFFFFF, 0x516])
    cameras = []
    for camera in rig.cameras:
        if camera.model is None:
            raise ContractError(f"rig.cameras[{camera.slot}].model", None, "intrinsics")
        draw = rng.uniform(-1.0, 1.0, 9)
        matrix = camera.model.matrix.copy()
        matrix[[0, 1], [0, 1]] *= 1.0 + bounds.focal_share * draw[0]
        matrix[:2, 2] += bounds.principal_share * camera.model.width * draw[1:3]
        # In optical axes: pitch about x, yaw about y, roll about z.
        turn = np.radians(bounds.angle_deg) * draw[3:6]
        mount = camera.ego_from_camera @ se3.from_xyz_rpy((0.0, 0.0, 0.0), turn)
        mount[:3, 3] += bounds.shift_m * draw[6:]
        model = replace(camera.model, matrix=matrix)
        cameras.append(replace(camera, ego_from_camera=mount, model=model))
    return replace(rig, cameras=tuple(cameras))


def _rig(name: str, mounted: Sequence[MountedCamera], width: int, height: int) -> Rig:
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
        for camera in mounted
    )
    return Rig(name, "base_link", "front", cameras)


def _slots(mounted: Sequence[MountedCamera]) -> tuple[CameraSlot, ...]:
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
        for camera in mounted
    )
