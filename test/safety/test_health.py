"""Faults come and go, the first cause stays, silence is a fault, and recovery is by itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentvla_ros.contract import ContractError
from latentvla_ros.safety.health import HealthMonitor, HealthSettings, HealthState


def running() -> HealthMonitor:
    monitor = HealthMonitor(HealthSettings(hold_s=1.0))
    monitor.configure()
    return monitor


def test_states_without_faults() -> None:
    monitor = HealthMonitor()
    assert monitor.status(0.0).state is HealthState.UNCONFIGURED
    monitor.configure()
    assert monitor.status(0.0).state is HealthState.OK
    monitor.unconfigure()
    assert monitor.status(0.0).state is HealthState.UNCONFIGURED


def test_a_fault_holds_and_then_expires() -> None:
    monitor = running()
    monitor.fault("corrupt_front", HealthState.DEGRADED, "JPEG ends early", 10.0)
    assert monitor.status(10.9).state is HealthState.DEGRADED
    assert monitor.status(11.1).state is HealthState.OK


def test_the_first_cause_sticks_through_recovery_until_the_next_episode() -> None:
    monitor = running()
    monitor.fault("stale_odometry", HealthState.ERROR, "0.3 s", 10.0)
    monitor.fault("no_plan", HealthState.ERROR, "follows", 10.2)
    monitor.fault("stale_odometry", HealthState.ERROR, "0.5 s", 10.4)
    status = monitor.status(10.5)
    assert status.first_cause is not None
    assert status.first_cause.name == "stale_odometry"
    assert [cause.name for cause in status.active] == ["stale_odometry", "no_plan"]
    assert status.active[0].detail == "0.5 s"
    assert status.active[0].since_s == 10.0

    recovered = monitor.status(20.0)
    assert recovered.state is HealthState.OK
    assert recovered.active == ()
    assert recovered.first_cause == status.first_cause
    assert recovered.episodes == 1
    assert recovered.counts == {"stale_odometry": 2, "no_plan": 1}

    monitor.fault("corrupt_left", HealthState.DEGRADED, "", 30.0)
    status = monitor.status(30.0)
    assert status.first_cause is not None
    assert (status.first_cause.name, status.episodes) == ("corrupt_left", 2)


def test_the_worst_fault_is_the_state() -> None:
    monitor = running()
    monitor.fault("jump", HealthState.DEGRADED, "", 1.0)
    monitor.fault("no_camera", HealthState.ERROR, "", 1.1)
    assert monitor.status(1.2).state is HealthState.ERROR
    monitor.end("no_camera")
    assert monitor.status(1.2).state is HealthState.DEGRADED


def test_warming_up_is_a_state_and_no_trouble() -> None:
    monitor = running()
    monitor.fault("odometry", HealthState.WARMING_UP, "0.4 s of 1.5 s", 1.0)
    status = monitor.status(1.1)
    assert status.state is HealthState.WARMING_UP
    assert status.first_cause is None
    assert status.episodes == 0


def test_a_watch_becomes_a_fault_when_nothing_happens_and_ends_with_a_beat() -> None:
    monitor = running()
    monitor.watch("no_odometry", 0.5, 0.0, detail="odometry on /odom")
    assert monitor.status(0.4).state is HealthState.OK
    status = monitor.status(0.8)
    assert status.state is HealthState.ERROR
    assert status.active[0].detail == "odometry on /odom: nothing for 0.8 s"
    monitor.beat("no_odometry", 0.9)
    status = monitor.status(0.9)
    assert status.state is HealthState.OK
    assert status.first_cause is not None
    assert status.first_cause.name == "no_odometry"
    # Still silent again later: a new episode.
    assert monitor.status(2.0).episodes == 2


def test_a_watch_ends_with_unwatch() -> None:
    monitor = running()
    monitor.watch("no_plan", 0.5, 0.0)
    assert monitor.status(3.0).state is HealthState.ERROR
    monitor.unwatch("no_plan")
    assert monitor.status(3.0).state is HealthState.OK
    monitor.beat("no_plan", 3.0)  # a late plan after deactivation is nothing special


def test_configuring_forgets_earlier_faults() -> None:
    monitor = running()
    monitor.fault("bundle", HealthState.ERROR, "hash", 0.0)
    monitor.configure()
    status = monitor.status(0.0)
    assert (status.state, status.first_cause, status.counts) == (HealthState.OK, None, {})


def test_a_fault_needs_a_fault_severity() -> None:
    with pytest.raises(ValueError, match="severity"):
        running().fault("x", HealthState.OK, "", 0.0)


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(ContractError, match=r"health\.hold_s"):
        HealthSettings(hold_s=0.0)
    with pytest.raises(ContractError, match=r"health\.watch\[plan\]"):
        running().watch("plan", 0.0, 0.0)


steps = st.lists(
    st.tuples(
        st.sampled_from(["fault", "beat", "look"]),
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from([HealthState.WARMING_UP, HealthState.DEGRADED, HealthState.ERROR]),
        st.floats(0, 2),
    ),
    max_size=40,
)


@given(steps)
def test_good_input_always_recovers_and_the_state_is_the_worst_active(
    sequence: list[tuple[str, str, HealthState, float]],
) -> None:
    monitor, now = running(), 0.0
    monitor.watch("a", 0.7, now)
    for kind, name, severity, wait_s in sequence:
        now += wait_s
        if kind == "fault":
            monitor.fault(name, severity, "", now)
        elif kind == "beat":
            monitor.beat(name, now)
        status = monitor.status(now)
        worst = max((cause.severity for cause in status.active), default=HealthState.OK)
        assert status.state is worst
        if worst > HealthState.WARMING_UP:
            assert status.first_cause is not None
    for _ in range(4):
        now += 0.5
        monitor.beat("a", now)
        status = monitor.status(now)
    assert status.state is HealthState.OK
