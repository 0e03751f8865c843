"""Recordings: written once, read back to the Scenes of the same episode (one preprocessing)."""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from latentvla_training.data import bag_messages, bag_writer, commands
from latentvla_training.data.bag_export import export_bag
from latentvla_training.data.bag_import import BagTopics, bag_scenes
from latentvla_training.data.bag_reader import BagContentError
from latentvla_training.data.bag_writer import DriveBagWriter
from latentvla_training.data.commands import Import
from latentvla_training.data.episode_signals import EPOCH_NS, episode_odometry, step_stamp_ns
from latentvla_training.data.image_encoding import decode_views, encode_jpeg
from latentvla_training.data.scene import Scene
from latentvla_training.data.shard_footer import shard_info
from latentvla_training.data.shards import DiskFullError, ShardReader
from latentvla_training.data.world_adapter import episode_scenes
from latentvla_training.teacher.processor import expected_rig, rig_identity
from latentvla_training.teacher.settings import PictureSettings
from latentvla_training.world.episode import Episode
from latentvla_training.world.rig import default_rig
from latentvla_training.world.road_map import RoadMap

from latentvla_ros.contract import Command, ContractError, Rig
from latentvla_ros.geometry import se2, se3
from latentvla_ros.sensing.rig_file import load_rig, save_rig


@pytest.fixture
def world_scenes(episode: Episode, road_map: RoadMap, renderer: Any) -> dict[int, Scene]:
    """The Scenes of the hand-made drive by stamp."""
    return {s.stamp_ns: s for s in episode_scenes(episode, road_map, renderer=renderer)}


def read_messages(path: Path) -> list[tuple[str, int, bytes]]:
    from rosbags.highlevel import AnyReader

    with AnyReader([path], default_typestore=bag_messages.typestore()) as reader:
        return [(c.topic, stamp, bytes(data)) for c, stamp, data in reader.messages()]


def test_world_and_bag_give_the_same_scenes(
    episode: Episode, renderer: Any, world_scenes: dict[int, Scene], tmp_path: Path
) -> None:
    """The law: one preprocessing, one ego motion, one geometry."""
    export_bag(episode, tmp_path / "drive", renderer=renderer, skew_ns={})
    from_bag = {scene.stamp_ns: scene for scene in bag_scenes(tmp_path / "drive")}
    assert set(world_scenes) <= set(from_bag)
    for stamp, world in world_scenes.items():
        bag = from_bag[stamp]
        assert bag.view_jpegs == world.view_jpegs
        np.testing.assert_array_equal(
            decode_views(bag.view_jpegs, 256, 128), decode_views(world.view_jpegs, 256, 128)
        )
        np.testing.assert_array_equal(bag.view_mask, world.view_mask)
        np.testing.assert_array_equal(bag.intrinsics, world.intrinsics)
        np.testing.assert_allclose(bag.ego_from_camera, world.ego_from_camera, atol=1e-3)
        np.testing.assert_allclose(bag.ego_history, world.ego_history, atol=1e-3)
        np.testing.assert_array_equal(bag.ego_history_mask, world.ego_history_mask)
        np.testing.assert_allclose(bag.ego_dynamics, world.ego_dynamics, atol=1e-3)
        np.testing.assert_array_equal(bag.ego_dynamics_mask, world.ego_dynamics_mask)
        np.testing.assert_array_equal(bag.command, world.command)
        assert bag.labels.future_mask.all()
        np.testing.assert_allclose(bag.labels.future_2hz, world.labels.future_2hz, atol=1e-2)
        np.testing.assert_allclose(bag.labels.future_10hz, world.labels.future_10hz, atol=1e-2)
        np.testing.assert_allclose(
            bag.labels.past_states[:, :5], world.labels.past_states[:, :5], atol=1e-2
        )


