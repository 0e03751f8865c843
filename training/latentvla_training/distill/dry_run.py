"""One optimiser step of all that a comparison trains with a teacher, on random Scenes.

At full shape and before any is made, as ``planner.dry_run`` says: the contender with the teacher
online and its pooling, the student's reasoner by its lessons, then fusion and host on its states.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from latentvla_ros.contract import CODEBOOK_SIZE, NUM_LATENT_ACTIONS
from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.model.planner import StudentPlanner
from latentvla_training.distill.pooling import TEACHER_ACTION, TEACHER_VISUAL, TeacherStates
from latentvla_training.distill.settings import (
    RECIPES,
    TEACHER,
    DistillRecipe,
    load_distill_recipe,
)
from latentvla_training.distill.student import (
    CODES,
    GREEDY,
    POOLED_ACTION,
    POOLED_VISUAL,
    PROBABILITIES,
    ReasonerOnFeatures,
    StudentOnFeatures,
    make_source,
)
from latentvla_training.engine.recipe import Recipe
from latentvla_training.planner.cached_encodings import FEATURES, INPUTS, to_arrays
from latentvla_training.planner.dry_run import (
    DryRun,
    any_quality,
    dry_device,
    one_step,
    random_inputs,
)
from latentvla_training.planner.head_training import PlannerOnFeatures
from latentvla_training.teacher.cost import recipe_shapes
from latentvla_training.teacher.settings import TeacherRecipe, load_teacher_recipe

ONLINE, LESSONS, FUSION = "the teacher online", "the student's reasoner", "the student's plan"


def distill_dry_runs(recipe: Recipe) -> Iterator[DryRun]:
    """Make the steps of the comparison that ships under the name of a planner's recipe, if any.

    Its host is that planner, its teacher of the recipe of that name.

    Raises:
        ContractError: see ``dry_runs``; no teacher's recipe has that name.
    """
    folder = Path(__file__).resolve().parents[1] / "recipes" / RECIPES
    if (folder / f"{recipe.name}.yaml").is_file():
        own = load_distill_recipe(recipe.name)
        yield from dry_runs(own, recipe.model, load_teacher_recipe(recipe.name))


def dry_runs(
    recipe: DistillRecipe, config: PlannerConfig, teacher: TeacherRecipe
) -> Iterator[DryRun]:
    """Make one optimiser step of the teacher's contender, and of both phases of the student.

    Args:
        config: of the host.

    Raises:
        ContractError: a weight that is to be trained gets no gradient; names it.
    """
    device, student, pooling = dry_device(), recipe.student, recipe.pooling
    width, _ = shape = teacher_shape(teacher)
    heads = recipe.heads.of(TEACHER)
    settings = (heads.loss, heads.new_factor, any_quality(), heads.proposals_only)
    with device:
        planner = StudentPlanner(config)
        source = TeacherStates(width, config.width, pooling)
        online = PlannerOnFeatures(planner, source, *settings)
    yield one_step(
        ONLINE, online.train(), _scenes(planner, recipe, shape, heads.run.batch_size), heads
    )
    own, phase = student.planner_config(config), recipe.reasoner
    if student.taught:
        with device:
            planner = StudentPlanner(own)
            reasoner = ReasonerOnFeatures(planner, make_source(planner, student, pooling))
        batch = _scenes(planner, recipe, shape, phase.run.batch_size)
        yield one_step(LESSONS, reasoner.train(), batch, phase)
    with device:
        planner = StudentPlanner(own)
        plan = StudentOnFeatures(planner, make_source(planner, student, pooling), *settings)
    yield one_step(
        FUSION, plan.train(), _scenes(planner, recipe, shape, heads.run.batch_size), heads
    )


def teacher_shape(teacher: TeacherRecipe) -> tuple[int, int]:
    """Return the width of a teacher's states, and how many of the pictures are cached."""
    shapes = recipe_shapes(teacher)
    cells = math.prod(teacher.cache.visual_grid)
    pictures = len(shapes.processor.layout.pictures)
    return int(shapes.config.text_config.hidden_size), pictures * cells


def _scenes(
    host: StudentPlanner, recipe: DistillRecipe, shape: tuple[int, int], count: int
) -> dict[str, Tensor]:
    """Return a batch of noise as heads are trained on, with all that anybody is told or taught."""
    device = next(host.parameters()).device
    batch = {name: value.to(device) for name, value in random_inputs(host, count).items()}
    with torch.no_grad():
        batch[FEATURES] = host.encode_images(batch.pop("images")).half()
        if recipe.heads.proposals_only:
            inputs = [batch.pop(name) for name in INPUTS]
            batch |= to_arrays(host.encode(batch.pop(FEATURES).float(), *inputs))
    (width, visual), pooling = shape, recipe.pooling
    places = (count, NUM_LATENT_ACTIONS)
    return batch | {
        TEACHER_VISUAL: torch.randn(count, visual, width).half(),
        TEACHER_ACTION: torch.randn(*places, width).half(),
        POOLED_VISUAL: torch.randn(count, pooling.visual_latents, pooling.width).half(),
        POOLED_ACTION: torch.randn(*places, pooling.width).half(),
        PROBABILITIES: torch.randn(*places, CODEBOOK_SIZE).softmax(dim=-1),
        GREEDY: torch.randint(0, CODEBOOK_SIZE, places, dtype=torch.int8),
        CODES: torch.randint(0, CODEBOOK_SIZE, places, dtype=torch.int8),
    }
