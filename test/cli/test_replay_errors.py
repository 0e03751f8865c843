"""What a user can get wrong is one line with a name and a next step, exit code 2, no traceback."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import drive_bag
import pytest
import tiny_bundle

from latentvla_ros.cli.bag_file import BagFile
from latentvla_ros.cli.main import main
from latentvla_ros.cli.replay_inputs import choose_inputs, find_rig
from latentvla_ros.runtime.bundle import load_bundle
from latentvla_ros.sensing.rig_file import save_rig

SHORT = drive_bag.Drive(duration_s=0.5)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle.write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drive_bag.record_drive(tmp_path_factory.mktemp("bags") / "whole", SHORT)


Fails = Callable[..., str]


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str], bundle: Path, tmp_path: Path) -> Fails:
    """Run a command that must fail and return its one line."""

    def run(*arguments: str | Path, command: str = "replay") -> str:
        words = [command, *(str(a) for a in arguments)]
        if "--bundle" not in words:
            words += ["--bundle", str(bundle)]
        if command == "replay":
            words += ["--out", str(tmp_path / "out")]
        assert main(words) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("latentvla: error: ") and " Next: " in lines[0]
        return lines[0]

    return run


def test_an_absent_bag(fails: Fails, tmp_path: Path) -> None:
    assert "no-such-bag" in fails(tmp_path / "absent")


def test_a_bag_without_odometry(fails: Fails, tmp_path: Path) -> None:
    bag = drive_bag.record_drive(tmp_path / "bag", SHORT, leave_out=[drive_bag.ODOMETRY])
    line = fails(bag)
    assert "missing-topic" in line and "nav_msgs/msg/Odometry" in line and "/command" in line


def test_a_bag_without_the_required_camera(fails: Fails, tmp_path: Path) -> None:
    bag = drive_bag.record_drive(tmp_path / "bag", SHORT, leave_out=["/cam/front/compressed"])
    line = fails(bag)
    assert "missing-topic" in line and "'front'" in line and "/cam/front/compressed" in line


def test_a_bag_without_an_optional_camera_is_replayed_without_it(
    tmp_path: Path, bundle: Path
) -> None:
    bag_path = drive_bag.record_drive(
        tmp_path / "bag", SHORT, leave_out=["/cam/left/compressed", drive_bag.COMMAND]
    )
    with BagFile(bag_path) as bag:
        inputs = choose_inputs(bag, *find_rig(bag, None), load_bundle(bundle).manifest)
    assert inputs.absent == ("left",)
    assert [camera.slot for camera in inputs.cameras] == ["front", "right"]
    assert inputs.command is None
    assert ("~/input/odometry", drive_bag.ODOMETRY) in inputs.remaps()


def test_no_rig(fails: Fails, tmp_path: Path) -> None:
    bag = drive_bag.record_drive(tmp_path / "bag", SHORT, with_rig=False)
    assert "no-rig" in fails(bag)
    assert "no-rig" in fails(bag, "--rig", tmp_path / "absent.yaml")


def test_a_rig_that_is_not_one(fails: Fails, whole: Path, tmp_path: Path) -> None:
    (tmp_path / "rig.yaml").write_text("cameras: 3\n")
    assert "bad-rig" in fails(whole, "--rig", tmp_path / "rig.yaml")


def test_a_rig_of_other_topics_or_types(fails: Fails, whole: Path, tmp_path: Path) -> None:
    text = (whole / "rig.yaml").read_text()
    rig = tmp_path / "rig.yaml"
    rig.write_text(text.replace("/cam/front/compressed", "/elsewhere"))
    assert "no messages on /elsewhere" in fails(whole, "--rig", rig)
    rig.write_text(text.replace("message_type: compressed", "message_type: raw"))
    assert "the rig says sensor_msgs/msg/Image" in fails(whole, "--rig", rig)


def test_images_of_another_frame(fails: Fails, whole: Path, tmp_path: Path) -> None:
    text = (whole / "rig.yaml").read_text()
    (tmp_path / "rig.yaml").write_text(text.replace("left_optical", "left_camera"))
    line = fails(whole, "--rig", tmp_path / "rig.yaml")
    assert "wrong-frame-id" in line and "'left_optical'" in line and "'left_camera'" in line


def test_odometry_of_another_point(fails: Fails, whole: Path, tmp_path: Path) -> None:
    text = (whole / "rig.yaml").read_text()
    (tmp_path / "rig.yaml").write_text(text.replace("child_frame: base_link", "child_frame: imu"))
    line = fails(whole, "--rig", tmp_path / "rig.yaml")
    assert "wrong-twist-frame" in line and "'base_link'" in line and "'imu'" in line


def test_a_full_disk(
    fails: Fails, whole: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "result.json")

    monkeypatch.setattr("latentvla_ros.cli.replay.replay", full)
    line = fails(whole)
    assert "cannot-write" in line and "No space left" in line and "--out" in line


def test_a_camera_outside_the_bundle(fails: Fails, whole: Path, tmp_path: Path) -> None:
    save_rig(drive_bag.rig(with_model=False), tmp_path / "rig.yaml")
    text = (tmp_path / "rig.yaml").read_text()
    (tmp_path / "rig.yaml").write_text(text.replace("yaw_deg: 55.0", "yaw_deg: 90.0"))
    line = fails(whole, "--rig", tmp_path / "rig.yaml")
    assert "rig-outside-bundle" in line and "left" in line


def test_a_broken_mcap(fails: Fails, whole: Path, tmp_path: Path) -> None:
    copy = tmp_path / "broken"
    shutil.copytree(whole, copy)
    recorded = next(copy.glob("*.mcap"))
    recorded.write_bytes(recorded.read_bytes()[: recorded.stat().st_size // 2])
    assert "broken-bag" in fails(copy)


def test_an_unknown_bundle(fails: Fails, whole: Path) -> None:
    assert "bad-bundle" in fails(whole, "--bundle", "no-such-bundle")


def test_a_damaged_bundle(fails: Fails, whole: Path, tmp_path: Path) -> None:
    damaged = tiny_bundle.write_bundle(tmp_path / "damaged")
    (damaged / "model.onnx").write_bytes(b"not a model")
    line = fails(whole, "--bundle", damaged)
    assert "bad-bundle" in line and "sha256" in line


@pytest.mark.parametrize(
    "options", [("--rate", "0"), ("--start", "-1"), ("--duration", "0"), ("--domain", "999")]
)
def test_options_out_of_range(fails: Fails, whole: Path, options: tuple[str, str]) -> None:
    line = fails(whole, *options)
    assert "bad-option" in line and options[0] in line


def test_a_start_after_the_end(fails: Fails, whole: Path) -> None:
    assert "nothing-to-play" in fails(whole, "--start", "60")


def test_two_odometries_need_a_choice(fails: Fails, whole: Path) -> None:
    line = fails(whole, "--odometry-topic", "/cam/left/compressed")
    assert "missing-topic" in line and "/odom" in line


def test_inspect_and_bench_name_the_same_problems(fails: Fails, tmp_path: Path) -> None:
    assert "bad-bundle" in fails(tmp_path / "no-bundle", command="inspect")
    assert "bad-rig" in fails(tmp_path / "absent.yaml", command="inspect")
    assert "no-such-bag" in fails("--bag", tmp_path / "absent", command="bench")
    assert "bad-option" in fails("--threads", "0", command="bench")
