"""Shards: what goes in comes out, whole or not at all, the same twice."""

from __future__ import annotations

import dataclasses
import errno
import json
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latentvla_training.data import scene_table, shard_footer, shards, usable_shards
from latentvla_training.data.image_encoding import encode_jpeg
from latentvla_training.data.scene import Scene, SceneLabels

from latentvla_ros.contract import ContractError
from latentvla_ros.runtime.bundle import sha256_of


def random_scene(index: int, agents: int = 3, seed: int = 0) -> Scene:
    """A Scene of the right shapes; ``index`` numbers it within its network."""
    rng = np.random.default_rng((seed, index))
    sizes = {"agent": agents, "polygon": 4, "light": 1}
    values: dict[str, Any] = {}
    for column in scene_table.COLUMNS:
        length = next((n for key, n in sizes.items() if column.name.startswith(key)), 141)
        if not column.label:
            length = 4
        if column.name == "polygon_xy":
            length = 16
        if column.name == "polygon_offset":
            length = 5
        shape = tuple(length if axis == -1 else axis for axis in column.shape)
        drawn = rng.uniform(0, 10, shape)
        if column.dtype is np.bool_:
            drawn = drawn > 5
        value = np.asarray(drawn).astype(column.dtype)
        values[column.name] = value if shape else value.item()
    labels = {c.name: values.pop(c.name) for c in scene_table.COLUMNS if c.label}
    values["stamp_ns"] = index * 500_000_000
    pictures = (*(rng.bytes(200 + index) for _ in range(3)), b"")
    return Scene(
        token=f"net-00/{index:05d}", network="net", view_jpegs=pictures,
        labels=SceneLabels(**labels), **values,
    )  # fmt: skip


def assert_equal(first: Scene, second: Scene) -> None:
    """Every field of two Scenes is the same, to the bit."""
    assert first.view_jpegs == second.view_jpegs
    for one, other in ((first, second), (first.labels, second.labels)):
        for field in dataclasses.fields(one):
            if field.name in ("labels", "view_jpegs"):
                continue
            a, b = getattr(one, field.name), getattr(other, field.name)
            assert type(a) is type(b), field.name
            np.testing.assert_array_equal(a, b, err_msg=field.name)
            if isinstance(a, np.ndarray):
                assert a.dtype == b.dtype, field.name


def test_scenes_come_back_to_the_bit(tmp_path: Path) -> None:
    first = [random_scene(i, agents=i) for i in range(5)]
    second = [random_scene(i, agents=2, seed=1) for i in range(3)]
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for path, scenes in zip(paths, (first, second), strict=True):
        shards.write_shard(path, scenes)
    reader = shards.ShardReader(paths)
    assert len(reader) == 8
    for index, scene in enumerate(first + second):
        assert_equal(reader[index], scene)
    assert_equal(reader[-1], second[-1])
    assert [scene.token for scene in reader[4:6]] == [first[4].token, second[0].token]
    with pytest.raises(IndexError):
        reader[8]


def test_columns_hold_every_scene_without_pictures(tmp_path: Path) -> None:
    scenes = [random_scene(i) for i in range(4)]
    shards.write_shard(tmp_path / "a.parquet", scenes)
    reader = shards.ShardReader([tmp_path / "a.parquet"])
    assert reader.columns["future_2hz"].shape == (4, 8, 3)
    assert reader.columns["intrinsics"].shape == (4, 4, 3, 3)
    assert reader.columns["token"].tolist() == [scene.token for scene in scenes]
    np.testing.assert_array_equal(
        reader.columns["command"], np.stack([scene.command for scene in scenes])
    )


