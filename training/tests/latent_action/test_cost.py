"""The paper's size is counted, and makes a step of every stage, on no device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from latentvla_training.latent_action import cost
from latentvla_training.latent_action.commands import Describe
from latentvla_training.latent_action.settings import (
    CodebookData,
    CodebookRecipe,
    FrameSettings,
    load_codebook_recipe,
)
from torch import nn

from latentvla_ros.contract import ContractError


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_base_is_counted() -> None:
    recipe = load_codebook_recipe("base")
    encoder = cost.shaped_encoder(recipe)
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    assert parameters == pytest.approx(86.6e6, rel=2e-3)  # as published
    assert (encoder.grid, encoder.channels) == ((16, 16), 768)
    environment, ego = cost.count(recipe, encoder)
    assert (environment.stage, ego.stage) == ("environment", "ego")
    for stage, condition in ((environment, 2), (ego, 4)):
        assert 24 * 7.08e6 < stage.parameters < 24 * 7.08e6 + 10e6
        # Two operations a weight and token, and products of tokens with each other, in 12 blocks.
        tokens = condition + 2 * 256 + 4
        encode = 12 * (2 * 12 * 768**2 * tokens + 4 * 768 * tokens**2)
        assert stage.encode_flops == pytest.approx(encode, rel=0.02)
        tokens = condition + 4 + 256
        decode = 12 * (2 * 12 * 768**2 * tokens + 4 * 768 * tokens**2)
        assert stage.training_flops == pytest.approx(3 * (encode + decode), rel=0.02)
        assert stage.passes // stage.batch_size == 100_000


@pytest.mark.parametrize("name", ["base", "nano", "nano_pixels", "nano_scarce_odometry"])
def test_a_step_of_every_stage(name: str) -> None:
    recipe = load_codebook_recipe(name)
    counted = cost.count(recipe, cost.shaped_encoder(recipe))
    steps = cost.dry_run(recipe, processes=2)
    wanted = ["environment", "ego"]
    wanted[1:1] = ["pictures"] if recipe.pictures_alone else []
    wanted[:0] = ["frames"] if recipe.frames.encoder == "own" else []
    assert [step.what for step in steps] == [f"stage {name}" for name in wanted]
    assert [stage.stage for stage in counted] == wanted
    for step, stage in zip(steps, counted, strict=True):
        assert (step.device, step.trained) == ("meta", stage.parameters)
        assert step.batch_size == recipe.stage(stage.stage).run.batch_size // 2
    assert "features" in steps[-1].losses
    assert ("ego_motion" in steps[-1].losses) == bool(recipe.loss.ego_motion)


def test_a_weight_that_no_loss_reaches_is_named(
    recipe: CodebookRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = cost.stages

    def one_more(*arguments: Any) -> Iterator[tuple[str, nn.Module]]:
        for name, module in stages(*arguments):
            if name == "ego":
                module.forgotten = nn.Parameter(torch.zeros(3, device="meta"))
            yield name, module

    monkeypatch.setattr(cost, "stages", one_more)
    with pytest.raises(ContractError, match=r"stage ego.*forgotten"):
        cost.dry_run(recipe)


def test_shapes_that_do_not_fit_are_refused_before_training(recipe: CodebookRecipe) -> None:
    odd = replace(recipe, model=replace(recipe.model, patch=3))
    with pytest.raises(ContractError, match=r"model\.patch"):
        cost.dry_run(odd)


def test_a_dinov2_of_unknown_shapes_is_named(
    recipe: CodebookRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    frames = FrameSettings(encoder="dinov2", pretrained="nowhere/none", width=28, height=28)
    with pytest.raises(ContractError, match=r"frames\.pretrained nowhere/none"):
        cost.describe(replace(recipe, frames=frames))


def test_describe_prints_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert Describe("base", dry_run=True, processes=8)() == 0
    printed = capsys.readouterr().out
    assert "Scenes of 512x256" in printed and "100,000 steps of 512" in printed
    assert (
        "one step of stage ego, a batch of 64 on meta: 172.5 M parameters trained by features"
        in printed
    )
    with pytest.raises(ContractError, match="--processes"):
        Describe("base", processes=0)()


def test_pictures_alone_know_of_some_pairs_only(recipe: CodebookRecipe) -> None:
    encoder, meta = cost.shaped_encoder(recipe), torch.device("meta")
    assert "known" not in cost.random_batch("ego", recipe, encoder, 4, meta)
    scarce = replace(recipe, data=CodebookData(odometry_share=0.5))
    assert cost.random_batch("ego", scarce, encoder, 4, meta)["known"].shape == (4,)
