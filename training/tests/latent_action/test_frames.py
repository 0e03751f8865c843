"""Frozen frame encoders: ours learns without labels, DINOv2 is loaded, pixels are pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from latentvla_training.data.shards import ShardReader, write_shard
from latentvla_training.latent_action.codebook import load_run
from latentvla_training.latent_action.feature_store import ensure_features, store_folder
from latentvla_training.latent_action.frame_encoder import FrameEncoder, freeze
from latentvla_training.latent_action.pairs import find_pairs
from latentvla_training.latent_action.pretraining import (
    FramePretrainingTask,
    change_colours,
    erase_blocks,
    vicreg,
)
from latentvla_training.latent_action.scene_set import SceneSet, front_frames
from latentvla_training.latent_action.settings import (
    CodebookRecipe,
    DynamicsSettings,
    FrameSettings,
)
from latentvla_training.latent_action.training import CodebookTraining
from latentvla_training.latent_action.unexplained_change import unexplained_change

from latentvla_ros.contract import ContractError
from latentvla_ros.model.torchvision_operators import declare_missing_operators

from .conftest import episode_scenes

declare_missing_operators()  # before transformers is imported by any test

SMALL = FrameSettings(width=32, height=16, channels=4, stem=(4, 8, 8))


def frames(count: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 16, 32, 3), np.uint8)


def test_features_are_standardised_and_in_their_place() -> None:
    torch.manual_seed(0)
    encoder = FrameEncoder(SMALL)
    encoder.standardise(frames(40))
    features = encoder.encode(frames(40))
    assert features.shape == (40, 2 * 4, 4)
    torch.testing.assert_close(features.mean(dim=0), torch.zeros(8, 4), atol=2e-3, rtol=0)
    torch.testing.assert_close(features.square().mean(dim=(0, 1)), torch.ones(4), atol=5e-3, rtol=0)
    with pytest.raises(ContractError, match="images"):
        encoder(torch.zeros(1, 32, 16, 3, dtype=torch.uint8))


def test_exposure_changes_little_beside_another_picture() -> None:
    """Day or dusk: what the whole picture shares is taken off."""
    torch.manual_seed(0)
    encoder = FrameEncoder(SMALL)
    bright = (frames() // 2 + 100).astype(np.uint8)
    dark = (frames() // 4 + 20).astype(np.uint8)
    first, second = encoder.encode(bright), encoder.encode(dark)
    assert float((first - second).abs().mean()) < 0.3 * float(first.abs().mean())
    other = encoder.encode(bright[::-1].copy())
    assert float((first - other).abs().mean()) > 3.0 * float((first - second).abs().mean())


def test_pixels_are_their_patches() -> None:
    encoder = FrameEncoder(replace(SMALL, encoder="pixels", pool=4))
    features = encoder.encode(frames())
    assert encoder.grid == (4, 8) and encoder.channels == 48
    assert features.shape == (6, 32, 48)
    assert not torch.allclose(features[:, 0], features[:, 1])


@pytest.mark.parametrize("registers", [False, True])
def test_dinov2_by_folder(tmp_path: Path, registers: bool) -> None:
    """A tiny random model of the same class; a hub's name goes the same way."""
    from transformers import (
        Dinov2Config,
        Dinov2Model,
        Dinov2WithRegistersConfig,
        Dinov2WithRegistersModel,
    )

    sizes = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    model = (
        Dinov2WithRegistersModel(Dinov2WithRegistersConfig(num_register_tokens=4, **sizes))
        if registers
        else Dinov2Model(Dinov2Config(**sizes))
    )
    model.save_pretrained(tmp_path / "dino")
    settings = FrameSettings(
        encoder="dinov2", pretrained=str(tmp_path / "dino"), width=42, height=28
    )
    encoder = FrameEncoder(settings)
    freeze(encoder)
    assert encoder.grid == (2, 3) and encoder.channels == 8
    images = torch.randint(0, 256, (2, 28, 42, 3), dtype=torch.uint8)
    features = encoder(images)
    assert features.shape == (2, 6, 8)
    images[:, :14, :14] = 0  # the first patch changes most
    change = (encoder(images) - features).abs().mean(dim=(0, 2))
    assert int(change.argmax()) == 0


def test_dinov2_trains_a_codebook(splits: Path, recipe: CodebookRecipe, tmp_path: Path) -> None:
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    config = Dinov2WithRegistersConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    torch.manual_seed(0)
    Dinov2WithRegistersModel(config).save_pretrained(tmp_path / "dino")
    settings = FrameSettings(
        encoder="dinov2", pretrained=str(tmp_path / "dino"), width=56, height=28
    )
    recipe = replace(recipe, frames=settings)
    CodebookTraining(recipe, splits / "run", progress=False).run()
    codebook = load_run(splits / "run")
    assert codebook.encoder.grid == (2, 4)
    assert not (splits / "run" / "frames").exists()  # nothing of it is trained


