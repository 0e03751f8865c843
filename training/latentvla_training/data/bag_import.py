"""Scenes of a recording (rosbag2, MCAP or SQLite), through the same sensing functions as the car.

Messages are taken in the order they were recorded in: the synchroniser, the ego-motion buffer and
the observation builder see what they would have seen on the vehicle. Labels know the future of the
odometry and nothing else: no road users, no map, no lights.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from latentvla_ros.contract import Command, ContractError, Observation, Rig
from latentvla_ros.geometry import se2
from latentvla_ros.sensing.camera_synchronizer import CameraSynchronizer, FrameSet
from latentvla_ros.sensing.ego_motion_buffer import EgoMotionBuffer, OdometryStale, WarmingUp
from latentvla_ros.sensing.image_decoding import CompressedImage, ImageError, RawImage
from latentvla_ros.sensing.observation_builder import CameraFrame, ObservationBuilder
from latentvla_ros.sensing.preprocessing import ViewPreprocessor
from latentvla_ros.sensing.rig_file import load_rig
from latentvla_ros.sensing.route_command import route_command
from latentvla_training.data import bag_messages
from latentvla_training.data.bag_messages import (
    COMMAND_TOPIC,
    COMMAND_TYPE,
    IMAGE_TYPES,
    ODOMETRY_TOPIC,
    ODOMETRY_TYPE,
    PATH_TYPE,
    ROUTE_TOPIC,
)
from latentvla_training.data.bag_reader import DriveBagReader, camera_topics
from latentvla_training.data.bag_writer import RIG_FILE
from latentvla_training.data.driven_path import DrivenPath, path_labels
from latentvla_training.data.image_encoding import encode_png
from latentvla_training.data.scene import Scene
from latentvla_training.data.world_adapter import SceneSettings, scene_manifest

logger = logging.getLogger(__name__)

Payload = CompressedImage | RawImage


@dataclass(frozen=True)
class BagTopics:
    """Where a recording keeps what a Scene needs beside the rig's cameras.

    Attributes:
        odometry: nav_msgs/Odometry, needed.
        command: latentvla_msgs/DrivingCommand; without it the route is read.
        route: nav_msgs/Path in the odometry frame; without either, commands are ``unknown``.
        speed_limit_mps: how far ahead a route is read (3 s at this speed).
        command_timeout_s: a command older than this is ``unknown``.
    """

    odometry: str = ODOMETRY_TOPIC
    command: str = COMMAND_TOPIC
    route: str = ROUTE_TOPIC
    speed_limit_mps: float = 13.9
    command_timeout_s: float = 2.0

    def __post_init__(self) -> None:
        for name in ("speed_limit_mps", "command_timeout_s"):
            if not getattr(self, name) > 0:
                raise ContractError(f"bag_topics.{name}", getattr(self, name), "a positive value")


def bag_scenes(
    path: Path | str,
    rig: Rig | Path | str | None = None,
    settings: SceneSettings | None = None,
    topics: BagTopics | None = None,
    network: str | None = None,
) -> Iterator[Scene]:
    """Yield the Scenes of a recording, oldest first.

    Frames that make no Scene (warming up, a required image damaged or missing) are skipped; their
    numbers by cause are logged at the end.

    Args:
        path: rosbag2 folder, or its storage file.
        rig: of the vehicle, or its file; ``rig.yaml`` in the folder by default.
        settings: views, size and stride of the Scenes (the world's by default).
        topics: of odometry, command and route.
        network: unit of bootstrapping; the folder's name by default.

    Raises:
        BagContentError: topics are missing or of another type.
        ContractError: the recording or rig cannot be read, or a camera is not usable.
    """
    folder = Path(path)
    if not isinstance(rig, Rig):
        rig = load_rig(rig or (folder if folder.is_dir() else folder.parent) / RIG_FILE)
    with DriveBagReader(folder, rig) as reader:
        yield from _Importer(
            reader, rig, settings or SceneSettings(), topics or BagTopics(), network or folder.stem
        ).scenes()


def footer_recipe(settings: SceneSettings) -> dict[str, Any]:
    """Return what the footer of a recording's shard says: slots, times and size of its views."""
    known = dataclasses.asdict(settings)
    return {name: known[name] for name in ("views", "image_width", "image_height", "stride_s")}


class _Importer:
    """One pass over an open recording."""

    def __init__(
        self,
        reader: DriveBagReader,
        rig: Rig,
        settings: SceneSettings,
        topics: BagTopics,
        network: str,
    ) -> None:
        self._reader, self._settings, self._topics = reader, settings, topics
        self._network = network
        manifest = scene_manifest(settings)
        used = [
            camera
            for slot in dict.fromkeys(view.slot for view in settings.views)
            if (camera := rig.camera(slot)) is not None
        ]
        required = [camera for camera in used if manifest.slot(camera.slot).required]
        reader.require({topics.odometry: ODOMETRY_TYPE, **camera_topics(required)})
        self._preprocessors = {
            camera.slot: ViewPreprocessor.for_slot(
                manifest.slot(camera.slot),
                model,
                camera.rectified,
                settings.image_width,
                settings.image_height,
            )
            for camera in used
            if (model := reader.camera_models(used).get(camera.slot)) is not None
        }
        self._cameras = {c.topic: c for c in used if c.slot in self._preprocessors}
        self._builder = ObservationBuilder(manifest, rig, self._preprocessors)
        self._synchronizer: CameraSynchronizer[Payload] = CameraSynchronizer.for_rig(
            manifest, dataclasses.replace(rig, cameras=tuple(self._cameras.values()))
        )
        self._driven = DrivenPath(reader.odometry(topics.odometry))
        self._published: dict[str, deque[tuple[int, Payload]]] = {
            slot: deque(maxlen=64) for slot in self._preprocessors
        }
        self._ego = EgoMotionBuffer()
        self._command: tuple[int, Command] | None = None
        self._route: np.ndarray | None = None
        self.skipped: Counter[str] = Counter()

    def scenes(self) -> Iterator[Scene]:
        """Yield the Scenes, and log what was skipped."""
        start_ns = None
        due_ns = 0
        wanted = {
            self._topics.odometry: ODOMETRY_TYPE,
            self._topics.command: COMMAND_TYPE,
            self._topics.route: PATH_TYPE,
            **{topic: IMAGE_TYPES[c.message_type] for topic, c in self._cameras.items()},
        }
        for topic, log_ns, message in self._reader.messages(wanted):
            start_ns = log_ns if start_ns is None else start_ns
            steady_s = (log_ns - start_ns) * 1e-9
            self._take_in(topic, log_ns, steady_s, message)
            frames = self._synchronizer.take(steady_s)
            if frames is None:
                continue
            scene = self._scene(frames, log_ns) if frames.stamp_ns >= due_ns else None
            if scene is None:
                self._remember(frames)
                continue
            due_ns = frames.stamp_ns + round((self._settings.stride_s - 0.05) * 1e9)
            yield scene
        self.skipped.update(self._synchronizer.drops)
        if self.skipped:
            logger.warning("%s: frames without a Scene: %s", self._network, dict(self.skipped))

    def _take_in(self, topic: str, log_ns: int, steady_s: float, message: Any) -> None:
        if topic == self._topics.odometry:
            self._ego.add(*self._reader.base_motion(message))
        elif topic == self._topics.command:
            self._command = (log_ns, _known_command(message.command))
        elif topic == self._topics.route:
            points = [(entry.pose.position.x, entry.pose.position.y) for entry in message.poses]
            self._route = np.asarray(points, np.float64).reshape(-1, 2)
        else:
            camera = self._cameras[topic]
            stamp = bag_messages.stamp_ns(message) + round(camera.time_offset_s * 1e9)
            payload = bag_messages.image_payload(message)
            if self._synchronizer.add(camera.slot, stamp, payload, log_ns, steady_s) is None:
                self._published[camera.slot].append((stamp, payload))

    def _remember(self, frames: FrameSet[Payload]) -> None:
        """Keep what later past views need of a set that became no Scene."""
        for slot, frame in frames.frames.items():
            try:
                self._builder.remember(slot, CameraFrame(frame.stamp_ns, frame.payload))
            except ImageError as error:
                self.skipped[f"{error.cause}_{slot}"] += 1

    def _scene(self, frames: FrameSet[Payload], log_ns: int) -> Scene | None:
        t0_ns = frames.stamp_ns
        try:
            motion = self._ego.at(t0_ns)
            observation = self._builder.build(
                {
                    slot: CameraFrame(frame.stamp_ns, frame.payload)
                    for slot, frame in frames.frames.items()
                },
                self._ego,
                t0_ns,
                self._command_at(log_ns, motion.pose),
            )
            labels = path_labels(self._driven, t0_ns, motion.pose)
        except WarmingUp:
            self.skipped["warming_up"] += 1
            return None
        except OdometryStale:
            self.skipped["odometry_stale"] += 1
            return None
        except ImageError as error:
            self.skipped[f"image_{error.cause}"] += 1
            return None
        return Scene(
            token=f"{self._network}/{t0_ns}",
            network=self._network,
            stamp_ns=t0_ns,
            ego_pose=motion.pose,
            view_jpegs=self._pictures(observation),
            view_mask=observation.view_mask,
            intrinsics=observation.intrinsics,
            ego_from_camera=observation.ego_from_camera,
            ego_history=observation.ego_history,
            ego_history_mask=observation.ego_history_mask,
            ego_dynamics=observation.ego_dynamics,
            ego_dynamics_mask=observation.ego_dynamics_mask,
            command=observation.command,
            labels=labels,
        )

    def _command_at(self, log_ns: int, pose: np.ndarray) -> Command:
        if self._command is not None:
            age_s = (log_ns - self._command[0]) * 1e-9
            if age_s <= self._topics.command_timeout_s:
                return self._command[1]
            return Command.UNKNOWN
        if self._route is not None and len(self._route):
            route_ego = se2.transform_points(se2.inverse(pose), self._route)
            return route_command(route_ego, self._topics.speed_limit_mps)
        return Command.UNKNOWN

    def _pictures(self, observation: Observation) -> tuple[bytes, ...]:
        """Return the views' bytes: as published where preprocessing changes nothing, else PNG."""
        pictures = []
        for index, view in enumerate(self._settings.views):
            stamp = self._builder.view_stamps_ns[index]
            if stamp is None:
                pictures.append(b"")
                continue
            published = next(p for s, p in self._published[view.slot] if s == stamp)
            data = bytes(published.data)
            untouched = self._preprocessors[view.slot].identity
            if untouched and isinstance(published, CompressedImage) and data[:2] == b"\xff\xd8":
                pictures.append(data)
            else:
                pictures.append(encode_png(observation.images[index]))
        return tuple(pictures)


def _known_command(value: int) -> Command:
    return Command(value) if value in list(Command) else Command.UNKNOWN
