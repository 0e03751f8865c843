"""Processor time of the backend alone, on real observations made from a recording."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from latentvla_ros.cli.bag_file import BagFile, BagMessage
from latentvla_ros.cli.film import image_payload
from latentvla_ros.cli.replay_inputs import ReplayInputs, camera_models
from latentvla_ros.contract import BundleManifest, Command, Observation
from latentvla_ros.nodes.cdr_header import byte_after_header, header_stamp_ns
from latentvla_ros.runtime.backend import create_backend
from latentvla_ros.runtime.bundle import Bundle
from latentvla_ros.runtime.planner import Planner
from latentvla_ros.sensing.ego_motion_buffer import (
    EgoMotionBuffer,
    OdometryStale,
    WarmingUp,
    in_base_frame,
)
from latentvla_ros.sensing.image_decoding import ImageError
from latentvla_ros.sensing.observation_builder import CameraFrame, ObservationBuilder
from latentvla_ros.sensing.preprocessing import ViewPreprocessor

#: Calls before the measurement starts: caches and clocks settle.
_WARM_UP_CALLS = 5


@dataclass(frozen=True)
class BackendTimes:
    """Process CPU (all threads) and wall time of the calls of one backend, ms.

    Attributes:
        backend, threads: what ran. plans: calls measured.
        cpu_mean_ms, cpu_median_ms, wall_median_ms, wall_p99_ms: per call.
        observation_cpu_ms: decoding, preprocessing and the rest of an observation, mean.
    """

    backend: str
    threads: int
    plans: int
    cpu_mean_ms: float
    cpu_median_ms: float
    wall_median_ms: float
    wall_p99_ms: float
    observation_cpu_ms: float


def bench_backend(
    bag: BagFile, inputs: ReplayInputs, bundle: Bundle, backend: str, threads: int, plans: int
) -> BackendTimes:
    """Time ``Planner.plan`` on observations of the recording, repeated until ``plans`` were made.

    Raises:
        CommandError, ContractError: the recording, bundle or backend cannot be used.
    """
    planner = Planner(bundle, create_backend(backend, threads))
    cpu: list[float] = []
    wall: list[float] = []
    building: list[float] = []
    calls = 0
    while calls < plans + _WARM_UP_CALLS:
        before = calls
        built = time.process_time()
        for observation in observations(bag, inputs, bundle.manifest):
            building.append(time.process_time() - built)
            cpu_start, wall_start = time.process_time(), time.perf_counter()
            planner.plan(observation)
            cpu.append(time.process_time() - cpu_start)
            wall.append(time.perf_counter() - wall_start)
            calls += 1
            if calls >= plans + _WARM_UP_CALLS:
                break
            built = time.process_time()
        if calls == before:
            raise ValueError(f"{bag.path}: no frame gave an observation")
    planner.backend.close()
    cpu_ms, wall_ms = (np.asarray(v[_WARM_UP_CALLS:]) * 1e3 for v in (cpu, wall))
    return BackendTimes(
        backend=planner.backend.name,
        threads=threads,
        plans=len(cpu_ms),
        cpu_mean_ms=float(cpu_ms.mean()),
        cpu_median_ms=float(np.median(cpu_ms)),
        wall_median_ms=float(np.median(wall_ms)),
        wall_p99_ms=float(np.percentile(wall_ms, 99)),
        observation_cpu_ms=float(np.median(building)) * 1e3,
    )


def observations(
    bag: BagFile, inputs: ReplayInputs, manifest: BundleManifest
) -> Iterator[Observation]:
    """Yield the observation of every reference frame that the odometry and the cameras cover.

    The other cameras give their newest frame within half a period, as in a recording without loss.
    An observation's images are valid until a few further ones were made.
    """
    rig = inputs.rig
    models = camera_models(bag, list(inputs.cameras))
    builder = ObservationBuilder(
        manifest,
        rig,
        {
            camera.slot: ViewPreprocessor.for_slot(
                manifest.slot(camera.slot),
                models[camera.slot],
                camera.rectified,
                manifest.image_width,
                manifest.image_height,
            )
            for camera in inputs.cameras
        },
    )
    motion = EgoMotionBuffer()
    slots = {camera.topic: camera for camera in inputs.cameras}
    command = Command.UNKNOWN
    newest: dict[str, CameraFrame] = {}
    pending: int | None = None
    topics = [*slots, inputs.odometry, *([inputs.command] if inputs.command else [])]
    for message in bag.messages(topics):
        if message.topic == inputs.odometry:
            _add_odometry(motion, bag.decode(message), rig.base_from_twist)
            continue
        if message.topic == inputs.command:
            command = Command(byte_after_header(message.data))
            continue
        camera = slots[message.topic]
        stamp_ns = header_stamp_ns(message.data) + round(camera.time_offset_s * 1e9)
        if camera.slot == rig.reference_camera:
            if pending is not None:
                yield from _built(builder, newest, motion, pending, command)
            pending = stamp_ns
        newest[camera.slot] = _frame(bag, message, stamp_ns)
    if pending is not None:
        yield from _built(builder, newest, motion, pending, command)


def _built(
    builder: ObservationBuilder,
    frames: dict[str, CameraFrame],
    motion: EgoMotionBuffer,
    t0_ns: int,
    command: Command,
) -> Iterator[Observation]:
    """Yield the observation at t0, or nothing while the inputs do not reach back far enough."""
    reference = builder.rig.reference_camera
    near = {slot: f for slot, f in frames.items() if abs(f.stamp_ns - t0_ns) <= 50_000_000}
    try:
        yield builder.build(near, motion, t0_ns, command)
    except WarmingUp:
        if reference in near:
            builder.remember(reference, near[reference])
    except (OdometryStale, ImageError):
        return


def _frame(bag: BagFile, message: BagMessage, stamp_ns: int) -> CameraFrame:
    return CameraFrame(stamp_ns, image_payload(bag, message))


def _add_odometry(motion: EgoMotionBuffer, message: Any, offset: Any) -> None:
    stamp, position = message.header.stamp, message.pose.pose.position
    q, twist = message.pose.pose.orientation, message.twist.twist
    yaw = np.arctan2(2.0 * (q.w * q.z + q.x * q.y), 1.0 - 2.0 * (q.y * q.y + q.z * q.z))
    pose, moved = in_base_frame(
        (position.x, position.y, yaw), (twist.linear.x, twist.linear.y, twist.angular.z), offset
    )
    motion.add(int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec), pose, moved)
