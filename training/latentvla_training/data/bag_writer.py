"""Writes a drive as rosbag2 (MCAP): cameras, odometry, command, route, and the rig beside them."""

from __future__ import annotations

import errno
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import CameraModel, Command, ContractError, Rig
from latentvla_ros.sensing.rig_file import save_rig
from latentvla_training.data import bag_messages
from latentvla_training.data.bag_messages import (
    CAMERA_INFO_TYPE,
    COMMAND_TOPIC,
    COMMAND_TYPE,
    IMAGE_TYPES,
    ODOMETRY_TOPIC,
    ODOMETRY_TYPE,
    PATH_TYPE,
    ROUTE_TOPIC,
)
from latentvla_training.data.shards import DiskFullError

if TYPE_CHECKING:
    from rosbags.interfaces import Connection, Qos
    from rosbags.rosbag2 import Writer

RIG_FILE = "rig.yaml"
#: rosbag2's format of Iron: newer distributions read it, and Humble does too.
_BAG_VERSION: Literal[8] = 8
#: From stamp to recording: a camera's exposure, encoding and transport; odometry's transport.
IMAGE_LATENCY_NS = 8_000_000
ODOMETRY_LATENCY_NS = 1_000_000


class DriveBagWriter:
    """A recording under construction; use it as a context manager.

    The folder appears under its name when the block ends well and not at all otherwise. The same
    calls give the same bytes.

    Args:
        path: folder to make.
        rig: cameras of the vehicle; those with intrinsics get CameraInfo messages with each image.
        odometry_frame: frame of poses and routes.

    Raises:
        FileExistsError: there is something at ``path`` already.
        DiskFullError: no space left (while writing or at the end).
    """

    def __init__(self, path: Path | str, rig: Rig, odometry_frame: str = "odom") -> None:
        self.path = Path(path)
        self._rig, self._frame = rig, odometry_frame
        self._messages = bag_messages.MessageFactory()
        self._connections: dict[str, Connection] = {}
        self._scratch: Path | None = None
        self._writer: Writer | None = None

    def __enter__(self) -> DriveBagWriter:
        from rosbags.rosbag2 import StoragePlugin, Writer

        if self.path.exists():
            raise FileExistsError(f"{self.path} exists already; remove it or name another folder")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._scratch = Path(tempfile.mkdtemp(prefix=".bag-", dir=self.path.parent))
        self._writer = Writer(
            self._scratch / self.path.name,
            version=_BAG_VERSION,
            storage_plugin=StoragePlugin.MCAP,
        )
        self._writer.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._writer is not None and self._scratch is not None
        try:
            if kind is not None:
                self._writer.abort()
                return
            try:
                self._writer.close()
                save_rig(self._rig, self._writer.path / RIG_FILE)
                self._writer.path.rename(self.path)
            except OSError as failure:
                self._raise_when_full(failure)
                raise
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _raise_when_full(self, failure: OSError) -> None:
        if failure.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                failure.errno, "no space left for the recording", self.path
            ) from failure

    def odometry(
        self, stamp_ns: int, pose: NDArray[np.float64], twist: NDArray[np.float64]
    ) -> None:
        """Add odometry: pose x, y, yaw (3,) and twist vx, vy, yaw rate (3,) of the child frame."""
        message = self._messages.odometry(
            stamp_ns, pose, twist, self._frame, self._rig.odometry_child_frame
        )
        self._write(
            ODOMETRY_TOPIC, ODOMETRY_TYPE, message, stamp_ns + ODOMETRY_LATENCY_NS, depth=100
        )

    def image(self, slot: str, stamp_ns: int, picture: bytes | NDArray[np.uint8]) -> None:
        """Add a picture of a camera, and its CameraInfo where its intrinsics are known.

        Args:
            slot: of the rig.
            stamp_ns: of the message.
            picture: JPEG bytes of a ``compressed`` camera, (H, W, 3) uint8 RGB of a ``raw`` one.

        Raises:
            ContractError: the rig has no such camera, or it publishes the other kind.
        """
        camera = self._rig.camera(slot)
        if camera is None:
            known = [c.slot for c in self._rig.cameras]
            raise ContractError("slot", slot, f"a camera of the rig: {known}")
        if isinstance(picture, bytes) != (camera.message_type == "compressed"):
            raise ContractError(
                f"rig.cameras[{slot}].message_type",
                camera.message_type,
                "JPEG bytes when compressed, an RGB array when raw",
            )
        log_ns = stamp_ns + IMAGE_LATENCY_NS
        if camera.camera_info_topic is not None and camera.model is not None:
            self._camera_info(
                camera.camera_info_topic,
                stamp_ns,
                log_ns,
                camera.frame_id,
                camera.model,
                camera.rectified,
            )
        message = (
            self._messages.compressed_image(stamp_ns, camera.frame_id, picture)
            if isinstance(picture, bytes)
            else self._messages.raw_image(stamp_ns, camera.frame_id, picture)
        )
        self._write(camera.topic, IMAGE_TYPES[camera.message_type], message, log_ns, depth=10)

    def _camera_info(
        self,
        topic: str,
        stamp_ns: int,
        log_ns: int,
        frame_id: str,
        model: CameraModel,
        rectified: bool,
    ) -> None:
        message = self._messages.camera_info(stamp_ns, frame_id, model, rectified)
        self._write(topic, CAMERA_INFO_TYPE, message, log_ns, depth=10)

    def command(self, stamp_ns: int, command: Command) -> None:
        """Add a driving command."""
        message = self._messages.command(stamp_ns, self._rig.base_frame, command)
        self._write(COMMAND_TOPIC, COMMAND_TYPE, message, stamp_ns, depth=1, latched=True)

    def route(self, stamp_ns: int, poses: NDArray[np.float64]) -> None:
        """Add a route: poses (N, 3) in the odometry frame, in driving order."""
        message = self._messages.path(stamp_ns, self._frame, poses)
        self._write(ROUTE_TOPIC, PATH_TYPE, message, stamp_ns, depth=1, latched=True)

    def _write(
        self,
        topic: str,
        message_type: str,
        message: Any,
        log_ns: int,
        depth: int,
        latched: bool = False,
    ) -> None:
        assert self._writer is not None
        try:
            if topic not in self._connections:
                self._connections[topic] = self._writer.add_connection(
                    topic,
                    message_type,
                    typestore=self._messages.types,
                    offered_qos_profiles=[_qos(depth, latched)],
                )
            data = self._messages.types.serialize_cdr(message, message_type)
            self._writer.write(self._connections[topic], log_ns, data)
        except OSError as failure:
            self._raise_when_full(failure)
            raise


def _qos(depth: int, latched: bool) -> Qos:
    """Reliable, so that any subscriber is served when the bag is played."""
    from rosbags.interfaces import (
        Qos,
        QosDurability,
        QosHistory,
        QosLiveliness,
        QosReliability,
        QosTime,
    )

    forever = QosTime(9223372036, 854775807)
    return Qos(
        QosHistory.KEEP_LAST,
        depth,
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        forever,
        forever,
        QosLiveliness.AUTOMATIC,
        forever,
        False,
    )
