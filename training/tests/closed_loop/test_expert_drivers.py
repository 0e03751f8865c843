"""The expert as a driver: what it imagines for its plans stays imagined."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
from latentvla_training.closed_loop.expert_drivers import ExpertPlanDriver
from latentvla_training.closed_loop.routes import drive_route
from latentvla_training.world.drivers import SensorFrame
from latentvla_training.world.rig import default_rig

from latentvla_ros.contract import Plan

from .conftest import ROUTE, SHORT, Witnessed


class Pure(ExpertPlanDriver):
    """Plans as the expert would, and keeps whether that changed the expert."""

    def __init__(self) -> None:
        super().__init__()
        self.changed: list[bool] = []

    def plan(self, frame: SensorFrame) -> Plan | None:
        assert self._seen is not None
        before = pickle.dumps(self._seen[0])
        plan = super().plan(frame)
        self.changed.append(pickle.dumps(self._seen[0]) != before)
        return plan


def test_planning_leaves_the_expert_s_memory_and_the_handover_alone(witnessed: Witnessed) -> None:
    driver = Pure()
    route = drive_route(ROUTE, driver, default_rig(), replace(SHORT, timeout_s=0.3))
    assert len(driver.changed) > 20 and not any(driver.changed)
    other, warm_up = witnessed.route.episode, slice(0, 21)
    assert np.array_equal(route.episode.ego[warm_up], other.ego[warm_up])
    assert np.array_equal(route.episode.signal_state[warm_up], other.signal_state[warm_up])
