"""ROS messages of a recording, without ROS: types, planar quantities to fields and back."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import CameraModel, ContractError
from latentvla_ros.sensing.image_decoding import CompressedImage, RawImage

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

COMMAND_TYPE = "latentvla_msgs/msg/DrivingCommand"
ODOMETRY_TYPE = "nav_msgs/msg/Odometry"
PATH_TYPE = "nav_msgs/msg/Path"
CAMERA_INFO_TYPE = "sensor_msgs/msg/CameraInfo"
IMAGE_TYPES = {
    "compressed": "sensor_msgs/msg/CompressedImage",
    "raw": "sensor_msgs/msg/Image",
}

#: Topics that ``planner.launch.py`` listens to unless told otherwise.
ODOMETRY_TOPIC = "/localization/odometry"
COMMAND_TOPIC = "/planning/driving_command"
ROUTE_TOPIC = "/planning/route"


def message_definition(name: str) -> str:
    """Return the text of ``latentvla_msgs/msg/<name>.msg``.

    It is looked for in the repository, then where colcon or the Makefile installs the package.

    Raises:
        ContractError: it is nowhere.
    """
    relative = Path("latentvla_msgs") / "msg" / f"{name}.msg"
    prefixes = [
        *filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)),
        sys.prefix,
    ]
    places = [Path(__file__).resolve().parents[3] / relative]
    places += [Path(prefix) / "share" / relative for prefix in prefixes]
    for place in places:
        if place.is_file():
            return place.read_text()
    raise ContractError(
        f"latentvla_msgs/msg/{name}",
        "nothing",
        f"a message definition in one of {[str(place) for place in places]}",
    )


def typestore() -> Typestore:
    """Return the message types of a recording, ours included."""
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    store.register(get_types_from_msg(message_definition("DrivingCommand"), COMMAND_TYPE))
    return store


class MessageFactory:
    """Builds the messages of a recording as rosbags objects."""

    def __init__(self) -> None:
        self.types = typestore()

    def _make(self, name: str, **fields: Any) -> Any:
        return self.types.types[name](**fields)

    def header(self, stamp_ns: int, frame_id: str) -> Any:
        """Return a std_msgs/Header."""
        seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
        stamp = self._make("builtin_interfaces/msg/Time", sec=seconds, nanosec=nanoseconds)
        return self._make("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)

    def pose(self, pose: NDArray[np.float64]) -> Any:
        """Return a geometry_msgs/Pose of x, y, yaw (3,) on the ground."""
        x, y, yaw = (float(value) for value in pose)
        return self._make(
            "geometry_msgs/msg/Pose",
            position=self._make("geometry_msgs/msg/Point", x=x, y=y, z=0.0),
            orientation=self._make(
                "geometry_msgs/msg/Quaternion",
                x=0.0,
                y=0.0,
                z=math.sin(yaw / 2),
                w=math.cos(yaw / 2),
            ),
        )

    def odometry(
        self,
        stamp_ns: int,
        pose: NDArray[np.float64],
        twist: NDArray[np.float64],
        frame_id: str,
        child_frame_id: str,
    ) -> Any:
        """Return a nav_msgs/Odometry of pose x, y, yaw (3,) and twist vx, vy, yaw rate (3,)."""
        vx, vy, yaw_rate = (float(value) for value in twist)
        motion = self._make(
            "geometry_msgs/msg/Twist",
            linear=self._make("geometry_msgs/msg/Vector3", x=vx, y=vy, z=0.0),
            angular=self._make("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=yaw_rate),
        )
        return self._make(
            ODOMETRY_TYPE,
            header=self.header(stamp_ns, frame_id),
            child_frame_id=child_frame_id,
            pose=self._make(
                "geometry_msgs/msg/PoseWithCovariance",
                pose=self.pose(pose),
                covariance=np.zeros(36),
            ),
            twist=self._make(
                "geometry_msgs/msg/TwistWithCovariance", twist=motion, covariance=np.zeros(36)
            ),
        )

    def compressed_image(self, stamp_ns: int, frame_id: str, data: bytes) -> Any:
        """Return a sensor_msgs/CompressedImage of JPEG bytes."""
        return self._make(
            IMAGE_TYPES["compressed"],
            header=self.header(stamp_ns, frame_id),
            format="jpeg",
            data=np.frombuffer(data, np.uint8),
        )

    def raw_image(self, stamp_ns: int, frame_id: str, image_rgb: NDArray[np.uint8]) -> Any:
        """Return a sensor_msgs/Image of an (H, W, 3) uint8 RGB picture."""
        height, width, _ = image_rgb.shape
        return self._make(
            IMAGE_TYPES["raw"],
            header=self.header(stamp_ns, frame_id),
            height=height,
            width=width,
            encoding="rgb8",
            is_bigendian=0,
            step=3 * width,
            data=np.ascontiguousarray(image_rgb).ravel(),
        )

    def camera_info(self, stamp_ns: int, frame_id: str, model: CameraModel, rectified: bool) -> Any:
        """Return a sensor_msgs/CameraInfo; a rectified camera has P = K and no distortion."""
        matrix = np.asarray(model.matrix, np.float64)
        distortion = np.zeros(5) if rectified else np.asarray(model.distortion, np.float64)
        return self._make(
            CAMERA_INFO_TYPE,
            header=self.header(stamp_ns, frame_id),
            height=model.height,
            width=model.width,
            distortion_model=model.distortion_model or "plumb_bob",
            d=distortion,
            k=matrix.ravel(),
            r=np.eye(3).ravel(),
            p=np.hstack([matrix, np.zeros((3, 1))]).ravel(),
            binning_x=0,
            binning_y=0,
            roi=self._make(
                "sensor_msgs/msg/RegionOfInterest",
                x_offset=0, y_offset=0, height=0, width=0, do_rectify=False,
            ),
        )  # fmt: skip

    def command(self, stamp_ns: int, frame_id: str, command: int) -> Any:
        """Return a latentvla_msgs/DrivingCommand."""
        return self._make(
            COMMAND_TYPE, header=self.header(stamp_ns, frame_id), command=int(command)
        )

    def path(self, stamp_ns: int, frame_id: str, poses: NDArray[np.float64]) -> Any:
        """Return a nav_msgs/Path of poses (N, 3)."""
        header = self.header(stamp_ns, frame_id)
        stamped = [
            self._make("geometry_msgs/msg/PoseStamped", header=header, pose=self.pose(pose))
            for pose in poses
        ]
        return self._make(PATH_TYPE, header=header, poses=stamped)


def stamp_ns(message: Any) -> int:
    """Return the header stamp of a message."""
    return int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)


def planar_pose(pose: Any) -> tuple[float, float, float]:
    """Return x, y, yaw of a geometry_msgs/Pose; NaN where its quaternion has no direction."""
    q = pose.orientation
    norm = math.sqrt(q.x * q.x + q.y * q.y + q.z * q.z + q.w * q.w)
    if not norm > 1e-6:
        return pose.position.x, pose.position.y, math.nan
    yaw = math.atan2(2.0 * (q.w * q.z + q.x * q.y), norm * norm - 2.0 * (q.y * q.y + q.z * q.z))
    return pose.position.x, pose.position.y, yaw


def camera_model(info: Any, rectified: bool) -> CameraModel:
    """Return the intrinsics of a CameraInfo: P of a rectified image, K and D of a raw one."""
    if rectified:
        matrix = np.asarray(info.p, np.float64).reshape(3, 4)[:, :3]
        return CameraModel(info.width, info.height, matrix, "", np.zeros(0))
    distortion = np.asarray(info.d, np.float64)
    return CameraModel(
        info.width,
        info.height,
        np.asarray(info.k, np.float64).reshape(3, 3),
        info.distortion_model if len(distortion) else "",
        distortion,
    )


def image_payload(message: Any) -> CompressedImage | RawImage:
    """Return the undecoded payload of an image message, without copying it."""
    if hasattr(message, "format"):
        return CompressedImage(message.data, message.format)
    return RawImage(
        message.data,
        message.encoding,
        message.width,
        message.height,
        message.step,
        bool(message.is_bigendian),
    )