def test_a_recordings_shard_says_which_views_it_has(
    episode: Episode, renderer: Any, tmp_path: Path
) -> None:
    export_bag(episode, tmp_path / "drive", renderer=renderer)
    shard = tmp_path / "drive.parquet"
    assert Import(tmp_path / "drive", shard)() == 0
    assert rig_identity(ShardReader([shard])) == expected_rig(PictureSettings())


def test_the_observation_of_the_car_is_the_scene(
    episode: Episode, renderer: Any, tmp_path: Path
) -> None:
    """Pixels that the car's builder hands to the network are those a loader decodes."""
    from latentvla_ros.sensing.preprocessing import ViewPreprocessor

    export_bag(episode, tmp_path / "drive", renderer=renderer, skew_ns={})
    scene = next(bag_scenes(tmp_path / "drive"))
    views = decode_views(scene.view_jpegs, 256, 128)
    rig = load_rig(tmp_path / "drive" / "rig.yaml")
    for index, slot in enumerate(("front", "left", "right", "front")):
        camera = rig.camera(slot)
        assert camera is not None and camera.model is not None
        out = np.empty((128, 256, 3), np.uint8)
        ViewPreprocessor(camera.model, True, 256, 128).from_jpeg(scene.view_jpegs[index], out)
        np.testing.assert_array_equal(views[index], out)


def test_skew_is_compensated_by_the_odometry(
    episode: Episode, renderer: Any, tmp_path: Path
) -> None:
    export_bag(episode, tmp_path / "drive", renderer=renderer, skew_ns={"left": 20_000_000})
    left = default_rig().camera("left")
    assert left is not None
    for scene in bag_scenes(tmp_path / "drive"):
        step = round((scene.stamp_ns - EPOCH_NS) / 1e8)
        _, _, _, speed, _, _, yaw_rate = episode.ego[step]
        moved = se3.from_se2(se2.exponential(speed, 0.0, yaw_rate, 0.02))
        np.testing.assert_allclose(
            scene.ego_from_camera[1], moved @ left.ego_from_camera, atol=2e-3
        )
        assert np.abs(scene.ego_from_camera[1] - left.ego_from_camera).max() > 0.05


def test_the_same_export_gives_the_same_bytes(
    episode: Episode, renderer: Any, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        export_bag(episode, tmp_path / name / "drive", renderer=renderer, duration_s=3.0)
    for file in (tmp_path / "one" / "drive").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / "drive" / file.name).read_bytes()


def test_the_export_holds_what_a_car_would_record(
    episode: Episode, renderer: Any, tmp_path: Path
) -> None:
    summary = export_bag(
        episode, tmp_path / "drive", renderer=renderer, start_s=2.0, duration_s=4.0
    )
    assert summary.images == 3 * 41
    messages = read_messages(tmp_path / "drive")
    count = {topic: sum(m[0] == topic for m in messages) for topic, _, _ in messages}
    assert count["/localization/odometry"] == 201
    for slot in ("front", "left", "right"):
        assert count[f"/sensing/camera/{slot}/image/compressed"] == 41
        assert count[f"/sensing/camera/{slot}/camera_info"] == 41
    assert count["/planning/route"] == 5
    # Every second, at the start, and when it changes at step 70 (which is not due otherwise).
    assert count["/planning/driving_command"] == 5
    assert [stamp for _, stamp, _ in messages] == sorted(stamp for _, stamp, _ in messages)
    assert (tmp_path / "drive" / "metadata.yaml").exists()
    assert load_rig(tmp_path / "drive" / "rig.yaml").reference_camera == "front"


def test_commands_follow_the_route_when_none_were_recorded(
    episode: Episode, renderer: Any, tmp_path: Path
) -> None:
    export_bag(episode, tmp_path / "drive", renderer=renderer)
    topics = BagTopics(command="/nobody/publishes/this")
    found = {s.command.argmax() for s in bag_scenes(tmp_path / "drive", topics=topics)}
    assert found == {Command.STRAIGHT}
    topics = BagTopics(command="/nobody/publishes/this", route="/nor/this")
    found = {s.command.argmax() for s in bag_scenes(tmp_path / "drive", topics=topics)}
    assert found == {Command.UNKNOWN}


