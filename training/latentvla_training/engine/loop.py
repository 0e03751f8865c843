"""The training loop: steps, averaging, validation, checkpoints, progress; any device (accelerate).

A run folder holds ``recipe.yaml``, ``checkpoint.pt``, TensorBoard events and ``metrics.jsonl``, and
a lock while it is trained. The same command again continues the run where its last checkpoint left
it: same step, optimizer, random state of every process and data position. With every validation the
log says what the run has cost so far, calls that it was interrupted between included: CPU seconds
and the most memory, of the first process and its loader workers (``cost_meter``).
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
import yaml
from torch import Tensor, nn

from latentvla_ros.contract import ContractError
from latentvla_training.engine.averaging import AveragedModel
from latentvla_training.engine.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from latentvla_training.engine.cost_meter import CostMeter
from latentvla_training.engine.folder_lock import alone
from latentvla_training.engine.launch import join_processes
from latentvla_training.engine.random_state import random_states, restore_random_state
from latentvla_training.engine.recipe import (
    LoopSettings,
    OptimizerSettings,
    build,
    different_settings,
)
from latentvla_training.engine.sharding import (
    first_decides,
    full_state,
    is_sharded,
    load_optimizer,
)

if TYPE_CHECKING:
    from accelerate import Accelerator

Batch = dict[str, Tensor]
Kind = TypeVar("Kind")


class TrainingRecipe(Protocol):
    """What the loop reads of a recipe: a frozen dataclass, nested ones and plain values in it."""

    @property
    def optimizer(self) -> OptimizerSettings: ...

    @property
    def run(self) -> LoopSettings: ...


class Task(Protocol):
    """What a run trains.

    ``module`` maps a batch to weighted losses by name; where it has ``leaves_weights_out`` and that
    is true, these need not reach every weight that is trained. ``batches`` yields those of this
    process from a step on. ``validate`` returns figures of the averaged module.
    """

    module: nn.Module

    def batches(self, start_step: int, process: int, processes: int) -> Iterable[Batch]: ...

    def validate(self, averaged: nn.Module, device: torch.device) -> dict[str, float]: ...


def learning_rate(step: int, steps: int, settings: OptimizerSettings) -> float:
    """Return the rate of ``step``: linear warm-up, then a cosine, in every cycle."""
    length = max(1, steps // settings.cycles)
    cycle = min(step // length, settings.cycles - 1)
    step -= cycle * length
    peak = settings.learning_rate * settings.cycle_factor**cycle
    if step < settings.warmup_steps:
        return peak * (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(1, length - settings.warmup_steps)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))
    return peak * (settings.final_fraction + (1.0 - settings.final_fraction) * cosine)


def make_optimizer(module: nn.Module, settings: OptimizerSettings) -> torch.optim.AdamW:
    """Return AdamW over the trainable parameters; vectors and scalars are not decayed.

    A module may have ``learning_rate_factors``, factors by the beginning of parameters' names: what
    is new learns faster than what a run started with. Others have a factor of 1.
    """
    factors: Mapping[str, float] = getattr(module, "learning_rate_factors", {})
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {(1.0, True): [], (1.0, False): []}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            factor = next((f for start, f in factors.items() if name.startswith(start)), 1.0)
            groups.setdefault((factor, parameter.ndim > 1), []).append(parameter)
    records = [
        {
            "params": members,
            "weight_decay": settings.weight_decay if decayed else 0.0,
            "learning_rate_factor": factor,
        }
        for (factor, decayed), members in groups.items()
    ]
    return torch.optim.AdamW(records, lr=settings.learning_rate, foreach=True)


def run_training(
    task: Task,
    recipe: TrainingRecipe,
    folder: Path,
    stop_after_steps: int | None = None,
    progress: bool = True,
) -> nn.Module:
    """Train ``task`` in ``folder``, from its checkpoint if any; returns the averaged module.

    Args:
        stop_after_steps: end this call after so many steps with a checkpoint, as if interrupted.

    Raises:
        ContractError: the folder holds a run of another recipe, or a checkpoint of one; or it is
            being trained by another process.
        FloatingPointError: the loss is not finite.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState

    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
    join_processes()
    AcceleratorState._reset_state()  # of the stage before, whose mixed precision may be another
    accelerator = Accelerator(
        mixed_precision=recipe.run.mixed_precision,
        cpu=not torch.cuda.is_available(),
        kwargs_handlers=[
            DistributedDataParallelKwargs(
                find_unused_parameters=getattr(task.module, "leaves_weights_out", False)
            )
        ],
    )
    with alone(folder) if accelerator.is_main_process else nullcontext():
        return _train(task, recipe, folder, accelerator, stop_after_steps, progress)


