"""The transfuser host beyond the laws it shares with ``ipad``: LiDAR or a grid, both branches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from latentvla_ros.contract import ContractError
from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.model.lidar import lidar_histogram
from latentvla_ros.model.planner import Encoded, StudentPlanner


@pytest.fixture
def planner(tiny: PlannerConfig) -> StudentPlanner:
    torch.manual_seed(0)
    return StudentPlanner(replace(tiny, host="transfuser")).eval()


def _encode(
    planner: StudentPlanner, inputs: tuple[Tensor, ...], lidar: Tensor | None = None
) -> Encoded:
    with torch.inference_mode():
        return planner.encode(planner.encode_images(inputs[0]), *inputs[1:], lidar=lidar)


def test_without_lidar_a_learned_grid_stands_in_its_place(
    planner: StudentPlanner, inputs: tuple[Tensor, ...]
) -> None:
    grid = planner.bev_encoder.latent
    # At first it says where a cell is.
    assert grid[0, :, 0, 0].tolist() == [-1.0, -1.0] and grid[0, :, -1, 0].tolist() == [1.0, -1.0]
    alone = _encode(planner, inputs)
    given = _encode(planner, inputs, grid.detach().expand(2, -1, -1, -1))
    torch.testing.assert_close(given.memory, alone.memory)
    cloud = torch.rand(2, *grid.shape[1:], generator=torch.Generator().manual_seed(1))
    seen = _encode(planner, inputs, cloud)
    tokens = planner.head.bev_tokens
    assert ((seen.memory - alone.memory).abs()[:, :tokens].amax(dim=(1, 2)) > 1e-3).all()
    assert (seen.bev - alone.bev).abs().max() > 1e-3
    swapped = _encode(planner, inputs, cloud.flip(0))
    assert (swapped.memory[0] - seen.memory[0]).abs().max() > 1e-3  # every Scene has its own


def test_bev_tokens_see_images_and_the_map_has_the_cells_of_the_bev(
    planner: StudentPlanner, inputs: tuple[Tensor, ...]
) -> None:
    config = planner.config
    first = _encode(planner, inputs)
    assert first.bev.shape == (2, config.width, *config.bev_cells)
    second = _encode(planner, (255 - inputs[0], *inputs[1:]))
    tokens = planner.head.bev_tokens
    assert tokens == 4
    assert ((first.memory - second.memory).abs()[:, :tokens].amax(dim=2) > 1e-4).all()


def test_the_gate_opens_onto_the_bev_tokens(
    planner: StudentPlanner, inputs: tuple[Tensor, ...]
) -> None:
    with torch.no_grad():
        for parameter in planner.head.control[-1].parameters():
            parameter.normal_(0.0, 0.05)
    encoded = _encode(planner, inputs)
    states = torch.randn(2, 12, planner.config.width, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        plain, shut = planner.decode(encoded, None), planner.decode(encoded, states)
        assert torch.equal(plain[0][0], shut[0][0]) and torch.equal(plain[1], shut[1])
        planner.head.fusion.gate.fill_(0.5)
        opened = planner.decode(encoded, states)
    assert (opened[0][0] - plain[0][0]).abs().max() > 1e-4
    assert (opened[1] - plain[1]).abs().max() > 1e-4


@pytest.mark.parametrize(("host", "shape"), [("ipad", (2, 32, 32)), ("transfuser", (2, 8, 8))])
def test_a_histogram_that_does_not_fit_is_refused(
    tiny: PlannerConfig, inputs: tuple[Tensor, ...], host: str, shape: tuple[int, ...]
) -> None:
    planner = StudentPlanner(replace(tiny, host=host)).eval()
    with pytest.raises(ContractError, match=rf"lidar.*{host}"):
        _encode(planner, inputs, torch.zeros(2, *shape))


def test_a_histogram_counts_points_near_the_ground_and_above(tiny: PlannerConfig) -> None:
    generator = np.random.default_rng(0)
    low = [tiny.bev_x_m[0] - 5.0, tiny.bev_y_m[0] - 5.0, -0.5]
    high = [tiny.bev_x_m[1] + 5.0, tiny.bev_y_m[1] + 5.0, 3.0]
    points = generator.uniform(low, high, (5000, 3))
    points[:4] = [[np.nan, 0, 0], [0, np.inf, 0], [0.1, 0.1, 0.2], [0.1, 0.1, 0.21]]
    points[4:30] = [63.9, 23.9, 1.0]  # more than are counted
    cells = tiny.lidar_cells
    assert cells == (32, 32)
    inside = points[np.isfinite(points).all(axis=1)]
    expected = np.stack(
        [
            np.histogram2d(part[:, 0], part[:, 1], cells, [tiny.bev_x_m, tiny.bev_y_m])[0]
            for part in (inside[inside[:, 2] <= 0.2], inside[inside[:, 2] > 0.2])
        ]
    )
    found = lidar_histogram(torch.from_numpy(points), tiny)
    assert found.dtype == torch.float32 and found.max() == 1.0
    np.testing.assert_allclose(found.numpy(), np.minimum(expected, 5) / 5, atol=1e-7)
    assert not lidar_histogram(torch.empty(0, 3), tiny).any()
    with pytest.raises(ContractError, match="points"):
        lidar_histogram(torch.zeros(4, 4), tiny)
