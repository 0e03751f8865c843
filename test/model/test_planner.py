"""Laws of the student planner: zero gate, masks, kinematic candidates, calibration as an input."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from latentvla_ros.contract import ContractError
from latentvla_ros.model.config import HOSTS, PlannerConfig
from latentvla_ros.model.image_encoder import ImageEncoder
from latentvla_ros.model.planner import StudentPlanner


def _planner(config: PlannerConfig) -> StudentPlanner:
    torch.manual_seed(0)
    planner = StudentPlanner(config)
    with torch.no_grad():  # untrained control and prior layers are zero: give them something to say
        for parameter in (*planner.head.control[-1].parameters(), *planner.ego_prior.parameters()):
            parameter.normal_(0.0, 0.05)
    return planner.eval()


@pytest.fixture(params=HOSTS)
def config(request: pytest.FixtureRequest, tiny: PlannerConfig) -> PlannerConfig:
    return replace(tiny, host=request.param)


@pytest.fixture
def planner(config: PlannerConfig) -> StudentPlanner:
    return _planner(config)


def test_output_shapes(planner: StudentPlanner, inputs: tuple[Tensor, ...]) -> None:
    candidates, scores, logits = planner(*inputs)
    assert candidates.shape == (2, 6, 8, 3)
    assert scores.shape == (2, 6)
    assert logits.shape == (2, 12, 16)
    assert all(torch.isfinite(value).all() for value in (candidates, scores, logits))


def test_zero_gate_equals_plain_planner_bit_for_bit(
    config: PlannerConfig, inputs: tuple[Tensor, ...]
) -> None:
    fused = _planner(config)
    plain = StudentPlanner(replace(config, latent_fusion=False)).eval()
    shared = {name: value for name, value in fused.state_dict().items() if ".fusion." not in name}
    plain.load_state_dict(shared)
    for first, second in zip(fused(*inputs), plain(*inputs), strict=True):
        assert torch.equal(first, second)
    fused.head.fusion.gate.data.fill_(0.5)
    assert not torch.equal(fused(*inputs)[0], plain(*inputs)[0])


def test_masked_view_does_not_matter(planner: StudentPlanner, inputs: tuple[Tensor, ...]) -> None:
    masked = list(inputs)
    masked[1] = inputs[1].clone()
    masked[1][:, 1] = False
    changed = list(masked)
    changed[0] = inputs[0].clone()
    changed[0][:, 1] = 255 - changed[0][:, 1]
    for first, second in zip(planner(*masked), planner(*changed), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=1e-6)
    assert not torch.allclose(planner(*inputs)[1], planner(*masked)[1])


@pytest.mark.parametrize(("value", "mask"), [(4, 5), (6, 7)])
def test_unknown_ego_state_does_not_matter(
    planner: StudentPlanner, inputs: tuple[Tensor, ...], value: int, mask: int
) -> None:
    hidden, changed = list(inputs), list(inputs)
    hidden[mask] = changed[mask] = torch.zeros_like(inputs[mask])
    changed[value] = inputs[value] + 3.0
    for first, second in zip(planner(*hidden), planner(*changed), strict=True):
        assert torch.equal(first, second)


def test_images_calibration_and_command_matter(
    planner: StudentPlanner, inputs: tuple[Tensor, ...]
) -> None:
    base = planner(*inputs)[1]
    for index, other in (
        (0, 255 - inputs[0]),
        (2, inputs[2] * torch.tensor([[1.5], [1.5], [1.0]])),
        (3, inputs[3].roll(1, dims=1)),
        (8, inputs[8].roll(1, dims=1)),
    ):
        changed = list(inputs)
        changed[index] = other
        assert (planner(*changed)[1] - base).abs().max() > 1e-5


def test_batch_rows_are_independent(planner: StudentPlanner, inputs: tuple[Tensor, ...]) -> None:
    together = planner(*inputs)
    alone = planner(*(value[1:2] for value in inputs))
    for first, second in zip(together, alone, strict=True):
        torch.testing.assert_close(first[1:2], second, rtol=1e-4, atol=1e-4)


def test_untrained_planner_keeps_speed_and_turn_rate(
    config: PlannerConfig, inputs: tuple[Tensor, ...]
) -> None:
    torch.manual_seed(0)
    planner = StudentPlanner(config).eval()
    candidates, _, _ = planner(*inputs)
    nearest = candidates[0, 0]  # its acceleration and curvature offsets are zero
    torch.testing.assert_close(nearest[-1, 2], torch.tensor(0.05 * 4.0), atol=0.01, rtol=0)
    length = (nearest[1:, :2] - nearest[:-1, :2]).norm(dim=-1)
    torch.testing.assert_close(length, torch.full((7,), 3.0), atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"image_width": 100}, "image_width"),
        ({"width": 30}, "width"),
        ({"proposals": 0}, "proposals"),
        ({"bev_cells": (8, 9)}, "patch"),
        ({"bev_x_m": (1.0, 5.0)}, "bev_x_m"),
        ({"view_time_offsets_s": (-0.5,)}, "view_time_offsets_s"),
        ({"anchor_heights_m": ()}, "anchor_heights_m"),
        ({"surprise": 1}, "model"),
    ],
)
def test_bad_settings_name_the_field(
    tiny: PlannerConfig, change: dict[str, object], field: str
) -> None:
    with pytest.raises(ContractError) as caught:
        PlannerConfig.from_dict({**tiny.to_dict(), **change})
    assert caught.value.field == field


def test_settings_round_trip(tiny: PlannerConfig) -> None:
    assert PlannerConfig.from_dict(tiny.to_dict()) == tiny


@pytest.mark.parametrize("backbone", ["no_such_net", "vit_tiny_patch16_224"])
def test_an_unfit_backbone_is_named(backbone: str) -> None:
    with pytest.raises(ContractError, match=rf"backbone.*{backbone}.*strides"):
        ImageEncoder(backbone, 16)
