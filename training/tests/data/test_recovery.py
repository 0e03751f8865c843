"""Recovery starts: where they are, what belongs together in them, and the way back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import pytest
from latentvla_training.data import recovery, world_adapter
from latentvla_training.data.labels import AGENT_STEPS
from latentvla_training.data.recovery import Disturbance, RecoveryDriver
from latentvla_training.data.world_adapter import SceneSettings, episode_scenes
from latentvla_training.world.episode import Episode
from latentvla_training.world.layers import RightOfWay
from latentvla_training.world.logged_traffic import LaneFinder, LoggedTraffic
from latentvla_training.world.road_map import Layer, Polygon, RoadMap
from latentvla_training.world.street_furniture import StreetFurniture

from latentvla_ros.contract import ContractError
from latentvla_ros.geometry import se2


@pytest.fixture
def road_map(road_map: RoadMap) -> RoadMap:
    """The hand-made road on a carriageway without seams."""
    ring = np.array([[-60.0, -5.0], [420.0, -5.0], [420.0, 5.0], [-60.0, 5.0]])
    block = Polygon(Layer.ROADBLOCK, "block", ring)
    return dataclasses.replace(road_map, polygons=(*road_map.polygons, block))


@pytest.fixture
def straight(
    episode: Episode, road_map: RoadMap, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Episode]:
    """A drive at 8 m/s along the middle of the hand-made road, its light green, nobody near."""
    from latentvla_training.world import logged_traffic

    monkeypatch.setattr(recovery, "right_of_way", lambda name: RightOfWay({}, {}))
    nothing = StreetFurniture((), (), frozenset())
    monkeypatch.setattr(logged_traffic, "draw_street_furniture", lambda road, seed: nothing)
    steps = episode.num_steps
    ego = np.zeros((steps, 7))
    ego[:, 0], ego[:, 3] = 0.8 * np.arange(steps), 8.0
    yield dataclasses.replace(
        episode,
        ego=ego,
        agent_valid=np.zeros_like(episode.agent_valid),
        agent_state=np.zeros_like(episode.agent_state),
        signal_state=np.full_like(episode.signal_state, 2),
    )


def test_the_disturbed_past_ends_beside_the_path_and_is_driven_as_fast_as_it_looks(
    episode: Episode,
) -> None:
    ego = episode.ego[10:41]
    disturbance = Disturbance(-0.7, math.radians(5.0), 1.2)
    past = disturbance.past(ego)
    now = se2.relative(ego[-1, :3], past[-1, :3])
    np.testing.assert_allclose(now, [0.0, -0.7, math.radians(5.0)], atol=1e-9)
    # Displacements per step are the speeds, sideways slip is none, yaw rates are the driven ones.
    moved = np.hypot(*np.diff(past[:, :2], axis=0).T) / 0.1
    np.testing.assert_allclose(moved, (past[1:, 3] + past[:-1, 3]) / 2, rtol=2e-3)
    np.testing.assert_allclose(past[:, 3], 1.2 * ego[:, 3])
    np.testing.assert_array_equal(past[:, 6], ego[:, 6])
    np.testing.assert_allclose(past[:, 3] * np.tan(past[:, 5]) / 3.089, past[:, 6], atol=1e-9)


def test_draws_stay_in_bounds_and_reach_them() -> None:
    rng = np.random.default_rng(1)
    drawn = [Disturbance.draw(rng) for _ in range(500)]
    for values, bound in (
        ([d.lateral_m for d in drawn], 1.0),
        ([d.yaw_rad for d in drawn], math.radians(8.0)),
        ([d.speed_factor - 1.0 for d in drawn], 0.2),
    ):
        assert 0.95 * bound < np.abs(values).max() <= bound
        assert abs(np.mean(values)) < 0.1 * bound


def test_the_expert_drives_back_to_the_route(straight: Episode, road_map: RoadMap) -> None:
    driver = RecoveryDriver(straight, road_map, LaneFinder(road_map))
    start = driver.start(60, Disturbance(1.0, math.radians(-4.0), 0.9))
    ego = start.episode.ego
    assert start.moment == recovery.PAST_STEPS and len(ego) == start.moment + AGENT_STEPS + 1
    assert ego[start.moment, 1] == pytest.approx(1.0)
    assert ego[start.moment, 3] == pytest.approx(0.9 * 8.0)
    assert abs(ego[-1, 1]) < 0.3 and abs(ego[-1, 2]) < 0.05
    assert ego[-1, 0] > straight.ego[60, 0] + 25.0


def test_recovery_scenes_come_behind_and_are_tagged(
    straight: Episode, road_map: RoadMap, renderer: object
) -> None:
    settings = SceneSettings(recovery_share=0.3)
    scenes = list(episode_scenes(straight, road_map, settings=settings, renderer=renderer))
    plain = [scene for scene in scenes if not scene.token.endswith("r")]
    starts = scenes[len(plain) :]
    assert len(starts) == round(0.3 * len(plain)) > 3
    by_token = {scene.token: scene for scene in plain}
    for scene in starts:
        original = by_token[scene.token[:-1]]
        assert scene.labels.tags == f"{original.labels.tags},recovery"
        assert scene.stamp_ns == original.stamp_ns
        offset = se2.relative(original.ego_pose, scene.ego_pose)
        assert 0.0 < abs(offset[1]) <= 1.0 and abs(offset[2]) <= math.radians(8.0)
        assert abs(offset[0]) < 1e-9
        speed = scene.labels.past_states[-1, 3]
        assert scene.ego_history[0, 0] == pytest.approx(-1.5 * speed, rel=0.01)
        assert scene.ego_dynamics[0] == pytest.approx(speed, rel=0.01)
        # The past view was taken 0.5 s earlier on the disturbed path.
        moved = original.ego_from_camera[3, 0, 3] - scene.ego_from_camera[3, 0, 3]
        assert moved == pytest.approx(0.5 * (speed - 8.0), abs=0.05)
        assert scene.view_jpegs != original.view_jpegs
        assert abs(scene.labels.future_10hz[-1] - original.labels.future_10hz[-1]).max() > 0.05
        assert scene.labels.expert_pdms > 0.0
    again = list(episode_scenes(straight, road_map, settings=settings, renderer=renderer))
    assert [scene.token for scene in again] == [scene.token for scene in scenes]
    assert all(
        one.view_jpegs == two.view_jpegs and np.array_equal(one.ego_pose, two.ego_pose)
        for one, two in zip(scenes, again, strict=True)
    )


def test_what_the_expert_cannot_save_is_left_out_and_told(
    straight: Episode, road_map: RoadMap, renderer: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = world_adapter.with_scores

    def failing(scenes: list[object]) -> Iterator[object]:
        for scene in score(scenes):  # type: ignore[arg-type]
            lost = scene.token.endswith("r") and scene.token < "train-0000-00/00060"
            labels = scene.labels
            yield dataclasses.replace(
                scene, labels=dataclasses.replace(labels, expert_pdms=0.0) if lost else labels
            )

    monkeypatch.setattr(world_adapter, "with_scores", failing)
    lost: list[str] = []
    settings = SceneSettings(recovery_share=0.5)
    scenes = list(
        episode_scenes(
            straight, road_map, settings=settings, renderer=renderer, left_out=lost.append
        )
    )
    kept = [scene.token for scene in scenes if scene.token.endswith("r")]
    assert lost and kept and len(lost) + len(kept) == round(0.5 * (len(scenes) - len(kept)))
    assert max(lost) < "train-0000-00/00060" <= min(kept)


def test_a_standing_ego_is_not_disturbed(straight: Episode, road_map: RoadMap) -> None:
    standing = dataclasses.replace(straight, ego=straight.ego * [1, 1, 1, 0, 0, 0, 0])
    driver = RecoveryDriver(standing, road_map, LaneFinder(road_map))
    assert list(driver.starts(range(15, 100, 5), 1.0)) == []


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_beyond_all_is_refused(share: float) -> None:
    with pytest.raises(ContractError, match="recovery_share"):
        SceneSettings(recovery_share=share)


def test_lanes_are_found_by_place_and_heading(episode: Episode, road_map: RoadMap) -> None:
    finder = LaneFinder(road_map)
    names, along = finder.find(
        np.array([[10.0, 0.6], [65.0, -0.3], [70.0, 8.0], [10.0, 300.0]]), np.zeros(4)
    )
    assert names == ("a_0", ":j_0_0", "side_0", "")
    np.testing.assert_allclose(along, [50.0, 5.0, 10.0, 0.0], atol=0.6)
    assert finder.find(np.zeros((0, 2)), np.zeros(0))[0] == ()


def test_logged_traffic_is_what_was_logged(
    episode: Episode, road_map: RoadMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    from latentvla_training.world import logged_traffic

    nothing = StreetFurniture((), (), frozenset())
    monkeypatch.setattr(logged_traffic, "draw_street_furniture", lambda road, seed: nothing)
    traffic = LoggedTraffic(episode, LaneFinder(road_map), road_map)
    snapshot = traffic.at(50)
    assert snapshot.ids == ("agent0", "agent1", "agent2")
    np.testing.assert_array_equal(snapshot.center, episode.agent_state[50, :, :2])
    assert snapshot.lane_ids[0] == "a_0" and snapshot.speed[0] == pytest.approx(5.0)
    assert snapshot.lane_position[0] == pytest.approx(40.0 + 55.0 + 2.25, abs=0.6)
    assert traffic.at(100).ids == ("agent0", "agent2")
    cone = dataclasses.replace(episode, agent_type=np.array([0, 3, 0], np.uint8))
    assert LoggedTraffic(cone, LaneFinder(road_map), road_map).at(50).lane_ids[1] == ""
