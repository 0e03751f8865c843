"""One optimiser step of a planner's recipe on random Scenes at full shape, before any is made.

On a GPU where there is one; otherwise, and where its memory does not do, on the meta device, where
every operation of forward pass, losses, backward pass and AdamW is checked for its shapes and
nothing is computed. What data parallelism would stumble over hours later is found too: a weight
that no loss reaches.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from latentvla_ros.contract import NUM_KNOTS, ContractError, Observation
from latentvla_ros.model.planner import StudentPlanner
from latentvla_training.engine.loop import TrainingRecipe, make_optimizer
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
        what: was trained. device: where. batch_size: examples. losses: their names.
        trained: parameters that moved. peak_bytes: of memory on a GPU; 0 elsewhere.
        least_bytes: what the step holds at least: weights, gradients, AdamW's moments and what the
            backward pass reads; in single precision on the meta device.
        note: why it was made there, in words.
    """

    what: str
    device: str
    batch_size: int
    losses: tuple[str, ...]
    trained: int
    peak_bytes: int
    least_bytes: int = 0
    note: str = ""

    def lines(self) -> str:
        """Return it in a line for people."""
        memory = f", peak {self.peak_bytes / 2**30:.1f} GiB" if self.peak_bytes else ""
        return (
            f"  one step of {self.what}, a batch of {self.batch_size} on {self.device}: "
            f"{self.trained / 1e6:,.1f} M parameters trained by {', '.join(self.losses)}{memory}"
            f"{self.note and f' ({self.note})'}"
        )


def dry_device() -> torch.device:
    """Return where dry steps are made."""
    return torch.device("cuda" if torch.cuda.is_available() else "meta")


def step_that_fits(
    step: Callable[[torch.device, int], DryRun], batch_size: int, processes: int = 1
) -> DryRun:
    """Make a dry step where it should be, or on the meta device where memory there does not do.

    Args:
        step: makes one on a device, of so many examples. batch_size: of a process.
        processes: that share the whole batch.

    Returns:
        the step; if memory did not do, its note says among how many processes it would.
    """
    device = dry_device()
    found = _within_memory(step, device, batch_size)
    if found is not None:
        return found
    more = 2
    while more <= batch_size and _within_memory(step, device, batch_size // more) is None:
        more *= 2
    among = f"--processes {processes * more} does" if more <= batch_size else "no share of it does"
    note = f"shapes alone: this batch does not fit into memory of {device.type}; {among}"
    return replace(step(torch.device("meta"), batch_size), note=note)


def _within_memory(
    step: Callable[[torch.device, int], DryRun], device: torch.device, batch_size: int
) -> DryRun | None:
    """Return a dry step, None when memory does not do."""
    try:
        return step(device, batch_size)
    except torch.OutOfMemoryError:
        pass  # what the step held is held until here
    gc.collect()
    torch.cuda.empty_cache()
    return None


def any_quality() -> PlanQuality:
    """Return what says any PDM scores (B, M) of proposals (B, M, 8, 3), without Scenes."""

    def said(_index: Tensor, plans: Tensor) -> Tensor:
        return torch.rand(plans.shape[:2], device=plans.device)

    return cast("PlanQuality", said)


def dry_run(recipe: Recipe) -> DryRun:
    """Make one optimiser step of a recipe.

    Raises:
        ContractError: a weight that is to be trained gets no gradient; names it.
    """

    def step(device: torch.device, batch_size: int) -> DryRun:
        with device:
            module = TrainedPlanner(recipe, any_quality())
        return one_step("the planner", module.train(), random_batch(module, batch_size), recipe)

    return step_that_fits(step, recipe.run.batch_size)


def one_step(
    what: str, module: nn.Module, batch: Mapping[str, Tensor], recipe: TrainingRecipe
) -> DryRun:
    """Make one optimiser step of a module as the loop does, where its weights are.

    Args:
        what: is trained, in words. module: in the mode that it is trained in.
        batch: anywhere. recipe: of optimiser and run.

    Raises:
        ContractError: a weight that is to be trained gets no gradient; names it.
    """
    optimizer = make_optimizer(module, recipe.optimizer)
    device = next(module.parameters()).device
    mixed = device.type != "meta" and recipe.run.mixed_precision == "bf16"
    kept: dict[int, int] = {}

    def note(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return value

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with (
        torch.autocast("cpu" if device.type == "meta" else device.type, torch.bfloat16, mixed),
        torch.autograd.graph.saved_tensors_hooks(note, lambda value: value),
    ):
        losses = module({name: value.to(device) for name, value in batch.items()})
    torch.stack([loss.float() for loss in losses.values()]).sum().backward()
    trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
    unreached = [name for name, parameter in trained.items() if parameter.grad is None]
    if unreached:
        wanted = "one for every weight that is trained"
        raise ContractError(f"gradients of {what}", f"none for {unreached[:3]}", wanted)
    torch.nn.utils.clip_grad_norm_(trained.values(), recipe.optimizer.clip)
    optimizer.step()
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    count = sum(parameter.numel() for parameter in trained.values())
    size = len(next(iter(batch.values())))
    moments = sum(p.nbytes for p in trained.values()) * 3  # and gradients
    weights = {v.untyped_storage()._cdata: v.nbytes for v in module.state_dict().values()}
    held = moments + sum({**kept, **weights}.values())
    return DryRun(what, device.type, size, tuple(losses), count, peak, held)


def random_inputs(planner: StudentPlanner, batch_size: int) -> dict[str, Tensor]:
    """Return the inputs of a planner, and what was driven, as ``planner.dataset`` gives them."""
    inputs = zip(Observation.INPUTS, example_inputs(planner), strict=True)
    return {name: value.repeat(batch_size, *[1] * (value.ndim - 1)) for name, value in inputs} | {
        "future": torch.randn(batch_size, NUM_KNOTS, 3),
        "future_mask": torch.ones(batch_size, NUM_KNOTS, dtype=torch.bool),
        "index": torch.arange(batch_size),
    }


def random_batch(module: TrainedPlanner, batch_size: int) -> dict[str, Tensor]:
    """Return a batch as ``planner.dataset.collate`` gives it, of noise."""
    cells = raster_grid(module.planner.config).cells
    return random_inputs(module.planner, batch_size) | {
        "raster": torch.randint(0, 32, (batch_size, *cells), dtype=torch.uint8),
        "velocity": torch.randint(-40, 40, (batch_size, 2, *cells), dtype=torch.int8),
        "route": 10.0 * torch.randn(batch_size, len(ROUTE_DISTANCES_M), 2),
        "leader": torch.rand(batch_size, 3),
        "light": torch.randint(0, 4, (batch_size,)),
        "light_distance_m": 40.0 * torch.rand(batch_size),
        "labelled": torch.ones(batch_size, dtype=torch.bool),
        "lamps": torch.tensor([20.0, 0.0, 5.5]) + torch.randn(batch_size, 3, 3),
    }