def _train(
    task: Task,
    recipe: TrainingRecipe,
    folder: Path,
    accelerator: Accelerator,
    stop_after_steps: int | None,
    progress: bool,
) -> nn.Module:
    """Train ``task`` in a folder that is held; see ``run_training``."""
    from torch.utils.tensorboard import SummaryWriter
    from tqdm import tqdm

    meter = CostMeter()
    main = accelerator.is_main_process
    if main:
        _claim_folder(folder, recipe)
    optimizer = make_optimizer(task.module, recipe.optimizer)
    averaged = AveragedModel(task.module, recipe.optimizer.ema_decay)
    start, cpu_before_s, peak_before_gib = 0, 0.0, 0.0
    state = load_checkpoint(folder)
    if state is not None:
        check_checkpoint(folder, state, recipe)
        task.module.load_state_dict(state["module"])
        averaged.module.load_state_dict(state["averaged"])
        averaged.updates, start = state["updates"], state["step"]
        cpu_before_s, peak_before_gib = state.get("cpu_s", 0.0), state.get("peak_gib", 0.0)
    averaged.module.to(accelerator.device)
    module, prepared = accelerator.prepare(task.module, optimizer)
    bare = accelerator.unwrap_model(module)
    sharded = is_sharded(bare)
    if sharded and averaged.decay:
        raise ContractError(
            "optimizer.ema_decay", averaged.decay, "0 with FSDP, which keeps weights in pieces"
        )
    if state is not None:
        load_optimizer(bare, optimizer, state["optimizer"])
    steps = recipe.run.steps
    every = max(1, recipe.run.validate_passes // recipe.run.batch_size)
    writer = SummaryWriter(str(folder)) if main else None
    bar = tqdm(
        total=steps, initial=start, desc=folder.name, unit="step", disable=not (main and progress)
    )

    def cost() -> dict[str, float]:
        peak_gib = max(peak_before_gib, meter.peak_gib)
        return {"cpu_s": cpu_before_s + meter.cpu_s, "peak_gib": peak_gib}

    def checkpoint(step: int) -> None:
        random = random_states()
        if not (main or sharded):
            return
        weights, moments = full_state(bare, optimizer)
        if not main:
            return
        save_checkpoint(
            folder,
            {
                "module": weights,
                "averaged": averaged.module.state_dict() if averaged.decay else weights,
                "updates": averaged.updates,
                "optimizer": moments,
                "rng": random,
                "step": step,
                "recipe": _plain(recipe),
                **cost(),
            },
        )

    saved, logged = time.monotonic(), time.monotonic()
    module.train()
    process = accelerator.process_index
    batches = iter(task.batches(start, process, accelerator.num_processes))
    if state is not None:  # a loader that begins takes from the numbers
        restore_random_state(state["rng"], process, (recipe.run.seed, start))
    step = start
    for step, batch in enumerate(batches, start=start + 1):
        rate = learning_rate(step - 1, steps, recipe.optimizer)
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("learning_rate_factor", 1.0)
        losses = module({name: value.to(accelerator.device) for name, value in batch.items()})
        total = torch.stack([loss.float() for loss in losses.values()]).sum()
        if not torch.isfinite(total):
            raise FloatingPointError(
                f"loss at step {step}: { {name: float(loss) for name, loss in losses.items()} }"
            )
        prepared.zero_grad(set_to_none=True)
        accelerator.backward(total)
        norm = accelerator.clip_grad_norm_(module.parameters(), recipe.optimizer.clip)
        prepared.step()
        averaged.update(bare)
        bar.update()
        if step % recipe.run.log_steps == 0 and writer is not None:
            now = time.monotonic()
            rate_s = recipe.run.log_steps * recipe.run.batch_size / (now - logged)
            logged = now
            values = {f"loss/{name}": float(loss.detach()) for name, loss in losses.items()}
            values |= {"loss/total": float(total.detach()), "train/gradient_norm": float(norm)}
            values |= {"train/learning_rate": rate, "train/scenes_per_s": rate_s}
            for name, value in values.items():
                writer.add_scalar(name, value, step)
            _log(folder, {"step": step, **values})
            meter.look()
            bar.set_postfix(loss=f"{float(total.detach()):.3f}", scenes_s=f"{rate_s:.1f}")
        last = step == steps
        if (step % every == 0 or last) and (main or sharded):
            figures = task.validate(averaged.module, accelerator.device)
            module.train()
        if (step % every == 0 or last) and main:
            for name, value in figures.items():
                writer.add_scalar(f"val/{name}", value, step) if writer else None
            values = {f"val/{name}": value for name, value in figures.items()}
            _log(folder, {"step": step, **values, **{f"cost/{k}": v for k, v in cost().items()}})
            bar.write(f"step {step}: " + "  ".join(f"{k} {v:.4f}" for k, v in figures.items()))
            logged = time.monotonic()
        stopping = stop_after_steps is not None and step - start >= stop_after_steps
        due = time.monotonic() - saved > 60.0 * recipe.run.checkpoint_minutes
        if last or stopping or first_decides(due, accelerator.device):
            checkpoint(step)
            saved = time.monotonic()
        if stopping:
            break
    bar.close()
    if writer is not None:
        writer.close()
    accelerator.wait_for_everyone()  # whoever goes on finds the last checkpoint
    return averaged.module


def run_recipe(kind: type[Kind], folder: Path) -> Kind | None:
    """Return the recipe that a run folder notes, of its kind; None when it notes none.

    Raises:
        ContractError: it is of another kind, or not allowed.
    """
    path = folder / "recipe.yaml"
    if not path.is_file():
        return None
    return build(kind, yaml.safe_load(path.read_text(encoding="utf-8")), str(path))


def check_folder(folder: Path, recipe: TrainingRecipe) -> bool:
    """Return whether a run folder holds a run of ``recipe`` already; False when it holds none.

    Raises:
        ContractError: it holds a run of another recipe; names what differs.
    """
    found = run_recipe(type(recipe), folder)
    if found is None:
        return False
    different = different_settings(found, recipe)
    if different:
        expected = "a run of the same recipe, or a new folder (--run)"
        raise ContractError(f"run folder {folder}", different, expected)
    return True


def check_checkpoint(folder: Path, state: Mapping[str, Any], recipe: TrainingRecipe) -> None:
    """Check that the checkpoint in a run's folder is of that run, as far as it says of which it is.

    Raises:
        ContractError: it is of a run of another recipe; names what differs.
    """
    if "recipe" not in state:
        return  # of before checkpoints said so
    path = folder / CHECKPOINT
    different = different_settings(build(type(recipe), state["recipe"], f"{path} recipe"), recipe)
    if different:
        expected = "that of this folder's run; put it back, or remove it to begin again"
        raise ContractError(f"checkpoint {path}", different, expected)


def _plain(recipe: TrainingRecipe) -> dict[str, Any]:
    """Return a recipe as mappings, lists and plain values."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    return values


def _claim_folder(folder: Path, recipe: TrainingRecipe) -> None:
    """Write the recipe into a new run folder, or check that it is the same in an old one."""
    folder.mkdir(parents=True, exist_ok=True)
    if check_folder(folder, recipe):
        return
    text = yaml.safe_dump(_plain(recipe), sort_keys=False)
    path = folder / "recipe.yaml"
    part = folder / f".recipe.{os.getpid()}.part"
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _log(folder: Path, entry: dict[str, Any]) -> None:
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
