"""World Scenes: labels as scene.py documents them, inputs by the car's own functions."""

from __future__ import annotations

import itertools
from dataclasses import replace

import cv2
import numpy as np
import pytest
from latentvla_training.data.episode_signals import (
    EPOCH_NS,
    OdometryNoise,
    episode_odometry,
    step_stamp_ns,
)
from latentvla_training.data.image_encoding import decode_views, encode_jpeg
from latentvla_training.data.labels import EpisodeLabels, RoadIndex
from latentvla_training.data.world_adapter import SceneSettings, episode_scenes
from latentvla_training.world.episode import Episode
from latentvla_training.world.rig import default_rig, jittered_rig
from latentvla_training.world.road_map import Layer, RoadMap

from latentvla_ros.contract import ContractError, View
from latentvla_ros.geometry import se2


def test_odometry_is_the_episode_at_50_hz(episode: Episode) -> None:
    odometry = episode_odometry(episode)
    assert len(odometry) == (episode.num_steps - 1) * 5 + 1
    assert np.all(np.diff(odometry.stamp_ns) == 20_000_000)
    assert odometry.stamp_ns[0] == EPOCH_NS
    np.testing.assert_allclose(odometry.pose[::5], episode.ego[:, :3], atol=1e-9)
    np.testing.assert_allclose(odometry.twist[::5, 0], episode.ego[:, 3], atol=1e-12)
    # Between the steps the pose follows the integrated twist to a tenth of a millimetre.
    moved = np.hypot(*np.diff(odometry.pose[:, :2], axis=0).T)
    mean_speed = (odometry.twist[1:, 0] + odometry.twist[:-1, 0]) / 2
    np.testing.assert_allclose(moved, mean_speed * 0.02, atol=1e-4)


