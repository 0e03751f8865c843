"""Time and memory of what is done with a Scene, measured here on random weights and pictures."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import psutil
import torch

from latentvla_ros.contract import NUM_LATENT_ACTIONS
from latentvla_ros.model.torchvision_operators import declare_missing_operators
from latentvla_training.engine.cost_meter import CostMeter
from latentvla_training.engine.loop import make_optimizer
from latentvla_training.latent_action.codes import CODEBOOK_SIZE
from latentvla_training.teacher.cost import Shapes, recipe_shapes, training_memory
from latentvla_training.teacher.decoding import answer
from latentvla_training.teacher.model import Batch, Teacher, make_teacher
from latentvla_training.teacher.processor import VIEWS, TeacherProcessor
from latentvla_training.teacher.settings import TINY, TeacherRecipe
from latentvla_training.teacher.training import code_loss
from latentvla_training.teacher.vlm import meta_vlm, prepare_for_training

_GIB = 2.0**30


@dataclass(frozen=True)
class Speed:
    """Milliseconds a Scene (CPU time of one process, or wall time on a GPU) and peak memory.

    Attributes:
        pictures: of the image processor. training: of an optimiser step. reading: of the codes
            after the true ones. answering: of the greedy answer and all sampled prefixes.
        peak_gib: most memory that the process (or the GPU) held meanwhile.
    """

    pictures: float
    training: float
    reading: float
    answering: float
    peak_gib: float


def measure(recipe: TeacherRecipe, batch_size: int) -> str:
    """Measure a recipe, or say why it does not fit, in lines for people."""
    shapes = recipe_shapes(recipe)
    on_gpu = torch.cuda.is_available()
    free = torch.cuda.mem_get_info()[0] if on_gpu else psutil.virtual_memory().available
    needed = training_memory(recipe.model, meta_vlm(shapes.config)).total
    if needed > 0.9 * free:
        return (
            f"  not measured: weights, gradients and optimiser take {needed / _GIB:.1f} GiB, "
            f"{free / _GIB:.1f} GiB are free here"
        )
    found = measured(recipe, shapes, batch_size)
    what = torch.cuda.get_device_name() if on_gpu else f"{torch.get_num_threads()} CPU thread(s)"
    return (
        f"  measured on {what}, {batch_size} Scenes at once, {recipe.run.mixed_precision}: "
        f"ms a Scene: pictures {found.pictures:.1f}, training {found.training:.1f}, reading "
        f"{found.reading:.1f}, answer with {recipe.cache.prefixes} prefixes "
        f"{found.answering:.1f}; peak memory {found.peak_gib:.2f} GiB"
    )


def measured(recipe: TeacherRecipe, shapes: Shapes, batch_size: int) -> Speed:
    """Measure one optimiser step and the rest, each the better of two."""
    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    meter = CostMeter()
    teacher = random_teacher(recipe, shapes).to(device)
    rng = np.random.default_rng(0)
    settings = recipe.pictures
    views = rng.integers(0, 256, (len(VIEWS), settings.height, settings.width, 3), np.uint8)
    pictures = 1e3 * min(_seconds(lambda: shapes.processor.pictures(views)) for _ in range(3))
    batch = random_batch(shapes.processor, batch_size, views)
    batch = {name: value.to(device) for name, value in batch.items()}
    optimizer = make_optimizer(teacher, recipe.optimizer)
    mixed = recipe.run.mixed_precision == "bf16"
    uniforms = torch.rand(batch_size, recipe.cache.prefixes, NUM_LATENT_ACTIONS, device=device)

    def train() -> None:
        with torch.autocast(device.type, torch.bfloat16, mixed):
            logits = teacher.vocabulary_logits(teacher.read(batch, batch["codes"]))
        code_loss(logits, batch["codes"], teacher).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    @torch.inference_mode()
    def read() -> None:
        with torch.autocast(device.type, torch.bfloat16, mixed):
            teacher.logits(teacher.read(batch, batch["codes"]))

    @torch.inference_mode()
    def reply() -> None:
        with torch.autocast(device.type, torch.bfloat16, mixed):
            answer(teacher, batch, uniforms)

    def each(work: Callable[[], None]) -> float:
        return 1e3 * min(_seconds(work) for _ in range(2)) / batch_size

    training = each(train)
    teacher.eval().vlm.set_attn_implementation("sdpa")  # as loaded teachers have it
    reading, answering = each(read), each(reply)
    return Speed(pictures, training, reading, answering, meter.peak_gib)


def random_teacher(recipe: TeacherRecipe, shapes: Shapes) -> Teacher:
    """Return a teacher of a recipe's shapes with random weights, ready to be trained."""
    if recipe.model.source == TINY:
        return make_teacher(recipe.model, shapes.processor)
    declare_missing_operators()
    from transformers import AutoModelForImageTextToText

    kind = torch.bfloat16 if recipe.model.lora_rank else torch.float32
    vlm = AutoModelForImageTextToText.from_config(shapes.config, dtype=kind)
    return Teacher(prepare_for_training(vlm, recipe.model, shapes.processor), shapes.processor)


def random_batch(processor: TeacherProcessor, count: int, views: np.ndarray) -> Batch:
    """Return a batch of Scenes that show the same views and drive straight on."""
    made = {name: torch.from_numpy(value) for name, value in processor.pictures(views).items()}
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, CODEBOOK_SIZE, (count, NUM_LATENT_ACTIONS), generator=generator)
    return {
        **{name: value[None].repeat(count, 1, 1) for name, value in made.items()},
        "ego_history": torch.zeros(count, 4, 3),
        "ego_history_mask": torch.ones(count, 4, dtype=torch.bool),
        "ego_dynamics": torch.zeros(count, 6),
        "ego_dynamics_mask": torch.ones(count, 6, dtype=torch.bool),
        "command": torch.eye(4)[torch.ones(count, dtype=torch.int64)],
        "codes": codes,
    }


def _seconds(work: Callable[[], object]) -> float:
    """Return the CPU time that some work takes in this process, or wall time on a GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        begun = time.perf_counter()
        work()
        torch.cuda.synchronize()
        return time.perf_counter() - begun
    begun = time.process_time()
    work()
    return time.process_time() - begun
