"""Scenes by hand whose driven future shows in the front picture, with codes made of that future."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from latentvla_training.data.scene import Scene, SceneLabels
from latentvla_training.data.shards import ShardReader, load_split, split_folder, write_shard
from latentvla_training.latent_action.codes import LatentCodes, save_codes, scenes_identity
from latentvla_training.teacher.settings import TeacherRecipe, load_teacher_recipe

from latentvla_ros.contract import Command

from ..planner import conftest as planner_conftest

CODEBOOK = "test-0123456789abcdef"

#: The same views as everywhere, in the size that the shipped recipes read.
SHARD_RECIPE = {**planner_conftest.SHARD_RECIPE, "image_width": 256, "image_height": 128}


@lru_cache(maxsize=256)
def picture(value: int, width: int = 256, height: int = 128) -> bytes:
    """Return a JPEG of stripes that hang on a number."""
    across = np.arange(width)[None, :, None] + value
    down = np.arange(height)[:, None, None]
    stripes = 128 + 90 * np.sin(across / (5.0 + value % 7) + np.arange(3) + down / 31.0)
    done, data = cv2.imencode(".jpg", stripes.astype(np.uint8))
    assert done
    return bytes(data.tobytes())


def make_scene(index: int, network: str, shown: int | None = None, size: int = 256) -> Scene:
    """Return Scene ``index``: 2 + index % 5 m/s straight on.

    Args:
        shown: what the pictures hang on, the index by default. size: their width.
    """
    speed = 2.0 + index % 5
    times = np.arange(41) * 0.1
    future = np.stack([speed * times, np.zeros(41), np.zeros(41)], axis=1).astype(np.float32)
    history = np.zeros((4, 3), np.float32)
    history[:, 0] = speed * np.array([-1.5, -1.0, -0.5, 0.0])
    labels = SceneLabels(
        future_2hz=future[5::5],
        future_10hz=future,
        future_mask=np.ones(8, np.bool_),
        past_states=np.zeros((4, 11)),
        agent_type=np.zeros(0, np.uint8),
        agent_size=np.zeros((0, 2), np.float32),
        agent_height=np.zeros(0, np.float32),
        agent_state=np.zeros((0, 51, 5)),
        agent_valid=np.zeros((0, 51), np.bool_),
        agent_braking=np.zeros(0, np.bool_),
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
    )
    value = 10 * (index if shown is None else shown)
    return Scene(
        token=f"{network}-00/{index}",
        network=network,
        stamp_ns=1_000_000_000 + index,
        ego_pose=np.zeros(3),
        view_jpegs=tuple(picture(value + view, size, size // 2) for view in range(4)),
        view_mask=np.ones(4, np.bool_),
        intrinsics=np.tile(np.eye(3, dtype=np.float32), (4, 1, 1)),
        ego_from_camera=np.tile(np.eye(4, dtype=np.float32), (4, 1, 1)),
        ego_history=history,
        ego_history_mask=np.ones(4, np.bool_),
        ego_dynamics=np.array([speed, 0, 0, 0, 0, 0], np.float32),
        ego_dynamics_mask=np.array([1, 1, 1, 1, 1, 0], np.bool_),
        command=list(Command)[index % 3].one_hot(),
        labels=labels,
    )


def write_split(split: str, scenes: int = 6) -> ShardReader:
    """Write a split of two networks; returns it."""
    for network in (f"{split}-0000", f"{split}-0001"):
        rows = [make_scene(index, network) for index in range(scenes)]
        write_shard(split_folder(split) / f"{network}-00.parquet", rows, SHARD_RECIPE)
    return load_split(split)


def codes_of(reader: ShardReader, split: str, codebook: str = CODEBOOK) -> LatentCodes:
    """Return codes that follow from the speed driven; the last transition of every fifth is cut."""
    speed = reader.columns["future_10hz"][:, 10, 0].astype(int)
    place = np.arange(12).reshape(3, 4)
    ego = ((speed[:, None, None] * (place + 1)) % 16).astype(np.int8)
    ego[::5, 2] = -1
    return LatentCodes(
        split, codebook, scenes_identity(reader), reader.columns["token"].astype(str), ego, ego
    )


@dataclass(frozen=True)
class Place:
    """A data root with three splits, and the folder of their codes."""

    root: Path
    codes: Path

    def reader(self, split: str) -> ShardReader:
        """Open a split."""
        return load_split(split)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("LATENTVLA_DATA", str(tmp_path / "data"))
    codes = tmp_path / "codes"
    for split in ("train", "val", "test"):
        save_codes(codes / f"{split}.safetensors", codes_of(write_split(split), split))
    return Place(tmp_path, codes)


@pytest.fixture
def recipe() -> TeacherRecipe:
    """The shipped recipe for tests, on all shards."""
    smoke = load_teacher_recipe("smoke")
    return replace(smoke, data=replace(smoke.data, max_shards=0))


def exit_code(work: Callable[[], object]) -> int:
    """Do some work in a process of its own; return how it ended, -9 for kill -9."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_at_flush(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let this process die of kill -9 in the middle of writing its file ``number`` (from 1)."""
    flush, flushed = os.fsync, []

    def fsync(handle: int) -> None:
        flushed.append(handle)
        if len(flushed) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        flush(handle)

    monkeypatch.setattr(os, "fsync", fsync)
