"""Motions read off pictures, chained to a future; where one is missing, the chain ends."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from latentvla_training import cli
from latentvla_training.data.scene import RECOVERY, Scene
from latentvla_training.data.shards import ShardReader, load_split, split_folder, write_shard
from latentvla_training.planner.dataset import scenes_to_imitate
from latentvla_training.planner.motion_net import (
    PseudoOdometryTask,
    load_pseudo_recipe,
    train_motion_net,
)
from latentvla_training.planner.pseudo_odometry import (
    assumed_columns,
    pseudo_file,
    with_pseudo_odometry,
)

from latentvla_ros.contract import ContractError
from latentvla_ros.geometry import se2, se3

from .conftest import SHARD_RECIPE, make_scene

_STEPS = 14


def _stripes(phase: float) -> bytes:
    across = np.arange(64)[None, :, None] + phase
    pixels = 128 + 90 * np.sin(across / 6.0 + np.arange(3) + np.zeros((32, 1, 1)))
    done, data = cv2.imencode(".jpg", pixels.astype(np.uint8))
    assert done
    return bytes(data.tobytes())


def _motion(step: int, pace: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the motion of the half second before a step: another one at every step."""
    return np.array([pace + 0.3 * (step % 3), 0.02, 0.03 * pace])


def _drive(episode: str, pace: float, other: float = 0.0) -> list[Scene]:
    """Return the Scenes of a drive; stripes move by what is driven. ``other``: odometry lies so."""
    poses = [np.zeros(3)]
    for step in range(1, _STEPS + 12):
        poses.append(se2.compose(poses[-1], _motion(step, pace)))
    scenes = []
    for step in range(3, _STEPS):
        future = se2.relative(poses[step], np.stack(poses[step + 1 : step + 9])) + other
        past = se2.relative(poses[step], np.stack(poses[step - 3 : step + 1])) - other
        past[-1] = 0.0
        scene = make_scene(step, episode.rpartition("-")[0])
        mounts = scene.ego_from_camera.copy()
        mounts[3] = se3.from_se2(past[2]) @ mounts[0]
        phase = [6.0 * sum(_motion(n, pace)[0] for n in range(at)) for at in (step + 1, step)]
        pictures = (_stripes(phase[0]), *scene.view_jpegs[1:3], _stripes(phase[1]))
        labels = replace(scene.labels, future_2hz=future.astype(np.float32), tags="")
        scenes.append(
            replace(
                scene,
                token=f"{episode}/{step}",
                stamp_ns=step * 500_000_000,
                view_jpegs=pictures,
                ego_from_camera=mounts.astype(np.float32),
                ego_history=past.astype(np.float32),
                labels=labels,
            )
        )
    return scenes


def _write(split: str, lies: float = 0.0) -> ShardReader:
    """Write two drives; of the first (without odometry at a share of a half) it may lie."""
    for number, other in ((0, lies), (1, 0.0)):
        episode = f"{split}-000{number}-00"
        scenes = _drive(episode, 1.0 + number, other)
        write_shard(split_folder(split) / f"{episode}.parquet", scenes, SHARD_RECIPE)
    return load_split(split)


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTVLA_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LATENTVLA_LAUNCHED", "1")


def _true_motion(reader: ShardReader) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return se2.inverse(reader.columns["ego_history"][:, 2].astype(np.float64))


def test_true_motions_are_the_driven_future() -> None:
    reader = _write("train")
    columns, found = reader.columns, assumed_columns(reader, _true_motion(reader))
    count = _STEPS - 3
    steps = np.arange(1, 9)[None] + np.arange(count)[:, None] < count  # as far as it was recorded
    assert (found["future_mask"] == np.tile(steps, (2, 1))).all()
    known = found["future_mask"]
    np.testing.assert_allclose(found["future_2hz"][known], columns["future_2hz"][known], atol=1e-4)
    some = known.any(axis=1)
    assert (found["future_2hz"][some][~known[some]] == 0.0).all()  # numbers that a mask takes out
    assert np.isnan(found["future_2hz"][~some]).all()
    whole = found["ego_history_mask"].all(axis=1)
    assert whole.sum() == 2 * (count - 2)
    for name in ("ego_history", "ego_from_camera"):
        np.testing.assert_allclose(found[name][whole], columns[name][whole], atol=1e-4)
    # Speed at t0 is that of half a second before and after it; of the last Scene, of before alone.
    ahead = _true_motion(reader)[:, 0].reshape(2, count) / 0.5
    rates = (ahead + np.append(ahead[:, 1:], ahead[:, -1:], axis=1)) / 2
    np.testing.assert_allclose(found["ego_dynamics"][:, 0], rates.ravel(), atol=1e-5)
    assert found["ego_dynamics_mask"].tolist() == [[True] * 3 + [False] * 3] * len(reader)


def test_one_motion_that_is_missing_ends_the_chain() -> None:
    reader = _write("train")
    motion = _true_motion(reader)
    motion[4] = np.nan
    found = assumed_columns(reader, motion)
    assert found["future_mask"][2].tolist() == [True] + [False] * 7  # step 4 is two ahead
    assert found["ego_history_mask"][5].tolist() == [False, False, True, True]
    assert found["ego_history_mask"][4].tolist() == [False, False, False, True]
    assert not found["ego_dynamics_mask"][4].any()


