"""nuScenes open loop in both conventions, by hand."""

from __future__ import annotations

import pytest
import torch
from latentvla_training.scoring.nuscenes_open_loop import (
    box_collisions,
    center_collisions,
    evaluate_open_loop,
)

from latentvla_ros.contract import ContractError

VALID = torch.ones(1, 6, dtype=torch.bool)


def empty_grid(samples: int = 1) -> torch.Tensor:
    return torch.zeros(samples, 6, 200, 200, dtype=torch.bool)


def cell(position: float) -> int:
    """Index of the cell whose centre is at ``position`` m."""
    return round((position + 49.75) / 0.5)


def growing_error() -> tuple[torch.Tensor, torch.Tensor]:
    """Errors of 1, 2 ... 6 m at the six steps."""
    target = torch.zeros(1, 6, 2)
    plan = target.clone()
    plan[0, :, 1] = torch.arange(1.0, 7.0)
    return plan, target


def test_uniad_takes_the_error_at_the_horizon() -> None:
    result = evaluate_open_loop(*growing_error(), VALID, empty_grid(), "uniad")
    assert result.l2_m == (2.0, 4.0, 6.0)
    assert result.average(result.l2_m) == 4.0


def test_stp3_averages_up_to_the_horizon() -> None:
    result = evaluate_open_loop(*growing_error(), VALID, empty_grid(), "stp3")
    assert result.l2_m == (1.5, 2.5, 3.5)
    assert result.average(result.l2_m) == 2.5


def test_incomplete_futures() -> None:
    plan, target = (value.repeat(2, 1, 1) for value in growing_error())
    valid = VALID.repeat(2, 1)
    valid[1, 3:] = False
    target[1, 3:] = torch.nan
    uniad = evaluate_open_loop(plan, target, valid, empty_grid(2), "uniad")
    # The missing steps count as zero error among all samples.
    assert uniad.samples == 2
    assert uniad.l2_m == (2.0, 2.0, 3.0)
    stp3 = evaluate_open_loop(plan, target, valid, empty_grid(2), "stp3")
    assert stp3.samples == 1
    assert stp3.l2_m == (1.5, 2.5, 3.5)
    with pytest.raises(ContractError, match="samples"):
        evaluate_open_loop(plan[1:], target[1:], valid[1:], empty_grid(), "stp3")


def test_the_box_is_eight_by_four_cells() -> None:
    # Centre 0.5 m ahead: cells at -1.25 ... 2.25 m along, -0.75 ... 0.75 m across.
    for x, y, hit in (
        (-1.25, 0.75, True),
        (2.25, -0.75, True),
        (-1.75, 0.25, False),
        (2.75, 0.25, False),
        (0.25, 1.25, False),
        (0.25, -1.25, False),
    ):
        grid = empty_grid()
        grid[:, :, cell(x), cell(-y)] = True
        assert bool(box_collisions(torch.zeros(1, 6, 2), grid).all()) == hit
        assert not center_collisions(torch.zeros(1, 6, 2), grid).any()


def test_a_plan_to_the_left_meets_what_is_on_the_left() -> None:
    grid = empty_grid()
    grid[:, 3, cell(19.75), cell(-5.25)] = True  # 5.25 m to the left: columns grow to the right
    plan = torch.zeros(1, 6, 2)
    plan[0, 3] = torch.tensor([20.0, 5.0])
    assert box_collisions(plan, grid)[0].tolist() == [False, False, False, True, False, False]
    assert center_collisions(plan, grid)[0].tolist() == [False] * 3 + [True] + [False] * 2
    assert not box_collisions(plan * torch.tensor([1.0, -1.0]), grid).any()


def test_positions_beyond_the_grid_are_clipped_for_the_box_only() -> None:
    grid = empty_grid()
    grid[:, :, 199] = True
    plan = torch.full((1, 6, 2), 0.0)
    plan[..., 0] = 500.0
    assert box_collisions(plan, grid).all()
    assert not center_collisions(plan, grid).any()


def test_collision_rates_of_both_conventions() -> None:
    grid = empty_grid()
    grid[0, 1:3, cell(10.25), cell(0.25)] = True  # taken at 1.0 and 1.5 s
    grid[0, 5, cell(30.25), cell(0.25)] = True  # and further on at 3 s
    plan = torch.zeros(1, 6, 2)
    plan[0, :, 0] = torch.tensor([5.0, 10.0, 10.0, 15.0, 20.0, 30.0])
    target = torch.zeros(1, 6, 2)
    uniad = evaluate_open_loop(plan, target, VALID, grid, "uniad")
    assert uniad.box_collision_rate == (1.0, 0.0, 1.0)
    stp3 = evaluate_open_loop(plan, target, VALID, grid, "stp3")
    assert stp3.box_collision_rate == (0.5, 0.5, 0.5)
    # Where the recorded drive collides too, the step stays in the denominator only.
    target[0, 1] = torch.tensor([10.0, 0.0])
    assert evaluate_open_loop(plan, target, VALID, grid, "uniad").box_collision_rate == (0, 0, 1)
    assert evaluate_open_loop(plan, target, VALID, grid, "stp3").box_collision_rate == (
        0.0,
        0.25,
        pytest.approx(1 / 3),
    )


def test_bad_input_names_the_field() -> None:
    plan, target = growing_error()
    with pytest.raises(ContractError, match="occupancy"):
        evaluate_open_loop(plan, target, VALID, empty_grid()[:, :5], "uniad")
    with pytest.raises(ContractError, match="convention"):
        evaluate_open_loop(plan, target, VALID, empty_grid(), "vad")  # type: ignore[arg-type]
    plan[0, 0, 0] = torch.nan
    with pytest.raises(ContractError, match="plans"):
        evaluate_open_loop(plan, target, VALID, empty_grid(), "uniad")
