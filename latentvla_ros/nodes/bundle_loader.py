"""Loads a verified bundle into a backend on a thread of its own, which takes seconds."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from latentvla_ros.contract import ContractError
from latentvla_ros.runtime.backend import create_backend
from latentvla_ros.runtime.bundle import Bundle
from latentvla_ros.runtime.planner import Planner


@dataclass(frozen=True)
class Loaded:
    """Outcome of one loading: the planner, or why there is none."""

    bundle: Bundle
    planner: Planner | None
    error: str = ""


class BundleLoader:
    """One loading at a time; owned by the executor thread."""

    def __init__(self, on_done: Callable[[], None]) -> None:
        """``on_done`` is called on the loading thread and must not block."""
        self._on_done = on_done
        self._results: deque[Loaded] = deque()
        self._thread: threading.Thread | None = None

    @property
    def loading(self) -> bool:
        """Whether a loading is under way or its outcome has not been taken."""
        return self._thread is not None

    def start(self, bundle: Bundle, backend: str, threads: int) -> None:
        """Begin to load; raises RuntimeError while another loading is under way.

        Args:
            backend: name for ``create_backend``. threads: 0 for its default.
        """
        if self._thread is not None:
            raise RuntimeError("a bundle is being loaded")
        self._thread = threading.Thread(
            target=self._load, args=(bundle, backend, threads), name="bundle-loader", daemon=True
        )
        self._thread.start()

    def take(self) -> Loaded | None:
        """Return the outcome of the last loading, once; None while there is none."""
        if not self._results:
            return None
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        return self._results.popleft()

    def close(self) -> None:
        """Wait for the thread and forget its outcome."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._results.clear()

    def _load(self, bundle: Bundle, backend: str, threads: int) -> None:
        try:
            planner = Planner(bundle, create_backend(backend, threads or None))
            self._results.append(Loaded(bundle, planner))
        except ContractError as error:
            self._results.append(Loaded(bundle, None, str(error)))
        except Exception as error:  # a backend's library fails in its own ways; the node says so
            self._results.append(Loaded(bundle, None, f"{type(error).__name__}: {error}"))
        self._on_done()
