"""What one plan of each row costs from pictures: counted, and measured here on one thread.

Rows are called in turn, over and over, so that whatever else this machine does meets all alike, in
an order drawn anew each turn and each right after an untimed call of its own, so that none pays for
who ran before it; the ratios are of calls of the same turn. No turn begins once the time for it is
over, but the first few. Every row is run as its own programs run it: planners in float32, the
teacher in the precision that its states are cached in. No picture is decoded. Where contenders are
on a GPU, they are measured there too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from latentvla_ros.contract import Observation
from latentvla_training.data.shards import ShardReader
from latentvla_training.distill.measuring import (
    BUDGET_S,
    CALLS,
    CPU,
    ORDER,
    Work,
    allocated,
    in_turn,
    machine_name,
    one_thread,
    operations,
)
from latentvla_training.distill.online_teacher import online_states
from latentvla_training.distill.pooling import TeacherStates
from latentvla_training.distill.student import ReasonerStates
from latentvla_training.engine.recipe import load_recipe
from latentvla_training.planner.dataset import collate
from latentvla_training.planner.describe import describe
from latentvla_training.planner.head_training import (
    MEMORY,
    NoStates,
    PlannerOnFeatures,
    quick_attention,
)
from latentvla_training.teacher.dataset import TeacherDataset
from latentvla_training.teacher.training import TeacherRun

#: The row of the teacher's answer alone, without any planner.
ANSWER = "teacher_answer"
#: The recipe whose costs are counted at the pinned shapes (experiments.md section 6).
PINNED = "base"


@dataclass(frozen=True)
class Cost:
    """One plan of one Scene.

    Attributes:
        parameters: of what runs. flops: counted as ``planner.describe`` does.
        cpu_ms: median. to_host: median of the ratios to the host's call of the same turn.
        peak_mib: weights and buffers, and the most that was allocated beside them.
        calls: that were timed.
    """

    parameters: int
    flops: float
    cpu_ms: float
    to_host: float
    peak_mib: float
    calls: int


@dataclass(frozen=True)
class GpuCost:
    """One plan of one Scene on a GPU: see ``Cost``. ``ms``: until the GPU has done it, median."""

    ms: float
    to_host: float
    peak_mib: float
    calls: int


def plan_costs(
    modules: Mapping[str, PlannerOnFeatures],
    host: str,
    student: str,
    teacher: TeacherRun,
    reader: ShardReader,
    calls: int = CALLS,
    budget_s: float = BUDGET_S,
) -> dict[str, Any]:
    """Measure a plan of the first Scene by every row; all are moved to the CPU, to infer.

    Args:
        modules: trained contenders by row; of those with the teacher's states it answers first.
        host: the row that times are compared with. student: that the teacher is compared with.
        calls: of every row at most, on each device. budget_s: seconds after which no turn begins,
            on each device, but the first ``LEAST_CALLS``.

    Returns:
        ``rows`` by row and ``ANSWER``; ``teacher_by_student``: of CPU time and of operations; how
        it was measured; ``gpu``: the same of the GPU that the contenders came on, where they did.
    """
    runs = _Runs(modules, teacher, reader)
    device = next(modules[host].parameters()).device
    gpu = runs.measured(device, calls, budget_s) if device.type == "cuda" else None
    flops = runs.operations(device)
    found = runs.measured(CPU, calls, budget_s)
    rows = {
        row: Cost(
            parameters=runs.parameters(row),
            flops=flops[row],
            cpu_ms=round(float(np.median(taken)), 3),
            to_host=found.ratio(row, host),
            peak_mib=round(found.peak_bytes[row] / 2.0**20, 2),
            calls=len(taken),
        )
        for row, taken in found.taken.items()
    }
    costs = {
        "scene": str(reader.columns["token"][0]),
        "machine": machine_name(CPU),
        "threads": 1,
        "calls": rows[host].calls,
        "budget_s": budget_s,
        "order": ORDER,
        "teacher_precision": "bf16" if teacher.mixed else "float32",
        "rows": {row: asdict(cost) for row, cost in rows.items()},
        "teacher_by_student": {
            "cpu": round(found.ratio(ANSWER, student), 3),
            "flops": round(rows[ANSWER].flops / rows[student].flops, 3),
        },
    }
    if gpu is None:
        return costs
    on_gpu = {
        row: GpuCost(
            ms=round(float(np.median(taken)), 3),
            to_host=gpu.ratio(row, host),
            peak_mib=round(gpu.peak_bytes[row] / 2.0**20, 2),
            calls=len(taken),
        )
        for row, taken in gpu.taken.items()
    }
    return {
        **costs,
        "gpu": {
            "machine": machine_name(device),
            "rows": {row: asdict(cost) for row, cost in on_gpu.items()},
            "teacher_by_student": round(gpu.ratio(ANSWER, student), 3),
        },
    }


def pinned_costs() -> dict[str, Any]:
    """Return operations of the paper's size at the pinned shapes, and their ratio; only counted."""
    found = describe(load_recipe(PINNED))
    names = ("recipe", "system_shape", "teacher_shape", "system_flops", "teacher_flops", "ratio")
    return {name: getattr(found, name) for name in names}


