"""One short route, driven once with its pictures for the tests of the closed loop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from latentvla_training.closed_loop.baseline_drivers import ConstantVelocityDriver
from latentvla_training.closed_loop.routes import DrivenRoute, RouteSettings, drive_route
from latentvla_training.world import networks
from latentvla_training.world.drivers import SensorFrame
from latentvla_training.world.rig import default_rig

from latentvla_ros.contract import Plan

ROUTE = "test-0000-00"
SHORT = RouteSettings(free_flow_s=4.0, timeout_s=2.0)


class Witness(ConstantVelocityDriver):
    """Drives on at constant velocity and keeps what it was shown."""

    uses_cameras = True

    def __init__(self) -> None:
        self.frames: list[SensorFrame] = []

    def plan(self, frame: SensorFrame) -> Plan:
        self.frames.append(frame)
        return super().plan(frame)


@dataclass
class Witnessed:
    """A driven route and the frames of its driver."""

    route: DrivenRoute
    frames: list[SensorFrame] = field(default_factory=list)


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty data root for this session; networks are drawn into it on first use."""
    root = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LATENTVLA_DATA", str(root))
        networks.build_road_map.cache_clear()
        networks.read_net.cache_clear()
        yield root
    networks.build_road_map.cache_clear()
    networks.read_net.cache_clear()


@pytest.fixture(scope="session")
def witnessed(data_root: Path) -> Witnessed:
    """The first route of the test split, two seconds by the expert and two by constant velocity."""
    witness = Witness()
    route = drive_route(ROUTE, witness, default_rig(), SHORT, keep_plans=True)
    return Witnessed(route, witness.frames)
