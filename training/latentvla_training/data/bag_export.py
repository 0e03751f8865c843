"""An episode of the built-in world as a recording: what its ego's sensors would have published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from latentvla_ros.contract import Command, ContractError
from latentvla_training.data.bag_writer import (
    IMAGE_LATENCY_NS,
    ODOMETRY_LATENCY_NS,
    DriveBagWriter,
)
from latentvla_training.data.episode_signals import (
    EpisodeCameras,
    OdometryNoise,
    episode_odometry,
    step_stamp_ns,
)
from latentvla_training.data.image_encoding import JPEG_QUALITY
from latentvla_training.data.labels import RouteProgress
from latentvla_training.world.episode import STEP_S, Episode
from latentvla_training.world.rig import IMAGE_HEIGHT, IMAGE_WIDTH, default_rig

if TYPE_CHECKING:
    from latentvla_training.world.cameras import Renderer

#: Cameras of a vehicle are never exposed at quite the same time (ns after the front camera).
DEFAULT_SKEW_NS: Mapping[str, int] = MappingProxyType({"left": 4_000_000, "right": -3_000_000})
#: Time of recording, and what to write then.
Event = tuple[int, Callable[[], None]]

#: A command is repeated this often, and sent when it changes; a route comes at the same rate.
_REPEAT_STEPS = 10


@dataclass(frozen=True)
class BagSummary:
    """What was exported: the folder, seconds of driving, pictures, bytes on disk."""

    path: Path
    duration_s: float
    images: int
    size_bytes: int


def export_bag(
    episode: Episode,
    path: Path | str,
    width: int = IMAGE_WIDTH,
    height: int = IMAGE_HEIGHT,
    start_s: float = 0.0,
    duration_s: float | None = None,
    skew_ns: Mapping[str, int] = DEFAULT_SKEW_NS,
    renderer: Renderer | None = None,
    noise: OdometryNoise | None = None,
    jpeg_quality: int = JPEG_QUALITY,
    route: bool = True,
) -> BagSummary:
    """Record an episode into a rosbag2 folder (MCAP) with its ``rig.yaml``.

    Cameras at 10 Hz (CompressedImage, CameraInfo), odometry at 50 Hz, DrivingCommand when it
    changes and every second. The front camera's stamps are the episode's steps. The same arguments
    give the same bytes.

    Args:
        episode: the state log.
        path: folder to make.
        width, height: pixels of the pictures.
        start_s, duration_s: part of the episode; to its end by default.
        skew_ns: exposure of other cameras after the front one, by slot.
        renderer: of the episode's network, where the caller has one.
        noise: of the odometry's twist.
        jpeg_quality: 1 to 100.
        route: also record the route ahead as nav_msgs/Path, every second.

    Raises:
        ContractError: the part lies outside the episode, or the skew names no camera or more than
            half a frame.
        FileExistsError: there is something at ``path`` already.
        DiskFullError: no space left; nothing of the recording stays.
    """
    rig = default_rig(width, height)
    first, last = _steps(episode, start_s, duration_s)
    for slot, skew in skew_ns.items():
        if rig.camera(slot) is None or slot == rig.reference_camera or abs(skew) >= 50_000_000:
            raise ContractError(
                f"skew_ns[{slot}]", skew, "a camera but the reference, within half a frame (50 ms)"
            )
    if renderer is None:
        from latentvla_training.world.cameras import Renderer
        from latentvla_training.world.networks import build_road_map

        renderer = Renderer(build_road_map(episode.network))
    cameras = EpisodeCameras(renderer, episode, rig, jpeg_quality)
    with DriveBagWriter(path, rig) as bag:
        events: list[Event] = [
            (stamp + ODOMETRY_LATENCY_NS, partial(bag.odometry, stamp, pose, twist))
            for stamp, pose, twist in episode_odometry(episode, noise)
            if step_stamp_ns(first) <= stamp <= step_stamp_ns(last)
        ]
        events += _command_events(bag, episode, first, last)
        if route:
            events += _route_events(bag, episode, first, last)
        for step in range(first, last + 1):
            for camera in rig.cameras:
                skew = skew_ns.get(camera.slot, 0)
                stamp = step_stamp_ns(step) + skew
                write_image = partial(_write_image, bag, cameras, camera.slot, step, skew)
                events.append((stamp + IMAGE_LATENCY_NS, write_image))
        for _, write in sorted(events, key=lambda event: event[0]):
            write()
    folder = Path(path)
    return BagSummary(
        path=folder,
        duration_s=(last - first) * STEP_S,
        images=(last - first + 1) * len(rig.cameras),
        size_bytes=sum(file.stat().st_size for file in folder.iterdir()),
    )


def _steps(episode: Episode, start_s: float, duration_s: float | None) -> tuple[int, int]:
    first = round(start_s / STEP_S)
    last = episode.num_steps - 1 if duration_s is None else first + round(duration_s / STEP_S)
    if not 0 <= first < last < episode.num_steps:
        raise ContractError(
            "start_s, duration_s",
            (start_s, duration_s),
            f"a part of the episode's {(episode.num_steps - 1) * STEP_S:g} s",
        )
    return first, last


def _write_image(
    bag: DriveBagWriter, cameras: EpisodeCameras, slot: str, step: int, skew_ns: int
) -> None:
    bag.image(slot, step_stamp_ns(step) + skew_ns, cameras.jpeg(slot, step, skew_ns))


def _command_events(bag: DriveBagWriter, episode: Episode, first: int, last: int) -> list[Event]:
    events: list[Event] = []
    for step in range(first, last + 1):
        changed = step == first or episode.command[step - 1] != episode.command[step]
        if changed or (step - first) % _REPEAT_STEPS == 0:
            stamp = step_stamp_ns(step)
            events.append((stamp, partial(bag.command, stamp, Command(int(episode.command[step])))))
    return events


def _route_events(bag: DriveBagWriter, episode: Episode, first: int, last: int) -> list[Event]:
    progress = RouteProgress(episode)
    return [
        (
            step_stamp_ns(step),
            partial(bag.route, step_stamp_ns(step), progress.centerline(step)),
        )
        for step in range(first, last + 1, _REPEAT_STEPS)
    ]
