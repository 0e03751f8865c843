"""A small recorded drive for the tests: a circle, three cameras, odometry, a command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from latentvla_ros.contract import CameraModel, Rig, RigCamera
from latentvla_ros.geometry import camera, se2, se3
from latentvla_ros.sensing.rig_file import save_rig

START_NS = 1_700_000_000_000_000_000
ODOMETRY, COMMAND = "/odom", "/command"
_COMMAND_TEXT = """uint8 LEFT=0
uint8 STRAIGHT=1
uint8 RIGHT=2
uint8 UNKNOWN=3
std_msgs/Header header
uint8 command
"""
_WIDTH, _HEIGHT = 256, 128


@dataclass(frozen=True)
class Drive:
    """What ``record_drive`` records; speeds in m/s, rates in rad/s and Hz."""

    duration_s: float = 6.0
    speed: float = 8.0
    yaw_rate: float = 0.1
    camera_rate_hz: int = 10
    odometry_rate_hz: int = 50

    def pose(self, time_s: float) -> NDArray[np.float64]:
        """Return x, y, yaw (3,) in the odometry frame at ``time_s`` since the start."""
        return se2.exponential(self.speed, 0.0, self.yaw_rate, time_s)


def rig(with_model: bool = True) -> Rig:
    """Return the vehicle's cameras: front, left and right, 256x128, rectified, compressed."""
    cameras = []
    for slot, fov, y, yaw in (
        ("front", 60.0, 0.0, 0.0),
        ("left", 90.0, 0.5, 55.0),
        ("right", 90.0, -0.5, -55.0),
    ):
        model = CameraModel(
            _WIDTH, _HEIGHT, camera.pinhole_matrix(fov, _WIDTH, _HEIGHT), "", np.zeros(0)
        )
        cameras.append(
            RigCamera(
                slot=slot,
                topic=f"/cam/{slot}/compressed",
                camera_info_topic=f"/cam/{slot}/camera_info",
                message_type="compressed",
                frame_id=f"{slot}_optical",
                ego_from_camera=se3.camera_mount((1.8, y, 1.6), np.deg2rad(yaw)),
                model=model if with_model else None,
            )
        )
    return Rig("test car", "base_link", "front", tuple(cameras))


def picture(yaw: float) -> bytes:
    """Return a JPEG of a plain road under a sky, shaded by ``yaw``."""
    image = np.full((_HEIGHT, _WIDTH, 3), (200, 160, 120), np.uint8)
    image[_HEIGHT // 2 :] = 90
    cv2.circle(image, (int(128 + 60 * np.sin(5 * yaw)), 40), 8, (40, 200, 60), -1)
    return cv2.imencode(".jpg", image)[1].tobytes()


def record_drive(
    path: Path,
    drive: Drive | None = None,
    *,
    storage: StoragePlugin = StoragePlugin.MCAP,
    leave_out: Sequence[str] = (),
    with_rig: bool = True,
    recorded_late_ns: int = 3_000_000,
) -> Path:
    """Write the drive as a rosbag2 and return its folder.

    Args:
        leave_out: topics that are not recorded.
        recorded_late_ns: time of recording after the stamp.
    """
    drive = drive or Drive()
    types = get_typestore(Stores.ROS2_JAZZY)
    command_type = "latentvla_msgs/msg/DrivingCommand"
    types.register(get_types_from_msg(_COMMAND_TEXT, command_type))
    t = types.types
    header_of, time_of = t["std_msgs/msg/Header"], t["builtin_interfaces/msg/Time"]

    def header(stamp_ns: int, frame: str) -> object:
        sec, nanosec = divmod(stamp_ns, 1_000_000_000)
        return header_of(stamp=time_of(sec=sec, nanosec=nanosec), frame_id=frame)

    vector, point = t["geometry_msgs/msg/Vector3"], t["geometry_msgs/msg/Point"]
    quaternion, covariance = t["geometry_msgs/msg/Quaternion"], np.zeros(36)
    rows: list[tuple[int, str, str, object]] = []
    for index in range(int(drive.duration_s * drive.odometry_rate_hz)):
        time_s = index / drive.odometry_rate_hz
        stamp = START_NS + round(time_s * 1e9)
        x, y, yaw = (float(v) for v in drive.pose(time_s))
        pose = t["geometry_msgs/msg/Pose"](
            position=point(x=x, y=y, z=0.0),
            orientation=quaternion(x=0.0, y=0.0, z=np.sin(yaw / 2), w=np.cos(yaw / 2)),
        )
        twist = t["geometry_msgs/msg/Twist"](
            linear=vector(x=drive.speed, y=0.0, z=0.0),
            angular=vector(x=0.0, y=0.0, z=drive.yaw_rate),
        )
        message = t["nav_msgs/msg/Odometry"](
            header=header(stamp, "odom"),
            child_frame_id="base_link",
            pose=t["geometry_msgs/msg/PoseWithCovariance"](pose=pose, covariance=covariance),
            twist=t["geometry_msgs/msg/TwistWithCovariance"](twist=twist, covariance=covariance),
        )
        rows.append((stamp, ODOMETRY, "nav_msgs/msg/Odometry", message))
    region = t["sensor_msgs/msg/RegionOfInterest"](
        x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
    )
    for index in range(int(drive.duration_s * drive.camera_rate_hz)):
        time_s = index / drive.camera_rate_hz
        stamp = START_NS + round(time_s * 1e9)
        for mounted in rig().cameras:
            assert mounted.model is not None and mounted.camera_info_topic is not None
            k = mounted.model.matrix
            info = t["sensor_msgs/msg/CameraInfo"](
                header=header(stamp, mounted.frame_id),
                height=_HEIGHT,
                width=_WIDTH,
                distortion_model="plumb_bob",
                d=np.zeros(5),
                k=k.ravel(),
                r=np.eye(3).ravel(),
                p=np.hstack([k, np.zeros((3, 1))]).ravel(),
                binning_x=0,
                binning_y=0,
                roi=region,
            )
            image = t["sensor_msgs/msg/CompressedImage"](
                header=header(stamp, mounted.frame_id),
                format="jpeg",
                data=np.frombuffer(picture(float(drive.pose(time_s)[2])), np.uint8),
            )
            rows.append((stamp, mounted.camera_info_topic, "sensor_msgs/msg/CameraInfo", info))
            rows.append((stamp, mounted.topic, "sensor_msgs/msg/CompressedImage", image))
        if index % drive.camera_rate_hz == 0:
            rows.append(
                (stamp, COMMAND, command_type, types.types[command_type](header(stamp, "map"), 1))
            )
    rows.sort(key=lambda row: row[0])
    with Writer(path, version=9, storage_plugin=storage) as writer:
        connections = {}
        for stamp, topic, type_name, message in rows:
            if topic in leave_out:
                continue
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, type_name, typestore=types)
            data = types.serialize_cdr(message, type_name)
            writer.write(connections[topic], stamp + recorded_late_ns, data)
    if with_rig:
        save_rig(rig(with_model=False), path / "rig.yaml")
    return path