def test_futures_past_the_end_are_masked(episode: Episode, renderer: Any, tmp_path: Path) -> None:
    export_bag(episode, tmp_path / "drive", renderer=renderer, duration_s=5.0)
    scenes = list(bag_scenes(tmp_path / "drive"))
    last = scenes[-1]
    left_s = 5.0 - (last.stamp_ns - EPOCH_NS) * 1e-9
    expected = np.arange(1, 9) * 0.5 <= left_s + 1e-6
    np.testing.assert_array_equal(last.labels.future_mask, expected)
    assert np.isnan(last.labels.future_10hz).any()
    assert not last.labels.future_2hz[~expected].any()


def rewrite(
    episode: Episode, renderer: Any, path: Path, rig: Rig, raw: bool = False, child: str = ""
) -> Path:
    """Record the drive with another rig, optionally with raw pictures of double size."""
    del child
    with DriveBagWriter(path, rig) as bag:
        samples = list(episode_odometry(episode))
        for step in range(60):
            for stamp, pose, twist in samples:
                if step_stamp_ns(step) - 100_000_000 < stamp <= step_stamp_ns(step):
                    bag.odometry(stamp, pose, twist)
            for camera in rig.cameras:
                assert camera.model is not None
                image = renderer.render(
                    episode, step, camera.model.matrix, camera.model.width, camera.model.height,
                    camera.ego_from_camera,
                )  # fmt: skip
                bag.image(camera.slot, step_stamp_ns(step), image if raw else encode_jpeg(image))
    return path


def test_raw_pictures_of_another_size_become_lossless_views(
    episode: Episode, renderer: Any, tmp_path: Path
) -> None:
    rig = default_rig(512, 256)
    raw = dataclasses.replace(
        rig, cameras=tuple(dataclasses.replace(c, message_type="raw") for c in rig.cameras)
    )
    rewrite(episode, renderer, tmp_path / "drive", raw, raw=True)
    scenes = list(bag_scenes(tmp_path / "drive"))
    assert len(scenes) == 9
    from latentvla_ros.sensing.preprocessing import ViewPreprocessor

    front = rig.camera("front")
    assert front is not None and front.model is not None
    step = round((scenes[0].stamp_ns - EPOCH_NS) / 1e8)
    image = renderer.render(episode, step, front.model.matrix, 512, 256, front.ego_from_camera)
    out = np.empty((128, 256, 3), np.uint8)
    ViewPreprocessor(front.model, True, 256, 128)(image, out)
    np.testing.assert_array_equal(decode_views(scenes[0].view_jpegs, 256, 128)[0], out)
    assert scenes[0].intrinsics[0, 0, 0] == pytest.approx(front.model.matrix[0, 0] / 2)


def test_intrinsics_come_from_camera_info_where_the_rig_has_none(
    episode: Episode, renderer: Any, world_scenes: dict[int, Scene], tmp_path: Path
) -> None:
    export_bag(episode, tmp_path / "drive", renderer=renderer, duration_s=3.0, skew_ns={})
    rig = load_rig(tmp_path / "drive" / "rig.yaml")
    bare = dataclasses.replace(
        rig, cameras=tuple(dataclasses.replace(camera, model=None) for camera in rig.cameras)
    )
    scene = next(bag_scenes(tmp_path / "drive", rig=bare))
    np.testing.assert_array_equal(scene.intrinsics, next(iter(world_scenes.values())).intrinsics)


def test_missing_topics_name_both_sides(episode: Episode, renderer: Any, tmp_path: Path) -> None:
    export_bag(episode, tmp_path / "drive", renderer=renderer, duration_s=2.0)
    with pytest.raises(BagContentError) as caught:
        next(bag_scenes(tmp_path / "drive", topics=BagTopics(odometry="/odom")))
    assert "/odom (nav_msgs/msg/Odometry)" in str(caught.value)
    assert "/localization/odometry (nav_msgs/msg/Odometry)" in str(caught.value)
    rig = load_rig(tmp_path / "drive" / "rig.yaml")
    raw = dataclasses.replace(
        rig, cameras=tuple(dataclasses.replace(c, message_type="raw") for c in rig.cameras)
    )
    with pytest.raises(BagContentError, match=r"front/image/compressed \(sensor_msgs/msg/Image"):
        next(bag_scenes(tmp_path / "drive", rig=raw))


