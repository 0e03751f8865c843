"""The planner node over DDS: what it publishes when all is well."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from vehicle import Bench

pytestmark = pytest.mark.ros


#: A loaded test machine may take its time over a frame.
PATIENT = {"max_plan_age_s": 20.0, "max_input_age_s": 20.0}


@pytest.mark.parametrize(
    "clock", ["simulated", pytest.param("system", marks=pytest.mark.real_time)]
)
def test_plans_carry_t0_and_follow_the_speed(bench: Bench, clock: str) -> None:
    from vehicle import DEADLINE_S, SPEED, ns

    from latentvla_msgs.msg import PlannerStatus, Trajectory

    valid_ns = 500_000_000
    if clock == "system":
        bench.use_system_clock()
        timeouts = {"image_timeout_s": DEADLINE_S, "odometry_timeout_s": DEADLINE_S}
        bench.running(**PATIENT, **timeouts, command_timeout_s=DEADLINE_S)
        valid_ns = 20_000_000_000
    else:
        bench.running()
    bench.drive(1.5)
    assert len(bench.vehicle.plans) >= 14, bench.explain()
    for index, plan in enumerate(bench.vehicle.plans):
        assert plan.kind == Trajectory.PLAN and plan.sequence == index + 1
        assert plan.header.frame_id == "odom" and plan.base_frame == "base_link"
        stamps = {entry.name: ns(entry.stamp) for entry in plan.inputs}
        assert stamps["front"] == ns(plan.header.stamp) == stamps["left"]
        assert ns(plan.valid_until) - ns(plan.header.stamp) == valid_ns
        assert len(plan.points) == 41 and plan.points[0].pose == plan.ego_pose
        assert plan.points[10].longitudinal_velocity == pytest.approx(SPEED, rel=0.02)
        knots = np.asarray(plan.knots).reshape(8, 3)
        assert knots[:, 0] == pytest.approx(SPEED * 0.5 * np.arange(1, 9), rel=0.02)
        assert len(plan.candidates) == 4 and plan.bundle_id == "tiny-1"
    if clock == "simulated":  # otherwise pictures are as far apart as the machine makes them
        stamps = {entry.name: ns(entry.stamp) for entry in bench.vehicle.plans[-1].inputs}
        assert stamps["front"] - stamps["front@-0.5"] == pytest.approx(5e8, abs=1e8)
    bench.drive_until(
        lambda: bench.status().health == PlannerStatus.OK and bench.status().plans >= 10
    )
    status = bench.status()
    assert status.lifecycle_state == "active" and status.cause == "" and status.first_cause == ""
    assert status.backend == "onnxruntime" and status.plans >= 10
    assert sum(status.drop_counts) == 0 and status.frames - status.plans in (0, 1)
    assert {camera.slot: camera.decoded for camera in status.cameras}["left"] == status.plans
    assert status.stage_names
    # On simulated time, which waits for the plan, it has no age.
    assert status.age_s > 0.0 if clock == "system" else status.age_s == 0.0


def test_what_others_read_of_a_plan(bench: Bench) -> None:
    from nav_msgs.msg import Path
    from sensor_msgs.msg import Image
    from vehicle import SECOND, ns
    from visualization_msgs.msg import MarkerArray

    heard: dict[str, list[object]] = {}
    for kind, name in (
        (Path, "output/path"),
        (MarkerArray, "debug/markers"),
        (Image, "debug/overlay"),
    ):
        kept = heard.setdefault(name, [])
        bench.vehicle.create_subscription(kind, f"/planner_node/{name}", kept.append, 10)
    bench.running()
    bench.drive(0.5)
    bench.drive_until(lambda: all(heard.values()))
    path = heard["output/path"][-1]
    plan = next(p for p in bench.vehicle.plans if p.header.stamp == path.header.stamp)
    assert path.header == plan.header and [p.pose for p in path.poses] == [
        p.pose for p in plan.points
    ]
    assert ns(path.poses[-1].header.stamp) - ns(path.header.stamp) == 4 * SECOND
    markers = {marker.ns: marker for marker in heard["debug/markers"][-1].markers}
    assert set(markers) == {"trajectory", "knots", "candidates"}
    assert len(markers["trajectory"].points) == 41 and len(markers["knots"].points) == 8
    assert markers["trajectory"].header.frame_id == "odom"
    overlay = heard["debug/overlay"][-1]
    assert (overlay.width, overlay.height, overlay.encoding) == (768, 384, "rgb8")
    picture = np.frombuffer(overlay.data, np.uint8).reshape(384, 768, 3)
    ground, sky = picture[320, 384], picture[20, 384]
    assert int(ground[1]) > int(ground[2]) + 20, "the ribbon lies on the road ahead"
    assert abs(int(sky[1]) - 160) < 20


def test_autoware_trajectory() -> None:
    from types import SimpleNamespace

    from latentvla_msgs.msg import Trajectory
    from latentvla_ros.geometry.trajectory import constant_turn_rate, resample
    from latentvla_ros.nodes.trajectory_messages import autoware_message, trajectory_message

    def record(**values: object) -> SimpleNamespace:
        return SimpleNamespace(points=[], **values)

    types = SimpleNamespace(Trajectory=record, TrajectoryPoint=record)
    trajectory = resample(constant_turn_rate(6.0, 0.1), 6.0)
    message: Trajectory = trajectory_message(trajectory, (0, 0, 0), 5 * 10**9, "odom", "base_link")
    converted = autoware_message(types, message)
    assert converted.header is message.header and len(converted.points) == 41
    point = converted.points[10]
    assert point.time_from_start.sec == 1 and point.time_from_start.nanosec == 0
    assert point.longitudinal_velocity_mps == pytest.approx(6.0, abs=0.1)
    assert point.heading_rate_rps == pytest.approx(0.1, abs=0.02)


def test_a_plan_in_the_making_does_not_go_out_in_another_odometry_frame(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = bench.running()
    bench.drive(0.6)
    make, go_on = node.pipeline.planner.plan, threading.Event()

    def slow(observation: Any) -> Any:
        go_on.wait(120)
        return make(observation)

    monkeypatch.setattr(node.pipeline.planner, "plan", slow)
    bench.pause(0.02)
    now = bench.now()
    bench.vehicle.send_odometry(now)
    for slot in ("left", "right", "front"):
        bench.vehicle.send_image(slot, now)
    bench.until(lambda: not node.pipeline._worker.free)
    bench.vehicle.send_odometry(now + 1_000_000, frame="map")
    bench.until(lambda: node.pipeline.odometry.frame == "map")
    go_on.set()
    bench.until(lambda: node.pipeline.drops["cleared"])
    assert {plan.header.frame_id for plan in bench.vehicle.plans} == {"odom"}


def test_silence_of_plans_is_a_fault_whatever_its_reason(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from latentvla_msgs.msg import PlannerStatus

    node = bench.running()
    bench.drive(0.6)
    with monkeypatch.context() as patched:
        patched.setattr(node.pipeline, "_submit", lambda *_: None)
        bench.drive(3.6)
        words = bench.drive_until(lambda: bench.listed("plans_stopped"))
        assert "nothing for 3." in words
        bench.drive_until(lambda: bench.status().health == PlannerStatus.FAULT)
    before = len(bench.vehicle.statuses)
    bench.drive_until(
        lambda: any(s.health == PlannerStatus.OK for s in bench.vehicle.statuses[before:])
    )


@pytest.mark.parametrize("wait_s", [0.0, 10.0])
def test_a_frame_may_wait_for_its_odometry(bench: Bench, wait_s: float) -> None:
    from vehicle import ns

    node = bench.running(odometry_wait_s=wait_s, sync_wait_s=wait_s + 0.01, **PATIENT)
    # Up to 0.1 s past the newest odometry is extrapolated.
    at = node.pipeline.odometry.buffer.newest_stamp_ns + 60_000_000
    for slot in ("left", "right", "front"):
        bench.vehicle.send_image(slot, at)
    if wait_s:
        bench.until(lambda: node.pipeline.cameras.synchronizer.pending)
        bench.spin(0.3)
        assert not bench.vehicle.plans
        bench.vehicle.send_odometry(at, vx=8.4)
    bench.until(lambda: bench.vehicle.plans)
    assert node.pipeline.newest.ego.dynamics[0] == pytest.approx(8.4 if wait_s else 8.0)
    assert ns(bench.vehicle.plans[0].header.stamp) == at


def test_a_frame_waits_for_odometry_no_longer_than_it_may(bench: Bench) -> None:
    node = bench.running(odometry_wait_s=0.25, sync_wait_s=0.01, **PATIENT)
    at = node.pipeline.odometry.buffer.newest_stamp_ns + 60_000_000
    began = bench.steady_s()
    for slot in ("left", "right", "front"):
        bench.vehicle.send_image(slot, at)
    bench.until(lambda: bench.vehicle.plans)
    assert bench.steady_s() - began > 0.24
