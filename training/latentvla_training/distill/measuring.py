"""How long calls take, what they compute and hold: on one CPU thread, or on a GPU."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

#: Turns at most and at least; between the two none begins after so many seconds of them.
CALLS, LEAST_CALLS, BUDGET_S = 31, 3, 600.0
CPU = torch.device("cpu")
#: How works are called, as a result says it.
ORDER = "in an order drawn anew each turn, each right after an untimed call of its own"

Work = Callable[[], object]


def machine_name(device: torch.device) -> str:
    """Return the model of a GPU, or of this machine's CPU, as far as it is known."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one CPU thread meanwhile."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def in_turn(
    works: Mapping[str, Work],
    calls: int,
    seed: int = 0,
    budget_s: float = float("inf"),
    device: torch.device = CPU,
) -> dict[str, NDArray[np.float64]]:
    """Return the time (calls,) in ms of every call of each work.

    Of this process's CPU time; on a GPU from when it has done all before until it has done this.

    Args:
        calls: that are timed, of each, at most. seed: of the order of every turn.
        budget_s: seconds after which no turn begins but the first ``LEAST_CALLS``.
        device: where the works are.
    """
    taken: dict[str, list[float]] = {name: [] for name in works}
    rng = np.random.default_rng(seed)
    ends = time.monotonic() + budget_s
    for turn in range(calls):
        if turn >= LEAST_CALLS and time.monotonic() >= ends:
            break
        for name in rng.permutation(list(works)).tolist():
            works[name]()  # caches hold what it needs, not what another left there
            begun = _now(device)
            works[name]()
            taken[name].append(1e3 * (_now(device) - begun))
    return {name: np.array(values) for name, values in taken.items()}


def _now(device: torch.device) -> float:
    """Return seconds: of this process's CPU, or on a GPU when all that it was given is done."""
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def operations(work: Work) -> float:
    """Count floating-point operations; of plain matrix products, which the counter knows."""
    with sdpa_kernel([SDPBackend.MATH]), FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def allocated(work: Work, device: torch.device) -> float:
    """Return the most bytes that torch's allocator held at once for a call, beside what it had."""
    if device.type == "cuda":
        work()  # libraries take their workspace once
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return float(torch.cuda.max_memory_allocated(device) - before)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        work()
    assert found.profiler is not None and found.profiler.kineto_results is not None
    events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    held = np.cumsum([0, *(event.nbytes() for event in events)])
    return float(held.max())
