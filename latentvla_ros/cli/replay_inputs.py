"""Which recorded topics feed which input of the planner, checked before anything is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from latentvla_ros.cli.bag_file import BagFile, BagTopic
from latentvla_ros.cli.errors import CommandError
from latentvla_ros.contract import BundleManifest, CameraModel, ContractError, Rig, RigCamera
from latentvla_ros.nodes.cdr_header import header_frame_id
from latentvla_ros.nodes.remaps import rig_remaps
from latentvla_ros.sensing.rig_file import check_rig, load_rig

IMAGE_TYPES = {"raw": "sensor_msgs/msg/Image", "compressed": "sensor_msgs/msg/CompressedImage"}
CAMERA_INFO_TYPE = "sensor_msgs/msg/CameraInfo"
ODOMETRY_TYPE = "nav_msgs/msg/Odometry"
COMMAND_TYPE = "latentvla_msgs/msg/DrivingCommand"
ROUTE_TYPE = "nav_msgs/msg/Path"


@dataclass(frozen=True)
class ReplayInputs:
    """The recorded topics that a replay plays.

    Attributes:
        rig: the vehicle's cameras; rig_path: the file it was read from.
        cameras: those of the rig that the bag has and the bundle uses, the reference camera first.
        absent: slots of the bundle that nothing feeds (all of them optional).
        odometry: topic.
        command: topic, or None.
        route: topic, used where there is no command, or None.
    """

    rig: Rig
    rig_path: Path
    cameras: tuple[RigCamera, ...]
    absent: tuple[str, ...]
    odometry: str
    command: str | None
    route: str | None

    def remaps(self) -> list[tuple[str, str]]:
        """Return (private name, topic) of every input of the planner."""
        remaps = [*rig_remaps(self.rig), ("~/input/odometry", self.odometry)]
        if self.command:
            remaps.append(("~/input/command", self.command))
        elif self.route:
            remaps.append(("~/input/route", self.route))
        return remaps


def find_rig(bag: BagFile, rig_path: str | None) -> tuple[Rig, Path]:
    """Read the rig file that was given, or the one that the recording carries.

    Raises:
        CommandError: there is none, or it is not a valid rig file.
    """
    path = Path(rig_path) if rig_path else bag.rig_path
    if not path.is_file():
        raise CommandError(
            "no-rig",
            f"{path} does not exist" if rig_path else f"{bag.path} carries no rig.yaml",
            "give --rig FILE; config/rig holds examples to start from",
        )
    try:
        return load_rig(path), path
    except ContractError as error:
        raise CommandError("bad-rig", f"{path}: {error}", f"correct {error.field}") from None


def choose_inputs(
    bag: BagFile,
    rig: Rig,
    rig_path: Path,
    manifest: BundleManifest,
    odometry: str | None = None,
    command: str | None = None,
) -> ReplayInputs:
    """Match a recording's topics with a rig and with what a bundle needs.

    Args:
        odometry, command: topics to take; None for the only one of its type in the bag.

    Raises:
        CommandError: a required topic is missing, ambiguous or of another type; a camera is
            outside what the bundle was trained with, or its images name another frame.
    """
    cameras: list[RigCamera] = []
    absent: list[str] = []
    for slot in manifest.slots:
        camera = rig.camera(slot.name)
        required = slot.required or slot.name == rig.reference_camera
        problem = "the rig has no such camera" if camera is None else camera_problem(bag, camera)
        if camera is not None and problem is None:
            cameras.append(camera)
        elif required:
            raise CommandError(
                "missing-topic",
                f"camera {slot.name!r}, which bundle {manifest.bundle_id} needs: {problem}; "
                f"{describe_topics(bag)}",
                f"correct the camera's topics in {rig_path}, or give another bag or --rig FILE",
            )
        else:
            absent.append(slot.name)
    try:
        check_rig(rig, manifest, camera_models(bag, cameras))
    except ContractError as error:
        raise CommandError(
            "rig-outside-bundle",
            str(error),
            f"correct {rig_path}, or give a --bundle that was trained with such a camera",
        ) from None
    _check_image_frames(bag, cameras, rig_path)
    cameras.sort(key=lambda camera: camera.slot != rig.reference_camera)
    odometry = str(_only(bag, ODOMETRY_TYPE, odometry, "--odometry-topic", needed=True))
    _check_twist_frame(bag, odometry, rig, rig_path)
    chosen_command = _only(bag, COMMAND_TYPE, command, "--command-topic", needed=bool(command))
    return ReplayInputs(
        rig=rig,
        rig_path=rig_path,
        cameras=tuple(cameras),
        absent=tuple(absent),
        odometry=odometry,
        command=chosen_command,
        route=None if chosen_command else _only(bag, ROUTE_TYPE, None, "", needed=False),
    )


def camera_problem(bag: BagFile, camera: RigCamera) -> str | None:
    """Say what hinders ``camera`` from being fed by ``bag``; None when nothing does."""
    wanted = [(camera.topic, IMAGE_TYPES[camera.message_type])]
    if camera.model is None and camera.camera_info_topic:
        wanted.append((camera.camera_info_topic, CAMERA_INFO_TYPE))
    for topic, message_type in wanted:
        found = bag.topics.get(topic)
        if found is None or not found.count:
            return f"no messages on {topic} ({message_type})"
        if found.message_type != message_type:
            return f"{topic} is a {found.message_type}, the rig says {message_type}"
    return None


def _check_image_frames(bag: BagFile, cameras: list[RigCamera], rig_path: Path) -> None:
    """Raise CommandError where a camera's first image has another frame_id than the rig says.

    The planner refuses such images one by one: better said before a long replay than after it.
    """
    waiting = {camera.topic: camera for camera in cameras}
    for message in bag.messages(list(waiting)):
        camera = waiting.pop(message.topic, None)
        if camera is None:
            continue
        try:
            frame_id = header_frame_id(message.data)
        except ValueError:
            continue  # a damaged message is the planner's to refuse
        if frame_id != camera.frame_id:
            raise CommandError(
                "wrong-frame-id",
                f"images on {camera.topic} have frame_id {frame_id!r}, camera {camera.slot!r} of "
                f"the rig says {camera.frame_id!r}",
                f"correct frame_id in {rig_path}, if that camera's mounting is right",
            )
        if not waiting:
            return


def _check_twist_frame(bag: BagFile, odometry: str, rig: Rig, rig_path: Path) -> None:
    """Raise CommandError where the odometry's twist is in another frame than the rig says."""
    first = next(bag.messages([odometry]), None)
    child = None if first is None else str(bag.decode(first).child_frame_id)
    if child is not None and child != rig.odometry_child_frame:
        raise CommandError(
            "wrong-twist-frame",
            f"child_frame_id of {odometry} is {child!r}, the rig says {rig.odometry_child_frame!r}",
            f"set odometry.child_frame and odometry.base_from_twist in {rig_path}",
        )