def test_odometry_noise_is_seeded_and_leaves_poses_alone(episode: Episode) -> None:
    clean = episode_odometry(episode)
    noisy = [episode_odometry(episode, OdometryNoise(0.1, 0.01, seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(noisy[0].twist, noisy[1].twist)
    assert not np.array_equal(noisy[0].twist, noisy[2].twist)
    np.testing.assert_array_equal(noisy[0].pose, clean.pose)
    assert np.std(noisy[0].twist[:, 0] - clean.twist[:, 0]) == pytest.approx(0.1, rel=0.15)


def test_a_small_lamp_keeps_its_hue_through_jpeg() -> None:
    image = np.full((128, 256, 3), 90, np.uint8)
    for column, color in ((41, (235, 30, 20)), (101, (20, 220, 60)), (161, (240, 190, 20))):
        image[61:64, column : column + 3] = color
    decoded = cv2.imdecode(np.frombuffer(encode_jpeg(image), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    for column in (42, 102, 162):
        assert np.abs(decoded[62, column].astype(int) - image[62, column]).max() < 40


def test_scenes_cover_the_episode(episode: Episode, road_map: RoadMap, renderer: object) -> None:
    scenes = list(episode_scenes(episode, road_map, renderer=renderer))
    steps = [round((scene.stamp_ns - EPOCH_NS) / 1e8) for scene in scenes]
    assert steps == list(range(15, episode.num_steps - 50, 5))
    assert scenes[0].token == "train-0000-00/00015"
    assert {scene.network for scene in scenes} == {"train-0000"}


def test_inputs_are_what_the_ego_went_through(
    episode: Episode, road_map: RoadMap, renderer: object
) -> None:
    for scene in episode_scenes(episode, road_map, renderer=renderer):
        step = round((scene.stamp_ns - EPOCH_NS) / 1e8)
        truth = se2.relative(episode.ego[step, :3], episode.ego[step - 15 : step + 1 : 5, :3])
        np.testing.assert_allclose(scene.ego_history, truth, atol=1e-4)
        assert scene.ego_history_mask.all() and scene.view_mask.all()
        assert scene.ego_dynamics_mask.tolist() == [True] * 5 + [False]
        assert scene.ego_dynamics[0] == pytest.approx(episode.ego[step, 3], abs=1e-5)
        assert scene.ego_dynamics[2] == pytest.approx(episode.ego[step, 6], abs=1e-5)
        assert scene.command.argmax() == episode.command[step]
        mounts = {camera.slot: camera.ego_from_camera for camera in default_rig().cameras}
        for view, slot in enumerate(("front", "left", "right")):
            np.testing.assert_allclose(scene.ego_from_camera[view], mounts[slot], atol=1e-6)
        past = se2.transform_points(truth[2], mounts["front"][None, :2, 3])
        np.testing.assert_allclose(scene.ego_from_camera[3, :2, 3], past[0], atol=1e-3)


def test_a_fleets_intrinsics_are_those_of_the_stored_pictures(
    episode: Episode, road_map: RoadMap, renderer: object
) -> None:
    settings = SceneSettings(stride_s=20.0, jitter_rig=True)
    shares = []
    for seed in range(6):
        (scene, *_) = episode_scenes(
            replace(episode, seed=seed), road_map, settings=settings, renderer=renderer
        )
        rig = jittered_rig(default_rig(), seed)
        for view, intrinsics in zip(settings.views, scene.intrinsics, strict=True):
            model = next(camera.model for camera in rig.cameras if camera.slot == view.slot)
            np.testing.assert_allclose(intrinsics, model.matrix, rtol=1e-6)
            nominal = default_rig().camera(view.slot).model.matrix[0, 0]
            shares.append(abs(model.matrix[0, 0] / nominal - 1.0))
    assert max(shares) > 0.02  # where the car would crop


def test_the_past_view_is_the_earlier_front_picture(
    episode: Episode, road_map: RoadMap, renderer: object
) -> None:
    scenes = list(episode_scenes(episode, road_map, renderer=renderer))
    for before, after in itertools.pairwise(scenes):
        assert after.view_jpegs[3] == before.view_jpegs[0]
        assert after.view_jpegs[0] != before.view_jpegs[0]


def test_decoded_views_are_the_published_pictures(
    episode: Episode, road_map: RoadMap, renderer: object
) -> None:
    scene = next(episode_scenes(episode, road_map, renderer=renderer))
    views = decode_views((*scene.view_jpegs, b""), 256, 128)
    assert views.shape == (5, 128, 256, 3)
    assert not views[4].any()
    camera = default_rig().camera("front")
    assert camera is not None and camera.model is not None
    painted = renderer.render(  # type: ignore[attr-defined]
        episode, 15, camera.model.matrix, 256, 128, camera.ego_from_camera
    )
    assert np.abs(views[0].astype(int) - painted).mean() < 2.0


def test_futures_are_the_driven_path(episode: Episode, road_map: RoadMap) -> None:
    labels = EpisodeLabels(episode, RoadIndex(road_map)).at(30)
    truth = se2.relative(episode.ego[30, :3], episode.ego[30:71, :3])
    np.testing.assert_allclose(labels.future_10hz, truth, atol=1e-5)
    np.testing.assert_array_equal(labels.future_2hz, labels.future_10hz[5::5])
    np.testing.assert_allclose(labels.past_states[:, :3], episode.ego[15:31:5, :3])
    np.testing.assert_allclose(labels.past_states[:, 9], episode.ego[15:31:5, 6])
    assert np.isnan(labels.pdm_reference_10hz).all() and labels.pdm_reference_10hz.shape == (41, 3)


def test_road_users_within_range_keep_their_five_seconds(
    episode: Episode, road_map: RoadMap
) -> None:
    labels = EpisodeLabels(episode, RoadIndex(road_map)).at(20)
    assert labels.agent_state.shape == (2, 51, 5)
    assert labels.agent_valid[0].all()
    assert labels.agent_valid[1].tolist() == [False] * 20 + [True] * 31
    np.testing.assert_array_equal(labels.agent_state[0, :, 0], 30.0 + 0.5 * np.arange(20, 71))
    assert EpisodeLabels(episode, RoadIndex(road_map), 25.0).at(20).agent_state.shape[0] == 0


def test_polygons_carry_layer_route_and_lights(episode: Episode, road_map: RoadMap) -> None:
    labels = EpisodeLabels(episode, RoadIndex(road_map)).at(20)
    rings = np.split(labels.polygon_xy, labels.polygon_offset[1:-1])
    assert len(rings) == len(labels.polygon_layer) == 5
    on_route = dict(zip(map(bytes, rings), labels.polygon_on_route, strict=True))
    expected = {0: True, 1: True, 2: True, 3: False, 5: False}
    for index, wanted in expected.items():
        assert on_route[bytes(road_map.polygons[index].ring)] == wanted
    (light,) = labels.light_polygon
    assert labels.polygon_layer[light] == Layer.LANE_CONNECTOR
    assert labels.light_red.shape == (1, 41)
    assert labels.light_red[0].tolist() == [True] * 30 + [False] * 11


def test_the_own_light_is_measured_from_the_front_bumper(
    episode: Episode, road_map: RoadMap
) -> None:
    labels = EpisodeLabels(episode, RoadIndex(road_map))
    early = labels.at(16)
    assert early.own_light == 0 and early.own_light_switched
    assert early.own_light_distance_m == pytest.approx(60.0 - episode.ego[16, 0] - 4.049, abs=0.05)
    before = labels.at(15)
    assert not EpisodeLabels(episode, RoadIndex(road_map)).at(55).own_light_switched
    assert before.own_light_distance_m > early.own_light_distance_m
    passed = next(s for s in range(episode.num_steps) if episode.ego[s, 0] > 60.0)
    after = labels.at(min(passed, episode.num_steps - 51))
    assert after.own_light == -1 and np.isnan(after.own_light_distance_m)


def test_the_centreline_runs_from_behind_to_ahead(episode: Episode, road_map: RoadMap) -> None:
    line = EpisodeLabels(episode, RoadIndex(road_map)).at(30).centerline
    assert line.shape == (141, 3)
    assert line[0, 0] == pytest.approx(episode.ego[30, 0] - 20.0, abs=0.05)
    np.testing.assert_allclose(np.diff(line[:, 0]), 1.0, atol=1e-9)
    np.testing.assert_allclose(line[:, 1:], 0.0, atol=1e-9)


def test_another_network_is_refused(episode: Episode, road_map: RoadMap) -> None:
    import dataclasses

    other = dataclasses.replace(road_map, name="train-0001")
    with pytest.raises(ContractError, match=r"episode\.network"):
        EpisodeLabels(episode, RoadIndex(other))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stride_s", 0.25),
        ("stride_s", 0.0),
        ("views", ()),
        ("views", (View("front", -0.55),)),
        ("views", (View("front", -2.0),)),
        ("jpeg_quality", 0),
        ("range_m", -1.0),
    ],
)
def test_settings_name_what_is_wrong(field: str, value: object) -> None:
    with pytest.raises(ContractError, match=f"scene.{field}"):
        SceneSettings(**{field: value})  # type: ignore[arg-type]


def test_stamps_are_whole_steps() -> None:
    assert step_stamp_ns(3) - step_stamp_ns(0) == 300_000_000
