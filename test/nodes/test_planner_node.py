"""The planner node over DDS: what it publishes when all is well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from vehicle import Bench

pytestmark = pytest.mark.ros


def test_plans_carry_t0_and_follow_the_speed(bench: Bench) -> None:
    from vehicle import SPEED, ns

    from latentvla_msgs.msg import PlannerStatus, Trajectory

    bench.running()
    bench.drive(1.5)
    assert len(bench.vehicle.plans) >= 8
    for index, plan in enumerate(bench.vehicle.plans):
        assert plan.kind == Trajectory.PLAN and plan.sequence == index + 1
        assert plan.header.frame_id == "odom" and plan.base_frame == "base_link"
        stamps = {entry.name: ns(entry.stamp) for entry in plan.inputs}
        assert stamps["front"] == ns(plan.header.stamp) == stamps["left"]
        assert ns(plan.valid_until) - ns(plan.header.stamp) == 500_000_000
        assert len(plan.points) == 41 and plan.points[0].pose == plan.ego_pose
        assert plan.points[10].longitudinal_velocity == pytest.approx(SPEED, rel=0.02)
        knots = np.asarray(plan.knots).reshape(8, 3)
        assert knots[:, 0] == pytest.approx(SPEED * 0.5 * np.arange(1, 9), rel=0.02)
        assert len(plan.candidates) == 4 and plan.bundle_id == "tiny-1"
    stamps = {entry.name: ns(entry.stamp) for entry in bench.vehicle.plans[-1].inputs}
    assert stamps["front"] - stamps["front@-0.5"] == pytest.approx(5e8, abs=1e8)
    status = next(s for s in reversed(bench.vehicle.statuses) if s.health == PlannerStatus.OK)
    assert status.lifecycle_state == "active" and status.cause == "" and status.first_cause == ""
    assert status.backend == "onnxruntime" and status.plans >= 10
    assert sum(status.drop_counts) == 0 and status.frames - status.plans in (0, 1)
    assert {camera.slot: camera.decoded for camera in status.cameras}["left"] == status.plans
    assert status.stage_names and status.age_s < 0.3