def test_a_wrong_twist_frame_is_named(episode: Episode, renderer: Any, tmp_path: Path) -> None:
    export_bag(episode, tmp_path / "drive", renderer=renderer, duration_s=2.0)
    rig = dataclasses.replace(
        load_rig(tmp_path / "drive" / "rig.yaml"), odometry_child_frame="imu_link"
    )
    with pytest.raises(BagContentError, match=r"child_frame_id.*base_link.*imu_link"):
        next(bag_scenes(tmp_path / "drive", rig=rig))


def test_odometry_of_another_point_is_moved_to_the_ego(
    episode: Episode, renderer: Any, world_scenes: dict[int, Scene], tmp_path: Path
) -> None:
    """The same drive recorded by an IMU 1.2 m ahead of and 0.3 m beside the rear axle."""
    offset = np.array([1.2, 0.3, 0.1])
    rig = dataclasses.replace(
        default_rig(), odometry_child_frame="imu_link", base_from_twist=tuple(offset)
    )
    with DriveBagWriter(tmp_path / "drive", rig) as bag:
        samples = list(episode_odometry(episode))
        for step in range(40):
            for stamp, pose, twist in samples:
                if step_stamp_ns(step) - 100_000_000 < stamp <= step_stamp_ns(step):
                    at_imu = twist[:2] + twist[2] * np.array([-offset[1], offset[0]])
                    turned = (
                        np.array([[np.cos(0.1), np.sin(0.1)], [-np.sin(0.1), np.cos(0.1)]]) @ at_imu
                    )
                    bag.odometry(stamp, se2.compose(pose, offset), np.append(turned, twist[2]))
            for camera in rig.cameras:
                image = renderer.render(episode, step, None, 256, 128, camera.ego_from_camera)
                bag.image(camera.slot, step_stamp_ns(step), encode_jpeg(image))
    for scene in bag_scenes(tmp_path / "drive"):
        world = world_scenes[scene.stamp_ns]
        np.testing.assert_allclose(scene.ego_history, world.ego_history, atol=1e-3)
        np.testing.assert_allclose(scene.ego_dynamics, world.ego_dynamics, atol=5e-3)


