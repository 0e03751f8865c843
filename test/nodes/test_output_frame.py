"""Trajectories in another frame than the odometry's own."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from vehicle import Bench

pytestmark = pytest.mark.ros


def test_another_output_frame_through_tf(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """tf2_ros is not on PyPI: a stand-in with the three names that are used."""
    from geometry_msgs.msg import TransformStamped

    class Unknown(Exception):
        pass

    class Buffer:
        known = False

        def __init__(self, cache_time: Any) -> None:
            self.cache_time = cache_time

        def lookup_transform(self, target: str, source: str, at: Any) -> TransformStamped:
            if not self.known:
                raise Unknown("map does not exist")
            assert (target, source) == ("map", "odom") and at.nanoseconds > 0
            found = TransformStamped()
            found.transform.translation.x = 100.0
            found.transform.rotation.z = found.transform.rotation.w = np.sqrt(0.5)
            return found

    listener = SimpleNamespace(unregister=lambda: None)
    module = SimpleNamespace(
        Buffer=Buffer, TransformListener=lambda buffer, node: listener, TransformException=Unknown
    )
    monkeypatch.setitem(sys.modules, "tf2_ros", module)
    node = bench.running(output_frame="map")
    words = bench.drive_until(lambda: bench.listed("no_transform"))
    assert "map does not exist" in words and not bench.vehicle.plans
    monkeypatch.setattr(Buffer, "known", True)
    bench.drive_until(lambda: bench.vehicle.plans)
    plan = bench.vehicle.plans[-1]
    assert plan.header.frame_id == "map"
    ego = node.pipeline.newest.ego.pose
    assert plan.ego_pose.position.x == pytest.approx(100.0 - ego[1], abs=1e-6)
    assert plan.ego_pose.position.y == pytest.approx(ego[0], abs=1e-6)
