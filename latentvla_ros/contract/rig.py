"""A vehicle's cameras: which topic fills which slot, and where each camera is mounted.

Parsing of rig files lives in ``sensing.rig_file``; here is the record it yields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract.errors import ContractError

MessageType = Literal["raw", "compressed"]
Reliability = Literal["best_effort", "reliable"]


@dataclass(frozen=True)
class CameraModel:
    """Intrinsics of a camera as its driver publishes it (sensor_msgs/CameraInfo).

    Attributes:
        width, height: pixels of the published image.
        matrix: (3, 3) float64; K of an unrectified image, the left 3x3 of P of a rectified one.
        distortion_model: ``plumb_bob``, ``rational_polynomial``, ``equidistant`` or ``""`` (none).
        distortion: (N,) float64 coefficients in OpenCV's order; empty when rectified.
    """

    width: int
    height: int
    matrix: NDArray[np.float64]
    distortion_model: str
    distortion: NDArray[np.float64]


@dataclass(frozen=True)
class RigCamera:
    """One camera of a rig.

    Attributes:
        slot: name of the manifest's camera slot that it fills.
        topic: image topic on the vehicle (``.../compressed`` included for a compressed one).
        camera_info_topic: CameraInfo topic; ``None`` when ``model`` is given in the rig file.
        message_type: ``raw`` (sensor_msgs/Image) or ``compressed`` (sensor_msgs/CompressedImage).
        frame_id: optical frame that the messages must carry.
        ego_from_camera: (4, 4) float64; ego = rear axle on the ground, camera = optical axes.
        rectified: whether the published image is already rectified.
        reliability: QoS reliability of the subscription.
        time_offset_s: added to the message stamp to get the time of exposure.
        model: intrinsics from the rig file, or ``None`` to take them from CameraInfo.
    """

    slot: str
    topic: str
    camera_info_topic: str | None
    message_type: MessageType
    frame_id: str
    ego_from_camera: NDArray[np.float64]
    rectified: bool = True
    reliability: Reliability = "best_effort"
    time_offset_s: float = 0.0
    model: CameraModel | None = None


@dataclass(frozen=True)
class Rig:
    """The cameras of one vehicle and its ego frame (REP-105).

    Attributes:
        name: for messages to people.
        base_frame: frame of the ego, rear-axle centre on the ground.
        reference_camera: slot whose stamps are t0.
        cameras: one per slot.
        base_from_twist: (3,) x, y, yaw of the odometry's child frame in ``base_frame``, where the
            odometry is not given in ``base_frame`` itself.
        odometry_child_frame: the odometry's child frame; ``base_frame`` by default.
    """

    name: str
    base_frame: str
    reference_camera: str
    cameras: tuple[RigCamera, ...]
    odometry_child_frame: str = ""
    base_from_twist: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        slots = [camera.slot for camera in self.cameras]
        if len(set(slots)) != len(slots):
            raise ContractError("rig.cameras", slots, "one camera per slot")
        if self.reference_camera not in slots:
            raise ContractError("rig.reference_camera", self.reference_camera, f"one of {slots}")
        if not self.odometry_child_frame:
            object.__setattr__(self, "odometry_child_frame", self.base_frame)

    def camera(self, slot: str) -> RigCamera | None:
        """Return the camera that fills ``slot``, or None when the rig has none."""
        return next((camera for camera in self.cameras if camera.slot == slot), None)
