"""One optimiser step of a planner's recipe on random Scenes at full shape, before any is made.

On a GPU where there is one; otherwise on the meta device, where every operation of forward pass,
losses, backward pass and AdamW is checked for its shapes and nothing is computed. What data
parallelism would stumble over hours later is found too: a weight that no loss reaches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from latentvla_ros.contract import NUM_KNOTS, ContractError, Observation
from latentvla_training.engine.loop import make_optimizer
from latentvla_training.engine.recipe import Recipe
from latentvla_training.export.onnx_graph import example_inputs
from latentvla_training.planner.dataset import raster_grid
from latentvla_training.planner.targets import ROUTE_DISTANCES_M
from latentvla_training.planner.training import TrainedPlanner

if TYPE_CHECKING:
    from latentvla_training.planner.plan_quality import PlanQuality


@dataclass(frozen=True)
class DryRun:
    """What one step was.

    Attributes:
        device: where. batch_size: Scenes. losses: their names. trained: parameters that moved.
        peak_bytes: of memory on a GPU; 0 on the meta device.
    """

    device: str
    batch_size: int
    losses: tuple[str, ...]
    trained: int
    peak_bytes: int

    def lines(self) -> str:
        """Return it in a line for people."""
        memory = f", peak {self.peak_bytes / 2**30:.1f} GiB" if self.peak_bytes else ""
        return (
            f"  one step of {self.batch_size} Scenes on {self.device}: {self.trained / 1e6:,.1f} M "
            f"parameters trained by {', '.join(self.losses)}{memory}"
        )


def dry_run(recipe: Recipe) -> DryRun:
    """Make one optimiser step of a recipe.

    Raises:
        ContractError: a weight that is to be trained gets no gradient; names it.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "meta")
    batch_size = recipe.run.batch_size

    def any_quality(_index: Tensor, plans: Tensor) -> Tensor:
        return torch.rand(plans.shape[:2], device=plans.device)

    with device:
        module = TrainedPlanner(recipe, cast("PlanQuality", any_quality))
    optimizer = make_optimizer(module, recipe.optimizer)
    batch = random_batch(module, batch_size, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        with torch.autocast("cuda", torch.bfloat16, enabled=recipe.run.mixed_precision == "bf16"):
            losses = module(batch)
    else:
        losses = module(batch)
    torch.stack([loss.float() for loss in losses.values()]).sum().backward()
    trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
    unreached = [name for name, parameter in trained.items() if parameter.grad is None]
    if unreached:
        wanted = "one for every weight that is trained"
        raise ContractError("gradients", f"none for {unreached[:3]}", wanted)
    torch.nn.utils.clip_grad_norm_(trained.values(), recipe.optimizer.clip)
    optimizer.step()
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    count = sum(parameter.numel() for parameter in trained.values())
    return DryRun(device.type, batch_size, tuple(losses), count, peak)


def random_batch(
    module: TrainedPlanner, batch_size: int, device: torch.device
) -> dict[str, Tensor]:
    """Return a batch as ``planner.dataset.collate`` gives it, of noise."""
    config = module.planner.config
    inputs = zip(Observation.INPUTS, example_inputs(module.planner), strict=True)
    batch = {name: value.repeat(batch_size, *[1] * (value.ndim - 1)) for name, value in inputs}
    cells = raster_grid(config).cells
    batch |= {
        "future": torch.randn(batch_size, NUM_KNOTS, 3),
        "future_mask": torch.ones(batch_size, NUM_KNOTS, dtype=torch.bool),
        "index": torch.arange(batch_size),
        "raster": torch.randint(0, 32, (batch_size, *cells), dtype=torch.uint8),
        "velocity": torch.randint(-40, 40, (batch_size, 2, *cells), dtype=torch.int8),
        "route": 10.0 * torch.randn(batch_size, len(ROUTE_DISTANCES_M), 2),
        "leader": torch.rand(batch_size, 3),
        "light": torch.randint(0, 4, (batch_size,)),
        "light_distance_m": 40.0 * torch.rand(batch_size),
        "labelled": torch.ones(batch_size, dtype=torch.bool),
        "lamps": torch.tensor([20.0, 0.0, 5.5]) + torch.randn(batch_size, 3, 3),
    }
    return {name: value.to(device) for name, value in batch.items()}
