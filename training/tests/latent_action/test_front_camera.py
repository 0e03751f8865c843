"""A codebook knows the front camera it was trained on, and encodes no other."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from latentvla_training.data.shards import ShardReader, write_shard
from latentvla_training.latent_action import front_camera
from latentvla_training.latent_action.front_camera import (
    TOLERANCES,
    check_front_camera,
    front_cameras,
    keep_front_camera,
    kept_front_camera,
)
from latentvla_training.latent_action.scene_set import SceneSet
from latentvla_training.latent_action.settings import FrameSettings

from latentvla_ros.contract import ContractError
from latentvla_ros.geometry import se3
from latentvla_ros.geometry.camera import pinhole_matrix

from .conftest import episode_scenes

SETTINGS = FrameSettings()


def seen_by(
    path: Path,
    fov_deg: float = 60.0,
    xyz: tuple[float, float, float] = (1.8, 0.1, 1.6),
    yaw_deg: float = 0.0,
    pitch_deg: float = 0.0,
    roll_deg: float = 0.0,
    missing: bool = False,
) -> SceneSet:
    """Return a recording that a front camera like this has made."""
    level = se3.camera_mount((0.0, 0.0, 0.0), 0.0)
    turn = np.radians([roll_deg, pitch_deg, yaw_deg])
    mount = (se3.from_xyz_rpy(xyz, turn) @ level).astype(np.float32)
    matrix = pinhole_matrix(fov_deg, 256, 128).astype(np.float32)
    scenes = [
        replace(scene, intrinsics=matrix[None], ego_from_camera=mount[None])
        for scene in episode_scenes("bag-00", 5.0, steps=3)
    ]
    if missing:
        scenes[0] = replace(scenes[0], view_mask=np.zeros(1, np.bool_), view_jpegs=(b"",))
        scenes[0] = replace(scenes[0], ego_from_camera=np.eye(4, dtype=np.float32)[None])
    write_shard(path, scenes)
    return SceneSet([ShardReader([path])])


def test_numbers_of_a_camera(tmp_path: Path) -> None:
    scenes = seen_by(tmp_path / "bag.parquet", 60.0, (1.8, 0.1, 1.6), 4.0, -3.0, 2.0)
    found = front_cameras(scenes, SETTINGS)
    assert list(found) == list(TOLERANCES)
    vertical = 2 * np.degrees(np.arctan(64 / (128 / np.tan(np.radians(30)))))
    wanted = [60.0, vertical, 1.8, 0.1, 1.6, 4.0, -3.0, 2.0]
    for (name, values), value in zip(found.items(), wanted, strict=True):
        np.testing.assert_allclose(values, value, atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"fov_deg": 48.0}, r"horizontal_fov_deg.*48\.0.*60\.00 to 61\.00"),
        ({"fov_deg": 75.0}, "horizontal_fov_deg"),
        ({"xyz": (1.8, 0.1, 2.4)}, r"z_m.*2\.4.*1\.60 to 1\.60"),
        ({"xyz": (0.2, 0.1, 1.6)}, "x_m"),
        ({"xyz": (1.8, -0.6, 1.6)}, "y_m"),
        ({"yaw_deg": 55.0}, "yaw_deg"),
        ({"pitch_deg": 6.0}, "pitch_deg"),
        ({"roll_deg": -5.0}, "roll_deg"),
    ],
)
def test_another_camera_is_refused(tmp_path: Path, other: dict[str, object], said: str) -> None:
    trained = SceneSet(
        [
            *seen_by(tmp_path / "a.parquet", fov_deg=60.0, missing=True).readers,
            *seen_by(tmp_path / "b.parquet", fov_deg=61.0).readers,
        ]
    )
    keep_front_camera(tmp_path, trained, SETTINGS)
    manifest = kept_front_camera(tmp_path)
    check_front_camera(manifest, "book-0", trained, SETTINGS)
    near = seen_by(tmp_path / "near.parquet", 62.0, (1.9, 0.0, 1.7), 1.0, -2.0, 1.0, missing=True)
    check_front_camera(manifest, "book-0", near, SETTINGS)
    scenes = seen_by(tmp_path / "other.parquet", **other)  # type: ignore[arg-type]
    with pytest.raises(ContractError, match=rf"scene bag-00/00000, {said}.*codebook book-0"):
        check_front_camera(manifest, "book-0", scenes, SETTINGS)


def test_codebooks_that_do_not_say_take_any_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    front_camera._warn_once.cache_clear()
    assert kept_front_camera(tmp_path) == {}
    scenes = seen_by(tmp_path / "bag.parquet", fov_deg=100.0)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            check_front_camera({}, "old-0", scenes, SETTINGS)
    assert caplog.text.count("codebook old-0 does not say") == 1