def test_what_is_hidden_teaches_nothing_and_a_killed_run_goes_on(tmp_path: Path) -> None:
    recipe = load_pseudo_recipe("smoke")
    _write("train")
    _write("val")
    whole = train_motion_net(recipe, tmp_path / "whole", progress=False)
    train_motion_net(recipe, tmp_path / "parts", stop_after_steps=2, progress=False)
    _write("train", lies=5.0)
    again = train_motion_net(recipe, tmp_path / "parts", progress=False)
    for one, two in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, two)


def test_it_reads_motion_off_pictures(tmp_path: Path) -> None:
    recipe = load_pseudo_recipe("smoke")
    run = replace(recipe.run, passes=2400, batch_size=16, validate_passes=2400)
    optimizer = replace(recipe.optimizer, learning_rate=3e-3)
    data = replace(recipe.data, odometry_share=1.0)
    recipe = replace(recipe, run=run, optimizer=optimizer, data=data)
    reader = _write("train")
    _write("val")
    net = train_motion_net(recipe, tmp_path / "run", progress=False)
    figures = PseudoOdometryTask(recipe, reader, reader).validate(net, torch.device("cpu"))
    assert figures["r2_ahead"] > 0.6 and figures["r2_turn"] > 0.6


def test_command_and_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hidden = _write("train").part(odometry_share=0.5)
    _write("val")
    assert hidden.has_odometry.sum() == len(hidden) // 2 and not hidden.has_odometry[0]
    with pytest.raises(FileNotFoundError, match="latentvla-train pseudo-odometry"):
        with_pseudo_odometry(hidden, pseudo_file("smoke", "train"))
    asked = ["pseudo-odometry", "--recipe", "smoke", "--run", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["latentvla-train", *asked])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 0
    assert "Scenes of val the pseudo-trajectories are" in capsys.readouterr().out

    path = pseudo_file("smoke", "train")
    told = with_pseudo_odometry(hidden, path)
    assert scenes_to_imitate(hidden).tolist() == np.flatnonzero(hidden.has_odometry).tolist()
    missing = len(hidden) // 2 - 1  # the last of the drive has no future
    assert scenes_to_imitate(told).tolist() == [*range(missing), *scenes_to_imitate(hidden)]
    for name, column in told.columns.items():
        shown = hidden.has_odometry
        np.testing.assert_array_equal(column[shown], hidden.columns[name][shown], err_msg=name)
    assert not told.labelled[0] and np.isnan(told.columns["expert_pdms"][0])
    assert told.contents()[0] != hidden.contents()[0] and "smoke-" in told.contents()[0]
    assert told.contents()[1] == hidden.contents()[1]
    assert np.isnan(hidden.columns["future_2hz"][0]).all()  # its own columns are as they were

    with pytest.raises(ContractError, match=r"odometry_share: found '0\.5', expected 0\.7"):
        with_pseudo_odometry(load_split("train").part(odometry_share=0.7), path)
    _write("train", lies=1.0)
    with pytest.raises(ContractError, match=r"others in \['train-0000-00'\]"):
        with_pseudo_odometry(load_split("train").part(odometry_share=0.5), path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ContractError, match="a whole file"):
        with_pseudo_odometry(hidden, path)


def test_scenes_with_odometry_are_half_of_what_is_imitated() -> None:
    reader = _write("train")
    reader.has_odometry[:] = False
    reader.has_odometry[:3] = True
    told = reader.assuming(assumed_columns(reader, _true_motion(reader)), "somebody")
    scenes = scenes_to_imitate(told)
    rest = told.columns["future_mask"][3:].any(axis=1).sum()
    assert np.bincount(scenes)[:4].tolist() == [round(rest / 3)] * 3 + [1]
    assert abs(2 * (scenes < 3).sum() - len(scenes)) < 3


def test_other_views_are_refused(tmp_path: Path) -> None:
    scenes = [make_scene(index) for index in range(2)]
    write_shard(tmp_path / "train-0000-00.parquet", scenes, {**SHARD_RECIPE, "views": []})
    reader = ShardReader([tmp_path / "train-0000-00.parquet"])
    recipe = load_pseudo_recipe("smoke")
    with pytest.raises(ContractError, match=r"front at 0 and -0\.5 s"):
        PseudoOdometryTask(recipe, reader, reader)
    with pytest.raises(ContractError, match="a multiple of 16"):
        replace(recipe, image_width=40)


def test_a_start_beside_the_path_is_no_link(tmp_path: Path) -> None:
    scenes = _drive("train-0000-00", 1.0)
    scenes[5] = replace(scenes[5], labels=replace(scenes[5].labels, tags=RECOVERY))
    write_shard(tmp_path / "train-0000-00.parquet", scenes, SHARD_RECIPE)
    reader = ShardReader([tmp_path / "train-0000-00.parquet"])
    found = assumed_columns(reader, _true_motion(reader))
    assert found["future_mask"][3].tolist() == [True] + [False] * 7