def test_reader_survives_pickling_and_a_small_cache(tmp_path: Path) -> None:
    paths = []
    for shard in range(4):
        paths.append(tmp_path / f"{shard}.parquet")
        shards.write_shard(paths[-1], [random_scene(i, seed=shard) for i in range(2)])
    reader = pickle.loads(pickle.dumps(shards.ShardReader(paths, cached_shards=1)))
    for index in (7, 0, 5, 1, 7):
        assert_equal(reader[index], random_scene(index % 2, seed=index // 2))


def test_pandas_style_reading_needs_none_of_our_code(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    scene = random_scene(0)
    shards.write_shard(tmp_path / "a.parquet", [scene])
    row = pq.read_table(tmp_path / "a.parquet").to_pylist()[0]
    assert row["token"] == scene.token
    np.testing.assert_array_equal(np.reshape(row["future_2hz"], (8, 3)), scene.labels.future_2hz)


def test_same_scenes_give_the_same_bytes_and_hash(tmp_path: Path) -> None:
    scenes = [random_scene(i) for i in range(3)]
    first = shards.write_shard(tmp_path / "x" / "a.parquet", scenes)
    second = shards.write_shard(tmp_path / "y" / "a.parquet", scenes)
    assert first == second
    assert (tmp_path / "x/a.parquet").read_bytes() == (tmp_path / "y/a.parquet").read_bytes()


def test_hash_sees_every_field() -> None:
    scene = random_scene(0)
    seen = {scene_table.scenes_hash([scene])}
    for column in scene_table.COLUMNS:
        owner = scene.labels if column.label else scene
        value = np.array(getattr(owner, column.name))
        flipped = ~value if value.dtype == np.bool_ else value + 1
        changed = flipped if column.shape else flipped.item()
        record = dataclasses.replace(owner, **{column.name: changed})
        other = dataclasses.replace(scene, labels=record) if column.label else record
        seen.add(scene_table.scenes_hash([other]))
    pictures = (*scene.view_jpegs[:2], b"other", b"")
    seen.add(scene_table.scenes_hash([dataclasses.replace(scene, view_jpegs=pictures)]))
    assert len(seen) == len(scene_table.COLUMNS) + 2


@pytest.mark.parametrize("keep", [0, 10, 0.5, -1])
def test_a_truncated_file_is_no_shard(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "a.parquet"
    shards.write_shard(path, [random_scene(i) for i in range(3)])
    assert shard_footer.read_shard_info(path) is not None
    data = path.read_bytes()
    length = int(keep * len(data)) if isinstance(keep, float) else keep
    path.write_bytes(data[:length])
    assert shard_footer.read_shard_info(path) is None
    with pytest.raises(ContractError, match=r"a\.parquet.*a whole shard; remove the file"):
        shards.ShardReader([path])


def test_a_shard_damaged_inside_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    shards.write_shard(path, [random_scene(i) for i in range(3)])
    data = bytearray(path.read_bytes())
    data[4 : len(data) // 2] = bytes(len(data) // 2 - 4)
    path.write_bytes(data)
    assert shard_footer.read_shard_info(path) is not None  # the footer is whole
    with pytest.raises(ContractError, match=r"a\.parquet.*a whole shard; remove the file"):
        list(shards.ShardReader([path]))


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shards.os, "fsync", full)
    with pytest.raises(shards.DiskFullError, match="no space left for shard a"):
        shards.write_shard(tmp_path / "a.parquet", [random_scene(0)])
    assert list(tmp_path.iterdir()) == []


def test_a_scene_of_the_wrong_shape_is_named(tmp_path: Path) -> None:
    scene = dataclasses.replace(random_scene(0), ego_history=np.zeros((3, 3), np.float32))
    with pytest.raises(ContractError, match=r"scene\[net-00/00000\]\.ego_history"):
        shards.write_shard(tmp_path / "a.parquet", [scene])
    assert list(tmp_path.iterdir()) == []


def test_shards_of_different_rigs_do_not_mix(tmp_path: Path) -> None:
    scene = random_scene(0)
    other = dataclasses.replace(
        scene, view_mask=scene.view_mask[:2], intrinsics=scene.intrinsics[:2],
        ego_from_camera=scene.ego_from_camera[:2], view_jpegs=scene.view_jpegs[:2],
    )  # fmt: skip
    shards.write_shard(tmp_path / "a.parquet", [scene])
    shards.write_shard(tmp_path / "b.parquet", [other])
    with pytest.raises(ContractError, match="views"):
        shards.ShardReader([tmp_path / "a.parquet", tmp_path / "b.parquet"])


def test_an_absent_split_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="world make --split val"):
        shards.load_split("val", tmp_path)


def _split_of(tmp_path: Path, recipes: dict[str, dict[str, Any]]) -> Path:
    folder = shards.split_folder("val", tmp_path)
    for index, (name, recipe) in enumerate(recipes.items()):
        shards.write_shard(folder / f"{name}.parquet", [random_scene(index)], recipe)
    return folder


def test_damaged_and_old_shards_are_left_out_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = shard_footer.versions()
    old = {**now, "scene_version": 1}
    folder = _split_of(tmp_path, {"a": now, "b": now, "c": old, "d": now, "e": {}})
    (folder / "b.parquet").write_bytes((folder / "b.parquet").read_bytes()[:-200])
    data = bytearray((folder / "a.parquet").read_bytes())
    data[4:2000] = bytes(1996)  # the footer is whole, the columns are not
    (folder / "f.parquet").write_bytes(data)
    (folder / "summary.json").write_text(json.dumps({"recipe": now}))
    reader = shards.load_split("val", tmp_path)
    assert [path.stem for path in reader.paths] == ["a", "d"]
    for said in (
        "4 of 6 shards of val left out",
        "b: damaged: no readable footer",
        "c: of scene_version 1, this code makes 2",
        "e: made by another recipe",
        "f: damaged inside",
    ):
        assert said in caplog.text


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0.0, 1.0, exclude_max=True), flipped=st.binary(min_size=1, max_size=64))
def test_a_shard_with_changed_bytes_is_not_whole_or_gives_the_same_scenes(
    place: float, flipped: bytes
) -> None:
    scenes = [random_scene(i) for i in range(2)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.parquet"
        info = shards.write_shard(path, scenes)
        digest = sha256_of(path)
        data = bytearray(path.read_bytes())
        start = int(place * len(data))
        for index, byte in enumerate(flipped[: len(data) - start]):
            data[start + index] ^= byte
        path.write_bytes(data)
        found = shard_footer.read_shard_info(path)
        if found is not None and usable_shards.is_whole(path, info, digest):
            for read, written in zip(shards.ShardReader([path]), scenes, strict=True):
                assert_equal(read, written)


def test_a_shard_that_cannot_be_read_is_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    info = shards.write_shard(path, [random_scene(0)])
    path.unlink()
    assert not usable_shards.is_whole(path, info, "0" * 64)


@pytest.mark.parametrize("summary", ["[]", "{", "{}", '{"files": 1}'])
def test_a_summary_that_says_nothing_of_files_is_as_good_as_none(
    tmp_path: Path, summary: str
) -> None:
    folder = _split_of(tmp_path, {"a": {}})
    (folder / "summary.json").write_text(summary)
    assert len(shards.load_split("val", tmp_path).paths) == 1


def test_shards_of_several_recipes_need_to_be_told_apart(tmp_path: Path) -> None:
    folder = _split_of(tmp_path, {"a": {"stride_s": 0.5}, "b": {"stride_s": 1.0}})
    with pytest.raises(ContractError, match=r"2 recipes.*'a'.*'b'.*world make --split val"):
        shards.load_split("val", tmp_path)
    (folder / "summary.json").write_text(json.dumps({"recipe": {"stride_s": 1.0}}))
    assert [path.stem for path in shards.load_split("val", tmp_path).paths] == ["b"]


def test_nothing_but_old_shards_is_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _split_of(tmp_path, {"a": shard_footer.versions()})
    with monkeypatch.context() as patch:
        patch.setattr(scene_table, "FORMAT_VERSION", 9)
        with pytest.raises(ContractError, match=r"of format 2.*reads 9.*world make --split val"):
            shards.load_split("val", tmp_path)
    assert len(shards.load_split("val", tmp_path)) == 1


def test_a_damaged_picture_names_scene_and_shard(tmp_path: Path) -> None:
    whole = random_scene(0)
    image = np.zeros((128, 256, 3), np.uint8)
    good = (encode_jpeg(image), encode_jpeg(image), encode_jpeg(image), b"")
    broken = (good[0], good[1][:300], good[2], b"")
    scenes = [
        dataclasses.replace(whole, view_jpegs=good),
        dataclasses.replace(random_scene(1), view_jpegs=broken),
    ]
    shards.write_shard(tmp_path / "a.parquet", scenes)
    reader = shards.ShardReader([tmp_path / "a.parquet"])
    assert reader.views(0, 256, 128).shape == (4, 128, 256, 3)
    with pytest.raises(ContractError, match=r"scene net-00/00001 in shard .*a\.parquet"):
        reader.views(1, 256, 128)