@pytest.mark.parametrize("name", ["nowhere/none", "folder"])
def test_what_is_no_dinov2_is_named(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "folder").mkdir()
    path = name if "/" in name else str(tmp_path / name)
    settings = FrameSettings(encoder="dinov2", pretrained=path, width=28, height=28)
    with pytest.raises(ContractError, match=r"frames\.pretrained"):
        FrameEncoder(settings)


def test_vicreg_terms() -> None:
    """Bardes et al. 2022: all zero for features that vary, agree and are not copies."""
    torch.manual_seed(0)
    good = torch.randn(4000, 3, 1, 1) * 1.1
    good = good - good.mean(dim=0)
    losses = vicreg(good, good)
    assert float(losses["invariance"]) == 0 and float(losses["variance"]) == 0
    assert float(losses["covariance"]) < 1e-2
    constant = torch.ones(16, 3, 2, 2)
    assert float(vicreg(constant, constant)["variance"]) == pytest.approx(0.99, abs=0.01)
    by_place = torch.randn(1, 3, 2, 2).expand(16, 3, 2, 2)  # says where, not what
    assert float(vicreg(by_place, by_place)["variance"]) == pytest.approx(0.99, abs=0.01)
    copies = good[:, :1].expand(-1, 3, -1, -1)
    assert float(vicreg(copies, copies)["covariance"]) > 0.1


def test_views_differ_and_depend_on_position_alone() -> None:
    from latentvla_training.engine.recipe import LoopSettings

    run = LoopSettings(passes=12, batch_size=4, workers=0)
    task = FramePretrainingTask(SMALL, run, frames(9), frames(2))
    every = list(task.batches(0, 0, 1))
    assert len(every) == 3 and every[0]["first"].shape == (4, 3, 16, 32)
    assert not torch.allclose(every[0]["first"], every[0]["second"])
    later = list(task.batches(2, 0, 1))
    assert torch.equal(later[0]["first"], every[2]["first"])
    halves = [next(iter(task.batches(0, process, 2)))["first"] for process in (0, 1)]
    assert all(len(half) == 2 for half in halves)


def test_augmentation_keeps_shape_and_range() -> None:
    random = torch.Generator().manual_seed(0)
    images = torch.from_numpy(frames())
    changed = change_colours(images, random)
    assert changed.shape == images.shape
    assert float(changed.min()) >= 0 and float(changed.max()) <= 255
    erased = erase_blocks(torch.ones(50, 3, 16, 32), random)
    assert 0.2 < float((erased == 0).float().mean()) < 0.4


def test_features_are_kept_and_told_apart(reader: ShardReader, tmp_path: Path) -> None:
    torch.manual_seed(0)
    scenes, encoder = SceneSet([reader]), FrameEncoder(SMALL)
    store = ensure_features(encoder, scenes, tmp_path, progress=False)
    direct = encoder.encode(front_frames(scenes, SMALL, [3, 20]))
    torch.testing.assert_close(store.gather(np.array([3, 20])), direct, atol=2e-3, rtol=2e-3)
    files = sorted(store_folder(encoder, tmp_path).iterdir())
    assert len(files) == 2
    times = [path.stat().st_mtime_ns for path in files]
    ensure_features(encoder, scenes, tmp_path, progress=False)
    assert times == [path.stat().st_mtime_ns for path in files]
    torch.manual_seed(1)
    assert store_folder(FrameEncoder(SMALL), tmp_path) != store_folder(encoder, tmp_path)
    before = store.gather(np.arange(26))
    whole = [path.read_bytes() for path in files]
    files[0].write_bytes(whole[0][:-200])
    again = ensure_features(encoder, scenes, tmp_path, progress=False)
    assert [path.read_bytes() for path in files] == whole
    assert torch.equal(again.gather(np.arange(26)), before)


def test_recordings_of_other_views_have_features(reader: ShardReader, tmp_path: Path) -> None:
    """A recording of two cameras beside Scenes of one: its front frames are as good as theirs."""
    second = [
        replace(
            scene,
            view_jpegs=(*scene.view_jpegs, b""),
            view_mask=np.array([True, False]),
            intrinsics=np.repeat(scene.intrinsics, 2, axis=0),
            ego_from_camera=np.repeat(scene.ego_from_camera, 2, axis=0),
        )
        for scene in episode_scenes("bag-00", 5.0)
    ]
    write_shard(tmp_path / "bag.parquet", second)
    scenes = SceneSet([reader, ShardReader([tmp_path / "bag.parquet"])])
    torch.manual_seed(0)
    encoder = FrameEncoder(SMALL)
    store = ensure_features(encoder, scenes, tmp_path, progress=False)
    wanted = encoder.encode(front_frames(scenes, SMALL, [30]))
    torch.testing.assert_close(store.gather(np.array([30])), wanted, atol=2e-3, rtol=2e-3)
    pairs = find_pairs(scenes, DynamicsSettings())
    maps = unexplained_change(scenes, pairs, SMALL, tmp_path, progress=False)
    assert np.isfinite(maps).all() and (pairs.earlier >= 26).any()
