"""Making a split: resumable, the same twice, and one bad episode does not stop it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from latentvla_training.data import commands, make, scene_table, shards
from latentvla_training.data.labels import RoadIndex
from latentvla_training.data.parallel import map_unordered
from latentvla_training.data.shard_footer import shard_info
from latentvla_training.data.world_adapter import SceneSettings
from latentvla_training.world.episode import Episode, Event, EventName
from latentvla_training.world.road_map import RoadMap
from latentvla_training.world.sumo_network import NetworkBuildError

from latentvla_ros.contract import ContractError


@pytest.fixture
def calls(
    episode: Episode, road_map: RoadMap, renderer: object, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[str]]:
    """The hand-made drive in place of the simulated ones; yields the names that were made."""
    made: list[str] = []

    def network(name: str) -> tuple[RoadIndex, object]:
        return RoadIndex(dataclasses.replace(road_map, name=name)), renderer

    def simulate(name: str) -> Episode:
        made.append(name)
        if name == "val-0002-00":
            raise RuntimeError("no route")
        return dataclasses.replace(episode, name=name, network=name[:-3])

    monkeypatch.setattr(make, "_network", network)
    monkeypatch.setattr(make, "_simulate", simulate)
    yield made


def test_every_network_comes_before_the_second_episode_of_any() -> None:
    names = [task.episode for task in make.episode_tasks("val", 2)]
    networks = [name[:-3] for name in names]
    assert len(set(networks[: len(networks) // 2])) == len(networks) // 2
    assert names[: len(names) // 2] == [f"{network}-00" for network in networks[: len(names) // 2]]
    assert len(make.episode_tasks("val", 2, max_episodes=3)) == 3


@pytest.mark.parametrize("values", [{"episodes_per_network": 0}, {"max_episodes": 0}])
def test_numbers_below_one_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ContractError, match="at least 1"):
        make.episode_tasks("val", **values)


def test_a_failing_episode_is_named_counted_and_tried_again(
    calls: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = make.make_split("val", 1, root=tmp_path, progress=False)
    assert first.made == first.shards == len(calls) - 1
    assert first.failed == {"val-0002-00": "RuntimeError: no route"}
    summary = json.loads((shards.split_folder("val", tmp_path) / "summary.json").read_text())
    assert summary["failed"] == first.failed and summary["scenes"] == first.scenes
    calls.clear()
    second = make.make_split("val", 1, root=tmp_path, progress=True)
    assert calls == ["val-0002-00"]
    assert (second.made, second.kept) == (0, first.made)
    assert second.hashes == first.hashes
    assert "failed=1" in capfd.readouterr().err


def test_two_runs_give_the_same_bytes(calls: list[str], tmp_path: Path) -> None:
    runs = []
    for name in ("one", "two"):
        summary = make.make_split("val", 1, root=tmp_path / name, max_episodes=2, progress=False)
        folder = shards.split_folder("val", tmp_path / name)
        runs.append((summary.hashes, [p.read_bytes() for p in sorted(folder.glob("*.parquet"))]))
    assert runs[0] == runs[1]
    assert len(calls) == 4


def test_partial_files_and_other_recipes_are_made_again(calls: list[str], tmp_path: Path) -> None:
    make.make_split("val", 1, root=tmp_path, max_episodes=2, progress=False)
    path = shards.split_folder("val", tmp_path) / "val-0000-00.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    calls.clear()
    make.make_split("val", 1, root=tmp_path, max_episodes=2, progress=False)
    assert calls == ["val-0000-00"]
    calls.clear()
    settings = SceneSettings(stride_s=1.0)
    make.make_split("val", 1, root=tmp_path, max_episodes=2, settings=settings, progress=False)
    assert calls == ["val-0000-00", "val-0001-00"]
    calls.clear()
    make.make_split(
        "val", 1, root=tmp_path, max_episodes=1, settings=settings, rebuild="all", progress=False
    )
    assert calls == ["val-0000-00"]


def test_what_killed_writers_left_is_removed_but_not_what_living_ones_write(
    calls: list[str], tmp_path: Path
) -> None:
    folder = shards.split_folder("val", tmp_path)
    folder.mkdir(parents=True)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead = folder / f".val-0000-00.parquet.{gone.pid}.part"
    alive = folder / f".val-0001-00.parquet.{os.getppid()}.part"
    dead.touch()
    alive.touch()
    make.make_split("val", 1, root=tmp_path, max_episodes=1, progress=False)
    assert not dead.exists() and alive.exists()
    assert len(shards.load_split("val", tmp_path).paths) == len(calls) == 1


def test_a_full_disk_stops_with_a_clear_error(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards.os, "fsync", full)
    with pytest.raises(shards.DiskFullError, match="val-0000-00"):
        make.make_split("val", 1, root=tmp_path, progress=False)
    assert len(calls) == 1
    assert list(shards.split_folder("val", tmp_path).glob("*parquet*")) == []


def test_a_disk_that_is_full_before_the_shard_is_written_stops_too(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(name: str) -> Episode:
        calls.append(name)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(make, "_simulate", full)
    with pytest.raises(shards.DiskFullError, match="val-0000-00"):
        make.make_split("val", 1, root=tmp_path, progress=False)
    assert len(calls) == 1


def _square(value: int) -> int:
    if value == 3:
        raise ValueError("three")
    if value == 4:
        raise ContractError("value", 4, "a class that does not survive pickling")
    return value * value


@pytest.mark.parametrize("workers", [1, 2])
def test_map_yields_every_item_once(workers: int) -> None:
    found = dict(map_unordered(_square, range(7), workers, pool="processes"))
    assert isinstance(found.pop(3), ValueError)
    assert "expected a class that" in str(found.pop(4))
    assert found == {value: value * value for value in (0, 1, 2, 5, 6)}


_MAPS_SLOWLY = r"""
import os, time
from latentvla_training.data.parallel import map_unordered
from latentvla_training.data.shard_footer import shard_info
def task(index):
    os.write(1, f"{os.getpid()}\n".encode())  # one write: two workers' lines never mix
    time.sleep(60)
