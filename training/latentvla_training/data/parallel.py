"""One call for work over many items: Ray where it is installed, a process pool otherwise."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import Generic, Literal, TypeVar

from latentvla_ros.contract import ContractError

Item = TypeVar("Item")
Result = TypeVar("Result")
Pool = Literal["auto", "ray", "processes"]


@dataclass(frozen=True)
class _Guarded(Generic[Item, Result]):
    """The function with its exceptions as values that survive the way back from a process."""

    function: Callable[[Item], Result]

    def __call__(self, item: Item) -> Result | _Raised:
        try:
            return self.function(item)
        except Exception as error:
            try:
                pickle.loads(pickle.dumps(error))
            except Exception:
                # Unpickling calls the class with ``args`` alone, which not every class takes.
                return _Raised(RuntimeError(f"{type(error).__name__}: {error}"))
            return _Raised(error)


@dataclass(frozen=True)
class _Raised:
    error: Exception


def map_unordered(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    pool: Pool = "auto",
) -> Iterator[tuple[Item, Result | Exception]]:
    """Yield (item, result) as results come; an item that raised yields its exception instead.

    Args:
        function: importable by name (it runs in other processes).
        items: the work; no more than twice ``workers`` items are under way at a time.
        workers: 1 runs in this process.
        pool: ``auto`` takes Ray when it is installed and more than one worker is wanted.

    Raises:
        ContractError: ``workers`` is below 1.
        ModuleNotFoundError: Ray was asked for and is not installed.
    """
    if workers < 1:
        raise ContractError("workers", workers, "at least 1")
    if pool == "auto":
        pool = "ray" if workers > 1 and _has_ray() else "processes"
    guarded = _Guarded(function)
    if pool == "ray":
        results = _map_ray(guarded, items, workers)
    elif workers == 1:
        results = ((item, guarded(item)) for item in items)
    else:
        results = _map_processes(guarded, items, workers)
    for item, result in results:
        yield item, result.error if isinstance(result, _Raised) else result


def _has_ray() -> bool:
    spec = importlib.util.find_spec("ray")
    return spec is not None and spec.origin is not None  # a mere folder called ray has none


def _map_processes(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[tuple[Item, Result]]:
    remaining = iter(items)
    # Spawned, not forked: numba's threads and the traffic engine do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as executor:
        running: dict[Future[Result], Item] = {}
        try:
            while True:
                for item in islice(remaining, 2 * workers - len(running)):
                    running[executor.submit(function, item)] = item
                if not running:
                    return
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield running.pop(future), future.result()
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """Let this process end when the one that started it is killed, instead of waiting for ever."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="parent watch", daemon=True).start()


def _call(function: Callable[[Item], Result], item: Item) -> Result:
    return function(item)


def _map_ray(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[tuple[Item, Result]]:
    import ray

    started = not ray.is_initialized()
    if started:
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    try:
        remote = ray.remote(num_cpus=1, max_retries=0)(_call)
        remaining = iter(items)
        running: dict[ray.ObjectRef, Item] = {}
        while True:
            for item in islice(remaining, 2 * workers - len(running)):
                running[remote.remote(function, item)] = item
            if not running:
                return
            done, _ = ray.wait(list(running), num_returns=1)
            for reference in done:
                yield running.pop(reference), ray.get(reference)
    finally:
        if started:
            ray.shutdown()
