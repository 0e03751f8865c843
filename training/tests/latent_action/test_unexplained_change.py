"""Two pictures, a drive and a mount: what lies on the ground is told from what keeps its place."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from latentvla_training.data.shards import ShardReader
from latentvla_training.latent_action import unexplained_change as change
from latentvla_training.latent_action.pairs import find_pairs
from latentvla_training.latent_action.scene_set import SceneSet
from latentvla_training.latent_action.settings import CodebookRecipe

FOCAL, HEIGHT_M = 110.0, 1.6
INTRINSICS = np.array([[FOCAL, 0.0, 63.5], [0.0, FOCAL, 31.5], [0.0, 0.0, 1.0]])
MOUNT = np.array(
    [[0.0, 0.0, 1.0, 1.8], [-1.0, 0.0, 0.0, 0.2], [0.0, -1.0, 0.0, HEIGHT_M], [0.0, 0.0, 0.0, 1.0]]
)
MOTION = np.array([3.0, 0.4, 0.1])


def pixel(ego_point: np.ndarray) -> np.ndarray:
    """Return where a camera on ``MOUNT`` sees a point (3,) of its ego frame."""
    seen = INTRINSICS @ (np.linalg.inv(MOUNT) @ np.append(ego_point, 1.0))[:3]
    return np.asarray(seen[:2] / seen[2])


@pytest.mark.parametrize("ground", [(8.0, 1.0), (15.0, -2.0), (30.0, 4.0)])
def test_a_point_of_the_ground_is_found_again(ground: tuple[float, float]) -> None:
    cos, sin = np.cos(MOTION[2]), np.sin(MOTION[2])
    later = np.array([[cos, sin], [-sin, cos]]) @ (np.array(ground) - MOTION[:2])
    found = change.ground_homography((INTRINSICS, INTRINSICS), (MOUNT, MOUNT), MOTION) @ np.append(
        pixel(np.append(later, 0.0)), 1.0
    )
    np.testing.assert_allclose(found[:2] / found[2], pixel(np.append(ground, 0.0)), atol=1e-9)


def test_who_stands_sees_the_same_ground() -> None:
    found = change.ground_homography((INTRINSICS, INTRINSICS), (MOUNT, MOUNT), np.zeros(3))
    np.testing.assert_allclose(found / found[2, 2], np.eye(3), atol=1e-12)


def test_a_camera_without_height_sees_no_ground_but_makes_no_nonsense() -> None:
    level = MOUNT.copy()
    level[2, 3] = 0.0
    found = change.ground_homography((INTRINSICS, INTRINSICS), (level, level), MOTION)
    assert np.isfinite(found).all()


def road(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a picture of ground, the same ground seen from ``MOTION``, and the homography."""
    random = np.random.default_rng(seed)
    earlier = cv2.GaussianBlur(random.integers(0, 255, (64, 128)).astype(np.uint8), (9, 9), 0)
    earlier = cv2.normalize(earlier, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    homography = change.ground_homography((INTRINSICS, INTRINSICS), (MOUNT, MOUNT), MOTION)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    later = cv2.warpPerspective(
        earlier, homography, (128, 64), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return earlier, later, homography


def test_ground_is_told_from_what_keeps_its_place() -> None:
    earlier, later, homography = road()
    rows, columns = slice(32, 48), slice(64, 80)  # row 2 and column 4 of the parts
    later[rows, columns] = earlier[rows, columns]
    maps = change.change_maps(earlier, later, homography).reshape(2, change.ROWS, change.COLUMNS)
    keeps_its_place = maps[1]
    assert keeps_its_place[1, 4] > 1.0
    ground = np.delete(keeps_its_place[1:].ravel(), 4)
    assert (ground < -0.5).all()


def test_what_neither_explains_changes_more() -> None:
    earlier, later, homography = road()
    crossing = later.copy()
    crossing[32:48, 64:80] = road(seed=1)[0][32:48, 64:80]
    quiet, moved = (
        change.change_maps(earlier, frame, homography).reshape(2, -1) for frame in (later, crossing)
    )
    grown = (moved - quiet)[0].reshape(change.ROWS, change.COLUMNS)
    assert np.unravel_index(grown.argmax(), grown.shape) == (1, 4)
    assert grown[1, 4] > 0.5


def test_maps_of_scenes_are_made_once_and_for_these_frames(
    scenes: SceneSet, recipe: CodebookRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = find_pairs(scenes, recipe.model)
    folder = tmp_path / "maps"
    made = change.unexplained_change(scenes, pairs, recipe.frames, folder, progress=False)
    assert made.shape == (len(pairs), change.WIDTH)
    assert np.isfinite(made).all()
    assert len(list(folder.iterdir())) == 1

    def never(*_: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(change, "_maps", never)
    again = change.unexplained_change(scenes, pairs, recipe.frames, folder, progress=False)
    np.testing.assert_array_equal(again, made)
    with pytest.raises(AssertionError, match="made again"):
        some = pairs.chosen(np.arange(len(pairs) - 1))
        change.unexplained_change(scenes, some, recipe.frames, folder, progress=False)


@pytest.fixture
def scenes(reader: ShardReader) -> SceneSet:
    return SceneSet([reader])