def camera_models(bag: BagFile, cameras: list[RigCamera]) -> Mapping[str, CameraModel]:
    """Return intrinsics by slot: the rig file's, else the bag's first CameraInfo."""
    models = {camera.slot: camera.model for camera in cameras if camera.model is not None}
    infos = {c.camera_info_topic: c for c in cameras if c.model is None and c.camera_info_topic}
    for message in bag.messages([topic for topic in infos if topic]):
        camera = infos.pop(message.topic, None)
        if camera is not None:
            models[camera.slot] = camera_model(bag.decode(message), camera.rectified)
        if not infos:
            break
    return models


def camera_model(info: Any, rectified: bool) -> CameraModel:
    """Return the model of a decoded CameraInfo: P of a rectified image, K and D of a raw one."""
    width, height = int(info.width), int(info.height)
    if rectified:
        projection = np.asarray(info.p, np.float64).reshape(3, 4)
        return CameraModel(width, height, projection[:, :3], "", np.zeros(0))
    return CameraModel(
        width,
        height,
        np.asarray(info.k, np.float64).reshape(3, 3),
        str(info.distortion_model),
        np.asarray(info.d, np.float64).ravel(),
    )


def _only(
    bag: BagFile, message_type: str, asked: str | None, option: str, needed: bool
) -> str | None:
    """Return ``asked``, or the only topic of ``message_type``."""
    found = bag.of_type(message_type)
    if asked is not None:
        if asked in found:
            return asked
        topic = bag.topics.get(asked, BagTopic(asked, "absent", 0))
        raise CommandError(
            "missing-topic",
            f"{asked} ({message_type}) is {topic.message_type} in {bag.path}; "
            f"{describe_topics(bag)}",
            f"give {option} with one of {', '.join(found) or 'another bag: it has none'}",
        )
    if len(found) == 1 or (found and not needed):
        return found[0]
    if not needed:
        return None
    if found:
        raise CommandError(
            "ambiguous-topic",
            f"{bag.path} has {len(found)} topics of type {message_type}: {', '.join(found)}",
            f"choose one with {option}",
        )
    raise CommandError(
        "missing-topic",
        f"{bag.path} has no messages of type {message_type}; {describe_topics(bag)}",
        "record the vehicle's odometry too",
    )


def describe_topics(bag: BagFile, most: int = 8) -> str:
    """List the topics of a bag in a few words."""
    names = sorted(topic.name for topic in bag.topics.values() if topic.count)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"the bag has {', '.join(names[:most])}{more}"
