"""Pairs are what a transition is about, once each; what has no later frame is no pair."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from latentvla_training.data.shards import ShardReader, write_shard
from latentvla_training.latent_action.pairs import _unforeseen, find_pairs
from latentvla_training.latent_action.scene_set import SceneSet, training_scenes
from latentvla_training.latent_action.settings import (
    CodebookData,
    DynamicsSettings,
    FrameSettings,
)

from latentvla_ros.contract import ContractError

from .conftest import episode_scenes, make_scene

SETTINGS = DynamicsSettings()


def test_transitions_of_scenes(reader: ShardReader) -> None:
    scenes = SceneSet([reader])
    pairs = find_pairs(scenes, SETTINGS)
    stamp = scenes.column("stamp_ns") / 1e9
    tokens = scenes.column("token")
    for row, of_scene in enumerate(pairs.of_scene):
        for (start, end), pair in zip(SETTINGS.transitions, of_scene, strict=True):
            if pair < 0:
                continue
            earlier, later = pairs.earlier[pair], pairs.later[pair]
            assert stamp[earlier] - stamp[row] == pytest.approx(start)
            assert stamp[later] - stamp[row] == pytest.approx(end)
            assert tokens[earlier].split("/")[0] == tokens[row].split("/")[0]
            assert SETTINGS.intervals_s[pairs.interval[pair]] == end - start
    # Of 12 frames half a second apart, 10, 8 and 4 have the later frame; the recovery start none.
    assert (pairs.of_scene >= 0).sum(axis=0).tolist() == [20, 16, 8]
    recovery = np.char.endswith(tokens, "r")
    assert recovery.sum() == 2 and (pairs.of_scene[recovery] == -1).all()
    assert not recovery[pairs.earlier].any() and not recovery[pairs.later].any()


def test_every_pair_stands_once(reader: ShardReader) -> None:
    pairs = find_pairs(SceneSet([reader]), SETTINGS)
    known = list(zip(pairs.earlier, pairs.later, pairs.interval, strict=True))
    assert len(set(known)) == len(known)
    assert set(pairs.of_scene[pairs.of_scene >= 0]) == set(range(len(pairs)))


def test_trajectory_ends_at_the_later_frame(reader: ShardReader) -> None:
    scenes = SceneSet([reader])
    pairs = find_pairs(scenes, SETTINGS)
    speed = scenes.column("ego_dynamics")[pairs.earlier, 0]
    length = np.array(SETTINGS.intervals_s)[pairs.interval]
    assert pairs.motion[:, 0] == pytest.approx(speed * length, abs=1e-4)
    assert pairs.trajectory[:, 0, 0] == pytest.approx(speed * length / 5, abs=1e-4)


def test_unforeseen_motion_is_beyond_constant_speed_and_yaw_rate() -> None:
    seconds = np.array([2.0, 2.0, 1.0])
    time = seconds[:, None] * np.arange(1, 6) / 5
    dynamics = np.zeros((3, 6), np.float32)
    dynamics[:, 0], dynamics[0, 2] = (8.0, 8.0, 6.0), 0.2
    turn, straight = time[0] * 0.2, np.zeros(5)
    circle = np.stack([40.0 * np.sin(turn), 40.0 * (1.0 - np.cos(turn)), turn], axis=1)
    kept = np.stack([8.0 * time[1], straight, straight], axis=1)
    braked = np.stack([6.0 * time[2] - time[2] ** 2, straight, straight], axis=1)  # at 2 m/s2
    found = _unforeseen(np.stack([circle, kept, braked]).astype(np.float32), dynamics, seconds)
    assert found[:2] == pytest.approx(0.0, abs=1e-3)
    assert found[2, :, 0] == pytest.approx(-1.0 / 0.5, abs=1e-3)  # of every second squared
    assert found[2, :, 1:] == pytest.approx(0.0, abs=1e-5)


def test_later_state_is_that_of_the_later_frame(reader: ShardReader) -> None:
    pairs = find_pairs(SceneSet([reader]), SETTINGS)
    for pair, scene in enumerate(pairs.later):
        as_earlier = np.flatnonzero(pairs.earlier == scene)
        for other in as_earlier:
            assert np.array_equal(pairs.later_state[pair], pairs.state[other])


def test_unknown_future_or_picture_is_no_pair(tmp_path: Path) -> None:
    scenes = episode_scenes("bag-00", 5.0)
    future = scenes[0].labels.future_10hz.copy()
    future[5:] = np.nan
    scenes[0] = dataclasses.replace(
        scenes[0], labels=dataclasses.replace(scenes[0].labels, future_10hz=future)
    )
    scenes[8] = dataclasses.replace(scenes[8], view_jpegs=(b"",), view_mask=np.zeros(1, np.bool_))
    write_shard(tmp_path / "bag.parquet", scenes)
    pairs = find_pairs(SceneSet([ShardReader([tmp_path / "bag.parquet"])]), SETTINGS)
    assert pairs.of_scene[0, 0] == -1
    assert pairs.of_scene[0, 1] >= 0  # that of (1, 2) s is driven by a Scene that knows
    assert 8 not in pairs.earlier and 8 not in pairs.later


def test_recordings_without_map_or_agents_do(splits: Path, tmp_path: Path) -> None:
    bag = [make_scene(step, "bag-00", 4.0, blank_labels=True) for step in range(6)]
    write_shard(tmp_path / "bags" / "bag.parquet", bag)
    scenes = training_scenes(CodebookData(recordings=(str(tmp_path / "bags"),)))
    pairs = find_pairs(scenes, SETTINGS)
    assert len(scenes) == 32
    assert (pairs.earlier >= 26).any()
    frame = scenes.front(31, FrameSettings())
    assert frame.shape == (64, 128, 3) and frame.std() > 10


def test_recordings_that_are_not_there_are_named(splits: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="bag import"):
        training_scenes(CodebookData(recordings=(str(tmp_path / "none"),)))


def test_pictures_of_another_size_are_refused(reader: ShardReader) -> None:
    settings = FrameSettings(source_width=320, source_height=160)
    with pytest.raises(ContractError, match=r"256.*--image-size 320x160"):
        SceneSet([reader]).front(0, settings)
