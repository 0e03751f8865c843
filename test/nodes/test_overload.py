"""Twice the frames that inference manages, and a backend that hangs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from vehicle import Bench

pytestmark = pytest.mark.ros


def test_overload_keeps_plans_young_and_counts_what_is_dropped(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vehicle import SECOND, ns

    inference_s = 0.2
    node = bench.running()
    backend = node.pipeline.planner.backend
    quick = backend.infer

    done_ns: list[int] = []  # of what is at work, in simulated time

    def slow(inputs: Any) -> Any:
        done_ns.append(bench.now() + round(inference_s * SECOND))
        end = time.monotonic() + 120.0
        while bench.now() < done_ns[0] and time.monotonic() < end:
            time.sleep(0.001)
        answer = quick(inputs)
        done_ns.clear()
        return answer

    def at_work_or_done() -> bool:
        worker = node.pipeline._worker
        until_ns = done_ns[0] if done_ns else 0
        return bench.now() < until_ns or (worker.free and not worker._results)

    monkeypatch.setattr(backend, "infer", slow)
    ages: list[float] = []
    bench.vehicle.plans.clear()
    publish = node.pipeline._publisher.publish

    def noted(made: Any, *rest: Any) -> None:
        publish(made, *rest)
        ages.append((bench.now() - made.plan.stamp_ns) * 1e-9)

    monkeypatch.setattr(node.pipeline._publisher, "publish", noted)
    bench.drive(4.0, settled=at_work_or_done)
    bench.drive(0.5, slots=(), settled=at_work_or_done)
    pipeline = node.pipeline
    bench.until(lambda: len(bench.vehicle.plans) == pipeline.plans)
    assert 10 <= len(bench.vehicle.plans) <= 0.7 * pipeline.cameras.frames, bench.explain()
    assert pipeline.drops["superseded"] >= 10, bench.explain()
    assert pipeline.cameras.frames == pipeline.plans + sum(pipeline.drops.values())
    # One period, the wait for other cameras, one inference, and a step of time at both its ends.
    assert max(ages) <= 0.1 + 0.03 + inference_s + 0.04
    stamps = [ns(plan.header.stamp) for plan in bench.vehicle.plans]
    assert stamps == sorted(set(stamps))


def test_a_backend_that_hangs_is_named_while_diagnostics_beat(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    from latentvla_msgs.msg import PlannerStatus

    go_on = threading.Event()
    node = bench.running()
    backend = node.pipeline.planner.backend
    quick = backend.infer

    def hung(inputs: Any) -> Any:
        go_on.wait(120)
        return quick(inputs)

    monkeypatch.setattr(backend, "infer", hung)
    bench.drive(2.8, settled=lambda: True)
    words = bench.drive_until(lambda: bench.listed("inference_stalled"), settled=lambda: True)
    assert "busy for" in words
    bench.until(lambda: bench.status().health == PlannerStatus.FAULT)
    assert not bench.vehicle.plans
    go_on.set()
    # What was made too late is dropped, and planning goes on.
    bench.drive_until(lambda: bench.vehicle.plans)
    assert node.pipeline.drops["plan_too_old"] == 1
