"""A recording opened for one rig: checks its topics, reads its odometry and calibration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from latentvla_ros.contract import CameraModel, ContractError, Rig, RigCamera
from latentvla_ros.sensing.ego_motion_buffer import in_base_frame
from latentvla_training.data import bag_messages
from latentvla_training.data.bag_messages import CAMERA_INFO_TYPE, IMAGE_TYPES, ODOMETRY_TYPE


class BagContentError(ContractError):
    """A recording that lacks topics, or has them with another type; names both sides."""


class DriveBagReader:
    """Messages of a rosbag2 recording (MCAP or SQLite); use it as a context manager.

    Args:
        path: folder, or its storage file.
        rig: of the vehicle.

    Raises:
        ContractError: no such recording, or it cannot be read (on entering).
    """

    def __init__(self, path: Path, rig: Rig) -> None:
        self.path, self._rig = path, rig
        self._reader: Any = None
        self._types: dict[str, str] = {}

    def __enter__(self) -> DriveBagReader:
        from rosbags.highlevel import AnyReader

        if not self.path.exists():
            raise ContractError("bag", str(self.path), "a rosbag2 folder or its .mcap or .db3 file")
        try:
            # Recordings carry their message definitions; SQLite ones from before Iron do not.
            reader = AnyReader([self.path], default_typestore=bag_messages.typestore())
            reader.open()
        except Exception as error:  # a parser of foreign bytes fails in many ways; all mean this
            raise ContractError(
                "bag", str(self.path), f"a readable rosbag2 recording ({error})"
            ) from error
        self._reader = reader
        self._types = {
            name: info.msgtype or "mixed types"
            for name, info in reader.topics.items()
            if info.msgcount
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._reader.close()

    def has(self, topic: str, message_type: str) -> bool:
        """Whether a topic holds messages of a type."""
        return self._types.get(topic) == message_type

    def require(self, needed: Mapping[str, str]) -> None:
        """Check that topics are there.

        Args:
            needed: message type by topic.

        Raises:
            BagContentError: lists what is missing and what there is.
        """
        missing = [
            f"{topic} ({kind})" for topic, kind in needed.items() if not self.has(topic, kind)
        ]
        if missing:
            there = [f"{topic} ({kind})" for topic, kind in sorted(self._types.items())]
            raise BagContentError("bag.topics", there, f"also {', '.join(missing)}")

    def messages(self, wanted: Mapping[str, str]) -> Iterator[tuple[str, int, Any]]:
        """Yield (topic, time of recording in ns, message) in the order of recording.

        Args:
            wanted: message type by topic; topics that are absent or of another type are left out.

        Raises:
            BagContentError: a message cannot be decoded.
        """
        connections = [c for c in self._reader.connections if wanted.get(c.topic) == c.msgtype]
        if not connections:
            return
        for connection, log_ns, data in self._reader.messages(connections):
            try:
                message = self._reader.deserialize(data, connection.msgtype)
            except Exception as error:  # as above: foreign bytes
                raise BagContentError(
                    f"bag message of {connection.topic} at {log_ns} ns",
                    str(error),
                    f"a {connection.msgtype}",
                ) from error
            yield connection.topic, log_ns, message

    def base_motion(self, odometry: Any) -> tuple[int, np.ndarray, np.ndarray]:
        """Return stamp, pose (3,) and twist (3,) of the ego frame from a nav_msgs/Odometry.

        Raises:
            BagContentError: it is given for another frame than the rig says.
        """
        if odometry.child_frame_id != self._rig.odometry_child_frame:
            raise BagContentError(
                "odometry.child_frame_id",
                odometry.child_frame_id,
                f"{self._rig.odometry_child_frame!r}, as rig {self._rig.name!r} says",
            )
        motion = odometry.twist.twist
        pose, twist = in_base_frame(
            bag_messages.planar_pose(odometry.pose.pose),
            (motion.linear.x, motion.linear.y, motion.angular.z),
            self._rig.base_from_twist,
        )
        return bag_messages.stamp_ns(odometry), pose, twist

    def odometry(self, topic: str) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """Return ``base_motion`` of every message of a topic."""
        return [
            self.base_motion(message) for _, _, message in self.messages({topic: ODOMETRY_TYPE})
        ]

    def camera_models(self, cameras: Iterable[RigCamera]) -> dict[str, CameraModel]:
        """Return intrinsics by slot: the rig file's, else those of the first CameraInfo."""
        models: dict[str, CameraModel] = {}
        waiting: dict[str, RigCamera] = {}
        for camera in cameras:
            if camera.model is not None:
                models[camera.slot] = camera.model
            elif camera.camera_info_topic is not None:
                waiting[camera.camera_info_topic] = camera
        if not waiting:
            return models
        for topic, _, info in self.messages(dict.fromkeys(waiting, CAMERA_INFO_TYPE)):
            known = waiting.pop(topic, None)
            if known is not None:
                models[known.slot] = bag_messages.camera_model(info, known.rectified)
            if not waiting:
                break
        return models


def camera_topics(cameras: Iterable[RigCamera]) -> dict[str, str]:
    """Return what cameras need of a recording: message type by topic."""
    topics = {}
    for camera in cameras:
        topics[camera.topic] = IMAGE_TYPES[camera.message_type]
        if camera.model is None and camera.camera_info_topic is not None:
            topics[camera.camera_info_topic] = CAMERA_INFO_TYPE
    return topics
