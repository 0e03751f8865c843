"""The whole replay: real planner and gate in their own processes, a small recording over DDS."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import drive_bag
import numpy as np
import onnx
import pytest
import tiny_bundle
from rosbags.rosbag2 import StoragePlugin

from latentvla_ros.runtime.bundle import manifest_from_json, sha256_of, write_manifest

pytestmark = pytest.mark.ros

#: What a frame is lost to on a busy machine.
BUSY = ("superseded", "overflow", "plan_too_old")

DRIVE = drive_bag.Drive(duration_s=7.0, speed=6.0, yaw_rate=0.05)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle.write_bundle(tmp_path_factory.mktemp("bundle"))


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    # Where the tests run in the background of a shell SIGINT is ignored, and children inherit it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "latentvla_ros.cli.main", "replay", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)


def finish(process: subprocess.Popen[str], timeout_s: float = 120.0) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"the replay did not end: {out}\n{err}")
    return process.returncode, out, err


def nodes_alive(rig: Path) -> list[int]:
    """Return planner processes that were given this rig file."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if "planner_node" in words and str(rig) in words:
                found.append(int(entry.name))
    return found


@pytest.mark.slow
@pytest.mark.real_time
def test_a_drive_is_planned_gated_scored_and_filmed(bundle: Path, tmp_path: Path) -> None:
    bag = drive_bag.record_drive(tmp_path / "bag", DRIVE)
    out = tmp_path / "out"
    code, printed, errors = finish(start(bag, "--bundle", bundle, "--out", out))
    assert code == 0, errors
    result = json.loads((out / "result.json").read_text())
    assert result["frames"] == 70
    # A busy machine may lose frames, which are counted; how long it takes is no matter here.
    lost = sum(result["drops"].get(cause, 0) for cause in BUSY)
    received = result["cameras"]["front"]["received"]
    assert received - 25 - lost <= result["plans"] <= 56  # 1.5 s of warming up
    assert result["plans"] + sum(result["drops"].values()) == received
    assert 65 <= received <= 70 and result["cameras"]["left"]["received"] >= 60
    assert result["plan_rate_hz"] == pytest.approx(10.0, abs=0.7) or lost
    assert result["gate"]["passed"] >= result["plans"] - 3 - lost
    assert result["gate"]["stops"] == {}
    assert result["exit_codes"] == {"planner": 0, "gate": 0}
    assert result["image_to_plan_ms"]["p50"] > 0.0
    # Straight on at constant speed, on a circle of 120 m: the error at 4 s is known.
    angle = DRIVE.yaw_rate * 4.0
    radius = DRIVE.speed / DRIVE.yaw_rate
    expected = np.hypot(radius * np.sin(angle) - DRIVE.speed * 4.0, radius * (1 - np.cos(angle)))
    assert result["fde_m"] == pytest.approx(expected, abs=0.15)
    assert result["constant_turn_rate"]["fde_m"] == pytest.approx(0.0, abs=0.05)
    with np.load(out / "plans.npz") as plans:
        assert plans["knots"].shape == (result["plans"], 8, 3)
        assert (np.diff(plans["stamps_ns"]) > 0).all()
    assert (out / result["video"]).stat().st_size > 10_000
    assert "<svg" in (out / "report.html").read_text()
    assert "ADE / FDE" in printed
    assert nodes_alive(bag / "rig.yaml") == []


@pytest.mark.real_time
def test_a_part_of_an_sqlite_bag_at_half_its_pace(bundle: Path, tmp_path: Path) -> None:
    bag = drive_bag.record_drive(tmp_path / "bag", DRIVE, storage=StoragePlugin.SQLITE3)
    out = tmp_path / "out"
    code, _, errors = finish(
        start(
            *(bag, "--bundle", bundle, "--out", out, "--no-video"),
            *("--rate", "0.5", "--start", "1", "--duration", "3.5"),
        )
    )
    assert code == 0, errors
    result = json.loads((out / "result.json").read_text())
    assert result["frames"] == 35
    assert result["plans"] >= 15 - sum(result["drops"].get(cause, 0) for cause in BUSY)
    assert result["wall_s"] > 6.5  # 7 s; 3.5 s at the recorded pace
    assert "video" not in result


def test_interrupting_it_stops_the_nodes(bundle: Path, tmp_path: Path) -> None:
    bag = drive_bag.record_drive(tmp_path / "bag", DRIVE)
    process = start(bag, "--bundle", bundle, "--out", tmp_path / "out")
    deadline = time.monotonic() + 60.0
    while "is ready" not in _log(tmp_path / "out/planner.log"):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    assert nodes_alive(bag / "rig.yaml")
    os.kill(process.pid, signal.SIGINT)
    code, _, errors = finish(process, 30.0)
    assert code == 130
    assert "Traceback" not in errors and "interrupted" in errors
    assert nodes_alive(bag / "rig.yaml") == []


def test_a_model_that_does_not_load_is_told_in_one_line(tmp_path: Path) -> None:
    bundle = tiny_bundle.write_bundle(tmp_path / "bundle")
    model = onnx.load(bundle / "model.onnx")
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, str(bundle / "model.onnx"))
    manifest = manifest_from_json((bundle / "manifest.json").read_text())
    hashes = {"model.onnx": sha256_of(bundle / "model.onnx")}
    write_manifest(replace(manifest, files=hashes), bundle)
    bag = drive_bag.record_drive(tmp_path / "bag", drive_bag.Drive(duration_s=0.5))
    code, _, errors = finish(start(bag, "--bundle", bundle, "--out", tmp_path / "out"))
    assert code == 2
    lines = [line for line in errors.splitlines() if line.startswith("latentvla: error")]
    assert len(lines) == 1 and "Traceback" not in errors
    assert "NoSuchOperator" in lines[0] or "model.onnx" in lines[0]
    assert nodes_alive(bag / "rig.yaml") == []


def _log(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
