"""Recorded drives by hand: a coloured ramp moves past, speeds differ; splits of two networks."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from latentvla_training.data.scene import RECOVERY, Scene, SceneLabels
from latentvla_training.data.shards import ShardReader, split_folder, write_shard
from latentvla_training.latent_action.release import release_run
from latentvla_training.latent_action.settings import CodebookRecipe, load_codebook_recipe
from latentvla_training.latent_action.training import CodebookTraining

from latentvla_ros.contract import Command

STRIDE_S = 0.5


def picture(phase: float, width: int = 256, height: int = 128) -> bytes:
    """Return a JPEG of stripes that have moved by ``phase`` pixels."""
    across = np.arange(width)[None, :, None] + phase
    down = np.arange(height)[:, None, None]
    stripes = 128 + 90 * np.sin(across / 9.0 + np.arange(3) + down / 31.0)
    done, data = cv2.imencode(".jpg", stripes.astype(np.uint8))
    assert done
    return bytes(data.tobytes())


def make_scene(
    step: int, episode: str, speed: float, recovery: bool = False, blank_labels: bool = False
) -> Scene:
    """Return the Scene at ``step`` of an episode that drives straight on.

    Args:
        blank_labels: without road users and map, as an imported recording.
    """
    at = step * STRIDE_S
    times = np.arange(41) * 0.1
    future = np.stack([speed * times, np.zeros(41), np.zeros(41)], axis=1).astype(np.float32)
    agents = 0 if blank_labels else 1
    frames = np.arange(51) * 0.1
    leader = np.zeros((agents, 51, 5))
    leader[:, :, 0] = speed * at + 20.0 + (speed + step % 3) * frames
    history = np.zeros((4, 3), np.float32)
    labels = SceneLabels(
        future_2hz=future[5::5],
        future_10hz=future,
        future_mask=np.ones(8, np.bool_),
        past_states=np.zeros((4, 11)),
        agent_type=np.zeros(agents, np.uint8),
        agent_size=np.full((agents, 2), 2.0, np.float32),
        agent_height=np.full(agents, 1.5, np.float32),
        agent_state=leader,
        agent_valid=np.ones((agents, 51), np.bool_),
        agent_braking=np.zeros(agents, np.bool_),
        polygon_xy=np.zeros((0, 2)),
        polygon_offset=np.array([0]),
        polygon_layer=np.zeros(0, np.uint8),
        polygon_on_route=np.zeros(0, np.bool_),
        light_polygon=np.zeros(0, np.int64),
        light_red=np.zeros((0, 41), np.bool_),
        centerline=np.zeros((2, 3)),
        own_light=-1,
        own_light_distance_m=float("nan"),
        own_light_switched=False,
        pdm_reference_10hz=np.full((41, 3), np.nan),
        tags=RECOVERY if recovery else "",
    )
    network = episode.rpartition("-")[0]
    return Scene(
        token=f"{episode}/{step:05d}{'r' if recovery else ''}",
        network=network,
        stamp_ns=round(1e9 * (100.0 + at)),
        ego_pose=np.array([speed * at, 0.0, 0.0]),
        view_jpegs=(picture(7.0 * speed * at + (40.0 if recovery else 0.0)),),
        view_mask=np.ones(1, np.bool_),
        intrinsics=np.eye(3, dtype=np.float32)[None],
        ego_from_camera=np.eye(4, dtype=np.float32)[None],
        ego_history=history,
        ego_history_mask=np.ones(4, np.bool_),
        ego_dynamics=np.array([speed, 0, 0, 0, 0, 0], np.float32),
        ego_dynamics_mask=np.array([1, 1, 1, 1, 1, 0], np.bool_),
        command=Command.STRAIGHT.one_hot(),
        labels=labels,
    )


def episode_scenes(episode: str, speed: float, steps: int = 12) -> list[Scene]:
    """Return Scenes half a second apart, and one start beside the driven path."""
    scenes = [make_scene(step, episode, speed) for step in range(steps)]
    return [*scenes, make_scene(3, episode, speed, recovery=True)]


def make_splits() -> None:
    """Write splits of two networks, 13 Scenes each, below the data root."""
    for split in ("train", "val", "test"):
        for number, speed in enumerate((3.0, 7.0)):
            episode = f"{split}-000{number}-00"
            write_shard(split_folder(split) / f"{episode}.parquet", episode_scenes(episode, speed))


@pytest.fixture
def splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with the splits of ``make_splits``; returns the folder above it."""
    monkeypatch.setenv("LATENTVLA_DATA", str(tmp_path / "data"))
    make_splits()
    return tmp_path


@pytest.fixture
def reader(splits: Path) -> ShardReader:
    """The training split."""
    return ShardReader(sorted(split_folder("train").glob("*.parquet")))


@pytest.fixture
def recipe() -> CodebookRecipe:
    """The shipped recipe ``smoke``."""
    return load_codebook_recipe("smoke")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run ``run`` and its release ``released`` beside the data they were made of."""
    place = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LATENTVLA_DATA", str(place / "data"))
        make_splits()
        recipe = load_codebook_recipe("smoke")
        CodebookTraining(recipe, place / "run", progress=False).run()
        release_run(place / "run", place / "released")
    shutil.rmtree(place / "data" / "codes")  # the codes that were named: here they are made anew
    for path in (place / "data" / "cache" / "frames").rglob("test-*.npy"):
        path.unlink()
    return place


@pytest.fixture
def finished(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of all of it for one test."""
    shutil.copytree(trained, tmp_path / "copy")
    monkeypatch.setenv("LATENTVLA_DATA", str(tmp_path / "copy" / "data"))
    return tmp_path / "copy"
