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
    from vehicle import ns

    inference_s = 0.2
    node = bench.running()
    backend = node.pipeline.planner.backend
    quick = backend.infer

    def slow(inputs: Any) -> Any:
        time.sleep(inference_s)
        return quick(inputs)

    monkeypatch.setattr(backend, "infer", slow)
    ages: list[float] = []
    bench.vehicle.plans.clear()
    publish = node.pipeline._publisher.publish

    def noted(made: Any, *rest: Any) -> None:
        publish(made, *rest)
        ages.append((time.time_ns() - made.plan.stamp_ns) * 1e-9)

    monkeypatch.setattr(node.pipeline._publisher, "publish", noted)
    bench.drive(4.0)
    bench.spin(0.5)
    pipeline = node.pipeline
    assert 10 <= len(bench.vehicle.plans) <= 0.7 * pipeline.cameras.frames
    assert pipeline.drops["superseded"] >= 10
    assert pipeline.cameras.frames == pipeline.plans + sum(pipeline.drops.values())
    # One period, the wait for other cameras, one inference; the median, as the machine is shared.
    assert sorted(ages)[len(ages) // 2] <= 0.1 + 0.03 + inference_s + 0.1
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
        go_on.wait(20)
        return quick(inputs)

    monkeypatch.setattr(backend, "infer", hung)
    bench.drive(2.8)
    assert "busy for" in bench.active("inference_stalled")
    assert bench.status().health == PlannerStatus.FAULT and not bench.vehicle.plans
    go_on.set()
    bench.drive(1.0)
    assert bench.vehicle.plans, "what was made too late is dropped, and planning goes on"
    assert node.pipeline.drops["plan_too_old"] == 1
