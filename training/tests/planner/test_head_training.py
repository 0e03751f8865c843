"""A source of latent states sees what it may see; what is frozen stays; a kill changes nothing."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from latentvla_training.data.shards import ShardReader
from latentvla_training.engine.loop import run_training
from latentvla_training.engine.recipe import LoopSettings, OptimizerSettings
from latentvla_training.planner.augmentation import AugmentationSettings
from latentvla_training.planner.cached_features import ensure_features
from latentvla_training.planner.dataset import collate
from latentvla_training.planner.head_training import (
    CodeStates,
    FeatureDataset,
    FeatureSplit,
    FreeQueries,
    HeadTask,
    NoStates,
    PlannerOnFeatures,
    Source,
    plans_on_features,
)
from latentvla_training.planner.losses import LossSettings
from torch import Tensor

from latentvla_ros.contract import ContractError, Observation
from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.model.planner import StudentPlanner


@dataclass(frozen=True)
class TinyRecipe:
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    optimizer: OptimizerSettings = field(
        default_factory=lambda: OptimizerSettings(learning_rate=3e-3, warmup_steps=1)
    )
    run: LoopSettings = field(
        default_factory=lambda: LoopSettings(
            passes=36, batch_size=6, workers=0, threads=1, mixed_precision="no",
            validate_passes=36, validate_scenes=4, log_steps=1,
        )
    )  # fmt: skip


#: What codes stand for: two numbers each.
VECTORS = np.random.default_rng(2).standard_normal((12, 16, 2)).astype(np.float32)


@pytest.fixture
def host(tiny: PlannerConfig) -> StudentPlanner:
    torch.manual_seed(0)
    planner = StudentPlanner(tiny).eval()
    with torch.no_grad():  # untrained control and prior layers are zero: let them say something
        for module in (planner.head.control[-1], planner.ego_prior):
            for parameter in module.parameters():
                parameter.normal_(0.0, 0.05)
    return planner


@pytest.fixture
def split(host: StudentPlanner, reader: ShardReader, tmp_path: Path) -> FeatureSplit:
    features = ensure_features(host, reader, "train", tmp_path / "root", progress=False)
    codes = np.random.default_rng(0).integers(-1, 16, (12, 12)).astype(np.int8)
    return FeatureSplit(reader, features, {"codes": codes})


def on_features(host: StudentPlanner, source: Source, factor: float = 10.0) -> PlannerOnFeatures:
    return PlannerOnFeatures(copy.deepcopy(host), source, LossSettings(), factor)


def sources(config: PlannerConfig) -> list[Source]:
    torch.manual_seed(1)
    return [NoStates(), FreeQueries(config.width), CodeStates(config.width, VECTORS)]


def batch_of(split: FeatureSplit) -> dict[str, Tensor]:
    dataset = FeatureDataset(split)
    return collate([dataset[index] for index in range(6)])


def test_before_it_learns_and_with_the_gate_at_zero_a_source_is_the_host_bit_for_bit(
    host: StudentPlanner, split: FeatureSplit
) -> None:
    batch = batch_of(split)
    inputs = [batch[name] for name in Observation.INPUTS if name != "images"]
    with torch.inference_mode():
        encoded = host.encode(batch["image_features"].float(), *inputs)
    offered = {**batch, "memory": encoded.memory}
    for source, zero in [(s, z) for s in sources(host.config) for z in (False, True)]:
        module = on_features(host, source).eval()
        if zero:
            speak(module)
            module.planner.head.fusion.gate.data.zero_()  # type: ignore[union-attr]
        with torch.inference_mode():
            rounds, scores = module.decode(batch)
            fused = module.planner.decode(encoded, source(offered))
            plain = module.planner.decode(encoded, None)
        assert torch.equal(fused[0][-1], plain[0][-1]) and torch.equal(fused[1], plain[1])
        base = on_features(host, NoStates()).eval()
        with torch.inference_mode():
            first_rounds, first_scores = base.decode(batch)
        assert torch.equal(rounds[-1], first_rounds[-1]) and torch.equal(scores, first_scores)


def test_plans_are_those_of_the_host_seen_through_images(
    host: StudentPlanner, split: FeatureSplit, reader: ShardReader, tiny: PlannerConfig
) -> None:
    plans = plans_on_features(on_features(host, NoStates()), split)
    views = [reader.views(i, tiny.image_width, tiny.image_height) for i in range(12)]
    images = torch.from_numpy(np.stack(views))
    inputs = [torch.from_numpy(reader.columns[name]) for name in Observation.INPUTS[1:]]
    with torch.inference_mode():
        candidates, scores, _ = host(images, *inputs)
    own = candidates[torch.arange(12), scores.argmax(dim=1)].numpy()
    np.testing.assert_allclose(plans, own, atol=2e-2)  # features were rounded to float16


class Curious(Source):
    """Remembers what it was given."""

    reads: ClassVar[tuple[str, ...]] = ("codes",)

    def forward(self, known: dict[str, Tensor]) -> Tensor | None:
        self.seen = set(known)
        return None


def test_a_source_is_given_nothing_but_what_it_reads(
    host: StudentPlanner, split: FeatureSplit
) -> None:
    source = Curious()
    on_features(host, source).eval().decode(batch_of(split))
    assert source.seen == {"codes"}
    assert FreeQueries.reads == ("memory",) and not NoStates.reads


def speak(module: PlannerOnFeatures) -> PlannerOnFeatures:
    """Let the open fusion say something, as if it had learned."""
    fusion = module.planner.head.fusion
    assert fusion is not None
    torch.nn.init.normal_(fusion.attention.output.weight, std=0.2)
    return module


def test_only_codes_can_tell_the_future(host: StudentPlanner, split: FeatureSplit) -> None:
    batch = batch_of(split)
    changed = dict(batch)
    changed["codes"] = (batch["codes"] + 1).remainder(16)
    for name in ("future", "index"):
        changed[name] = batch[name] + 5
    changed["future_mask"] = ~batch["future_mask"]
    for source in sources(host.config):
        module = speak(on_features(host, source)).eval()
        same = torch.equal(module.plan(batch), module.plan(changed))
        assert same == (not isinstance(source, CodeStates))


def test_a_missing_code_is_a_state_of_its_own(host: StudentPlanner, split: FeatureSplit) -> None:
    source = CodeStates(8, VECTORS)
    codes = torch.tensor([[0] * 12, [-1] * 12, [15] * 12], dtype=torch.int8)
    states = source({"codes": codes})
    assert states is not None and states.shape == (3, 12, 8)
    assert torch.equal(states[1], source.missing + source.place)
    assert not torch.equal(states[1], states[2]) and not torch.equal(states[1], states[0])


def test_states_are_linear_in_what_codes_stand_for() -> None:
    source = CodeStates(8, VECTORS)
    states = source({"codes": torch.arange(16)[:, None].expand(16, 12)}) - source.place
    wanted = torch.einsum("pcw,pwd->cpd", torch.from_numpy(VECTORS), source.lift)
    torch.testing.assert_close(states, wanted)
    with torch.no_grad():
        source.beyond[3, 5] += 1.0  # one code at one place
    moved = source({"codes": torch.full((1, 12), 5)}) - source.place - wanted[5]
    assert moved[0].sum(dim=-1).round().tolist() == [0.0] * 3 + [8.0] + [0.0] * 8


@pytest.mark.parametrize(
    ("kind", "proposals_only"),
    [(NoStates, False), (FreeQueries, False), (CodeStates, False), (CodeStates, True)],
)
def test_what_is_frozen_does_not_move(
    kind: type[Source],
    proposals_only: bool,
    host: StudentPlanner,
    split: FeatureSplit,
    tmp_path: Path,
) -> None:
    plain = kind is NoStates
    width = host.config.width
    source: Source = NoStates()
    if not plain:
        source = CodeStates(width, VECTORS) if kind is CodeStates else FreeQueries(width)
    module = PlannerOnFeatures(
        copy.deepcopy(host), source, LossSettings(), 10.0, proposals_only=proposals_only
    )
    recipe = TinyRecipe()
    averaged = run_training(
        HeadTask(module, recipe, split, split), recipe, tmp_path / "run", progress=False
    )
    frozen = ("image_encoder.", "ego_prior.", "reasoner.") + (("head.fusion.",) if plain else ())
    before = host.state_dict()
    moved = set()
    for trained in (module, averaged):
        for name, value in trained.planner.state_dict().items():
            if not torch.equal(value, before[name]):
                moved.add(name)
    assert not [name for name in moved if name.startswith(frozen)]
    assert "head.score.0.weight" in moved
    encoder = {"bev_encoder.reduce.0.weight", "bev_encoder.reduce.1.running_mean"}
    assert not encoder & moved if proposals_only else encoder <= moved
    assert not proposals_only or all(name.startswith("head.") for name in moved)
    assert ("head.fusion.gate" in moved) == (not plain)


def test_a_killed_run_goes_on_to_the_same_result(
    host: StudentPlanner, split: FeatureSplit, tmp_path: Path
) -> None:
    recipe = TinyRecipe()

    def train(folder: str, stop: int | None = None) -> dict[str, Tensor]:
        torch.manual_seed(3)
        module = on_features(host, CodeStates(host.config.width, VECTORS))
        task = HeadTask(module, recipe, split, split)
        return run_training(task, recipe, tmp_path / folder, stop, progress=False).state_dict()

    whole = train("whole")
    train("parts", stop=2)
    parts = train("parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert float(whole["planner.head.fusion.gate"]) != 0.0


def test_contenders_see_the_same_scenes_disturbed_alike(
    host: StudentPlanner, split: FeatureSplit
) -> None:
    recipe = TinyRecipe()
    plain = replace(split, extras={})
    first = HeadTask(on_features(host, NoStates()), recipe, plain, plain)
    second = HeadTask(on_features(host, CodeStates(32, VECTORS)), recipe, split, split)
    for one, two in zip(first.batches(0, 0, 1), second.batches(0, 0, 1), strict=True):
        assert set(two) - set(one) == {"codes"}
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_features_are_not_written_to_by_augmentation(split: FeatureSplit) -> None:
    settings = AugmentationSettings(drop_optional_view=1.0)
    before = split.features[2].copy()
    item = FeatureDataset(split, settings)[(0, 2)]
    assert not item["image_features"][1:].any()
    np.testing.assert_array_equal(split.features[2], before)


def test_what_does_not_fit_is_refused(host: StudentPlanner, split: FeatureSplit) -> None:
    with pytest.raises(ContractError, match=r"extras\.codes: found '11 scenes', expected 12"):
        FeatureSplit(split.reader, split.features, {"codes": np.zeros((11, 12), np.int8)})
    plain = StudentPlanner(replace(host.config, latent_fusion=False))
    with pytest.raises(ContractError, match=r"model\.latent_fusion"):
        on_features(plain, FreeQueries(32))
    assert on_features(plain, NoStates()).planner.head.fusion is None
