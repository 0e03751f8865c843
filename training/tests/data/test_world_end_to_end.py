"""The law on the real world: an episode's Scenes and those of its exported bag are the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from latentvla_training.data import scene_table, shards
from latentvla_training.data.bag_export import export_bag
from latentvla_training.data.bag_import import bag_scenes
from latentvla_training.data.labels import RoadIndex
from latentvla_training.data.world_adapter import episode_scenes
from latentvla_training.world.road_map import Layer

pytestmark = pytest.mark.slow


def test_an_episode_and_its_bag_agree_and_fit_a_shard(tmp_path: Path) -> None:
    from latentvla_training.world.cameras import Renderer
    from latentvla_training.world.networks import build_road_map
    from latentvla_training.world.simulation import simulate_episode

    road_map = build_road_map("val-0001")
    episode = simulate_episode("val-0001-00")
    renderer = Renderer(road_map)
    world = list(episode_scenes(episode, RoadIndex(road_map), renderer=renderer))
    summary = export_bag(
        episode, tmp_path / "drive", renderer=renderer, skew_ns={}, duration_s=12.0
    )
    assert summary.size_bytes < 8e6
    bag = {scene.stamp_ns: scene for scene in bag_scenes(tmp_path / "drive")}
    compared = 0
    for scene in world:
        if scene.stamp_ns not in bag:
            continue
        other = bag[scene.stamp_ns]
        assert other.view_jpegs == scene.view_jpegs
        np.testing.assert_array_equal(other.intrinsics, scene.intrinsics)
        np.testing.assert_allclose(other.ego_from_camera, scene.ego_from_camera, atol=1e-3)
        np.testing.assert_allclose(other.ego_history, scene.ego_history, atol=1e-3)
        np.testing.assert_allclose(other.ego_dynamics, scene.ego_dynamics, atol=1e-3)
        np.testing.assert_array_equal(other.command, scene.command)
        known = other.labels.future_mask
        np.testing.assert_allclose(
            other.labels.future_2hz[known], scene.labels.future_2hz[known], atol=1e-2
        )
        compared += 1
    assert compared == 22

    info = shards.write_shard(tmp_path / "val-0001-00.parquet", world)
    assert (tmp_path / "val-0001-00.parquet").stat().st_size < 60_000 * len(world)
    back = list(shards.ShardReader([tmp_path / "val-0001-00.parquet"]))
    assert scene_table.scenes_hash(back) == info.content_sha256
    for scene in world:
        labels = scene.labels
        assert (labels.polygon_layer[labels.light_polygon] == Layer.LANE_CONNECTOR).all()
        on_route = labels.polygon_layer[labels.polygon_on_route]
        assert set(on_route.tolist()) <= {Layer.LANE, Layer.LANE_CONNECTOR} and len(on_route)
        offset = labels.centerline[:, :2] - scene.ego_pose[:2]
        assert np.hypot(*offset.T).min() < 5.0
