"""Simulated time: a silent /clock, a clock that stops, jumps and starts again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vehicle import Bench

pytestmark = pytest.mark.ros

START = 1_000_000_000_000
#: A stamp of today that no float holds exactly.
TODAY = 1_795_237_502_018_531_145


def test_diagnostics_beat_while_the_clock_is_silent(bench: Bench) -> None:
    from vehicle import SECOND

    from latentvla_msgs.msg import PlannerStatus

    bench.clock_ns = START  # what the vehicle stamps with; /clock stays silent
    node = bench.planner(use_sim_time=True)
    node.trigger_configure()
    bench.until(lambda: node.pipeline.planner)
    node.trigger_activate()
    bench.until(lambda: bench.vehicle.images["front"].get_subscription_count())
    before = len(bench.vehicle.diagnostics)
    for step in range(20):
        bench.vehicle.send_odometry(START + step * SECOND // 10)
        bench.vehicle.send_image("front", START + step * SECOND // 10)
        bench.spin(0.1)
    assert len(bench.vehicle.diagnostics) >= before + 10, bench.explain()
    assert bench.status().health == PlannerStatus.FAULT and not bench.vehicle.plans
    assert "clock" in bench.active("clock_silent")
    bench.tick_clock(START)
    bench.drive(3.0)
    assert len(bench.vehicle.plans) >= 10, f"the clock begins, not the plans: {bench.explain()}"


def test_a_clock_that_stops_is_named_and_nothing_old_is_published(bench: Bench) -> None:
    bench.clock_ns = START
    bench.running(use_sim_time=True)
    bench.drive(0.6)
    planned = len(bench.vehicle.plans)
    assert planned, bench.explain()
    bench.spin(1.5)
    assert "/clock has not moved" in bench.active("clock_silent")
    assert len(bench.vehicle.plans) == planned
    bench.drive_until(lambda: len(bench.vehicle.plans) > planned)


@pytest.mark.parametrize("step_s", [-500.0, 300.0])
def test_a_clock_jump_forgets_every_buffer(bench: Bench, step_s: float) -> None:
    from vehicle import SECOND, ns

    bench.clock_ns = START
    node = bench.running(use_sim_time=True)
    bench.drive(0.6)
    assert bench.vehicle.plans and len(node.pipeline.odometry.buffer), bench.explain()
    before = len(bench.vehicle.plans)
    bench.tick_clock(START + int(step_s * SECOND))
    assert len(node.pipeline.odometry.buffer) == 0
    assert node.pipeline.cameras.synchronizer.pending == 0
    assert "stepped by" in bench.active("clock_jump")
    bench.drive(1.0)
    assert len(bench.vehicle.plans) == before, "1.5 s of odometry are buffered first"
    bench.drive(1.5)
    after = bench.vehicle.plans[before:]
    assert after, bench.explain()
    assert all(abs(ns(p.header.stamp) - bench.clock_ns) < 3 * SECOND for p in after)
    past = {entry.name: ns(entry.stamp) for entry in after[0].inputs}
    assert all(abs(stamp - bench.clock_ns) < 3 * SECOND for stamp in past.values())


def test_a_command_from_before_the_clock_began_still_holds(bench: Bench) -> None:
    from latentvla_msgs.msg import DrivingCommand

    node = bench.planner(use_sim_time=True, command_timeout_s=0.0)
    node.trigger_configure()
    bench.until(lambda: node.pipeline.planner)
    bench.until(lambda: bench.vehicle.command.get_subscription_count())
    bench.vehicle.send_command(START, DrivingCommand.RIGHT)
    bench.until(lambda: node.pipeline._command._newest is not None)
    bench.until(lambda: bench.vehicle.clock_publisher.get_subscription_count())
    bench.tick_clock(START)
    bench.warm_up()
    node.trigger_activate()
    bench.drive_until(lambda: bench.vehicle.plans, command=None)
    bench.drive_until(lambda: bench.status().command == DrivingCommand.RIGHT, command=None)


@pytest.mark.parametrize("step_s", [-500.0, 300.0])
@pytest.mark.parametrize("timeout_s", [0.0, 2.0])
def test_a_latched_command_outlives_a_clock_jump_and_one_that_expires_does_not(
    bench: Bench, step_s: float, timeout_s: float
) -> None:
    from vehicle import SECOND

    from latentvla_msgs.msg import DrivingCommand

    bench.clock_ns = START
    node = bench.running(use_sim_time=True, command_timeout_s=timeout_s)
    bench.vehicle.send_command(START, DrivingCommand.RIGHT)
    bench.drive(0.6, command=None)
    assert node.pipeline.newest.command == DrivingCommand.RIGHT
    bench.until(lambda: bench.status().command == DrivingCommand.RIGHT)
    before = len(bench.vehicle.plans)
    bench.tick_clock(START + int(step_s * SECOND))
    bench.warm_up()
    bench.drive_until(lambda: len(bench.vehicle.plans) > before, command=None)
    command = node.pipeline.newest.command
    if timeout_s == 0.0:
        assert command == DrivingCommand.RIGHT
    else:
        assert command == DrivingCommand.UNKNOWN and bench.active("command_expired")
        bench.vehicle.send_command(bench.clock_ns, DrivingCommand.LEFT)
        bench.drive_until(lambda: node.pipeline.newest.command == DrivingCommand.LEFT, command=None)


@pytest.mark.parametrize("first", [START, TODAY, TODAY + 57])
def test_the_beginning_of_the_clock_is_no_jump(bench: Bench, first: int) -> None:
    node = bench.planner(use_sim_time=True)
    node.trigger_configure()
    bench.until(lambda: node.pipeline.planner)
    bench.until(lambda: bench.vehicle.clock_publisher.get_subscription_count())
    bench.tick_clock(first)
    bench.spin(0.3)
    assert "clock_jump" not in node._health.status(0.0).counts
    bench.tick_clock(first + 5_000_000_000)
    bench.until(lambda: "clock_jump" in node._health.status(0.0).counts)
