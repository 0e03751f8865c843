"""A closed gate is the host bit for bit; nothing of the teacher reaches a student's states."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from latentvla_training.distill.causal_reasoner import CausalReasoner
from latentvla_training.distill.pooling import TEACHER_ACTION, TEACHER_VISUAL, TeacherStates
from latentvla_training.distill.settings import PoolingSettings, StudentSettings
from latentvla_training.distill.student import (
    CODES,
    GREEDY,
    POOLED_ACTION,
    POOLED_VISUAL,
    PROBABILITIES,
    ReasonerOnFeatures,
    StudentOnFeatures,
    make_source,
    student_answers,
    student_planner,
)
from latentvla_training.planner.cached_features import ensure_features
from latentvla_training.planner.dataset import collate
from latentvla_training.planner.head_training import (
    FeatureDataset,
    FeatureSplit,
    FreeQueries,
    NoStates,
    PlannerOnFeatures,
    plans_on_features,
)
from latentvla_training.planner.hosts import Host
from latentvla_training.planner.losses import LossSettings
from torch import Tensor

from latentvla_ros.contract import ContractError

from .conftest import Place, load_split

POOLING = PoolingSettings(width=24, visual_latents=4)
LOSS = LossSettings(auxiliary=0.0)
OTHERS = ("future", "future_mask", CODES, PROBABILITIES, GREEDY, POOLED_VISUAL, POOLED_ACTION)


@pytest.fixture
def split(host: Host, place: Place) -> FeatureSplit:
    reader = load_split("test")
    features = ensure_features(host.planner, reader, "test", progress=False)
    rng = np.random.default_rng(0)
    count = len(reader)
    chances = rng.random((count, 12, 16)).astype(np.float32)
    extras = {
        CODES: rng.integers(-1, 16, (count, 12)).astype(np.int8),
        GREEDY: rng.integers(0, 16, (count, 12)).astype(np.int8),
        PROBABILITIES: chances / chances.sum(axis=-1, keepdims=True),
        POOLED_VISUAL: rng.normal(size=(count, 4, 24)).astype(np.float16),
        POOLED_ACTION: rng.normal(size=(count, 12, 24)).astype(np.float16),
        TEACHER_VISUAL: rng.normal(size=(count, 6, 48)).astype(np.float16),
        TEACHER_ACTION: rng.normal(size=(count, 12, 48)).astype(np.float16),
    }
    return FeatureSplit(reader, features, extras)


def batch_of(split: FeatureSplit) -> dict[str, Tensor]:
    dataset = FeatureDataset(split)
    return collate([dataset[index] for index in range(4)])


def student(host: Host, settings: StudentSettings | None = None) -> StudentOnFeatures:
    planner = copy.deepcopy(host.planner)
    torch.manual_seed(1)
    source = make_source(planner, settings or StudentSettings(), POOLING)
    return StudentOnFeatures(planner, source, LOSS)


def online(host: Host) -> PlannerOnFeatures:
    torch.manual_seed(1)
    source = TeacherStates(48, host.planner.config.width, POOLING)
    return PlannerOnFeatures(copy.deepcopy(host.planner), source, LOSS)


def speak(module: PlannerOnFeatures) -> PlannerOnFeatures:
    """Let the open fusion say something, as if it had learned."""
    fusion = module.planner.head.fusion
    assert fusion is not None
    torch.nn.init.normal_(fusion.attention.output.weight, std=0.2)
    return module


def test_before_they_learn_all_are_the_host_bit_for_bit(host: Host, split: FeatureSplit) -> None:
    batch = batch_of(split)
    plain = PlannerOnFeatures(copy.deepcopy(host.planner), NoStates(), LOSS).eval()
    # Made outside: some processors multiply by weights born in inference mode in another order.
    others = (online(host), student(host), student(host, StudentSettings(autoregressive=True)))
    with torch.inference_mode():
        rounds, scores = plain.decode(batch)
        for module in others:
            found = module.eval().decode(batch)
            assert torch.equal(found[0][-1], rounds[-1]) and torch.equal(found[1], scores)
            moved = speak(module).decode(batch)
            assert not torch.equal(moved[0][-1], rounds[-1])


@pytest.mark.parametrize("causal", [False, True])
def test_a_student_plans_without_teacher_codes_or_future(
    host: Host, split: FeatureSplit, causal: bool
) -> None:
    module = speak(student(host, StudentSettings(autoregressive=causal))).eval()
    batch = batch_of(split)
    without = {
        name: value
        for name, value in batch.items()
        if name not in (*OTHERS, TEACHER_VISUAL, TEACHER_ACTION)
    }
    assert torch.equal(module.plan(batch), module.plan(without))
    bare = replace(split, extras={})
    plans, logits = student_answers(module, bare)
    np.testing.assert_array_equal(plans, plans_on_features(module, bare))
    assert logits.shape == (len(plans), 12, 16)


def test_the_online_teacher_tells_its_states_and_nothing_else(
    host: Host, split: FeatureSplit
) -> None:
    module, batch = speak(online(host)).eval(), batch_of(split)
    changed = {**batch, **{name: torch.zeros_like(batch[name]) for name in OTHERS}}
    assert torch.equal(module.plan(batch), module.plan(changed))
    changed = {**batch, TEACHER_ACTION: batch[TEACHER_ACTION] + 1.0 * torch.randn(4, 12, 48)}
    assert not torch.equal(module.plan(batch), module.plan(changed))


def gradients(module: torch.nn.Module, loss: Tensor) -> set[str]:
    module.zero_grad(set_to_none=True)
    loss.backward()
    return {
        name
        for name, weight in module.named_parameters()
        if weight.grad is not None and bool(weight.grad.abs().sum() > 0)
    }


def reaches(names: set[str], start: str) -> bool:
    return any(name.startswith(start) for name in names)


def test_the_first_phase_moves_the_reasoner_alone(host: Host, split: FeatureSplit) -> None:
    planner = copy.deepcopy(host.planner)
    source = make_source(planner, StudentSettings(), POOLING)
    module = ReasonerOnFeatures(planner, source).train()
    losses = module(batch_of(split))
    assert set(losses) == {"kl", "codes", "features"}
    moved = gradients(module, torch.stack(list(losses.values())).sum())
    assert reaches(moved, "planner.reasoner.") and reaches(moved, "source.readout.")
    assert all(name.startswith(("planner.reasoner.", "source.")) for name in moved)
    with pytest.raises(ContractError, match="a student that is taught"):
        untaught = StudentSettings(kl=0, cross_entropy=0, features=0, end_to_end=True)
        ReasonerOnFeatures(planner, make_source(planner, untaught, POOLING))


@pytest.mark.parametrize("end_to_end", [False, True])
def test_lessons_and_plan_meet_where_they_are_meant_to(
    host: Host, split: FeatureSplit, end_to_end: bool
) -> None:
    module = speak(student(host, StudentSettings(end_to_end=end_to_end))).train()
    batch = batch_of(split)
    losses = module(batch)
    taught = losses["kl"] + losses["codes"] + losses["features"]
    moved = gradients(module, taught)
    assert reaches(moved, "planner.reasoner.")
    assert reaches(moved, "planner.bev_encoder.") == end_to_end
    moved = gradients(module, module(batch)["plan"])
    assert reaches(moved, "planner.head.fusion.attention.")
    assert reaches(moved, "planner.bev_encoder.")
    assert reaches(moved, "planner.reasoner.layers.") == end_to_end


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_causal_student_learns_in_every_precision(
    host: Host, split: FeatureSplit, precision: torch.dtype
) -> None:
    module = student(host, StudentSettings(autoregressive=True)).train()
    with torch.autocast("cpu", torch.bfloat16, precision is torch.bfloat16):
        losses = module(batch_of(split))
    moved = gradients(module, losses["kl"])
    learns = {name for name, _ in module.source.reasoner.named_parameters()}
    reached = {name.removeprefix("source.reasoner.") for name in moved}
    assert learns - reached <= {name for name in learns if "in_proj_bias" in name}


def test_without_fusion_the_states_stay_out_of_the_plan(host: Host, split: FeatureSplit) -> None:
    settings = StudentSettings(fusion=False, end_to_end=True)
    module = speak(student(host, settings)).eval()
    plain = PlannerOnFeatures(host.planner, NoStates(), LOSS).eval()
    batch = batch_of(split)
    assert torch.equal(module.plan(batch), plain.plan(batch))
    moved = gradients(module.train(), module(batch)["kl"])
    assert reaches(moved, "planner.bev_encoder.") and not reaches(moved, "planner.head.")


def test_a_causal_state_knows_the_codes_before_it_alone(host: Host) -> None:
    torch.manual_seed(2)
    reasoner = CausalReasoner(host.planner.config).eval()
    memory = torch.randn(2, 9, host.planner.config.width)
    codes = torch.randint(0, 16, (2, 12))
    changed = codes.clone()
    changed[:, 5] = (codes[:, 5] + 1) % 16
    (states, logits), (other, _) = reasoner.read(memory, codes), reasoner.read(memory, changed)
    torch.testing.assert_close(states[:, :6], other[:, :6])
    assert (states[:, 6:] - other[:, 6:]).abs().amax(dim=(0, 2)).min() > 1e-4
    own = reasoner(memory)[1]
    again = reasoner.read(memory, own.argmax(dim=-1))[1]
    torch.testing.assert_close(own, again)
    assert logits.shape == (2, 12, 16)


def test_a_car_gets_the_planner_and_nothing_of_the_teacher(host: Host) -> None:
    module = student(host)
    planner = student_planner(module)
    assert planner is module.planner
    assert not [name for name in planner.state_dict() if "teacher" in name or "readout" in name]
    with pytest.raises(ContractError, match="parallel"):
        student_planner(student(host, StudentSettings(autoregressive=True)))
    plain = PlannerOnFeatures(copy.deepcopy(host.planner), FreeQueries(32), LOSS)
    for other in (plain, online(host)):
        with pytest.raises(ContractError, match="which needs no teacher"):
            student_planner(other)
