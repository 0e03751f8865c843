"""What a planner costs beside its teacher: parameters and operations, counted on the meta device.

Both are counted at the shapes of experiments.md section 6, whatever a recipe's own are: the system
sees three views of 256x512, the teacher three pictures of 252x504 and 60 tokens of text. A view
0.5 s ago costs the system a fourth pass of its trunk, and the teacher nothing (its first layer
joins two frames): what the system takes with all its views and at its own size stands beside it.
Operations are those of torch's ``FlopCounterMode``: products and convolutions, a multiplication and
an addition are two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.model.planner import StudentPlanner
from latentvla_training.engine.recipe import Recipe
from latentvla_training.export.onnx_graph import example_inputs

VIEWS, WIDTH, HEIGHT = 3, 512, 256

#: Patches (rows, columns) of 14 pixels of the teacher's pictures of 252x504, and its other tokens.
TEACHER_GRIDS, TEACHER_TEXT = ((18, 36),) * 3, 60

#: Of the teacher that is counted.
TEACHER_RECIPE = "base"


@dataclass(frozen=True)
class Counted:
    """Floating-point operations of one plan: of all, and by part of the planner."""

    total: float
    parts: Mapping[str, float]


@dataclass(frozen=True)
class Description:
    """What ``latentvla-train describe`` says; operations are of one Scene.

    Attributes:
        recipe, host: which planner.
        latent_reasoner_parameters, total_parameters: of the latent reasoner; of the whole planner.
        system_shape, teacher_shape: the pinned shapes, in words.
        system_flops, teacher_flops: at them. ratio: the second by the first.
        system_flops_by_part: of the planner's parts, by name.
        recipe_shape, recipe_flops, recipe_ratio: the same of all the recipe's views at their size.
    """

    recipe: str
    host: str
    latent_reasoner_parameters: int
    total_parameters: int
    system_shape: str
    teacher_shape: str
    system_flops: float
    teacher_flops: float
    ratio: float
    system_flops_by_part: dict[str, float]
    recipe_shape: str
    recipe_flops: float
    recipe_ratio: float

    def lines(self) -> str:
        """Return it in lines for people."""
        parts = sorted(self.system_flops_by_part.items(), key=lambda part: -part[1])
        shares = ", ".join(f"{name} {flops / 1e9:,.2f}" for name, flops in parts if flops > 5e6)
        return "\n".join(
            [
                f"{self.recipe}, host {self.host}",
                f"  parameters: {self.total_parameters / 1e6:,.1f} M, of which latent reasoner "
                f"{self.latent_reasoner_parameters / 1e6:,.1f} M",
                f"  GFLOP a plan at {self.system_shape}: {self.system_flops / 1e9:,.2f} ({shares})",
                f"  GFLOP a Scene of the teacher at {self.teacher_shape}: "
                f"{self.teacher_flops / 1e9:,.0f}, {self.ratio:,.1f} times as many",
                f"  GFLOP a plan at the recipe's {self.recipe_shape}: "
                f"{self.recipe_flops / 1e9:,.2f}; the teacher has {self.recipe_ratio:,.1f} times "
                "as many",
            ]
        )


def meta_planner(config: PlannerConfig) -> StudentPlanner:
    """Return a planner without any memory behind it."""
    with torch.device("meta"):
        return StudentPlanner(config).eval().requires_grad_(False)


def count_planner(planner: StudentPlanner) -> Counted:
    """Count the operations of one plan on a planner of the meta device."""
    inputs = [value.to("meta") for value in example_inputs(planner)]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        planner(*inputs)
    counts = {name: sum(found.values()) for name, found in counter.get_flop_counts().items()}
    parts = {}
    for name, part in planner.named_children():
        own = f"{type(planner).__name__}.{name}"
        # A list of modules is never called itself.
        called = (
            [own] if own in counts else [f"{own}.{child}" for child, _ in part.named_children()]
        )
        parts[name] = float(sum(counts.get(module, 0) for module in called))
    return Counted(float(counter.get_total_flops()), parts)


def count_teacher() -> float:
    """Count the operations of one greedy answer of the teacher at the pinned shapes."""
    from latentvla_training.teacher.cost import PromptShape, count_operations, recipe_shapes
    from latentvla_training.teacher.settings import load_teacher_recipe
    from latentvla_training.teacher.vlm import meta_vlm

    vlm = meta_vlm(recipe_shapes(load_teacher_recipe(TEACHER_RECIPE)).config)
    return count_operations(vlm, PromptShape(TEACHER_GRIDS, TEACHER_TEXT)).inference


def describe(recipe: Recipe) -> Description:
    """Count parameters and operations of a recipe's planner, and those of the teacher."""
    own = meta_planner(recipe.model)
    pinned = replace(
        recipe.model,
        view_time_offsets_s=(0.0,) * VIEWS,
        image_width=WIDTH,
        image_height=HEIGHT,
    )
    system, whole = count_planner(meta_planner(pinned)), count_planner(own)
    teacher = count_teacher()
    rows, columns = TEACHER_GRIDS[0]
    size = f"{recipe.model.image_height}x{recipe.model.image_width}"
    return Description(
        recipe=recipe.name,
        host=recipe.model.host,
        latent_reasoner_parameters=sum(p.numel() for p in own.reasoner.parameters()),
        total_parameters=sum(p.numel() for p in own.parameters()),
        system_shape=f"{VIEWS}x{HEIGHT}x{WIDTH}",
        teacher_shape=f"{len(TEACHER_GRIDS)}x{14 * rows}x{14 * columns} + {TEACHER_TEXT} tokens",
        system_flops=system.total,
        teacher_flops=teacher,
        ratio=teacher / system.total,
        system_flops_by_part=dict(system.parts),
        recipe_shape=f"{len(recipe.model.view_time_offsets_s)}x{size}",
        recipe_flops=whole.total,
        recipe_ratio=teacher / whole.total,
    )


def as_json(description: Description) -> str:
    """Return a description as the text of a JSON file."""
    import json

    return json.dumps(asdict(description), indent=1) + "\n"
