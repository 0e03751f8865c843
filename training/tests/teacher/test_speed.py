"""A dry run takes one optimiser step of any source's shapes, or says why it cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from latentvla_training.teacher import speed
from latentvla_training.teacher.cost import prompt_shape, recipe_shapes
from latentvla_training.teacher.processor import load_processor, save_processor
from latentvla_training.teacher.settings import ModelSettings, TeacherRecipe, load_teacher_recipe
from latentvla_training.teacher.vlm import build_vlm


def test_one_step_of_random_weights_of_a_folder(tmp_path: Path, recipe: TeacherRecipe) -> None:
    processor = load_processor(recipe.model, recipe.pictures)
    build_vlm(recipe.model, processor).save_pretrained(tmp_path)
    save_processor(processor, tmp_path)
    model = ModelSettings(source=str(tmp_path), lora_rank=2, gradient_checkpointing=True)
    other = replace(recipe, model=model, vision=replace(recipe.vision, enabled=False))
    found = speed.measured(other, recipe_shapes(other), 2)
    assert found.training > found.reading > 0 and found.answering > 0 and found.peak_gib > 0


def test_the_papers_shapes_need_no_connection() -> None:
    shapes = recipe_shapes(load_teacher_recipe("base"))
    assert shapes.config.text_config.num_hidden_layers == 36
    assert prompt_shape(shapes.processor.layout).visual == 486  # runtime.md section 5


def test_what_does_not_fit_is_not_tried(
    recipe: TeacherRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    monkeypatch.setattr(speed, "measured", None)
    monkeypatch.setattr(speed.torch.cuda, "is_available", lambda: False)
    assert "not measured: weights, gradients and optimiser take" in speed.measure(recipe, 1)
