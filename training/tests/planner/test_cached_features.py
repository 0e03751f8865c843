"""Cached features are those of the trunk and Scenes that are asked for, whole, or they are made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from latentvla_training.data.shards import ShardReader, write_shard
from latentvla_training.planner import cached_features
from latentvla_training.planner.cached_features import (
    CachedFeatures,
    ensure_features,
    features_folder,
    trunk_id,
)

from latentvla_ros.contract import ContractError
from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.model.planner import StudentPlanner


def make_planner(config: PlannerConfig, seed: int = 0) -> StudentPlanner:
    torch.manual_seed(seed)
    return StudentPlanner(config).eval()


@pytest.fixture
def planner(tiny: PlannerConfig) -> StudentPlanner:
    return make_planner(tiny)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def cached(planner: StudentPlanner, reader: ShardReader, root: Path) -> CachedFeatures:
    return ensure_features(planner, reader, "train", root, progress=False)


def files(planner: StudentPlanner, root: Path) -> list[Path]:
    return sorted(features_folder(trunk_id(planner), "train", root).iterdir())


def test_they_are_the_trunks_own(
    planner: StudentPlanner, reader: ShardReader, root: Path, tiny: PlannerConfig
) -> None:
    features = cached(planner, reader, root)
    assert len(features) == len(reader) == 12
    for index in (0, 5, 6, 11):  # both sides of the border between two shards
        images = torch.from_numpy(reader.views(index, tiny.image_width, tiny.image_height))
        with torch.inference_mode():
            own = planner.encode_images(images[None])[0].numpy()
        np.testing.assert_allclose(features[index], own, rtol=1e-3, atol=1e-3)
    with pytest.raises(IndexError, match="scene 12 of 12"):
        features[12]


def test_what_is_there_is_not_made_again(
    planner: StudentPlanner, reader: ShardReader, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = np.stack([cached(planner, reader, root)[i] for i in range(12)])

    def never(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(cached_features, "_encode", never)
    again = cached(planner, reader, root)
    np.testing.assert_array_equal(np.stack([again[i] for i in range(12)]), first)


def test_a_kill_between_shards_costs_no_more_than_the_shard(
    planner: StudentPlanner, reader: ShardReader, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, calls = cached_features._encode, []

    def killed(planner: StudentPlanner, reader: ShardReader, start: int, *rest: object) -> object:
        calls.append(start)
        if calls == [0, 6]:
            raise KeyboardInterrupt
        return encode(planner, reader, start, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(cached_features, "_encode", killed)
    with pytest.raises(KeyboardInterrupt):
        cached(planner, reader, root)
    resumed = cached(planner, reader, root)
    assert calls == [0, 6, 6]
    whole = cached(planner, reader, root.with_name("other"))
    for index in range(12):
        np.testing.assert_array_equal(resumed[index], whole[index])


@pytest.mark.parametrize("keep", [0, 5, 0.5, 0.999])
def test_a_truncated_file_is_named_and_made_again(
    planner: StudentPlanner, reader: ShardReader, root: Path, keep: float
) -> None:
    before = cached(planner, reader, root)[7].copy()
    path = files(planner, root)[1]
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(ContractError, match=f"{path.name}.*remove it to have it made again"):
        CachedFeatures(path.parent, reader.paths, trunk_id(planner))
    again = cached(planner, reader, root)
    np.testing.assert_array_equal(again[7], before)
    assert path.stat().st_size == len(whole)


def test_a_full_disk_leaves_nothing_half_written(
    planner: StudentPlanner, reader: ShardReader, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left") as caught:
        patch.setattr("os.fsync", full)
        cached(planner, reader, root)
    assert caught.value.errno == 28
    assert not files(planner, root)
    assert len(cached(planner, reader, root)) == 12


def test_features_of_another_trunk_are_refused_by_both_names(
    planner: StudentPlanner, reader: ShardReader, root: Path, tiny: PlannerConfig
) -> None:
    cached(planner, reader, root)
    other = trunk_id(make_planner(tiny, seed=1))
    folder = features_folder(trunk_id(planner), "train", root)
    with pytest.raises(ContractError) as caught:
        CachedFeatures(folder, reader.paths, other)
    assert trunk_id(planner) in str(caught.value) and other in str(caught.value)
    with pytest.raises(FileNotFoundError, match="no features of shard train-0000-00"):
        CachedFeatures(features_folder(other, "train", root), reader.paths, other)


def test_the_trunk_alone_decides_its_identity(planner: StudentPlanner, tiny: PlannerConfig) -> None:
    own = trunk_id(planner)
    with torch.no_grad():
        planner.head.fusion.gate.fill_(1.0)  # type: ignore[union-attr]
    assert trunk_id(planner) == own
    with torch.no_grad():
        planner.image_encoder.smooth[1].running_mean += 1e-3
    assert trunk_id(planner) != own
    late = make_planner(replace(tiny, view_time_offsets_s=(0.0, 0.0, 0.0, -0.7)))
    assert trunk_id(late) != own


def test_features_of_other_scenes_are_refused_and_made_again(
    planner: StudentPlanner, reader: ShardReader, root: Path
) -> None:
    before = cached(planner, reader, root)[0].copy()
    path, other = reader.paths[0], ShardReader(reader.paths[1:])
    first = contents(path)
    write_shard(path, [other[index] for index in (3, 2, 1, 0, 4, 5)])
    second = contents(path)
    changed = ShardReader(reader.paths)
    with pytest.raises(ContractError) as caught:
        CachedFeatures(
            features_folder(trunk_id(planner), "train", root), changed.paths, trunk_id(planner)
        )
    assert first in str(caught.value) and second in str(caught.value)
    again = cached(planner, changed, root)
    assert not np.array_equal(again[0], before)


def contents(path: Path) -> str:
    return str(cached_features.shard_info(path).content_sha256)


def test_scenes_with_other_views_are_refused(
    reader: ShardReader, root: Path, tiny: PlannerConfig
) -> None:
    three = make_planner(replace(tiny, view_time_offsets_s=(0.0, 0.0, 0.0)))
    with pytest.raises(ContractError, match=r"scene\.views: found '4 at"):
        cached(three, reader, root)
    wide = make_planner(replace(tiny, image_width=128))
    with pytest.raises(ContractError, match="train-0000-00"):
        cached(wide, reader, root)
