"""Cached encodings are those of the host, Scenes and disturbances asked for, or they are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from latentvla_training.data.shards import ShardReader
from latentvla_training.engine.loop import run_training
from latentvla_training.planner import cached_encodings
from latentvla_training.planner.augmentation import AugmentationSettings
from latentvla_training.planner.cached_encodings import (
    CachedEncodings,
    encoder_id,
    ensure_encodings,
)
from latentvla_training.planner.cached_features import CachedFeatures, ensure_features
from latentvla_training.planner.dataset import collate
from latentvla_training.planner.head_training import (
    FeatureDataset,
    FeatureSplit,
    FreeQueries,
    HeadTask,
    NoStates,
    PlannerOnFeatures,
    plans_on_features,
)
from latentvla_training.planner.losses import LossSettings

from latentvla_ros.contract import ContractError
from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.model.planner import StudentPlanner

from .test_head_training import TinyRecipe

DISTURBED = AugmentationSettings(photometric=0.0, drop_ego_state=0.5)


@pytest.fixture
def host(tiny: PlannerConfig) -> StudentPlanner:
    torch.manual_seed(0)
    return StudentPlanner(tiny).eval()


@pytest.fixture
def features(host: StudentPlanner, reader: ShardReader, tmp_path: Path) -> CachedFeatures:
    return ensure_features(host, reader, "train", tmp_path / "root", progress=False)


Encode = Callable[..., CachedEncodings]


@pytest.fixture
def encode(
    host: StudentPlanner, reader: ShardReader, features: CachedFeatures, tmp_path: Path
) -> Encode:
    def made(
        augmentation: AugmentationSettings | None = None,
        draws: int = 1,
        planner: StudentPlanner = host,
        root: Path = tmp_path / "root",
    ) -> CachedEncodings:
        return ensure_encodings(
            planner, reader, features, "train", augmentation, draws, root, progress=False
        )

    return made


def files(root: Path) -> list[Path]:
    return sorted(root.glob("cache/encodings/*/train/*"))


def test_a_head_plans_from_them_as_from_features(
    host: StudentPlanner, reader: ShardReader, features: CachedFeatures, encode: Encode
) -> None:
    module = PlannerOnFeatures(host, NoStates(), LossSettings(), proposals_only=True)
    plans = plans_on_features(module, FeatureSplit(reader, encode()))
    wanted = plans_on_features(module, FeatureSplit(reader, features))
    np.testing.assert_allclose(plans, wanted, atol=2e-2)  # they were rounded to float16


def test_draws_are_disturbed_each_in_its_own_way_and_training_takes_all(
    reader: ShardReader, encode: Encode
) -> None:
    plain, drawn = encode(), encode(DISTURBED, 3)
    assert (len(plain), len(drawn), drawn.draws) == (12, 12, 3)
    found = [drawn.read(4, draw) for draw in range(3)]
    for first, second in ((found[0], found[1]), (found[1], found[2]), (found[0], plain.read(4))):
        assert not np.array_equal(first["memory"], second["memory"])
    dataset = FeatureDataset(FeatureSplit(reader, drawn), DISTURBED, seed=1)
    taken = {dataset[(position, 4)]["memory"].tobytes() for position in range(24)}
    assert taken == {value["memory"].tobytes() for value in found}
    again = FeatureDataset(FeatureSplit(reader, drawn), DISTURBED, seed=1)
    np.testing.assert_array_equal(dataset[(7, 4)]["bev"], again[(7, 4)]["bev"])
    with pytest.raises(IndexError, match="encoding 3 of 3"):
        drawn.read(0, 3)


def test_they_are_made_once_a_kill_costs_one_shard_and_the_result_is_the_same(
    encode: Encode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, calls = cached_encodings._encode, []

    def killed(*arguments: object) -> object:
        calls.append(arguments[3])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return make(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(cached_encodings, "_encode", killed)
    with pytest.raises(KeyboardInterrupt):
        encode(DISTURBED, 2)
    resumed = encode(DISTURBED, 2)
    assert len(calls) == 3 and calls[1] == calls[2]
    encode(DISTURBED, 2)
    assert len(calls) == 3
    whole = encode(DISTURBED, 2, root=tmp_path / "other")
    for index in range(12):
        for name, value in resumed.read(index, 1).items():
            np.testing.assert_array_equal(value, whole.read(index, 1)[name])


@pytest.mark.parametrize("keep", [0, 5, 0.5, 0.999])
def test_a_truncated_file_is_made_again(encode: Encode, tmp_path: Path, keep: float) -> None:
    before = encode().read(7)["bev"]
    path = files(tmp_path / "root")[1]
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    np.testing.assert_array_equal(encode().read(7)["bev"], before)
    assert path.read_bytes() == whole


def test_those_of_others_are_refused_with_both_named(
    host: StudentPlanner, reader: ShardReader, encode: Encode, tmp_path: Path
) -> None:
    encode()
    folder = files(tmp_path / "root")[0].parent
    with pytest.raises(ContractError, match=r"found.*expected.*another"):
        CachedEncodings(folder, reader, {"encoder": "another"}, 1)
    torch.manual_seed(1)
    other = StudentPlanner(host.config).eval()
    other.head.load_state_dict(host.head.state_dict())
    assert encoder_id(other) != encoder_id(host)
    head = StudentPlanner(host.config).eval()
    head.load_state_dict({**head.state_dict(), **{
        name: value for name, value in host.state_dict().items()
        if not name.startswith(("head.", "reasoner."))
    }})  # fmt: skip
    assert encoder_id(head) == encoder_id(host)
    encode(planner=other)
    assert len(files(tmp_path / "root")) == 4


def test_a_full_disk_leaves_nothing_half_written(
    encode: Encode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr("os.fsync", full)
        encode()
    assert not [path for path in files(tmp_path / "root") if path.suffix == ".safetensors"]
    assert len(encode()) == 12


def test_a_head_learns_on_them_and_an_encoder_cannot(
    host: StudentPlanner, reader: ShardReader, encode: Encode, tmp_path: Path
) -> None:
    split = FeatureSplit(reader, encode(DISTURBED, 2))
    recipe, val = TinyRecipe(), FeatureSplit(reader, encode())
    before = {name: value.clone() for name, value in host.state_dict().items()}
    source = FreeQueries(host.config.width)
    module = PlannerOnFeatures(host, source, LossSettings(), proposals_only=True)
    run_training(HeadTask(module, recipe, split, val), recipe, tmp_path / "run", progress=False)
    moved = {k for k, value in module.planner.state_dict().items() if not value.equal(before[k])}
    assert "head.fusion.attention.output.weight" in moved
    assert all(name.startswith("head.") for name in moved)
    learning = PlannerOnFeatures(host, NoStates(), LossSettings()).train()
    batch = collate([FeatureDataset(replace(split))[0]])
    with pytest.raises(ContractError, match="expected features, for the encoder learns"):
        learning(batch)
