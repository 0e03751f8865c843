"""The paper's size is counted, and makes a step of every stage, on no device; ``nano`` on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace
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
from latentvla_training.planner import dry_run
from torch import nn

from latentvla_ros.contract import ContractError


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU, with 8 GiB of free memory."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(cost.psutil, "virtual_memory", lambda: SimpleNamespace(available=8 << 30))


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
    device = "meta" if name == "base" else "cpu"
    for step, stage in zip(steps, counted, strict=True):
        assert (step.device, step.trained) == (device, stage.parameters)
        assert step.batch_size == recipe.stage(stage.stage).run.batch_size // 2
    assert "features" in steps[-1].losses
    assert ("ego_motion" in steps[-1].losses) == bool(recipe.loss.ego_motion)


def test_a_weight_that_no_loss_reaches_is_named(
    recipe: CodebookRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = cost.networks

    def one_more(name: str, *arguments: Any) -> nn.Module:
        module = networks(name, *arguments)
        if name == "ego":
            module.forgotten = nn.Parameter(torch.zeros(3, device="meta"))
        return module

    monkeypatch.setattr(cost, "networks", one_more)
    with pytest.raises(ContractError, match=r"stage ego.*forgotten"):
        cost.dry_run(recipe)


def test_what_may_not_fit_into_a_cpu_s_memory_is_made_on_no_device(
    recipe: CodebookRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = cost.dry_run(recipe)[-1]
    assert (step.device, step.note) == ("cpu", "")
    # Weights, gradients and two moments, and at least both frames of every pair.
    places = 2 * 2 * 4 * recipe.frames.channels * recipe.ego.run.batch_size
    assert step.least_bytes > 16 * step.trained + 4 * places
    low = SimpleNamespace(available=3 * step.least_bytes)
    monkeypatch.setattr(cost.psutil, "virtual_memory", lambda: low)
    assert cost.dry_run(recipe)[-1].device == "meta"


@pytest.mark.parametrize(("most", "among"), [(8, "4"), (2, "16"), (0, None)])
def test_a_batch_too_large_for_a_gpu_says_among_how_many_it_is_not(
    recipe: CodebookRecipe, monkeypatch: pytest.MonkeyPatch, most: int, among: str | None
) -> None:
    """Here the CPU stands for the GPU, with memory for ``most`` pairs."""
    one_step: Callable[..., dry_run.DryRun] = cost.one_step

    def short(what: str, module: nn.Module, batch: Mapping[str, torch.Tensor], *rest: Any) -> Any:
        on_gpu = next(module.parameters()).device.type == "cpu"
        if on_gpu and len(next(iter(batch.values()))) > most:
            raise torch.OutOfMemoryError
        return one_step(what, module, batch, *rest)

    monkeypatch.setattr(dry_run, "dry_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(cost, "one_step", short)
    run = replace(recipe.ego.run, batch_size=32)
    step = cost.dry_run(replace(recipe, ego=replace(recipe.ego, run=run)), processes=2)[-1]
    assert (step.device, step.batch_size) == ("meta", 16)
    said = f"--processes {among} does" if among else "no share of it does"
    assert "does not fit into memory" in step.lines() and said in step.lines()


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
