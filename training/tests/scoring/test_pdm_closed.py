"""The reference planner: keeps to the limit, follows, stops at red, goes round; sees no future."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import agent, straight_road
from latentvla_training.scoring.pdm import score_pdms
from latentvla_training.scoring.pdm_closed import pdm_closed_reference, propose
from latentvla_training.scoring.scene_batch import SceneArrays, SceneBatch

from latentvla_ros.contract import ContractError


def reference(road: SceneArrays, limit: float = 12.0) -> np.ndarray:
    batch = SceneBatch.from_arrays([road])
    limits = torch.full(batch.centerline.points.shape[:2], limit, dtype=torch.float64)
    return pdm_closed_reference(batch, limits)[0].numpy()


def speeds(poses: np.ndarray) -> np.ndarray:
    return np.hypot(*np.diff(poses[:, :2], axis=0).T) / 0.1


def test_a_free_road_is_driven_at_the_limit_in_the_middle() -> None:
    poses = reference(straight_road(speed=10.0))
    np.testing.assert_allclose(poses[:, 1:], 0.0, atol=1e-9)
    assert poses[0, 0] == pytest.approx(0.0, abs=1e-9)
    assert 11.5 < speeds(poses)[-1] <= 12.0
    assert np.diff(speeds(poses)).max() <= 0.15 + 1e-9  # 1.5 m/s^2


def test_it_stops_for_a_red_light_and_not_for_a_green_one() -> None:
    red = reference(straight_road(speed=8.0, light_red=True))
    assert red[-1, 0] + 4.049 < 30.0  # the front bumper
    green = reference(straight_road(speed=8.0, light_red=False))
    assert green[-1, 0] > 30.0


def test_a_leader_is_followed() -> None:
    poses = reference(straight_road(speed=8.0, agents=[agent(20.0, 0.0, speed=4.0)]))
    assert poses[-1, 0] + 4.049 < 20.0 + 4.0 * 4.0 - 2.0
    assert speeds(poses)[-1] < 6.0
    free = reference(straight_road(speed=8.0, agents=[agent(20.0, 4.0, speed=4.0)]))
    assert free[-1, 0] > poses[-1, 0] + 5.0


def test_what_reaches_into_the_lane_is_passed_at_an_offset() -> None:
    road = straight_road(speed=8.0, agents=[agent(35.0, -2.0, speed=0.0)])
    poses = reference(road)
    assert np.abs(poses[:, 1]).max() == pytest.approx(1.0, abs=1e-6)
    assert poses[-1, 0] > 30.0


def test_the_future_is_not_read() -> None:
    """A leader that will brake is forecast to drive on; a light that will turn stays."""
    road = straight_road(speed=8.0, agents=[agent(25.0, 0.0, speed=8.0)], light_red=False)
    other = replace(
        road,
        agent_state=road.agent_state.copy(),
        agent_valid=road.agent_valid.copy(),
        light_red=road.light_red.copy(),
    )
    other.agent_state[:, 1:] = other.agent_state[:, :1]
    other.agent_valid[:, 30:] = False
    other.light_red[:, 1:] = True
    np.testing.assert_array_equal(reference(road), reference(other))


def test_scenes_of_a_batch_do_not_mix() -> None:
    roads = [
        straight_road(speed=8.0, agents=[agent(20.0, 0.0, speed=4.0)]),
        straight_road(speed=3.0, light_red=True),
        straight_road(speed=0.0, agents=[agent(9.0, 0.0), agent(30.0, 0.3, speed=2.0)]),
    ]
    roads[1] = replace(roads[1], centerline=roads[1].centerline[:-3])
    batch = SceneBatch.from_arrays(roads)
    limits = torch.full(batch.centerline.points.shape[:2], 12.0, dtype=torch.float64)
    together = pdm_closed_reference(batch, limits).numpy()
    for road, poses in zip(roads, together, strict=True):
        np.testing.assert_allclose(reference(road), poses, atol=1e-9)
    moved = pdm_closed_reference(batch.localized(), limits).numpy()
    np.testing.assert_allclose(moved, together, atol=1e-6)


def test_it_scores_well_by_its_own_measure() -> None:
    road = straight_road(speed=8.0, agents=[agent(30.0, 0.0, speed=3.0)])
    poses = reference(road)
    batch = SceneBatch.from_arrays([replace(road, reference=poses)])
    plan = torch.from_numpy(poses[5::5].copy())[None, None]
    result = score_pdms(batch, plan)
    assert float(result.score) > 0.9


def test_proposals_are_fifteen_from_slow_to_fast() -> None:
    batch = SceneBatch.from_arrays([straight_road(speed=5.0)])
    limits = torch.full(batch.centerline.points.shape[:2], 12.0, dtype=torch.float64)
    proposals = propose(batch, limits)[0].numpy()
    assert proposals.shape == (15, 41, 3)
    for offset, group in zip((0.0, -1.0, 1.0), proposals.reshape(3, 5, 41, 3), strict=True):
        np.testing.assert_allclose(group[..., 1], offset, atol=1e-9)
        assert (np.diff(group[:, -1, 0]) > 0.0).all()


def test_wrong_limits_are_refused() -> None:
    batch = SceneBatch.from_arrays([straight_road()])
    shape = batch.centerline.points.shape[:2]
    with pytest.raises(ContractError, match="speed_limit_mps"):
        pdm_closed_reference(batch, torch.full((1, 3), 10.0))
    with pytest.raises(ContractError, match="positive"):
        pdm_closed_reference(batch, torch.full(shape, torch.nan))
