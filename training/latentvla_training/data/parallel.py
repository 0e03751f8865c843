"""One call for work over many items: Ray where it is installed, a process pool otherwise."""

from __future__ import annotations

import importlib.util
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Literal, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Pool = Literal["auto", "ray", "processes"]


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
        ValueError: ``workers`` is below 1.
        ModuleNotFoundError: Ray was asked for and is not installed.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}, expected at least 1")
    if pool == "auto":
        pool = "ray" if workers > 1 and importlib.util.find_spec("ray") else "processes"
    if pool == "ray":
        yield from _map_ray(function, items, workers)
    elif workers == 1:
        for item in items:
            try:
                yield item, function(item)
            except Exception as error:
                yield item, error
    else:
        yield from _map_processes(function, items, workers)


def _map_processes(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[tuple[Item, Result | Exception]]:
    remaining = iter(items)
    # Spawned, not forked: numba's threads and the traffic engine do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as executor:
        running: dict[Future[Result], Item] = {}
        try:
            while True:
                while len(running) < 2 * workers:
                    try:
                        item = next(remaining)
                    except StopIteration:
                        break
                    running[executor.submit(function, item)] = item
                if not running:
                    return
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    item = running.pop(future)
                    error = future.exception()
                    if error is not None and not isinstance(error, Exception):
                        raise error
                    yield item, error if error is not None else future.result()
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


def _map_ray(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[tuple[Item, Result | Exception]]:
    import ray

    started = not ray.is_initialized()
    if started:
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    try:
        remote = ray.remote(num_cpus=1, max_retries=0)(function)
        remaining = iter(items)
        running: dict[ray.ObjectRef, Item] = {}
        while True:
            while len(running) < 2 * workers:
                try:
                    item = next(remaining)
                except StopIteration:
                    break
                running[remote.remote(item)] = item
            if not running:
                return
            done, _ = ray.wait(list(running), num_returns=1)
            for reference in done:
                item = running.pop(reference)
                try:
                    yield item, ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    yield item, error.cause
    finally:
        if started:
            ray.shutdown()
