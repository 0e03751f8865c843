"""What one plan of each row costs from pictures: counted, and measured here on one thread.

Rows are called in turn, over and over, so that whatever else this machine does meets all alike, in
an order drawn anew each turn and each right after an untimed call of its own, so that none pays for
who ran before it; the ratios are of calls of the same turn. Every row is run as its own programs
run it: planners in float32, the teacher in the precision that its states are cached in. No picture
is decoded.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from latentvla_ros.contract import Observation
from latentvla_training.data.shards import ShardReader
from latentvla_training.distill.pooling import TEACHER_ACTION, TEACHER_VISUAL, TeacherStates
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
from latentvla_training.teacher.cache import pooled_pictures
from latentvla_training.teacher.dataset import TeacherDataset
from latentvla_training.teacher.decoding import answer
from latentvla_training.teacher.training import TeacherRun

#: The row of the teacher's answer alone, without any planner.
ANSWER = "teacher_answer"
#: The recipe whose costs are counted at the pinned shapes (experiments.md section 6).
PINNED = "base"
CALLS = 31
#: How rows are called, as a result says it.
ORDER = "in an order drawn anew each turn, each right after an untimed call of its own"

Work = Callable[[], object]


@dataclass(frozen=True)
class Cost:
    """One plan of one Scene.

    Attributes:
        parameters: of what runs. flops: counted as ``planner.describe`` does.
        cpu_ms: median. to_host: median of the ratios to the host's call of the same turn.
        peak_mib: weights and buffers, and the most that was allocated beside them.
    """

    parameters: int
    flops: float
    cpu_ms: float
    to_host: float
    peak_mib: float


def plan_costs(
    modules: Mapping[str, PlannerOnFeatures],
    host: str,
    student: str,
    teacher: TeacherRun,
    reader: ShardReader,
    calls: int = CALLS,
) -> dict[str, Any]:
    """Measure a plan of the first Scene by every row; all are moved to the CPU, to infer.

    Args:
        modules: trained contenders by row; of those with the teacher's states it answers first.
        host: the row that times are compared with. student: that the teacher is compared with.
        calls: of every row.

    Returns:
        ``rows`` by row and ``ANSWER``; ``teacher_by_student``: of CPU time and of operations; and
        how it was measured.
    """
    teacher.teacher.cpu().eval().requires_grad_(False)
    asked = _Asked(teacher, reader)
    works: dict[str, Work] = {}
    parts: dict[str, list[nn.Module | nn.Parameter]] = {}
    for row, module in modules.items():
        module.cpu().eval().requires_grad_(False)
        works[row] = _planning(module, reader, asked)
        parts[row] = parts_that_run(module)
        if isinstance(module.source, TeacherStates):
            parts[row].append(teacher.teacher)
    works[ANSWER], parts[ANSWER] = asked.states, [teacher.teacher]
    with _one_thread(), torch.no_grad():
        flops = {row: _operations(work) for row, work in works.items()}
        memory = {row: _allocated(work) for row, work in works.items()}
        taken = in_turn(works, calls)
    rows = {}
    for row in works:
        weights = _tensors(parts[row])
        held = sum(value.numel() * value.element_size() for value in weights)
        rows[row] = Cost(
            parameters=sum(v.numel() for v in weights if isinstance(v, nn.Parameter)),
            flops=flops[row],
            cpu_ms=round(float(np.median(taken[row])), 3),
            to_host=round(float(np.median(taken[row] / taken[host])), 4),
            peak_mib=round((held + memory[row]) / 2.0**20, 2),
        )
    measured = float(np.median(taken[ANSWER] / taken[student]))
    return {
        "scene": str(reader.columns["token"][0]),
        "machine": platform.processor() or platform.machine(),
        "threads": 1,
        "calls": calls,
        "order": ORDER,
        "teacher_precision": "bf16" if teacher.mixed else "float32",
        "rows": {row: asdict(cost) for row, cost in rows.items()},
        "teacher_by_student": {
            "cpu": round(measured, 3),
            "flops": round(rows[ANSWER].flops / rows[student].flops, 3),
        },
    }


def pinned_costs() -> dict[str, Any]:
    """Return operations of the paper's size at the pinned shapes, and their ratio; only counted."""
    found = describe(load_recipe(PINNED))
    names = ("recipe", "system_shape", "teacher_shape", "system_flops", "teacher_flops", "ratio")
    return {name: getattr(found, name) for name in names}


class _Asked:
    """The teacher's answer to one Scene, from decoded pictures."""

    def __init__(self, run: TeacherRun, reader: ShardReader) -> None:
        self.run = run
        dataset = TeacherDataset(reader, run.processor, blank=run.recipe.blank_images)
        self.views = dataset.views(0)
        pictures = run.processor.pictures(self.views)
        self.known = {name: value for name, value in dataset[0].items() if name not in pictures}

    def states(self) -> dict[str, Tensor]:
        """Return what the planner reads of it, as it is cached."""
        run = self.run
        batch = collate([{**self.known, **run.processor.pictures(self.views)}])
        with torch.autocast("cpu", torch.bfloat16, run.mixed):
            found = answer(run.teacher, batch)
        grid = run.recipe.cache.visual_grid
        visual = pooled_pictures(run.teacher, found.prompt_states, grid)
        return {TEACHER_VISUAL: visual.half(), TEACHER_ACTION: found.states.half()}


def _planning(module: PlannerOnFeatures, reader: ShardReader, asked: _Asked) -> Work:
    planner, source = module.planner, module.source
    config = planner.config
    inputs: dict[str, NDArray[Any]] = {
        name: reader.columns[name][0] for name in Observation.INPUTS if name != "images"
    }
    batch = collate([inputs])
    images = torch.from_numpy(reader.views(0, config.image_width, config.image_height))[None]
    online = isinstance(source, TeacherStates)

    def work() -> object:
        told = asked.states() if online else {}
        with quick_attention(images.device):
            encoded = planner.encode(planner.encode_images(images), *batch.values())
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


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def in_turn(works: Mapping[str, Work], calls: int, seed: int = 0) -> dict[str, NDArray[np.float64]]:
    """Return the CPU time (calls,) in ms of this process for every call of each work.

    Args:
        calls: that are timed, of each. seed: of the order of every turn.
    """
    taken: dict[str, list[float]] = {name: [] for name in works}
    rng = np.random.default_rng(seed)
    for _ in range(calls):
        for name in rng.permutation(list(works)).tolist():
            works[name]()  # caches hold what it needs, not what another left there
            begun = time.process_time()
            works[name]()
            taken[name].append(1e3 * (time.process_time() - begun))
    return {name: np.array(values) for name, values in taken.items()}


def _operations(work: Work) -> float:
    """Count floating-point operations; of plain matrix products, which the counter knows."""
    with sdpa_kernel([SDPBackend.MATH]), FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def _allocated(work: Work) -> float:
    """Return the most bytes that torch's allocator held at once for a call, beside what it had."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        work()
    assert found.profiler is not None and found.profiler.kineto_results is not None
    events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    held = np.cumsum([0, *(event.nbytes() for event in events)])
    return float(held.max())