def test_damaged_pictures_are_skipped_and_the_rest_is_used(
    episode: Episode, renderer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rig = default_rig()
    with DriveBagWriter(tmp_path / "drive", rig) as bag:
        for stamp, pose, twist in list(episode_odometry(episode))[:300]:
            bag.odometry(stamp, pose, twist)
        for step in range(60):
            for camera in rig.cameras:
                image = renderer.render(episode, step, None, 256, 128, camera.ego_from_camera)
                data = encode_jpeg(image)
                broken = camera.slot == "front" and step == 20
                bag.image(camera.slot, step_stamp_ns(step), data[:500] if broken else data)
    scenes = list(bag_scenes(tmp_path / "drive"))
    steps = [round((scene.stamp_ns - EPOCH_NS) / 1e8) for scene in scenes]
    assert steps == [15, 21, 26, 31, 36, 41, 46, 51, 56]
    assert "image_corrupt" in caplog.text


def test_sqlite_recordings_are_read_too(
    episode: Episode, renderer: Any, world_scenes: dict[int, Scene], tmp_path: Path
) -> None:
    from rosbags.rosbag2 import Reader, StoragePlugin, Writer

    export_bag(episode, tmp_path / "drive", renderer=renderer, duration_s=3.0, skew_ns={})
    copy = tmp_path / "copy"
    types = bag_messages.typestore()
    with (
        Reader(tmp_path / "drive") as reader,
        Writer(copy, version=8, storage_plugin=StoragePlugin.SQLITE3) as writer,
    ):
        connections = {
            c.id: writer.add_connection(c.topic, c.msgtype, typestore=types)
            for c in reader.connections
        }
        for connection, stamp, data in reader.messages():
            writer.write(connections[connection.id], stamp, data)
    save_rig(load_rig(tmp_path / "drive" / "rig.yaml"), copy / "rig.yaml")
    with sqlite3.connect(next(copy.glob("*.db3"))) as database:
        assert database.execute("select count(*) from messages").fetchone()[0] > 100
    scene = next(bag_scenes(copy))
    assert scene.view_jpegs == world_scenes[scene.stamp_ns].view_jpegs


def test_scenes_of_another_size(episode: Episode, renderer: Any, tmp_path: Path) -> None:
    """``bag import --image-size 512x256``, as recipes base need; the default as without it."""
    export_bag(episode, tmp_path / "drive", renderer=renderer, width=512, height=256, duration_s=3)
    for name, size in (("large", "512x256"), ("small", "256x128")):
        out = tmp_path / f"{name}.parquet"
        assert commands.Import(tmp_path / "drive", out, image_size=size)() == 0
    large, small = (ShardReader([tmp_path / f"{name}.parquet"]) for name in ("large", "small"))
    assert large.views(0, 512, 256).shape == (4, 256, 512, 3)
    assert large.columns["intrinsics"][0, 0, 0, 0] == pytest.approx(
        2.0 * small.columns["intrinsics"][0, 0, 0, 0]
    )
    assert commands.Import(tmp_path / "drive", tmp_path / "default.parquet")() == 0
    default = ShardReader([tmp_path / "default.parquet"])
    for found, wanted in zip(default, small, strict=True):
        assert found.view_jpegs == wanted.view_jpegs
    assert shard_info(default.paths[0]).recipe["image_width"] == 256
    assert shard_info(large.paths[0]).recipe["image_width"] == 512


@pytest.mark.parametrize("content", [None, b"", b"\x89MCAP0\r\n garbage"])
def test_what_is_no_recording_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "thing.mcap"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ContractError, match=r"thing\.mcap"):
        next(bag_scenes(path, rig=default_rig()))


def test_a_recording_is_never_overwritten_or_left_half(
    episode: Episode, renderer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "drive").mkdir()
    with pytest.raises(FileExistsError, match="drive exists already"):
        export_bag(episode, tmp_path / "drive", renderer=renderer)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bag_writer, "save_rig", full)
    with pytest.raises(DiskFullError, match="no space left"):
        export_bag(episode, tmp_path / "other", renderer=renderer, duration_s=1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["drive"]


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"start_s": -1.0}, "start_s"),
        ({"duration_s": 100.0}, "duration_s"),
        ({"skew_ns": {"front": 1}}, "skew_ns"),
        ({"skew_ns": {"rear": 1}}, "skew_ns"),
        ({"skew_ns": {"left": 60_000_000}}, "skew_ns"),
    ],
)
def test_export_arguments_name_what_is_wrong(
    values: dict[str, Any], field: str, episode: Episode, renderer: Any, tmp_path: Path
) -> None:
    with pytest.raises(ContractError, match=field):
        export_bag(episode, tmp_path / "drive", renderer=renderer, **values)
    assert not (tmp_path / "drive").exists()


def test_the_command_definition_is_the_built_one() -> None:
    """The hash in the bag is what ROS computes for the message package."""
    import json
    import sys

    built = Path(sys.prefix) / "share/latentvla_msgs/msg/DrivingCommand.json"
    if not built.exists():
        pytest.skip("the message package is not built here")
    hashes = json.loads(built.read_text())["type_hashes"]
    expected = next(h["hash_string"] for h in hashes if h["type_name"].endswith("DrivingCommand"))
    assert bag_messages.typestore().hash_rihs01(bag_messages.COMMAND_TYPE) == expected
