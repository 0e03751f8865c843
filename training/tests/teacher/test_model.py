"""The model says codes one after the other, blind to what it is asked for; it has real sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from latentvla_training.planner.dataset import collate
from latentvla_training.teacher.cost import (
    PromptShape,
    adapter_parameters,
    count_operations,
    count_parameters,
)
from latentvla_training.teacher.dataset import TeacherDataset
from latentvla_training.teacher.decoding import answer
from latentvla_training.teacher.model import Teacher, make_teacher
from latentvla_training.teacher.processor import TeacherProcessor, load_processor, save_processor
from latentvla_training.teacher.settings import ModelSettings, TeacherRecipe, load_teacher_recipe
from latentvla_training.teacher.training import code_loss
from latentvla_training.teacher.vlm import build_vlm, meta_vlm, qwen_3b_config, tiny_config

from latentvla_ros.contract import ContractError

from .conftest import Place, codes_of

Batch = dict[str, torch.Tensor]


@pytest.fixture
def processor(recipe: TeacherRecipe) -> TeacherProcessor:
    return load_processor(recipe.model, recipe.pictures)


@pytest.fixture
def teacher(recipe: TeacherRecipe, processor: TeacherProcessor) -> Teacher:
    return make_teacher(recipe.model, processor).eval()


@pytest.fixture
def batch(place: Place, processor: TeacherProcessor) -> Batch:
    reader = place.reader("train")
    dataset = TeacherDataset(reader, processor, codes_of(reader, "train"))
    return collate([dataset[index] for index in (0, 1, 7)])


@torch.no_grad()
def test_cached_decoding_equals_reading_the_same_codes(teacher: Teacher, batch: Batch) -> None:
    uniforms = torch.rand(3, 2, 12, generator=torch.Generator().manual_seed(0))
    found = answer(teacher, batch, uniforms)
    states = teacher.read(batch, found.codes)
    torch.testing.assert_close(found.states, states, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.logits, teacher.logits(states), rtol=1e-4, atol=1e-4)
    assert torch.equal(found.codes, found.logits.argmax(dim=-1))
    assert found.marginals is not None
    torch.testing.assert_close(found.marginals.sum(dim=-1), torch.ones(3, 12))
    # The first code follows nothing: its marginal is its distribution.
    first = found.logits[:, 0].softmax(dim=-1)
    torch.testing.assert_close(found.marginals[:, 0], first, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_samples_hang_on_their_own_numbers(teacher: Teacher, batch: Batch) -> None:
    uniforms = torch.rand(3, 2, 12, generator=torch.Generator().manual_seed(0))
    found = answer(teacher, batch, uniforms)
    uniforms[1] = torch.rand(2, 12, generator=torch.Generator().manual_seed(1))
    other = answer(teacher, batch, uniforms)
    assert found.marginals is not None and other.marginals is not None
    assert torch.equal(found.marginals[[0, 2]], other.marginals[[0, 2]])
    assert not torch.equal(found.marginals[1], other.marginals[1])
    assert torch.equal(found.states, other.states)


@torch.no_grad()
@pytest.mark.parametrize("asked", [0, 5, 11])
def test_no_state_sees_the_code_that_it_predicts(
    teacher: Teacher, batch: Batch, asked: int
) -> None:
    codes = batch["codes"].clamp(min=0)
    states = teacher.read(batch, codes)
    changed = codes.clone()
    changed[:, asked:] = (changed[:, asked:] + 3) % 16
    other = teacher.read(batch, changed)
    assert torch.equal(states[:, : asked + 1], other[:, : asked + 1])
    assert asked == 11 or not torch.equal(states[:, asked + 1], other[:, asked + 1])


@torch.no_grad()
def test_pictures_command_and_ego_state_all_matter(teacher: Teacher, batch: Batch) -> None:
    before = teacher.read(batch, batch["codes"])
    for name in ("pixel_values", "pixel_values_videos", "command", "ego_dynamics", "ego_history"):
        changed = batch[name].roll(1, dims=1 if name == "command" else 0)
        after = teacher.read({**batch, name: changed}, batch["codes"])
        assert not torch.equal(before, after), name


@torch.no_grad()
def test_pictures_of_one_scene_stand_for_all(teacher: Teacher, batch: Batch) -> None:
    names = ("pixel_values", "pixel_values_videos")
    alike = {**batch, **{name: batch[name][:1].expand(3, -1, -1) for name in names}}
    once = {**batch, **{name: batch[name][:1] for name in names}}
    expected = teacher.read(alike, batch["codes"])
    torch.testing.assert_close(teacher.read(once, batch["codes"]), expected, rtol=1e-4, atol=1e-4)


def test_missing_codes_contribute_nothing(teacher: Teacher) -> None:
    codes = torch.arange(24).reshape(2, 12) % 16
    codes[1, 8:] = -1
    logits = torch.randn(2, 12, len(teacher.prompts[0]) + 400, requires_grad=True)
    loss = code_loss(logits, codes, teacher)
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad[1, 8:] == 0).all() and (logits.grad[1, :8] != 0).any()
    chances = logits.detach().log_softmax(dim=-1)
    ids = teacher.actions.encode(codes.clamp(min=0))
    own = -chances.gather(-1, ids[..., None])[..., 0]
    torch.testing.assert_close(loss.detach(), own[codes >= 0].mean())


def test_patches_by_matrix_are_the_convolution(
    recipe: TeacherRecipe, processor: TeacherProcessor
) -> None:
    tower = build_vlm(recipe.model, processor).model.visual
    patches = torch.randn(8, 1176)
    volume = patches.view(-1, 3, 2, 14, 14)
    expected = tower.patch_embed.proj(volume).view(8, -1)
    torch.testing.assert_close(tower.patch_embed(patches), expected, rtol=1e-4, atol=1e-5)
    assert "patch_embed.proj.weight" in tower.state_dict()


def test_nano_has_about_14_million_parameters() -> None:
    recipe = load_teacher_recipe("nano")
    vlm = build_vlm(recipe.model, load_processor(recipe.model, recipe.pictures))
    assert type(vlm).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert count_parameters(vlm)["total"] == pytest.approx(14e6, rel=0.05)


def test_the_papers_size_on_the_meta_device() -> None:
    vlm = meta_vlm(qwen_3b_config())
    assert all(parameter.is_meta for parameter in vlm.parameters())
    counts = count_parameters(vlm)
    assert counts["total"] == pytest.approx(3754.6e6, rel=1e-4)
    assert counts["vision"] == pytest.approx(668.7e6, rel=1e-4)


@pytest.mark.slow
def test_the_papers_operations() -> None:
    """Within 2 % of what runtime.md section 5 counts by hand."""
    cost = count_operations(meta_vlm(qwen_3b_config()), PromptShape(((18, 36),) * 3, 60))
    assert cost.vision == pytest.approx(2534e9, rel=0.02)
    assert cost.prefill == pytest.approx(3074e9, rel=0.02)
    assert cost.decode == pytest.approx(69.7e9, rel=0.02)


def test_operations_of_a_small_model_by_hand(
    recipe: TeacherRecipe, processor: TeacherProcessor
) -> None:
    """Matrix products of the blocks, attention, and the last layer, each counted twice."""
    vlm = meta_vlm(tiny_config(recipe.model, processor))
    shape = PromptShape(((4, 4),), 6)  # 16 patches, 4 + 6 tokens
    width, seen = recipe.model.width, recipe.model.vision_width
    vocabulary, layers = vlm.config.text_config.vocab_size, recipe.model.layers
    kv = recipe.model.head_width
    block = 2 * width * width + 2 * width * kv + 3 * width * 4 * width
    tower = 4 * seen * seen + 3 * seen * 3 * seen
    cost = count_operations(vlm, shape)
    vision = 2 * 16 * 1176 * seen + recipe.model.vision_layers * (
        2 * 16 * tower + 4 * 16 * 16 * seen
    )
    merger = 2 * 4 * ((4 * seen) ** 2 + 4 * seen * width)
    assert cost.vision == vision + merger
    attention = 4 * 10 * 10 * width
    assert cost.prefill == layers * (2 * 10 * block + attention) + 2 * width * vocabulary
    lengths = sum(10 + step + 1 for step in range(11))
    steps = 11 * (layers * 2 * block + 2 * width * vocabulary) + layers * 4 * width * lengths
    assert cost.decode == steps


def save_small(folder: Path, recipe: TeacherRecipe, processor: TeacherProcessor) -> None:
    """Write a small Qwen2.5-VL with its processor as the hub has them, action tokens unknown."""
    vlm = build_vlm(recipe.model, processor)
    vlm.save_pretrained(folder)
    save_processor(processor, folder)


def test_loading_a_folder_leaves_the_meta_device_as_it_was(
    tmp_path: Path, recipe: TeacherRecipe, processor: TeacherProcessor
) -> None:
    save_small(tmp_path, recipe, processor)
    torch.utils._device._device_constructors.cache_clear()  # as in a process that begins
    settings = ModelSettings(source=str(tmp_path))
    make_teacher(settings, load_processor(settings, recipe.pictures))
    with torch.device("meta"):
        assert torch.linspace(0.0, 1.0, 3).device.type == "meta"


def test_a_local_folder_is_loaded_and_adapted(
    tmp_path: Path, recipe: TeacherRecipe, processor: TeacherProcessor, batch: Batch
) -> None:
    save_small(tmp_path, recipe, processor)
    settings = ModelSettings(source=str(tmp_path), lora_rank=4, gradient_checkpointing=True)
    loaded = load_processor(settings, recipe.pictures)
    teacher = make_teacher(settings, loaded)
    trained = {name: p for name, p in teacher.named_parameters() if p.requires_grad}
    assert all("lora" in n or "trainable_tokens" in n or n.startswith("ego.") for n in trained)
    adapters = sum(p.numel() for n, p in trained.items() if not n.startswith("ego."))
    assert adapters == adapter_parameters(settings, teacher.vlm)
    loss = code_loss(
        teacher.train().vocabulary_logits(teacher.read(batch, batch["codes"])),
        batch["codes"],
        teacher,
    )
    loss.backward()
    moved = [name for name, p in trained.items() if p.grad is not None and p.grad.abs().sum() > 0]
    assert any("trainable_tokens" in name for name in moved), sorted(moved)
    assert any("lora_B" in name for name in moved) and "ego.mix.2.weight" in moved


def test_full_fine_tuning_of_a_local_folder_moves_every_weight(
    tmp_path: Path, recipe: TeacherRecipe, processor: TeacherProcessor, batch: Batch
) -> None:
    save_small(tmp_path, recipe, processor)
    settings = ModelSettings(source=str(tmp_path), gradient_checkpointing=True)
    teacher = make_teacher(settings, load_processor(settings, recipe.pictures)).train()
    logits = teacher.vocabulary_logits(teacher.read(batch, batch["codes"]))
    code_loss(logits, batch["codes"], teacher).backward()
    still = [name for name, p in teacher.named_parameters() if p.grad is None]
    assert still == []


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    from transformers import Qwen2Config

    Qwen2Config().save_pretrained(tmp_path)
    recipe = load_teacher_recipe("smoke")
    processor = load_processor(recipe.model, recipe.pictures)
    with pytest.raises(ContractError, match=r"a model of type qwen2', expected a model of type"):
        build_vlm(replace(recipe.model, source=str(tmp_path)), processor)


def test_action_rows_of_a_loaded_model_are_new_words(
    tmp_path: Path, recipe: TeacherRecipe, processor: TeacherProcessor
) -> None:
    save_small(tmp_path, recipe, processor)
    settings = replace(recipe.model, source=str(tmp_path))
    vlm = build_vlm(settings, load_processor(settings, recipe.pictures))
    weight = vlm.get_input_embeddings().weight.detach().numpy()
    rows = weight[list(processor.actions.ids)]
    old = weight[: min(processor.actions.ids)]
    assert np.abs(rows - old.mean(axis=0)).max() < 0.6 * old.std(axis=0).max()
    assert len({row.tobytes() for row in rows}) == 16
