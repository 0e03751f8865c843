"""Doctor finds what is wrong with an environment; inspect says what is in a file and what fits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import drive_bag
import pytest
import tiny_bundle

from latentvla_ros.cli import doctor, inspect
from latentvla_ros.cli.dds_profile import largest_segment, profile_variable
from latentvla_ros.cli.main import main
from latentvla_ros.data import data_path
from latentvla_ros.sensing.rig_file import save_rig


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle.write_bundle(tmp_path_factory.mktemp("bundle"))


def state_of(checks: list[doctor.Check], name: str) -> doctor.Check:
    return next(check for check in checks if check.name.startswith(name))


@pytest.mark.ros
def test_a_good_environment_passes(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--bundle", str(bundle), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    states = {check["name"]: check["state"] for check in document["checks"]}
    assert document["ok"] is True
    assert states["ROS 2"] == states["latentvla_msgs"] == states["OpenCV"] == "ok"


def test_a_missing_bundle_fails_with_a_next_step(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_probe_imports", lambda names: dict.fromkeys(names, ""))
    assert main(["doctor", "--bundle", "no-such-bundle"]) == 1
    words = capsys.readouterr().out
    assert "[FAIL] bundle no-such-bundle" in words and "-> " in words


def test_imports_that_fail_or_crash_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_module.py").write_text("raise ImportError('libGL.so.1: no such file')")
    (tmp_path / "crashing_module.py").write_text("import os, signal; os.kill(os.getpid(), 11)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = doctor._probe_imports(("json", "failing_module", "crashing_module", "never_reached"))
    assert found["json"] == ""
    assert "libGL.so.1" in found["failing_module"]
    assert "code -11" in found["crashing_module"]


def test_broken_ros_and_messages_fail(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problems = {
        "rclpy": "",
        "latentvla_msgs.msg": "ModuleNotFoundError: x",
        "cv2": "",
        "onnxruntime": "",
    }
    monkeypatch.setattr(doctor, "_probe_imports", lambda names: {n: problems[n] for n in names})
    check = state_of(doctor.examine(str(bundle)), "latentvla_msgs")
    assert check.state == doctor.FAILED and "make setup" in check.next_step
    problems |= {"rclpy": "ImportError: y", "onnxruntime": "ImportError: z"}
    checks = doctor.examine(str(bundle))
    assert state_of(checks, "ROS 2").state == doctor.FAILED
    assert state_of(checks, "backends").state in (doctor.WARNING, doctor.FAILED)


def test_the_profile_of_this_environment_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in (
        "FASTDDS_DEFAULT_PROFILES_FILE",
        "FASTRTPS_DEFAULT_PROFILES_FILE",
        "ROS_DISTRO",
    ):
        monkeypatch.delenv(variable, raising=False)
    assert doctor._publisher_profile().state == doctor.WARNING
    monkeypatch.setenv(profile_variable(), str(data_path("fastdds.xml")))
    assert doctor._publisher_profile().state == doctor.OK
    small = tmp_path / "small.xml"
    small.write_text("<profiles><segment_size>524288</segment_size></profiles>")
    monkeypatch.setenv(profile_variable(), str(small))
    assert doctor._publisher_profile().state == doctor.WARNING
    monkeypatch.setenv(profile_variable(), str(tmp_path / "absent.xml"))
    assert doctor._publisher_profile().state == doctor.FAILED
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    assert profile_variable() == "FASTRTPS_DEFAULT_PROFILES_FILE"


def test_the_shipped_profile_has_room_for_a_burst() -> None:
    assert largest_segment(data_path("fastdds.xml")) == 64 * 2**20


def test_inspecting_a_bundle(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(bundle)]) == 0
    words = capsys.readouterr().out
    assert "tiny-1" in words and "front@-0.5" in words and "sha256 verified" in words


def test_inspecting_a_bundle_with_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coded = tiny_bundle.write_bundle(tmp_path / "coded", "book-1")
    assert main(["inspect", str(coded)]) == 0
    words = capsys.readouterr().out
    assert "codebook: book-1" in words and "code 15: p0 c15 / p1 c15 / p2 c15 / p3 c15" in words


def test_inspecting_a_rig(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_rig(drive_bag.rig(), tmp_path / "rig.yaml")
    arguments = ["inspect", str(tmp_path / "rig.yaml"), "--bundle", str(bundle), "--json"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "fits bundle tiny-1"
    text = (tmp_path / "rig.yaml").read_text()
    (tmp_path / "rig.yaml").write_text(text.replace("yaw_deg: 55.0", "yaw_deg: 80.0"))
    assert main(arguments) == 1
    assert "left" in json.loads(capsys.readouterr().out)["verdict"]


def test_inspecting_a_bag(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = drive_bag.Drive(duration_s=0.5)
    good = drive_bag.record_drive(tmp_path / "good", short)
    assert main(["inspect", str(good), "--bundle", str(bundle), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["inputs"]["odometry"] == drive_bag.ODOMETRY
    assert "25 messages" in found["topics"][drive_bag.ODOMETRY]
    bad = drive_bag.record_drive(tmp_path / "bad", short, leave_out=[drive_bag.ODOMETRY])
    assert main(["inspect", str(bad), "--bundle", str(bundle)]) == 1
    assert "missing-topic" in capsys.readouterr().out


def test_kinds_are_told_apart(bundle: Path, tmp_path: Path) -> None:
    assert inspect.kind_of("nano") == "bundle"
    assert inspect.kind_of(str(bundle)) == "bundle"
    assert inspect.kind_of("my_rig.yaml") == "rig"
    assert inspect.kind_of("drive_0.mcap") == "bag"
    (tmp_path / "metadata.yaml").write_text("")
    assert inspect.kind_of(str(tmp_path)) == "bag"


def test_help_needs_no_heavy_import() -> None:
    code = (
        "import sys\nfrom latentvla_ros.cli.main import main\n"
        "for words in ([], ['replay'], ['bench'], ['doctor'], ['inspect'], ['demo']):\n"
        "    try:\n        main([*words, '--help'])\n"
        "    except SystemExit as end:\n        assert not end.code\n"
        "heavy = {'cv2', 'rclpy', 'torch', 'onnxruntime', 'rosbags', 'av'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
