"""Making a split: resumable, the same twice, and one bad episode does not stop it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from latentvla_training.data import make, shards
from latentvla_training.data.labels import RoadIndex
from latentvla_training.data.parallel import map_unordered
from latentvla_training.data.world_adapter import SceneSettings
from latentvla_training.world.episode import Episode
from latentvla_training.world.road_map import RoadMap

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


def test_the_code_hash_sees_code_and_nothing_else() -> None:
    source = "'''Doc.'''\ndef f(x):\n    '''Doc.'''\n    return x + 1  # why\n"
    same = "'''Other.'''\n\ndef f(x):\n    '''New.'''\n    return (x + 1)\n"
    assert make._code_of(source) == make._code_of(same)
    assert make._code_of(source) != make._code_of(source.replace("1", "2"))
