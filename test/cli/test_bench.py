"""The benchmark's own parts: real observations, repeated frames, a rig for any bundle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import drive_bag
import numpy as np
import pytest
import tiny_bundle
from hypothesis import given
from hypothesis import strategies as st

from latentvla_ros.cli.bag_file import BagFile
from latentvla_ros.cli.bench_backend import bench_backend, observations
from latentvla_ros.cli.replay_inputs import choose_inputs, find_rig
from latentvla_ros.contract import Command
from latentvla_ros.nodes.cdr_header import header_stamp_ns
from latentvla_ros.runtime.bundle import load_bundle
from latentvla_ros.sensing.rig_file import check_rig


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle.write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BagFile]:
    folder = tmp_path_factory.mktemp("bags") / "drive"
    with BagFile(drive_bag.record_drive(folder, drive_bag.Drive(duration_s=2.5))) as opened:
        yield opened


def test_observations_are_those_of_the_drive(bag: BagFile, bundle: Path) -> None:
    manifest = load_bundle(bundle).manifest
    inputs = choose_inputs(bag, *find_rig(bag, None), manifest)
    made = list(observations(bag, inputs, manifest))
    assert 8 <= len(made) <= 12  # 2.5 s at 10 Hz, less 1.5 s of warming up
    last = made[-1]
    assert last.view_mask.all()
    assert last.images[0].mean() > 50
    assert last.ego_dynamics[0] == pytest.approx(8.0, abs=0.2)
    assert last.command.tolist() == Command.STRAIGHT.one_hot().tolist()


def test_backend_times_are_measured(bag: BagFile, bundle: Path) -> None:
    loaded = load_bundle(bundle)
    inputs = choose_inputs(bag, *find_rig(bag, None), loaded.manifest)
    times = bench_backend(bag, inputs, loaded, "onnxruntime", 1, 20)
    assert times.plans == 20 and times.backend == "onnxruntime"
    assert 0.0 < times.cpu_mean_ms < 50.0


@pytest.mark.ros
@given(st.integers(1, 5), st.integers(1, 12))
def test_repeated_frames_are_newly_stamped_and_in_order(repeat: int, frames: int) -> None:
    from latentvla_ros.cli.bench_node import repeated
    from latentvla_ros.nodes.replay_player import TimedMessage

    period = 100_000_000

    def played() -> Iterator[TimedMessage]:
        for index in range(frames):
            due = index * period
            yield TimedMessage(due + 5, "/odom", due, bytes(20))
            yield TimedMessage(due + 9, "/image", due, b"\x00\x01" + bytes(18))

    sent = list(repeated(played(), frozenset(["/image"]), repeat, period))
    dues = [message.due_ns for message in sent]
    assert dues == sorted(dues)
    images = [message for message in sent if message.topic == "/image"]
    assert len(images) == frames * repeat and len(sent) == frames * (repeat + 1)
    stamps = [message.stamp_ns for message in images]
    assert stamps == [
        i * period + c * period // repeat for i in range(frames) for c in range(repeat)
    ]
    assert all(header_stamp_ns(m.data) == m.stamp_ns for m in images if m.stamp_ns % period)


def test_a_rig_is_found_for_any_bundle(bundle: Path) -> None:
    from latentvla_ros.cli.bench_cameras import rig_for

    manifest = load_bundle(bundle).manifest
    rig = rig_for(manifest)
    check_rig(rig, manifest)
    assert [camera.slot for camera in rig.cameras] == [slot.name for slot in manifest.slots]


def test_the_bench_picture_has_a_drivers_size() -> None:
    from latentvla_ros.cli.bench_cameras import street_jpeg

    data = street_jpeg()
    assert 120_000 < len(data) < 220_000
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None and image.shape == (900, 1600, 3)


def test_starving_counts_while_pictures_come_and_not_before_or_after() -> None:
    from latentvla_ros.cli.bench_cameras import camera_counts
    from latentvla_ros.nodes.recording import (
        CameraHealth,
        DiagnosticSample,
        Recording,
        StatusSample,
    )

    def status(time_s: float, rates: dict[str, float]) -> StatusSample:
        best = max(rates.values())
        cameras = {
            slot: CameraHealth(f"/{slot}", int(10 * rate), 0, 0, rate, rate <= best / 2)
            for slot, rate in rates.items()
        }
        return StatusSample(
            *(time_s, "active", 2, "", "", "", "b", "onnxruntime", 0, 0, 0.0, {}, cameras),
            *(0, 3, {}),
        )

    silent = {"front": 0.0, "left": 0.0, "right": 0.0}
    fed = {"front": 10.0, "left": 2.0, "right": 10.0}
    rates = {0: silent, 1: fed, 2: fed, 3: fed, 4: fed, 5: silent}
    diagnostics = [
        DiagnosticSample(time_s, "planner: camera left", 1, "starving", {}) for time_s in (0, 3, 4)
    ]
    diagnostics.append(DiagnosticSample(0.5, "planner: camera right", 1, "starving", {}))
    diagnostics.append(DiagnosticSample(3.5, "planner: camera front", 0, "fine", {}))
    recording = Recording(
        statuses=[status(float(t), r) for t, r in rates.items()], diagnostics=diagnostics
    )
    recording.statuses.append(status(6.0, {"front": 8.0, "left": 2.0, "right": 8.0}))
    counts = camera_counts("x", drive_bag.rig(), recording, 80, 1000)
    assert counts.starving == ["left"]
    assert counts.diagnostics == ["planner: camera left: starving"]
    assert counts.received == {"front": 80, "left": 20, "right": 80}
