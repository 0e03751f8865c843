"""The planner node and the gate, driven in lock-step, plan what the direct call plans."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from latentvla_training.closed_loop.bundle_driver import BundleDriver
from latentvla_training.world.drivers import SensorFrame

from latentvla_ros.contract import ContractError, Rig

pytest.importorskip("rclpy")
pytest.importorskip("latentvla_msgs")

pytestmark = pytest.mark.ros

WARM_UP_FRAMES = 15


def ros_driver() -> Any:
    """Return a driver in the domain of this test process, with patience for a loaded machine."""
    from latentvla_training.ros.node_pair import RosDriverSettings
    from latentvla_training.ros.ros_driver import RosDriver

    domain = int(os.environ["ROS_DOMAIN_ID"])
    return RosDriver("nano", RosDriverSettings(domain_id=domain, plan_timeout_s=120.0))


def test_the_same_plans_as_the_direct_call_on_one_route_after_another(
    rig: Rig, frames: list[SensorFrame]
) -> None:
    from latentvla_training.ros.plan_check import CheckedDriver

    nodes = ros_driver()
    driver = CheckedDriver(BundleDriver("nano"), nodes)
    found = driver.difference
    try:
        for route in (frames, frames[5:26]):  # time begins anew with the second
            before = found.compared + found.refused
            driver.start(rig)
            plans = [driver.plan(frame) for frame in route]
            assert [plan is None for plan in plans] == [
                step < WARM_UP_FRAMES for step in range(len(route))
            ]
            assert all(
                plan is None or plan.stamp_ns == frame.stamp_ns
                for plan, frame in zip(plans, route, strict=True)
            )
            assert found.compared + found.refused == before + len(route) - WARM_UP_FRAMES
        assert found.passed and found.compared >= 20, str(found)
        assert found.largest_m < 1e-4, "the same network on the same inputs"
        assert sum(nodes.refused.values()) == found.refused and not nodes.masked
    finally:
        driver.close()


def test_everything_that_the_network_says_comes_back(rig: Rig, frames: list[SensorFrame]) -> None:
    direct, nodes = BundleDriver("nano"), ros_driver()
    try:
        direct.start(rig)
        nodes.start(rig)
        for frame in frames[: WARM_UP_FRAMES + 1]:
            ours, theirs = direct.plan(frame), nodes.plan(frame)
        assert ours is not None and theirs is not None
        for name in ("poses", "candidates", "scores", "latent_actions", "latent_probabilities"):
            assert getattr(ours, name).dtype == getattr(theirs, name).dtype, name
            assert np.allclose(getattr(ours, name), getattr(theirs, name), atol=1e-4), name
        with pytest.raises(ContractError, match="stamp_ns"):
            nodes.plan(frame)
        missing = replace(frames[20], jpegs={"front": frame.jpegs["front"]})
        with pytest.raises(ContractError, match="left"):
            nodes.plan(missing)
    finally:
        nodes.close()
        direct.close()


def test_a_node_that_dies_or_hangs_is_named_and_nothing_is_left_running(
    rig: Rig, frames: list[SensorFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    from latentvla_training.ros.node_pair import NodeProblem, RosDriverSettings
    from latentvla_training.ros.ros_driver import RosDriver

    # A domain of its own: a node that is killed is thought to be alive there for a while.
    patient = RosDriverSettings(plan_timeout_s=120.0)
    nodes = RosDriver("nano", patient)
    try:
        nodes.start(rig)
        planner, gate = nodes._nodes.planner.pid, nodes._nodes.gate.pid
        for frame in frames[: WARM_UP_FRAMES + 1]:
            plan = nodes.plan(frame)
        assert plan is not None
        os.kill(gate, signal.SIGSTOP)
        check = nodes._nodes.check

        def impatient_once_planned() -> None:
            check()
            if nodes._nodes.world.planner_status.plans > 1:
                nodes.settings = replace(patient, plan_timeout_s=2.0)

        with monkeypatch.context() as patched:
            patched.setattr(nodes._nodes, "check", impatient_once_planned)
            with pytest.raises(NodeProblem, match=r"no plan of frame 17 within 2 s.*the gate says"):
                nodes.plan(frames[WARM_UP_FRAMES + 1])
        nodes.settings = patient
        os.kill(gate, signal.SIGCONT)
        os.kill(planner, signal.SIGKILL)
        with pytest.raises(NodeProblem, match="planner ended with signal SIGKILL"):
            for frame in frames[WARM_UP_FRAMES + 2 :]:
                nodes.plan(frame)
    finally:
        nodes.close()
    for pid in (planner, gate):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    nodes.close()


def test_a_rig_that_does_not_fit_is_refused_before_anything_is_started(rig: Rig) -> None:
    nodes = ros_driver()
    with pytest.raises(ContractError):
        nodes.start(replace(rig, cameras=rig.cameras[1:], reference_camera="left"))
    assert nodes._nodes is None


def test_drives_side_by_side_take_different_domains() -> None:
    from latentvla_training.ros.node_pair import free_domain

    with free_domain() as first:
        with free_domain() as second:
            assert second != first
        with free_domain() as third:
            assert third == second, "given back"


def test_nodes_are_kept_for_the_same_topics_and_made_anew_for_others(rig: Rig) -> None:
    nodes = ros_driver()
    try:
        nodes.start(rig)
        first = nodes._nodes.planner.pid
        lifted = rig.cameras[0].ego_from_camera.copy()
        lifted[2, 3] += 0.2
        nodes.start(
            replace(
                rig, cameras=(replace(rig.cameras[0], ego_from_camera=lifted), *rig.cameras[1:])
            )
        )
        assert nodes._nodes.planner.pid == first
        other = replace(rig.cameras[0], topic="/another/compressed")
        nodes.start(replace(rig, cameras=(other, *rig.cameras[1:])))
        assert nodes._nodes.planner.pid != first
    finally:
        nodes.close()
