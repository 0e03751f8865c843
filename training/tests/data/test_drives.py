"""Real pixels and real motion through the bag adapter; skipped where the material is absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import real_drives
from latentvla_training.data.bag_import import bag_scenes
from latentvla_training.data.driven_path import DrivenPath
from latentvla_training.data.image_encoding import decode_views
from latentvla_training.data.world_adapter import SceneSettings

from latentvla_ros.contract import View

pytestmark = pytest.mark.skipif(
    not real_drives.DRIVES.is_dir(), reason=f"{real_drives.DRIVES} is absent"
)


def test_a_parked_car_sees_three_cameras_and_goes_nowhere(tmp_path: Path) -> None:
    scenes = list(bag_scenes(real_drives.make_drive_bag("parked", tmp_path / "drive")))
    assert len(scenes) >= 5
    for scene in scenes[1:]:
        assert scene.view_mask.all()
        np.testing.assert_allclose(scene.ego_history, 0.0, atol=1e-6)
        np.testing.assert_allclose(scene.ego_dynamics, 0.0, atol=1e-6)
        assert scene.command.tolist() == [0.0, 0.0, 0.0, 1.0]
        views = decode_views(scene.view_jpegs, 256, 128)
        assert views.std(axis=(1, 2, 3)).min() > 10.0
        # The front lens is narrower than the trained one; the view keeps its 48 degrees.
        assert 2 * np.arctan(128 / scene.intrinsics[0, 0, 0]) == pytest.approx(0.84, abs=0.02)


def test_a_motorway_and_somebody_elses_odometry(tmp_path: Path) -> None:
    path = real_drives.make_drive_bag("motorway", tmp_path / "drive")
    settings = SceneSettings(views=(View("front"), View("left"), View("front", -0.5)))
    scenes = list(bag_scenes(path, settings=settings))
    assert len(scenes) >= 12
    for scene in scenes:
        assert scene.view_mask.tolist() == [True, False, True]
        assert scene.view_jpegs[1] == b""
        assert 3.0 < scene.ego_dynamics[0] < 20.0
        assert scene.ego_from_camera[2, 0, 3] < -1.0
        views = decode_views(scene.view_jpegs, 256, 128)
        assert views[0].std() > 10.0 and not views[1].any()
        assert np.abs(views[0].astype(int) - views[2]).mean() > 1.0


def test_a_real_cars_twist_and_poses_agree() -> None:
    times, poses, twists = real_drives.real_motion()
    stamps = [1 + round(time_s * 1e9) for time_s in times]
    path = DrivenPath(list(zip(stamps, poses, twists, strict=True)))
    assert path.jumps == 0
    driven = path.relative(stamps[0], [stamps[-1]])[0]
    # The largest chord a car can cover: its mean speed times the time.
    assert np.hypot(*driven[:2]) < np.mean(twists[:, 0]) * times[-1] * 1.01
    assert np.hypot(*driven[:2]) == pytest.approx(np.hypot(*(poses[-1] - poses[0])[:2]), rel=1e-3)
