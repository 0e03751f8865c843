"""The one inference thread: takes the newest job, makes its plan, hands the result back.

Results return to the executor by the callback given here, which triggers a guard condition; nothing
is polled.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable

from latentvla_ros.nodes.plan_maker import MadePlan, NoPlan, PlanJob, PlanMaker
from latentvla_ros.safety.health import HealthState


class InferenceWorker:
    """Runs ``PlanMaker.make`` off the executor thread.

    Thread ownership: ``submit``, ``results``, ``busy_for_s`` and ``close`` belong to the executor
    thread; the maker given with a job belongs to the worker until the job's result is out.
    """

    def __init__(self, on_result: Callable[[], None]) -> None:
        """Start the thread; ``on_result`` is called on it after every job and must not block."""
        self._on_result = on_result
        self._condition = threading.Condition()
        self._task: tuple[PlanMaker, PlanJob] | None = None
        self._busy_since_s: float | None = None
        self._results: deque[MadePlan | NoPlan] = deque()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    @property
    def free(self) -> bool:
        """Whether a job can be submitted."""
        with self._condition:
            return self._task is None and self._busy_since_s is None

    def busy_for_s(self) -> float:
        """Return for how long (steady time) the present job has been running, 0 without one."""
        with self._condition:
            return 0.0 if self._busy_since_s is None else time.monotonic() - self._busy_since_s

    def submit(self, maker: PlanMaker, job: PlanJob) -> None:
        """Give the free worker a job; raises RuntimeError when it is not free."""
        with self._condition:
            if self._task is not None or self._busy_since_s is not None:
                raise RuntimeError("the inference worker is busy")
            self._task = (maker, job)
            self._condition.notify()

    def results(self) -> list[MadePlan | NoPlan]:
        """Return and forget the results so far."""
        found = []
        while self._results:
            found.append(self._results.popleft())
        return found

    def close(self, timeout_s: float = 5.0) -> bool:
        """End the thread after its present job; returns whether it ended in time."""
        with self._condition:
            self._closing = True
            self._task = None
            self._condition.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._closing or self._task is not None)
                if self._closing or self._task is None:
                    return
                (maker, job), self._task = self._task, None
                self._busy_since_s = time.monotonic()
            try:
                result: MadePlan | NoPlan = maker.make(job)
            except Exception as error:  # a backend fails in many ways; the node goes on and says so
                where = traceback.extract_tb(error.__traceback__)[-1]
                detail = f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"
                result = NoPlan(job, "inference_failed", HealthState.ERROR, detail)
            with self._condition:
                self._busy_since_s = None
                self._results.append(result)
                tell = not self._closing
            if tell:
                self._on_result()
