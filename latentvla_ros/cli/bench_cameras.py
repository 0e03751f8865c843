"""How many pictures of six cameras reach the planner, with and without the shipped DDS profile."""

from __future__ import annotations

import math
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from latentvla_ros.cli.dds_profile import VARIABLES, profile_variable
from latentvla_ros.cli.errors import CommandError
from latentvla_ros.cli.node_process import NodeProcess
from latentvla_ros.cli.replay_inputs import ODOMETRY_TYPE
from latentvla_ros.cli.replay_session import NodeSettings, ReplaySession, node_environment
from latentvla_ros.contract import BundleManifest, CameraModel, Rig, RigCamera
from latentvla_ros.data import data_path
from latentvla_ros.geometry import camera, se3
from latentvla_ros.nodes.remaps import rig_remaps
from latentvla_ros.sensing.rig_file import save_rig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from latentvla_ros.nodes.recording import Recording
    from latentvla_ros.nodes.replay_player import TimedMessage

WIDTH, HEIGHT, RATE_HZ = 1600, 900, 10.0
_ODOMETRY = "/bench/odometry"
_ODOMETRY_RATE_HZ = 100
_WARNING = 1


@dataclass(frozen=True)
class CameraCounts:
    """Pictures sent and received by camera slot in one arrangement.

    Attributes:
        arrangement: in words. image_bytes: size of each JPEG.
        sent, received: by slot.
        starving: slots that the planner's status called starving while pictures came.
        diagnostics: texts of /diagnostics that were not OK and name a camera, the commonest first.
        plans: published meanwhile.
    """

    arrangement: str
    image_bytes: int
    sent: dict[str, int]
    received: dict[str, int]
    starving: list[str]
    diagnostics: list[str]
    plans: int

    def document(self) -> dict[str, Any]:
        """Return the record for JSON."""
        return asdict(self)


ARRANGEMENTS = (
    ("one process with the profile", True, False),
    ("one process without it", False, False),
    ("one process a camera without it", False, True),
)


def bench_cameras(
    bundle: str, manifest: BundleManifest, backend: str, seconds: float
) -> list[CameraCounts]:
    """Send pictures to a planner in every arrangement of publishers.

    Args:
        bundle, manifest: of a model with the cameras to try, trained or not.
        seconds: of pictures in each arrangement.

    Raises:
        CommandError: the bundle has one camera only, or a process ended.
    """
    if len(manifest.slots) < 2:
        raise CommandError(
            "one-camera", f"bundle {manifest.bundle_id} has one camera", "give one with six slots"
        )
    with tempfile.TemporaryDirectory(prefix="latentvla-") as name:
        folder = Path(name)
        rig = rig_for(manifest)
        save_rig(rig, folder / "rig.yaml")
        picture = folder / "picture.jpg"
        picture.write_bytes(street_jpeg())
        return [
            _measure(words, profile, apart, bundle, rig, folder, backend, seconds)
            for words, profile, apart in ARRANGEMENTS
        ]


def _measure(
    arrangement: str,
    with_profile: bool,
    apart: bool,
    bundle: str,
    rig: Rig,
    folder: Path,
    backend: str,
    seconds: float,
) -> CameraCounts:
    settings = NodeSettings(
        bundle=bundle,
        rig=str(folder / "rig.yaml"),
        remaps=(*rig_remaps(rig), ("~/input/odometry", _ODOMETRY)),
        parameters={"backend": backend, "threads": "1"},
        simulated_time=False,
        log_folder=folder,
        ros_log_folder=folder,
        publisher_profile=None,  # of the player, which sends odometry alone
    )
    environment = node_environment(settings) | dict.fromkeys(VARIABLES)
    if with_profile:
        environment[profile_variable()] = str(data_path("fastdds.xml"))
    pairs = [f"{mounted.topic}={mounted.frame_id}" for mounted in rig.cameras]
    groups = [[pair] for pair in pairs] if apart else [pairs]
    from latentvla_ros.nodes.replay_player import Stream

    with ExitStack() as stack:
        session = stack.enter_context(
            ReplaySession(settings, [Stream(_ODOMETRY, ODOMETRY_TYPE, depth=100)])
        )
        session.get_ready(0)
        sources = [
            stack.enter_context(
                NodeProcess(
                    f"image source {index}",
                    "latentvla_ros.nodes.image_source",
                    [
                        "--image",
                        str(folder / "picture.jpg"),
                        "--rate",
                        str(RATE_HZ),
                        "--seconds",
                        str(seconds),
                        *group,
                    ],
                    environment,
                    folder / f"source{index}.log",
                )
            )
            for index, group in enumerate(groups)
        ]
        _wait_for(session, sources)
        session.play(_standing_odometry(seconds + 1.0), 0, 1.0)
        session.settle(1.0)
        recording = session.finish()
    size = (folder / "picture.jpg").stat().st_size
    return camera_counts(arrangement, rig, recording, round(seconds * RATE_HZ), size)