if __name__ == "__main__":
    list(map_unordered(task, range(4), 2, pool="processes"))
"""


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "maps.py"
    script.write_text(_MAPS_SLOWLY)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(parent.stdout.readline()) for _ in range(2)]
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30.0
    while any(_runs(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(_runs(pid) for pid in workers)


def _runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_ray_gives_what_the_pool_gives() -> None:
    pytest.importorskip("ray")
    found = dict(map_unordered(int, ["1", "2", "three", "4"], 2, pool="ray"))
    assert isinstance(found.pop("three"), ValueError)
    assert found == {"1": 1, "2": 2, "4": 4}


def test_no_workers_is_an_error() -> None:
    with pytest.raises(ContractError, match=r"workers.*at least 1"):
        list(map_unordered(_square, [1], 0))


def test_shards_of_other_code_are_kept_with_a_warning_or_made_again(
    calls: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make.make_split("val", 1, root=tmp_path, max_episodes=2, progress=False)
    monkeypatch.setattr(make, "code_hash", lambda: "other")
    calls.clear()
    kept = make.make_split("val", 1, root=tmp_path, max_episodes=2, progress=False)
    assert (kept.kept, kept.other_code, calls) == (2, 2, [])
    assert "2 of 2 shards of val were made by other code" in caplog.text
    made = make.make_split(
        "val", 1, root=tmp_path, max_episodes=2, rebuild="other_code", progress=False
    )
    assert (made.kept, made.other_code, len(calls)) == (0, 0, 2)
    assert made.hashes == kept.hashes


def test_every_split_has_its_settings() -> None:
    from latentvla_training.world.networks import SPLIT_SIZES

    assert set(make.DEFAULT_EPISODES) == set(SPLIT_SIZES)
    settings = {split: make.episode_tasks(split, 1)[0].settings for split in SPLIT_SIZES}
    assert settings["train"].recovery_share == 0.2 and settings["train"].jitter_rig
    for split in ("val", "test", "longtail", "ood"):
        assert settings[split].recovery_share == 0.0 and not settings[split].jitter_rig
    assert [split for split in SPLIT_SIZES if settings[split].events_only] == ["longtail"]


def test_a_longtail_split_holds_only_what_an_event_matters_to(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate = make._simulate
    event = Event(EventName.CUT_IN, 60, 80, {})

    def with_event(name: str) -> Episode:
        happened = () if name == "longtail-0001-00" else (event,)
        return dataclasses.replace(simulate(name), events=happened)

    monkeypatch.setattr(make, "_simulate", with_event)
    summary = make.make_split("longtail", 1, root=tmp_path, max_episodes=3, progress=False)
    assert summary.without_event == ("longtail-0001-00",) and summary.failed == {}
    reader = shards.load_split("longtail", tmp_path)
    steps = sorted({int(token.split("/")[1]) for token in reader.columns["token"]})
    assert steps == list(range(40, 80, 5))  # from 2 s before
    assert set(reader.columns["tags"]) == {"clear,cut_in"}
    calls.clear()
    again = make.make_split("longtail", 1, root=tmp_path, max_episodes=3, progress=False)
    assert calls == [] and again.without_event == summary.without_event
    make.make_split("longtail", 1, root=tmp_path, max_episodes=3, rebuild="all", progress=False)
    assert len(calls) == 3


def test_a_network_that_cannot_be_built_is_tried_once(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    build = make._network

    def network(name: str) -> object:
        tried.append(name)
        if name == "val-0001":
            raise NetworkBuildError("netconvert says no")
        return build(name)

    monkeypatch.setattr(make, "_network", network)
    settings = SceneSettings(stride_s=5.0)
    summary = make.make_split("val", 3, root=tmp_path, settings=settings, progress=False)
    unbuilt = {f"val-0001-0{i}": "NetworkBuildError: netconvert says no" for i in range(3)}
    assert summary.failed.items() >= unbuilt.items() and tried.count("val-0001") == 1


def test_a_shard_cut_short_is_made_again_and_skipped_by_readers(
    calls: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = make.make_split("val", 1, root=tmp_path, max_episodes=2, progress=False)
    path = shards.split_folder("val", tmp_path) / "val-0001-00.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert [p.stem for p in shards.load_split("val", tmp_path).paths] == ["val-0000-00"]
    assert "1 of 2 shards of val left out: val-0001-00: damaged" in caplog.text
    again = make.make_split("val", 1, root=tmp_path, max_episodes=2, progress=False)
    assert (again.made, again.kept) == (1, 1) and again.hashes == first.hashes
    assert path.read_bytes() == whole


def _flip_in_the_middle(path: Path) -> bytes:
    """Change one byte of the pictures; returns what was there, whole."""
    whole = path.read_bytes()
    columns = pq.ParquetFile(path).metadata.row_group(0)
    names = [columns.column(i).path_in_schema for i in range(columns.num_columns)]
    column = columns.column(next(i for i, n in enumerate(names) if n.startswith("view_jpegs")))
    data = bytearray(whole)
    data[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    path.write_bytes(data)
    return whole


@pytest.mark.parametrize("files_known", [True, False])
def test_a_shard_damaged_in_the_middle_is_made_again_and_skipped_by_readers(
    calls: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture, files_known: bool
) -> None:
    first = make.make_split("val", 1, root=tmp_path, max_episodes=2, progress=False)
    folder = shards.split_folder("val", tmp_path)
    if not files_known:  # made before summaries knew files
        summary = json.loads((folder / "summary.json").read_text())
        del summary["files"]
        (folder / "summary.json").write_text(json.dumps(summary))
    whole = _flip_in_the_middle(folder / "val-0001-00.parquet")
    assert [p.stem for p in shards.load_split("val", tmp_path).paths] == ["val-0000-00"]
    assert "1 of 2 shards of val left out: val-0001-00: damaged inside" in caplog.text
    again = make.make_split("val", 1, root=tmp_path, max_episodes=2, progress=False)
    assert "1 shards of val are damaged and made again: val-0001-00" in caplog.text
    assert (again.made, again.kept) == (1, 1)
    assert (again.hashes, again.files) == (first.hashes, first.files)
    assert (folder / "val-0001-00.parquet").read_bytes() == whole
    assert len(shards.load_split("val", tmp_path).paths) == 2


def test_whole_shards_are_told_by_their_files_and_others_by_their_scenes(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make.make_split("val", 1, root=tmp_path, max_episodes=2, progress=False)
    hashed: list[int] = []
    scenes_hash = scene_table.scenes_hash
    monkeypatch.setattr(
        scene_table, "scenes_hash", lambda rows: hashed.append(len(rows)) or scenes_hash(rows)
    )
    assert len(shards.load_split("val", tmp_path).paths) == 2 and hashed == []
    # The same Scenes in another file, as another version of the format's library writes them.
    path = shards.split_folder("val", tmp_path) / "val-0001-00.parquet"
    pq.write_table(pq.read_table(path), path, compression="none")
    assert len(shards.load_split("val", tmp_path).paths) == 2 and len(hashed) == 1
    make.make_split("val", 1, root=tmp_path, max_episodes=2, progress=False)
    hashed.clear()
    assert len(shards.load_split("val", tmp_path).paths) == 2 and hashed == []


def test_scenes_of_an_older_version_are_made_again(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(make, "versions", lambda: {"scene_version": 1, "reference_version": 1})
        make.make_split("val", 1, root=tmp_path, max_episodes=1, progress=False)
    with pytest.raises(ContractError, match=r"scene_version 1.*world make --split val"):
        shards.load_split("val", tmp_path)
    assert make.make_split("val", 1, root=tmp_path, max_episodes=1, progress=False).made == 1
    reader = shards.load_split("val", tmp_path)
    assert np.isfinite(reader.columns["expert_pdms"]).all()
    assert np.isfinite(reader[0].labels.pdm_reference_10hz).all()


def test_pictures_of_another_size_are_made_beside_not_over(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """``world make --image-size 512x256``, as recipes base need, cannot undo those of nano."""
    monkeypatch.setenv("LATENTVLA_DATA", str(tmp_path / "small"))
    assert commands.Make("val", episodes=1)() == 0
    small = next(shards.split_folder("val").glob("*.parquet"))
    plain = make.make_split(
        "val", root=tmp_path / "plain", max_episodes=1, progress=False, settings=SceneSettings()
    )
    assert shard_info(small).content_sha256 == plain.hashes[small.stem]  # as without the option
    assert shard_info(small).recipe == plain.recipe
    before = small.read_bytes()
    with pytest.raises(ContractError, match=r"\(256, 128\), expected \(512, 256\).*LATENTVLA_DATA"):
        commands.Make("val", episodes=1, image_size="512x256")()
    assert small.read_bytes() == before
    monkeypatch.setenv("LATENTVLA_DATA", str(tmp_path / "large"))
    capsys.readouterr()
    assert commands.Make("val", episodes=1, image_size="512x256")() == 0
    assert "val: " in capsys.readouterr().out
    reader = shards.load_split("val")
    assert reader.views(0, 512, 256).shape == (4, 256, 512, 3)
    small_reader = shards.ShardReader([small])
    focal, twice = (r.columns["intrinsics"][0, 0, 0, 0] for r in (small_reader, reader))
    assert twice == pytest.approx(2.0 * focal)  # the same field of view
    with pytest.raises(ContractError, match=r"\(512, 256\), expected \(256, 128\)"):
        commands.Make("val", episodes=1)()
    monkeypatch.setattr(make, "split_networks", lambda _: ["val-0000"])
    monkeypatch.setitem(make.DEFAULT_EPISODES, "val", 1)
    calls.clear()
    assert len(make.ensure_split("val").paths) == 1 and not calls  # it keeps to their size
    assert commands.Make("val", episodes=1, rebuild="all")() == 0
    assert shards.load_split("val").views(0, 256, 128).shape == (4, 128, 256, 3)


@pytest.mark.parametrize(
    "size", ["", "512", "512x", "512x256x3", "-512x256", "0x0", "16x16", "512 x 256", "99999x256"]
)
def test_sizes_that_no_picture_has_are_refused(size: str) -> None:
    with pytest.raises(ContractError, match="--image-size"):
        commands.Make("val", image_size=size)()
    with pytest.raises(ContractError, match="--image-size"):
        commands.Import(Path("bag"), Path("out.parquet"), image_size=size)()
