"""PDMS and EPDMS of hand-made scenes, and of batches with bad, missing and many plans."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import agent, straight_plan, straight_road
from latentvla_training.scoring.pdm import Reason, score_epdms, score_human, score_pdms
from latentvla_training.scoring.scene_batch import SceneBatch
from latentvla_training.scoring.vectors import load_vectors

from latentvla_ros.contract import ContractError


def one_scene(**options: object) -> SceneBatch:
    return SceneBatch.from_arrays([straight_road(**options)])  # type: ignore[arg-type]


def tensor(*plans: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(plans))[None]


def test_a_perfect_drive_scores_one() -> None:
    plan = tensor(straight_plan(10.0))
    for result in (score_pdms(one_scene(), plan), score_epdms(one_scene(), plan)):
        assert float(result.score) == pytest.approx(1.0)
        assert int(result.reason) == Reason.SCORED


def test_progress_is_relative_to_the_reference() -> None:
    # Half the reference's speed from the start: the plan's braking costs comfort, not safety.
    result = score_pdms(one_scene(speed=5.0, reference_speed=10.0), tensor(straight_plan(5.0)))
    reached = result.sub.progress
    assert float(reached[0, 1]) == pytest.approx(20.0, abs=1e-6)
    assert float(result.frame.progress) == pytest.approx(float(reached[0, 1] / reached[0, 0]))
    assert float(result.score) == pytest.approx((5 * float(result.frame.progress) + 7) / 12)


def test_a_stopped_car_ahead() -> None:
    # Its rear bumper is at 23 m; the ego's front passes there after 1.9 s.
    result = score_epdms(one_scene(agents=[agent(25.0, 0.0)]), tensor(straight_plan(10.0)))
    assert float(result.frame.collision) == 0.0
    assert float(result.frame.time_to_collision) == 0.0
    assert float(result.sub.collision_step[0, 1]) == 19
    # TTC looks 0.9 s ahead: 4.049 + t + 9 >= 23 at step 10.
    assert float(result.sub.ttc_step[0, 1]) == 10
    assert float(result.score) == 0.0


def test_a_static_object_costs_half() -> None:
    result = score_pdms(one_scene(agents=[agent(25.0, 0.0, kind=3)]), tensor(straight_plan(10.0)))
    assert float(result.frame.collision) == 0.5


def test_a_rear_ender_is_not_our_fault() -> None:
    scene = one_scene(speed=5.0, agents=[agent(-10.0, 0.0, speed=15.0)])
    result = score_epdms(scene, tensor(straight_plan(5.0)))
    assert float(result.frame.collision) == 1.0
    # But TTC measures "ahead" from the present rear axle to where the track *will* be: 3.5 m on.
    assert float(result.frame.time_to_collision) == 0.0
    assert float(result.sub.ttc_step[0, 1]) == 0


def test_an_overlap_at_the_start_counts_in_v1_only() -> None:
    scene = one_scene(agents=[agent(5.0, 0.0, speed=10.0)])
    assert float(score_pdms(scene, tensor(straight_plan(10.0))).frame.collision) == 0.0
    assert float(score_epdms(scene, tensor(straight_plan(10.0))).frame.collision) == 1.0


@pytest.mark.parametrize(("red", "expected"), [(True, 0.0), (False, 1.0)])
def test_red_light(red: bool, expected: float) -> None:
    result = score_epdms(one_scene(light_red=red), tensor(straight_plan(10.0)))
    assert float(result.frame.light) == expected


def shifted_plan(lateral: float) -> np.ndarray:
    plan = straight_plan(10.0)
    plan[:, 1] = lateral * np.minimum(1.0, np.arange(1, 9) / 4.0)
    return plan


def test_oncoming_lane_and_off_road() -> None:
    result = score_epdms(one_scene(), tensor(shifted_plan(4.0), shifted_plan(-4.0)))
    assert result.frame.drivable.tolist() == [[1.0, 0.0]]
    # Ten metres a second against the route: far beyond six metres in the window.
    assert result.frame.direction.tolist() == [[0.0, 0.0]]
    assert result.frame.lane.tolist() == [[0.0, 0.0]]


def test_human_filter_forgives_what_the_human_failed_too() -> None:
    human = shifted_plan(4.0)
    plan = tensor(shifted_plan(4.0))
    scene = one_scene(human=human)
    filtered, plain = score_epdms(scene, plan), score_epdms(scene, plan, filter_by_human=False)
    assert float(plain.frame.direction) == 0.0
    assert float(filtered.frame.direction) == 1.0
    assert float(filtered.frame.lane) == 1.0
    # Neither progress nor comfort is ever filtered.
    assert float(filtered.frame.progress) == float(plain.frame.progress)
    alone = score_human(scene)
    assert float(alone.progress) == 1.0
    assert float(alone.comfort) == 1.0
    assert float(score_epdms(one_scene(human=None), plan).score) == float(plain.score) == 0.0


def test_extended_comfort_joins_the_sum_where_a_predecessor_exists() -> None:
    scenes = SceneBatch.from_arrays([straight_road(), straight_road()])
    plan = torch.from_numpy(straight_plan(5.0)).expand(2, 1, 8, 3)
    steady = torch.from_numpy(straight_plan(10.0)).expand(2, 1, 8, 3)
    result = score_epdms(
        scenes, plan, previous_plans=steady, previous_mask=torch.tensor([True, False])
    )
    assert float(result.extended_comfort[0]) == 0.0
    assert bool(torch.isnan(result.extended_comfort[1]))
    without = score_epdms(scenes, plan).score
    assert float(result.score[1]) == float(without[1])
    assert float(result.score[0]) == pytest.approx(float(without[0]) * 14.0 / 16.0)


def test_bad_plans_score_zero_with_the_reason_and_poison_nothing() -> None:
    scenes = SceneBatch.from_arrays([straight_road(), straight_road(agents=[agent(25.0, 0.0)])])
    good = np.stack([straight_plan(v) for v in (10.0, 8.0, 6.0, 4.0)])
    plans = torch.from_numpy(np.stack([good, good]))
    mask = torch.ones(2, 4, dtype=torch.bool)
    mask[1, 3] = False
    spoiled = plans.clone()
    spoiled[0, 1, 3, 0] = torch.nan
    spoiled[0, 2, 7, 2] = torch.inf
    spoiled[1, 0, 7, 0] = 1e30
    expected = torch.tensor(
        [
            [Reason.SCORED, Reason.PLAN_NOT_FINITE, Reason.PLAN_NOT_FINITE, Reason.SCORED],
            [Reason.PLAN_TOO_FAR, Reason.SCORED, Reason.SCORED, Reason.ABSENT],
        ]
    )
    for score in (score_pdms, score_epdms):
        for normalization in ("pair", "batch"):
            clean = score(scenes, plans, normalization=normalization)
            dirty = score(scenes, spoiled, mask, normalization)
            assert torch.equal(dirty.reason.long(), expected)
            scored = expected == Reason.SCORED
            assert torch.isfinite(dirty.score).all() and torch.isfinite(dirty.states).all()
            assert (dirty.score[~scored] == 0.0).all()
            assert torch.equal(dirty.score[scored], clean.score[scored])
            assert dirty.failures() == {
                Reason.ABSENT.describe(): 1,
                Reason.PLAN_NOT_FINITE.describe(): 2,
                Reason.PLAN_TOO_FAR.describe(): 1,
            }


@pytest.mark.parametrize("field", ["ego", "reference", "agent_state", "centerline", "polygons"])
def test_a_broken_scene_scores_zero_and_spares_the_others(field: str) -> None:
    good = straight_road(agents=[agent(60.0, 0.0)])
    value = getattr(good, field)
    if field == "polygons":
        broken_value = [np.full_like(ring, np.nan) for ring in value]
    else:
        broken_value = value.copy()
        broken_value[..., 0] = np.nan
    plans = torch.from_numpy(straight_plan(10.0)).expand(2, 1, 8, 3)
    batch = SceneBatch.from_arrays([replace(good, **{field: broken_value}), good])
    for score in (score_pdms, score_epdms):
        result = score(batch, plans)
        assert result.reason.tolist() == [[Reason.SCENE_NOT_FINITE], [Reason.SCORED]]
        assert result.score[0] == 0.0
        assert float(result.score[1]) == pytest.approx(1.0)


def test_a_previous_plan_that_is_nan_is_named() -> None:
    plan = tensor(straight_plan(10.0), straight_plan(9.0))
    previous = plan.clone()
    previous[0, 1, 0, 0] = torch.nan
    result = score_epdms(one_scene(), plan, previous_plans=previous)
    assert result.reason.tolist() == [[Reason.SCORED, Reason.PREVIOUS_PLAN_NOT_FINITE]]
    assert float(result.score[0, 1]) == 0.0
    assert float(result.score[0, 0]) == pytest.approx(1.0)


def test_scenes_and_plans_score_alone_as_in_a_batch(vectors_folder) -> None:
    data = load_vectors(vectors_folder / "scenes.npz")
    plans = torch.from_numpy(data.plans)
    together = score_epdms(data.batch(), plans)
    for i in (0, 3, 7):
        alone = score_epdms(data.batch(i, i + 1), plans[i : i + 1, 2:5])
        np.testing.assert_allclose(alone.score[0], together.score[i, 2:5], atol=1e-12)


def test_no_plans_at_all() -> None:
    result = score_epdms(one_scene(), torch.zeros(1, 0, 8, 3))
    assert result.score.shape == (1, 0)


def test_contract_errors_name_the_field() -> None:
    scene, plan = one_scene(), tensor(straight_plan(1.0))
    with pytest.raises(ContractError, match="plans"):
        score_pdms(scene, plan[:, :, :7])
    with pytest.raises(ContractError, match="mask"):
        score_pdms(scene, plan, torch.ones(1, 3, dtype=torch.bool))
    with pytest.raises(ContractError, match="normalization"):
        score_pdms(scene, plan, normalization="all")  # type: ignore[arg-type]
    with pytest.raises(ContractError, match="previous_plans"):
        score_epdms(scene, plan, previous_plans=plan[:, :, :1])
    with pytest.raises(ContractError, match="history"):
        lonely = SceneBatch.from_arrays([replace(straight_road(), history=None)])
        score_epdms(lonely, plan, previous_plans=plan)
    with pytest.raises(ContractError, match="light_polygon"):
        SceneBatch.from_arrays(
            [replace(straight_road(light_red=True), light_polygon=np.array([9]))]
        )
    with pytest.raises(ContractError, match="reference"):
        SceneBatch.from_arrays([replace(straight_road(), reference=np.zeros((40, 3)))])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_cuda_agrees_with_the_cpu(vectors_folder) -> None:
    data = load_vectors(vectors_folder / "scenes.npz")
    plans = torch.from_numpy(data.plans)
    previous = torch.from_numpy(data.previous_plans)
    host = score_epdms(data.batch(), plans, previous_plans=previous)
    device = score_epdms(data.batch().to("cuda"), plans.cuda(), previous_plans=previous.cuda())
    assert torch.equal(host.reason, device.reason.cpu())
    np.testing.assert_allclose(device.score.cpu(), host.score, atol=1e-6)
    np.testing.assert_allclose(device.states.cpu(), host.states, atol=1e-6)
