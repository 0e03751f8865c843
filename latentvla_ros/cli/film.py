"""The film of a replay: the recording's pictures with the plans that the node made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.cli.bag_file import BagFile, BagMessage
from latentvla_ros.cli.drawing import CameraView, Image
from latentvla_ros.cli.driven_path import DrivenPath
from latentvla_ros.cli.frame_painter import CameraPicture, FilmLayout, FramePainter, Moment
from latentvla_ros.cli.plan_metrics import HORIZON_S
from latentvla_ros.cli.replay_inputs import IMAGE_TYPES, ReplayInputs
from latentvla_ros.contract import CameraModel, Command, LatentActionNames
from latentvla_ros.geometry import se2
from latentvla_ros.geometry.trajectory import constant_turn_rate
from latentvla_ros.nodes.cdr_header import byte_after_header, header_stamp_ns
from latentvla_ros.nodes.recording import RecordedPlan, StatusSample
from latentvla_ros.sensing.image_decoding import CompressedImage, ImageError, RawImage
from latentvla_ros.sensing.preprocessing import ViewPreprocessor

#: Pictures wider than this are shrunk before they are drawn into, pixels.
_MAX_PICTURE_WIDTH = 960
_DRIVEN_STEP_NS = 100_000_000


@dataclass(frozen=True)
class FilmSource:
    """What a film is made of.

    Attributes:
        bag, inputs: the recording and its topics.
        models: intrinsics by slot.
        plans: as recorded; statuses: likewise, for the command of the moment.
        path: the driven path.
        start_ns, end_ns: part of the recording, by time of recording.
    """

    bag: BagFile
    inputs: ReplayInputs
    models: Mapping[str, CameraModel]
    plans: Sequence[RecordedPlan]
    commands: Sequence[tuple[int, int]]
    path: DrivenPath
    start_ns: int
    end_ns: int


def film(
    source: FilmSource, bundle_id: str, names: LatentActionNames | None = None
) -> Iterator[Image]:
    """Yield one picture for each frame of the reference camera, in order.

    Args:
        names: of latent actions, as of the bundle's manifest; None: none are shown.
    """
    reference = source.inputs.rig.reference_camera
    painter = FramePainter(reference, bundle_id, names=names)
    preprocessors = {
        camera.slot: _preprocessor(
            source.models[camera.slot], camera.rectified, camera.slot == reference, painter.layout
        )
        for camera in source.inputs.cameras
    }
    for moment in moments(source, preprocessors):
        yield painter.paint(moment)


def moments(source: FilmSource, preprocessors: Mapping[str, ViewPreprocessor]) -> Iterator[Moment]:
    """Yield what is known at each frame of the reference camera.

    The picture of another camera is its last one before the next reference frame.
    """
    rig = source.inputs.rig
    cameras = {camera.topic: camera for camera in source.inputs.cameras}
    plans = {plan.stamp_ns: plan for plan in source.plans}
    newest: dict[str, BagMessage] = {}
    pending: int | None = None
    for message in source.bag.messages(list(cameras), source.start_ns, source.end_ns):
        camera = cameras[message.topic]
        if camera.slot == rig.reference_camera:
            if pending is not None:
                yield _moment(source, plans, pending, newest, preprocessors)
            pending = header_stamp_ns(message.data) + round(camera.time_offset_s * 1e9)
        newest[camera.slot] = message
    if pending is not None:
        yield _moment(source, plans, pending, newest, preprocessors)


def _moment(
    source: FilmSource,
    plans: Mapping[int, RecordedPlan],
    stamp_ns: int,
    newest: Mapping[str, BagMessage],
    preprocessors: Mapping[str, ViewPreprocessor],
) -> Moment:
    rig, path = source.inputs.rig, source.path
    pose, twist = path.poses_at(stamp_ns)[0], path.twists_at(stamp_ns)[0]
    ahead = np.arange(0, round(HORIZON_S * 1e9) + 1, _DRIVEN_STEP_NS, dtype=np.int64)
    driven = path.poses_at(stamp_ns + ahead)
    pictures: dict[str, CameraPicture] = {}
    for slot, message in newest.items():
        camera = rig.camera(slot)
        if camera is None:
            continue
        view = preprocessors[slot]
        image = np.zeros((view.height, view.width, 3), np.uint8)
        try:
            view.write(image_payload(source.bag, message), image)
        except ImageError:
            continue  # the film says "no image"; the node has counted and named the fault
        pictures[slot] = CameraPicture(image, CameraView(view.intrinsics, camera.ego_from_camera))
    known = bool(np.isfinite(pose).all() and np.isfinite(twist).all())
    return Moment(
        time_s=(stamp_ns - source.bag.start_ns) * 1e-9,
        cameras=pictures,
        plan=plans.get(stamp_ns),
        pose=pose,
        driven=se2.relative(pose, driven) if known else np.full((1, 3), np.nan),
        constant=(
            constant_turn_rate(float(twist[0]), float(twist[2]), HORIZON_S)
            if known
            else np.zeros((0, 3))
        ),
        speed_mps=float(np.hypot(twist[0], twist[1])),
        command=_command_at(source.commands, stamp_ns),
        why_no_plan=_why(source.plans, stamp_ns),
    )


def command_changes(
    statuses: Sequence[StatusSample], bag: BagFile, inputs: ReplayInputs
) -> list[tuple[int, int]]:
    """Return (stamp in ns, command) of every recorded command, else of the node's own statuses.

    A route has no recorded command; the node says in its status what it made of it, which is not
    stamped with t0, so that film shows the last one only.
    """
    if inputs.command is not None:
        changes = []
        for message in bag.messages([inputs.command]):
            try:
                command = byte_after_header(message.data)
            except ValueError:
                continue  # the node has refused it, too
            changes.append((header_stamp_ns(message.data), command))
        return sorted(changes)
    return [(0, statuses[-1].command)] if statuses else []


def _command_at(commands: Sequence[tuple[int, int]], stamp_ns: int) -> int:
    current = int(Command.UNKNOWN)
    for since_ns, command in commands:
        if since_ns > stamp_ns:
            break
        current = command
    return current


def _why(plans: Sequence[RecordedPlan], stamp_ns: int) -> str:
    if not plans or stamp_ns < plans[0].stamp_ns:
        return "warming up"
    return "frame dropped"


def image_payload(bag: BagFile, message: BagMessage) -> CompressedImage | RawImage:
    """Return the undecoded payload of a recorded Image or CompressedImage."""
    decoded = bag.decode(message)
    if bag.topics[message.topic].message_type == IMAGE_TYPES["compressed"]:
        return CompressedImage(decoded.data, decoded.format)
    return RawImage(
        decoded.data,
        decoded.encoding,
        decoded.width,
        decoded.height,
        decoded.step,
        bool(decoded.is_bigendian),
    )


def _preprocessor(
    model: CameraModel, rectified: bool, main: bool, layout: FilmLayout
) -> ViewPreprocessor:
    """Rectify at the recorded size or the film's, the smaller one, in the panel's aspect."""
    panel: tuple[int, int] = (
        (layout.front_width, layout.front_height)
        if main
        else (2 * layout.side_height, layout.side_height)
    )
    width = min(model.width, _MAX_PICTURE_WIDTH)
    height = min(model.height, round(width * panel[1] / panel[0]))
    return ViewPreprocessor(model, rectified, max(width, 2), max(height, 2))


def frame_rate_hz(stamps_ns: NDArray[np.int64]) -> float:
    """Return the rate (1..30 Hz) at which frames with these stamps should be shown."""
    if len(stamps_ns) < 2:
        return 10.0
    period = float(np.median(np.diff(np.sort(stamps_ns)))) * 1e-9
    return float(np.clip(round(1.0 / period) if period > 0 else 10.0, 1.0, 30.0))
