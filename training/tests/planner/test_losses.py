"""Losses reward what is judged: the distance of the plan that is selected."""

from __future__ import annotations

import pytest
import torch
from latentvla_training.data.shards import ShardReader
from latentvla_training.engine.recipe import Recipe
from latentvla_training.planner.dataset import SceneDataset, collate
from latentvla_training.planner.losses import (
    LossSettings,
    imitation_loss,
    proposal_distance,
    selected_ade,
)
from latentvla_training.planner.training import TrainedPlanner

from latentvla_ros.contract import ContractError
from latentvla_ros.model.config import PlannerConfig


def _plans() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    future = torch.zeros(1, 8, 3)
    future[0, :, 0] = torch.arange(1, 9).float()
    candidates = future[:, None].repeat(1, 3, 1, 1)
    candidates[0, 1, :, 1] += 1.0
    candidates[0, 2, :, 1] += 4.0
    return candidates, future, torch.ones(1, 8, dtype=torch.bool)


def test_distance_is_ade_plus_yaw() -> None:
    candidates, future, mask = _plans()
    candidates[0, 0, :, 2] = 0.5
    distance, ade = proposal_distance(candidates, future, mask, 2.0)
    torch.testing.assert_close(ade, torch.tensor([[0.01, 1.00005, 4.0]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(distance[0, 0], torch.tensor(1.01))


def test_yaw_error_wraps() -> None:
    candidates, future, mask = _plans()
    candidates[..., 2] = torch.pi - 0.1
    future[..., 2] = -torch.pi + 0.1
    distance, ade = proposal_distance(candidates, future, mask, 1.0)
    torch.testing.assert_close(distance - ade, torch.full((1, 3), 0.2), atol=1e-5, rtol=0)


def test_masked_knots_do_not_count() -> None:
    candidates, future, mask = _plans()
    candidates[:, :, 7] += 100.0
    mask[:, 7] = False
    _, ade = proposal_distance(candidates, future, mask, 1.0)
    assert ade[0, 0] < 0.02
    _, ade = proposal_distance(candidates, future, torch.zeros_like(mask), 1.0)
    assert not ade.any()


def test_scores_learn_the_expected_distance() -> None:
    """Where either of two futures may come, the compromise between them has the least distance."""
    left, right = torch.zeros(1, 8, 3), torch.zeros(1, 8, 3)
    left[..., 1], right[..., 1] = 1.0, -1.0
    far = torch.zeros(1, 8, 3)
    far[..., 1] = 3.0
    middle = torch.zeros(1, 8, 3)
    candidates = torch.stack([far, middle, far + 1], dim=1)
    scores = torch.zeros(1, 3, requires_grad=True)
    optimizer = torch.optim.Adam([scores], lr=0.1)
    mask = torch.ones(1, 8, dtype=torch.bool)
    for step in range(100):
        future = left if step % 2 else right
        losses = imitation_loss([candidates], scores, future, mask, LossSettings(assignment=0.0))
        optimizer.zero_grad()
        losses["expected"].backward()
        optimizer.step()
    assert scores.argmax() == 1
    assert selected_ade(candidates, scores, left, mask).item() == pytest.approx(1.0, abs=1e-3)


def test_loss_of_a_perfect_choice_is_least() -> None:
    candidates, future, mask = _plans()
    settings = LossSettings()
    right = imitation_loss([candidates], torch.tensor([[9.0, 0, 0]]), future, mask, settings)
    wrong = imitation_loss([candidates], torch.tensor([[0, 0, 9.0]]), future, mask, settings)
    assert all(right[name] < wrong[name] for name in right)


@pytest.mark.parametrize("blank", [False, True])
def test_every_trainable_parameter_gets_a_gradient(
    reader: ShardReader, tiny: PlannerConfig, blank: bool
) -> None:
    """Also when no light is readable: distributed training needs every parameter in every step."""
    torch.manual_seed(0)
    trained = TrainedPlanner(Recipe("tiny", blank_images=blank, model=tiny)).train()
    with torch.no_grad():
        trained.planner.head.control[-1].weight.normal_(0.0, 0.01)
    dataset = SceneDataset(reader, tiny, with_targets=True, blank=blank)
    batch = collate([dataset[0], dataset[1]])
    batch["light"][:] = -100
    torch.stack(list(trained(batch).values())).sum().backward()
    without = [name for name, p in trained.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    frozen = {name.split(".")[1] for name, p in trained.named_parameters() if not p.requires_grad}
    assert {"reasoner", "ego_prior"} <= frozen


def test_blank_images_are_one_map_that_is_learned(reader: ShardReader, tiny: PlannerConfig) -> None:
    trained = TrainedPlanner(Recipe("tiny", blank_images=True, model=tiny)).train()
    dataset = SceneDataset(reader, tiny, with_targets=True, blank=True)
    batch = collate([dataset[index] for index in range(3)])
    features = trained.image_features(batch["images"])
    assert features.shape[:2] == (3, 4) and torch.equal(features[0, 0], features[2, 3])
    sum(trained(batch).values()).backward()
    assert trained.blank_map.grad is not None and trained.blank_map.grad.abs().max() > 0
    assert all(p.grad is None for p in trained.planner.image_encoder.parameters())


def test_a_proposal_that_scores_badly_is_selected_less() -> None:
    candidates, future, mask = _plans()
    settings = LossSettings(pdm=10.0)
    scores = torch.zeros(1, 3, requires_grad=True)
    quality = torch.tensor([[0.0, 1.0, 1.0]])  # the nearest one runs into something
    sum(imitation_loss([candidates], scores, future, mask, settings, quality).values()).backward()
    assert scores.grad[0].argmin() == 1  # grows most
    scores.grad = None
    sum(imitation_loss([candidates], scores, future, mask, settings).values()).backward()
    assert scores.grad[0].argmin() == 0


def test_a_weight_of_the_score_needs_labels_to_score_by(
    reader: ShardReader, tiny: PlannerConfig
) -> None:
    trained = TrainedPlanner(Recipe("tiny", model=tiny, loss=LossSettings(pdm=3.0)))
    dataset = SceneDataset(reader, tiny, with_targets=True)
    with pytest.raises(ContractError, match=r"loss\.pdm"):
        trained(collate([dataset[0]]))


def test_negative_weight_is_refused() -> None:
    with pytest.raises(ContractError, match=r"loss\.yaw"):
        LossSettings(yaw=-1.0)
