"""The gate over DDS: passes, refuses, times out and stops; and the planner behind it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from vehicle import Bench

pytestmark = pytest.mark.ros


class Sender:
    """Publishes plans to the gate as a planner would."""

    def __init__(self, bench: Bench) -> None:
        from latentvla_msgs.msg import Trajectory
        from latentvla_ros.nodes import qos

        self._bench = bench
        self._publisher = bench.vehicle.create_publisher(
            Trajectory, "/gate/input/trajectory", qos.OUTPUT
        )

    def ready(self) -> None:
        """Wait for the gate."""
        self._bench.until(lambda: self._publisher.get_subscription_count())
        self._bench.until(lambda: self._bench.vehicle.gate_statuses)
        self._bench.until(lambda: self._bench.vehicle.count_publishers("/gate/output/trajectory"))
        self._bench.until(lambda: self._bench.node._output.get_subscription_count())

    def send(self, stamp_ns: int, frame: str = "odom", speed: float = 8.0, **changes: Any) -> None:
        """Publish a plan at t0 = ``stamp_ns``; ``changes`` overwrite fields of the message."""
        from latentvla_ros.geometry.trajectory import constant_turn_rate, resample
        from latentvla_ros.nodes.trajectory_messages import trajectory_message

        pose = np.array([5.0, 2.0, 0.4])
        trajectory = resample(constant_turn_rate(speed, 0.05), speed).in_frame(pose)
        message = trajectory_message(trajectory, pose, stamp_ns, frame, "base_link")
        for name, value in changes.items():
            setattr(message, name, value)
        self._publisher.publish(message)


@pytest.fixture
def gate(bench: Bench, request: pytest.FixtureRequest) -> Iterator[Sender]:
    """Start a gate with the parameters of the test's marker and a sender of plans.

    On simulated time, which it has unless the parameters say otherwise, /clock has begun.
    """
    from rclpy.parameter import Parameter

    from latentvla_ros.nodes.gate_node import GateNode

    values = {
        "diagnostics_period_s": 0.1,
        "use_sim_time": True,
        **getattr(request, "param", {}),
    }
    if not values["use_sim_time"]:
        bench.use_system_clock()
    bench.add(
        GateNode(
            context=bench.context,
            parameter_overrides=[Parameter(name, value=v) for name, v in values.items()],
        )
    )
    sender = Sender(bench)
    sender.ready()
    if bench.clock_ns:
        bench.until(lambda: bench.vehicle.clock_publisher.get_subscription_count())
        bench.tick_clock(bench.clock_ns)
    yield sender


#: A loaded test machine may take its time over a plan.
SYSTEM_CLOCK = {"use_sim_time": False, "max_plan_age_s": 20.0, "timeout_s": 20.0}
SYSTEM_CLOCK["emergency_after_s"] = 30.0


@pytest.mark.parametrize("gate", [{}, SYSTEM_CLOCK], indirect=True, ids=["simulated", "system"])
def test_a_fresh_plan_passes_unchanged(bench: Bench, gate: Sender) -> None:
    from latentvla_msgs.msg import GateStatus, Trajectory

    gate.send(bench.now(), sequence=7, bundle_id="tiny-1")
    passed = bench.until(lambda: bench.vehicle.gated)[0]
    assert passed.kind == Trajectory.PLAN and passed.sequence == 7
    assert passed.bundle_id == "tiny-1" and passed.header.frame_id == "odom"
    bench.until(lambda: bench.vehicle.gate_statuses[-1].mode == GateStatus.PASSING)


def test_bad_plans_are_refused_by_name(bench: Bench, gate: Sender) -> None:
    for count, plan in enumerate(
        (
            {"stamp_ns": bench.now() - 2 * 10**9},
            {"stamp_ns": bench.now(), "frame": ""},
            {"stamp_ns": 0},
            {"stamp_ns": bench.now(), "speed": 70.0},
        )
    ):
        gate.send(**plan)
        bench.until(lambda count=count: sum(bench.node.policy.rejects.values()) > count)
    status = bench.until(
        lambda: next((s for s in bench.vehicle.gate_statuses if s.rejected == 4), None)
    )
    assert list(status.reject_causes) == ["no_frame", "speed", "too_old", "zero_stamp"]
    assert status.first_cause == "rejected: too_old" and not bench.vehicle.gated
    gate.send(bench.now())
    bench.until(lambda: bench.vehicle.gated)


def test_silence_times_out_and_nothing_is_published(bench: Bench, gate: Sender) -> None:
    from latentvla_msgs.msg import GateStatus

    gate.send(bench.now())
    bench.until(lambda: bench.vehicle.gated)
    status = bench.until(
        lambda: next(
            (s for s in bench.vehicle.gate_statuses if s.mode == GateStatus.TIMED_OUT), None
        )
    )
    assert status.first_cause == "timed_out" and "no plan for" in status.cause
    bench.pause(0.5)
    assert len(bench.vehicle.gated) == 1
    gate.send(bench.now())
    bench.until(lambda: bench.vehicle.gate_statuses[-1].mode == GateStatus.PASSING)


@pytest.mark.parametrize(
    "gate",
    [{"stop_on_timeout": True, "timeout_s": 0.4, "emergency_after_s": 1.2}],
    indirect=True,
)
def test_silence_is_answered_by_a_comfortable_then_an_emergency_stop(
    bench: Bench, gate: Sender
) -> None:
    from latentvla_msgs.msg import GateStatus, Trajectory

    for sent in range(5):
        bench.pause(0.1)
        gate.send(bench.now())
        bench.until(lambda sent=sent: len(bench.vehicle.gated) > sent)
    bench.pause(3.0)
    kinds = [message.kind for message in bench.vehicle.gated]
    first = kinds.index(Trajectory.COMFORTABLE_STOP)
    hard = kinds.index(Trajectory.EMERGENCY_STOP)
    assert set(kinds[:first]) == {Trajectory.PLAN} and first < hard
    assert set(kinds[first:hard]) == {Trajectory.COMFORTABLE_STOP} and hard - first >= 4
    assert bench.vehicle.gate_statuses[-1].mode == GateStatus.EMERGENCY_STOP
    stops = bench.vehicle.gated[first:]
    speeds = [message.points[0].longitudinal_velocity for message in stops]
    assert speeds[0] == pytest.approx(8.0, abs=0.5) and speeds[-1] < 1.5
    assert all(b <= a + 1e-3 for a, b in pairwise(speeds))
    assert all(message.header.frame_id == "odom" and not message.candidates for message in stops)
    stopped = len(bench.vehicle.gated)
    gate.send(bench.now())
    bench.until(lambda: Trajectory.PLAN in {m.kind for m in bench.vehicle.gated[stopped:]})


@pytest.mark.parametrize("gate", [{"stop_on_timeout": True}], indirect=True)
def test_after_a_clock_jump_it_stops_from_the_odometry(bench: Bench, gate: Sender) -> None:
    from vehicle import ns

    from latentvla_msgs.msg import Trajectory

    odometry = bench.vehicle.create_publisher(
        type(bench.vehicle.odometry.msg_type()), "/gate/input/odometry", 10
    )
    bench.until(lambda: odometry.get_subscription_count())
    bench.vehicle.odometry = odometry
    gate.send(bench.now())
    bench.until(lambda: bench.vehicle.gated)
    bench.tick_clock(10**11)
    bench.spin(0.8)
    assert len(bench.vehicle.gated) == 1, "nobody knows where the vehicle is"

    def stopped() -> list[Any]:
        bench.vehicle.send_odometry(10**11)
        return bench.vehicle.gated[1:]

    stop = bench.until(stopped)[0]
    assert stop.kind == Trajectory.COMFORTABLE_STOP and ns(stop.header.stamp) == 10**11
    assert (stop.header.frame_id, stop.base_frame) == ("odom", "base_link")
    assert stop.points[0].longitudinal_velocity == pytest.approx(8.0, abs=0.1)
    assert stop.points[40].longitudinal_velocity < 2.5


@pytest.mark.parametrize("gate", [{"stop_on_timeout": True}], indirect=True)
def test_a_silent_clock_does_not_stop_the_watchdog(bench: Bench, gate: Sender) -> None:
    from latentvla_msgs.msg import GateStatus

    gate.send(bench.now())
    bench.until(lambda: bench.vehicle.gated)
    modes = {GateStatus.COMFORTABLE_STOP, GateStatus.EMERGENCY_STOP}
    bench.until(lambda: bench.vehicle.gate_statuses[-1].mode in modes)
