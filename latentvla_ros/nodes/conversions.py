"""Messages to records and back. The only place that knows how a distribution stores ``uint8[]``."""

from __future__ import annotations

import math
from array import array
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Pose, Quaternion
from nav_msgs.msg import Odometry, Path
from numpy.typing import ArrayLike, NDArray
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import CompressedImage as CompressedImageMessage
from sensor_msgs.msg import Image as ImageMessage

from latentvla_ros.contract import CameraModel
from latentvla_ros.sensing.image_decoding import CompressedImage, RawImage

NANOSECONDS = 1_000_000_000


def stamp_to_ns(stamp: Time) -> int:
    """Return a stamp in ns."""
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def ns_to_stamp(stamp_ns: int) -> Time:
    """Return ns as a stamp."""
    seconds, nanoseconds = divmod(stamp_ns, NANOSECONDS)
    return Time(sec=seconds, nanosec=nanoseconds)


def seconds_to_duration(seconds: float) -> Duration:
    """Return seconds, not negative, as a duration."""
    whole, rest = divmod(round(seconds * 1e9), NANOSECONDS)
    return Duration(sec=whole, nanosec=rest)


def buffer_of(data: Any) -> Any:
    """Return a message's ``uint8[]`` as something ``np.frombuffer`` reads without copying.

    Up to Kilted that is ``array.array``; Lyrical may hand out a vendor's buffer, which offers the
    buffer protocol or, on a device, has to be brought to the CPU by ``to_cpu``.
    """
    to_cpu = getattr(data, "to_cpu", None)
    return to_cpu() if to_cpu is not None else data


def image_payload(message: ImageMessage | CompressedImageMessage) -> CompressedImage | RawImage:
    """Return the undecoded payload of an image message, without copying it."""
    if isinstance(message, CompressedImageMessage):
        return CompressedImage(buffer_of(message.data), message.format)
    return RawImage(
        buffer_of(message.data),
        message.encoding,
        message.width,
        message.height,
        message.step,
        bool(message.is_bigendian),
    )


def camera_model(info: CameraInfo, rectified: bool) -> CameraModel:
    """Return the intrinsics of a CameraInfo: P of a rectified image, K and D of a raw one."""
    if rectified:
        matrix = np.asarray(info.p, np.float64).reshape(3, 4)[:, :3]
        return CameraModel(info.width, info.height, matrix, "", np.zeros(0))
    matrix = np.asarray(info.k, np.float64).reshape(3, 3)
    distortion = np.asarray(info.d, np.float64)
    name = info.distortion_model if len(distortion) else ""
    return CameraModel(info.width, info.height, matrix, name, distortion)


def quaternion_yaw(q: Quaternion) -> float:
    """Return the yaw of a quaternion of any length, NaN where it has no direction."""
    norm = math.sqrt(q.x * q.x + q.y * q.y + q.z * q.z + q.w * q.w)
    if not norm > 1e-6:
        return math.nan
    return math.atan2(2.0 * (q.w * q.z + q.x * q.y), norm * norm - 2.0 * (q.y * q.y + q.z * q.z))


def planar_pose(pose: Pose) -> tuple[float, float, float]:
    """Return x, y, yaw of a pose; NaN where its quaternion has no direction."""
    return pose.position.x, pose.position.y, quaternion_yaw(pose.orientation)


def planar_odometry(
    message: Odometry,
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return pose and twist (vx, vy, yaw rate) of the odometry's child frame, as given."""
    twist = message.twist.twist
    return planar_pose(message.pose.pose), (twist.linear.x, twist.linear.y, twist.angular.z)


def path_points(message: Path) -> NDArray[np.float64]:
    """Return the points (N, 2) of a path in its frame, m."""
    points = [(entry.pose.position.x, entry.pose.position.y) for entry in message.poses]
    return np.asarray(points, np.float64).reshape(-1, 2)


def set_pose(pose: Pose, x: float, y: float, yaw: float) -> None:
    """Write a planar pose into a message that is there already."""
    pose.position.x = x
    pose.position.y = y
    pose.orientation.z = math.sin(0.5 * yaw)
    pose.orientation.w = math.cos(0.5 * yaw)


def to_pose(planar: ArrayLike) -> Pose:
    """Return (3,) x, y, yaw as a pose."""
    x, y, yaw = (float(value) for value in np.asarray(planar, np.float64))
    pose = Pose()
    set_pose(pose, x, y, yaw)
    return pose


def rgb_image(picture: NDArray[np.uint8], stamp_ns: int) -> ImageMessage:
    """Return an (H, W, 3) RGB picture as a message."""
    height, width = picture.shape[:2]
    message = ImageMessage(height=height, width=width, encoding="rgb8", step=3 * width)
    message.header.stamp = ns_to_stamp(stamp_ns)
    message.data = array("B", picture.tobytes())
    return message
