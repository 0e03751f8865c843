"""Bags are read in both storages, and everything wrong with one is named in one line."""

from __future__ import annotations

import sqlite3
import struct
from pathlib import Path

import drive_bag
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rosbags.rosbag2 import StoragePlugin

from latentvla_ros.cli.bag_file import BagFile
from latentvla_ros.cli.errors import CommandError
from latentvla_ros.nodes.cdr_header import byte_after_header, header_stamp_ns, with_header_stamp

SHORT = drive_bag.Drive(duration_s=0.5)


@pytest.fixture(scope="module")
def bag_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drive_bag.record_drive(tmp_path_factory.mktemp("bags") / "drive", SHORT)


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_reads_topics_times_and_messages(tmp_path: Path, storage: StoragePlugin) -> None:
    folder = drive_bag.record_drive(tmp_path / "bag", SHORT, storage=storage)
    with BagFile(folder) as bag:
        assert bag.topics[drive_bag.ODOMETRY].count == 25
        assert bag.topics["/cam/left/compressed"].message_type.endswith("CompressedImage")
        assert bag.start_ns == drive_bag.START_NS + 3_000_000
        assert bag.duration_s == pytest.approx(0.48, abs=1e-6)
        assert bag.of_type("nav_msgs/msg/Odometry") == [drive_bag.ODOMETRY]
        messages = list(bag.messages([drive_bag.ODOMETRY], bag.start_ns + 100_000_000))
        assert len(messages) == 20
        third = bag.decode(messages[2])
        assert third.pose.pose.position.x == pytest.approx(SHORT.pose(0.14)[0])
        assert header_stamp_ns(messages[2].data) == drive_bag.START_NS + 140_000_000
        assert list(bag.messages(["/nothing"])) == []


def test_reads_a_bare_file_and_a_folder_without_metadata(bag_folder: Path, tmp_path: Path) -> None:
    recorded = next(bag_folder.glob("*.mcap"))
    copy = tmp_path / recorded.name
    copy.write_bytes(recorded.read_bytes())
    for path in (copy, tmp_path):
        with BagFile(path) as bag:
            assert bag.topics[drive_bag.ODOMETRY].count == 25
            assert bag.rig_path == tmp_path / "rig.yaml"


def test_reads_a_bag_of_an_old_distribution_that_holds_no_definitions(tmp_path: Path) -> None:
    folder = drive_bag.record_drive(tmp_path / "bag", SHORT, storage=StoragePlugin.SQLITE3)
    with sqlite3.connect(next(folder.glob("*.db3"))) as database:
        database.execute("DELETE FROM message_definitions")
    database.close()
    with BagFile(folder) as bag:
        odometry = next(bag.messages([drive_bag.ODOMETRY]))
        assert bag.decode(odometry).child_frame_id == "base_link"
        command = next(bag.messages([drive_bag.COMMAND]))
        assert byte_after_header(command.data) == 1
        with pytest.raises(CommandError, match="broken-message"):
            bag.decode(command)


@given(st.binary(max_size=40))
def test_a_byte_after_any_header_is_read_or_refused(data: bytes) -> None:
    try:
        assert 0 <= byte_after_header(data) <= 255
    except ValueError as error:
        assert "found" in str(error) or "frame_id" in str(error)


def test_names_what_is_wrong_with_a_path(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no-such-bag"), BagFile(tmp_path / "absent"):
        pass
    with pytest.raises(CommandError, match="not-a-bag"), BagFile(tmp_path):
        pass
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CommandError, match="broken-bag"), BagFile(tmp_path / "notes.txt"):
        pass
    drive_bag.record_drive(tmp_path / "empty", drive_bag.Drive(duration_s=0.0))
    with pytest.raises(CommandError, match="empty-bag"), BagFile(tmp_path / "empty"):
        pass


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cut=st.floats(0.0, 0.999), noise=st.binary(max_size=40), place=st.floats(0.0, 1.0))
def test_a_damaged_mcap_reads_or_is_named(
    bag_folder: Path, tmp_path: Path, cut: float, noise: bytes, place: float
) -> None:
    content = bytearray(next(bag_folder.glob("*.mcap")).read_bytes())
    at = int(place * len(content))
    content[at : at + len(noise)] = noise
    damaged = tmp_path / "damaged.mcap"
    damaged.write_bytes(content[: int(cut * len(content))] if cut > 0.5 else content)
    try:
        with BagFile(damaged) as bag:
            for message in bag.messages(list(bag.topics)):
                bag.decode(message)
    except CommandError as error:
        assert error.name in ("broken-bag", "broken-message", "empty-bag")
        assert "Next:" in str(error)


@given(stamp=st.integers(0, 2**31 * 1_000_000_000 - 1), big=st.booleans())
def test_header_stamps_survive_replacement(stamp: int, big: bool) -> None:
    head = struct.pack(">BBBB" if big else "<BBBB", 0, 0 if big else 1, 0, 0)
    data = head + bytes(8) + b"the rest"
    changed = with_header_stamp(data, stamp)
    assert header_stamp_ns(changed) == stamp
    assert changed[12:] == b"the rest" and changed[:4] == head


def test_a_header_that_is_too_short_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least 12 bytes"):
        header_stamp_ns(b"\x00\x01\x00\x00")