def _wait_for(session: ReplaySession, sources: list[NodeProcess]) -> None:
    """Wait until every source has its subscribers; they start within two periods of that."""
    deadline = time.monotonic() + 40.0
    while not all("ready" in source.last_lines() for source in sources):
        session.check()
        for source in sources:
            source.check()
        if time.monotonic() > deadline:
            raise CommandError("no-pictures", "a picture source did not start", "try again")
        time.sleep(0.02)


def camera_counts(
    arrangement: str, rig: Rig, recording: Recording, sent: int, image_bytes: int
) -> CameraCounts:
    """Count what arrived in one arrangement, and what the planner said about it meanwhile.

    Args:
        sent: pictures of each camera. image_bytes: size of each.
    """
    slots = [mounted.slot for mounted in rig.cameras]
    # A node that is not configured yet, or no longer, has no cameras to speak of.
    statuses = [status for status in recording.statuses if set(slots) <= set(status.cameras)]
    if not statuses:
        raise CommandError("no-status", "the planner said nothing of its cameras", "try again")
    last = statuses[-1]
    sending = [
        status
        for status in statuses
        if max(status.cameras[slot].rate_hz for slot in slots) > RATE_HZ / 2
    ]
    texts: Counter[str] = Counter()
    if sending:
        # Rates are those of the last seconds: they mean something from the second one on.
        since_s, until_s = sending[0].received_s + 1.0, sending[-1].received_s
        sending = [status for status in sending if status.received_s >= since_s]
        texts.update(
            f"{sample.name}: {sample.message}"
            for sample in recording.diagnostics
            if sample.level >= _WARNING
            and since_s <= sample.received_s <= until_s
            and any(slot in f"{sample.name} {sample.message}" for slot in slots)
        )
    seen = {slot: sum(status.cameras[slot].starving for status in sending) for slot in slots}
    return CameraCounts(
        arrangement=arrangement,
        image_bytes=image_bytes,
        sent=dict.fromkeys(slots, sent),
        received={slot: last.cameras[slot].received for slot in slots},
        starving=[slot for slot in slots if seen[slot] * 2 > len(sending)],
        diagnostics=[words for words, _ in texts.most_common(6)],
        plans=len(recording.plans),
    )


def rig_for(manifest: BundleManifest) -> Rig:
    """Return a rig in the middle of what a bundle accepts, with 1600x900 JPEG cameras."""
    cameras = []
    for slot in manifest.slots:
        xyz = [sum(bounds) / 2 for bounds in (slot.x_range_m, slot.y_range_m, slot.z_range_m)]
        pitch = math.radians(sum(slot.pitch_range_deg) / 2)
        cameras.append(
            RigCamera(
                slot=slot.name,
                topic=f"/bench/{slot.name}/compressed",
                camera_info_topic=None,
                message_type="compressed",
                frame_id=f"{slot.name}_optical",
                ego_from_camera=se3.camera_mount(xyz, math.radians(slot.yaw_deg), pitch),
                model=CameraModel(
                    WIDTH,
                    HEIGHT,
                    camera.pinhole_matrix(slot.horizontal_fov_deg, WIDTH, HEIGHT),
                    "",
                    np.zeros(0),
                ),
            )
        )
    reference = next(view.slot for view in manifest.views if view.time_offset_s == 0)
    return Rig("bench", "base_link", reference, tuple(cameras))


def street_jpeg() -> bytes:
    """Return a 1600x900 JPEG of about 160 KB, as much detail as a street has at quality 80."""
    rng = np.random.default_rng(7)
    image = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    for scale, strength in ((200, 60.0), (50, 35.0), (12, 22.0), (3, 5.0)):
        coarse = rng.normal(size=(HEIGHT // scale + 2, WIDTH // scale + 2, 3)).astype(np.float32)
        image += strength * cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    pixels = np.clip(image + 120.0, 0, 255).astype(np.uint8)
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 80])[1])


def _standing_odometry(seconds: float) -> Iterator[TimedMessage]:
    """Yield odometry of a vehicle that stands, 100 Hz, due from 0."""
    from latentvla_ros.nodes.replay_player import TimedMessage, standing_odometry

    data = standing_odometry("base_link")
    for index in range(round(seconds * _ODOMETRY_RATE_HZ)):
        due_ns = index * 1_000_000_000 // _ODOMETRY_RATE_HZ
        yield TimedMessage(due_ns, _ODOMETRY, due_ns, data)
