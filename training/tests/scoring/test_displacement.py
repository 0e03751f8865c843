"""ADE, FDE, minima over modes and miss rates by hand."""

from __future__ import annotations

import pytest
import torch
from latentvla_training.scoring.displacement import (
    argoverse_displacement_errors,
    average_displacement_error,
    final_displacement_error,
    min_average_displacement_error,
    min_final_displacement_error,
    miss_rate,
)

from latentvla_ros.contract import ContractError

TARGET = torch.zeros(1, 3, 2)
# Errors per step of two modes: 0, 0, 3 (mean 1) and 2, 2, 2 (mean 2).
MODES = torch.tensor([[[[0.0, 0.0], [0.0, 0.0], [0.0, 3.0]], [[2.0, 0.0]] * 3]])


def test_single_trajectory() -> None:
    plan = torch.tensor([[[3.0, 4.0], [0.0, 1.0], [0.0, -3.0]]])
    assert average_displacement_error(plan, TARGET).tolist() == [3.0]
    assert final_displacement_error(plan, TARGET).tolist() == [3.0]


def test_heading_is_ignored() -> None:
    assert average_displacement_error(torch.tensor([[0.0, 0.0, 9.0]]), torch.zeros(1, 3)) == 0.0


def test_minima_are_independent_but_argoverse_picks_one_mode() -> None:
    assert min_average_displacement_error(MODES, TARGET).tolist() == [1.0]
    assert min_final_displacement_error(MODES, TARGET).tolist() == [2.0]
    ade, fde = argoverse_displacement_errors(MODES, TARGET)
    assert (ade.tolist(), fde.tolist()) == ([2.0], [2.0])


def test_miss_rates_of_both_conventions() -> None:
    target = TARGET.expand(2, 3, 2)
    jump = torch.tensor([[[[5.0, 0.0], [0.0, 0.0], [1.0, 0.0]]]]).expand(1, 2, 3, 2)
    modes = torch.cat([MODES, jump])
    # Exactly 2.0 m is a hit; the second sample ends at 1 m but strays by 5 m.
    assert miss_rate(modes, target) == 0.0
    assert miss_rate(modes, target, "nuscenes") == 0.5
    assert miss_rate(modes, target, threshold_m=1.5) == 0.5
    with pytest.raises(ContractError, match="convention"):
        miss_rate(modes, target, "waymo")  # type: ignore[arg-type]


def test_different_lengths_are_an_error() -> None:
    with pytest.raises(ContractError, match="steps"):
        average_displacement_error(torch.zeros(4, 2), torch.zeros(3, 2))
