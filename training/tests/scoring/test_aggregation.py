"""Progress normalisation, weighted sums, the filter and the two-stage sums by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from latentvla_training.scoring.aggregation import (
    FrameScores,
    ego_progress_v1,
    ego_progress_v2,
    epdms,
    human_filter,
    pdms,
    progress_norm,
)
from latentvla_training.scoring.two_stage import (
    SCORE_COLUMNS,
    Group,
    aggregate_two_stage,
    kernel_weights,
)

from latentvla_ros.contract import ContractError


def frame(**values: float) -> FrameScores:
    ones = dict.fromkeys(FrameScores.__dataclass_fields__, 1.0)
    return FrameScores(**{k: torch.tensor([[v]]).double() for k, v in (ones | values).items()})


def test_weights() -> None:
    assert float(pdms(frame(progress=0.5))) == pytest.approx(9.5 / 12)
    assert float(pdms(frame(direction=0.0))) == 1.0  # weight 0 in v1
    assert float(pdms(frame(collision=0.5, comfort=0.0))) == pytest.approx(0.5 * 10 / 12)
    assert float(epdms(frame(lane=0.0))) == pytest.approx(12 / 14)
    assert float(epdms(frame(direction=0.5, light=1.0))) == pytest.approx(0.5)
    assert float(epdms(frame(), torch.tensor([[0.0]]))) == pytest.approx(14 / 16)
    assert float(epdms(frame(lane=0.0), torch.tensor([[1.0]]))) == pytest.approx(14 / 16)
    assert float(epdms(frame(lane=0.0), torch.tensor([[math.nan]]))) == pytest.approx(12 / 14)


def test_progress_of_a_pair_and_of_a_batch() -> None:
    raw = torch.tensor([[20.0, 10.0, 40.0, 30.0]]).double()
    multipliers = torch.tensor([[1.0, 1.0, 0.5, 0.0]]).double()
    batch = progress_norm(raw, multipliers, None)
    assert batch.tolist() == [[20.0] * 4]
    pair = progress_norm(raw, multipliers, torch.tensor([0]))
    assert pair.tolist() == [[20.0, 20.0, 20.0, 20.0]]
    assert ego_progress_v2(raw, batch).tolist() == [[1.0, 0.5, 1.0, 1.0]]
    assert ego_progress_v1(raw, multipliers, batch).tolist() == [[1.0, 0.5, 1.0, 0.0]]
    ahead = progress_norm(torch.tensor([[20.0, 25.0]]), torch.ones(1, 2), torch.tensor([0]))
    assert ahead.tolist() == [[20.0, 25.0]]


def test_short_progress_is_not_compared() -> None:
    raw, multipliers = torch.tensor([[5.0, 1.0, 4.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    norm = progress_norm(raw, multipliers, None)  # 5 m: not above the threshold
    assert ego_progress_v2(raw, norm).tolist() == [[1.0, 1.0, 1.0]]
    assert ego_progress_v1(raw, multipliers, norm).tolist() == [[1.0, 1.0, 0.0]]


def test_filter_needs_an_exact_zero_and_a_human() -> None:
    candidate = frame(collision=0.0, direction=0.0, lane=0.0)
    human = frame(collision=0.0, direction=0.5)
    filtered = human_filter(candidate, human, torch.tensor([True]))
    assert float(filtered.collision) == 1.0
    assert float(filtered.direction) == 0.0
    assert float(filtered.lane) == 0.0
    assert float(human_filter(candidate, human, torch.tensor([False])).collision) == 0.0


def two_stage_columns(count: int) -> dict[str, np.ndarray]:
    columns = {name: np.ones(count) for name in SCORE_COLUMNS}
    for name in ("endpoint_x", "endpoint_y", "start_point_x", "start_point_y"):
        columns[name] = np.zeros(count)
    return columns


def test_two_stage_by_hand() -> None:
    # now, previous, and two synthetic pairs; now's plan ends 0.2 m and 0.4 m from their starts.
    tokens = ["n", "p", "n0", "p0", "n1", "p1"]
    columns = two_stage_columns(6)
    columns["start_point_x"][[2, 3]] = [0.2, 100.0]
    columns["start_point_x"][[4, 5]] = [0.4, 100.0]
    columns["lane_keeping"][0] = 0.0  # S1_now = 14/16
    columns["traffic_light_compliance"][4] = 0.0  # S2_now_1 = 0
    columns["driving_direction_compliance"][3] = 0.5  # S2_previous_0 = 0.5
    result = aggregate_two_stage(
        tokens, columns, np.ones(6), [Group("n", "p", (("n0", "p0"), ("n1", "p1")))]
    )
    near, far = math.exp(-0.04 / 0.2), math.exp(-0.16 / 0.2)
    share = near / (near + far)
    # All of previous' synthetic frames are 100 m off: uniform.
    np.testing.assert_allclose(result.weight, [1, 1, share, 0.5, 1 - share, 0.5])
    np.testing.assert_allclose(result.score, [14 / 16, 1, 1, 0.5, 0, 1])
    expected = 0.5 * (14 / 16 * share + 1.0 * (0.25 + 0.5))
    assert result.combined["score"] == pytest.approx(expected)
    assert result.stage1["score"] == pytest.approx((14 / 16 + 1) / 2)
    assert result.stage2["score"] == pytest.approx((share + 0.75) / 2)
    assert result.combined["lane_keeping"] == pytest.approx(0.5)


def test_kernel_weights_underflow_to_uniform() -> None:
    far = np.full((4, 2), 50.0)
    np.testing.assert_array_equal(kernel_weights(np.zeros(2), far), np.full(4, 0.25))
    np.testing.assert_array_equal(kernel_weights(np.full(2, np.nan), far), np.full(4, 0.25))


def test_two_stage_errors_name_the_group() -> None:
    columns = two_stage_columns(2)
    with pytest.raises(ContractError, match="second_stage"):
        aggregate_two_stage(["n", "p"], columns, np.ones(2), [Group("n", "p", ())])
    with pytest.raises(ContractError, match="'x'"):
        aggregate_two_stage(["n", "p"], columns, np.ones(2), [Group("n", "p", (("x", "p"),))])
    with pytest.raises(ContractError, match="groups"):
        aggregate_two_stage(["n", "p"], columns, np.ones(2), [])
    del columns["lane_keeping"]
    with pytest.raises(ContractError, match="lane_keeping"):
        aggregate_two_stage(["n", "p"], columns, np.ones(2), [Group("n", "p", (("n", "p"),))])