@dataclass(frozen=True)
class _Measured:
    """Of every row on one device: ``taken`` (calls,) ms, and the most bytes that it held."""

    taken: dict[str, NDArray[np.float64]]
    peak_bytes: dict[str, float]

    def ratio(self, row: str, base: str) -> float:
        """Return the median of the ratios of two rows' calls of the same turn."""
        return round(float(np.median(self.taken[row] / self.taken[base])), 4)


class _Runs:
    """A plan of the first Scene by every row, on one device after the other."""

    def __init__(
        self, modules: Mapping[str, PlannerOnFeatures], teacher: TeacherRun, reader: ShardReader
    ) -> None:
        self.modules, self.teacher = modules, teacher
        asked = _Asked(teacher, reader)
        self.works: dict[str, Work] = {}
        self.parts: dict[str, list[nn.Module | nn.Parameter]] = {}
        for row, module in modules.items():
            module.eval().requires_grad_(False)
            self.works[row] = _planning(module, reader, asked)
            self.parts[row] = parts_that_run(module)
            if isinstance(module.source, TeacherStates):
                self.parts[row].append(teacher.teacher)
        teacher.teacher.eval().requires_grad_(False)
        self.works[ANSWER], self.parts[ANSWER] = asked.states, [teacher.teacher]

    def measured(self, device: torch.device, calls: int, budget_s: float) -> _Measured:
        """Move all to a device and call all in turn; see ``plan_costs``."""
        self._to(device)
        with one_thread(), torch.no_grad():
            peak = {
                row: allocated(work, device) + _held(self.parts[row])
                for row, work in self.works.items()
            }
            taken = in_turn(self.works, calls, budget_s=budget_s, device=device)
        return _Measured(taken, peak)

    def operations(self, device: torch.device) -> dict[str, float]:
        """Return floating-point operations by row, counted on a device: the same on all."""
        self._to(device)
        with one_thread(), torch.no_grad():
            return {row: operations(work) for row, work in self.works.items()}

    def _to(self, device: torch.device) -> None:
        for module in (*self.modules.values(), self.teacher.teacher):
            module.to(device)

    def parameters(self, row: str) -> int:
        """Return how many parameters a plan of a row needs."""
        values = _tensors(self.parts[row])
        return sum(value.numel() for value in values if isinstance(value, nn.Parameter))


class _Asked:
    """The teacher's answer to one Scene, from decoded pictures, wherever it is."""

    def __init__(self, run: TeacherRun, reader: ShardReader) -> None:
        self.run = run
        dataset = TeacherDataset(reader, run.processor, blank=run.recipe.blank_images)
        self.views = dataset.views(0)
        pictures = run.processor.pictures(self.views)
        self.known = {name: value for name, value in dataset[0].items() if name not in pictures}

    def states(self) -> dict[str, Tensor]:
        """Return what the planner reads of it, as it is cached."""
        return online_states(self.run, self.known, self.views)


def _planning(module: PlannerOnFeatures, reader: ShardReader, asked: _Asked) -> Work:
    """Return a plan of the first Scene from pictures in the CPU's memory, wherever its row is."""
    planner, source = module.planner, module.source
    config = planner.config
    inputs: dict[str, NDArray[Any]] = {
        name: reader.columns[name][0] for name in Observation.INPUTS if name != "images"
    }
    batch = collate([inputs])
    images = torch.from_numpy(reader.views(0, config.image_width, config.image_height))[None]
    online = isinstance(source, TeacherStates)

    def work() -> object:
        device = planner.token_position.device
        told = asked.states() if online else {}
        with quick_attention(device):
            seen = planner.encode_images(images.to(device))
            encoded = planner.encode(seen, *(value.to(device) for value in batch.values()))
            offered = {**told, MEMORY: encoded.memory}
            states = source({name: offered[name] for name in source.reads})
            return planner.decode(encoded, states)

    return work


def parts_that_run(module: PlannerOnFeatures) -> list[nn.Module | nn.Parameter]:
    """Return what a plan of a contender needs; its readout, if any, ended with training."""
    planner, source = module.planner, module.source
    head = planner.head
    own: list[nn.Module | nn.Parameter] = [
        part
        for name, part in planner.named_children()
        if part is not planner.reasoner and part is not head
    ]
    own += [value for name, value in planner.named_parameters() if "." not in name]
    own += [part for part in head.children() if part is not head.fusion]
    own += [value for name, value in head.named_parameters() if "." not in name]
    if isinstance(source, NoStates):
        return own
    if isinstance(source, ReasonerStates):
        own.append(source.reasoner)
        return [*own, head.fusion] if source.settings.fusion and head.fusion is not None else own
    assert head.fusion is not None
    return [*own, source, head.fusion]


def _tensors(parts: list[nn.Module | nn.Parameter]) -> list[Tensor]:
    """Return parameters and buffers, shared ones once."""
    found: dict[int, Tensor] = {}
    for part in parts:
        values = [part] if isinstance(part, Tensor) else [*part.parameters(), *part.buffers()]
        found.update((id(value), value) for value in values)
    return list(found.values())


def _held(parts: list[nn.Module | nn.Parameter]) -> float:
    """Return the bytes of what runs."""
    return float(sum(value.numel() * value.element_size() for value in _tensors(parts)))
