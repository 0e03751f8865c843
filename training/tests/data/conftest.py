"""A hand-made road with one light, a drive along it, and a renderer that needs no world."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from latentvla_training.world.episode import Episode
from latentvla_training.world.road_map import Lane, Layer, Polygon, RoadMap, Signal, SignalState
from numpy.typing import NDArray

from latentvla_ros.contract import Command

# ``real_drives`` is shared with the tests of this folder.
sys.path.insert(0, str(Path(__file__).parent))

STEPS = 160
STOP_LINE_X = 60.0


def _box(x0: float, x1: float, y0: float, y1: float) -> NDArray[np.float64]:
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def _lane(lane_id: str, edge: str, x0: float, x1: float, y: float, signal: int = -1) -> Lane:
    connector = lane_id.startswith(":")
    return Lane(
        lane_id, edge, connector, np.array([[x0, y], [x1, y]]), 3.5, 13.9, (), None, None, signal,
        "s" if connector else "",
    )  # fmt: skip


@pytest.fixture
def road_map() -> RoadMap:
    """A road along x: edge a, a controlled junction at 60 ... 80 m, edge b, one far away."""
    lanes = [
        _lane("a_0", "a", -40.0, 60.0, 0.0),
        _lane(":j_0_0", ":j_0", 60.0, 80.0, 0.0, signal=0),
        _lane("b_0", "b", 80.0, 400.0, 0.0),
        _lane("side_0", "side", 60.0, 80.0, 8.0),
        _lane("away_0", "away", 0.0, 50.0, 900.0),
    ]
    polygons = [
        Polygon(
            Layer.LANE_CONNECTOR if lane.is_connector else Layer.LANE,
            lane.lane_id,
            _box(
                *lane.centerline[:, 0], lane.centerline[0, 1] - 1.75, lane.centerline[0, 1] + 1.75
            ),
        )
        for lane in lanes
    ]
    polygons.append(Polygon(Layer.INTERSECTION, "j", _box(60.0, 80.0, -10.0, 10.0)))
    signal = Signal(
        "j", (0,), "a_0", np.array([[STOP_LINE_X, -1.75], [STOP_LINE_X, 1.75]]),
        np.array([[85.0, 0.0, 6.0], [85.0, 0.0, 5.0], [85.0, 0.0, 4.0]]), np.pi,
    )  # fmt: skip
    return RoadMap(
        "train-0000", tuple(polygons), {lane.lane_id: lane for lane in lanes}, (signal,), (), (),
        np.array([-40.0, -10.0, 400.0, 910.0]),
    )  # fmt: skip


def drive() -> NDArray[np.float64]:
    """Return (STEPS, 7) ego rows: it weaves, speeds up and slows down, exactly integrated."""
    fine = np.linspace(0.0, (STEPS - 1) * 0.1, (STEPS - 1) * 100 + 1)
    step = fine[1]
    speed = 6.0 + 2.0 * np.sin(0.4 * fine)
    yaw_rate = 0.08 * np.cos(0.7 * fine)
    yaw = np.append(0.0, np.cumsum((yaw_rate[:-1] + yaw_rate[1:]) / 2 * step))
    vx, vy = speed * np.cos(yaw), speed * np.sin(yaw)
    x = np.append(0.0, np.cumsum((vx[:-1] + vx[1:]) / 2 * step))
    y = np.append(0.0, np.cumsum((vy[:-1] + vy[1:]) / 2 * step))
    acceleration = 0.8 * np.cos(0.4 * fine)
    wheel = np.arctan(yaw_rate * 3.089 / speed)
    return np.stack([x, y, yaw, speed, acceleration, wheel, yaw_rate], axis=1)[::100]


@pytest.fixture
def episode() -> Episode:
    """A drive along the road: one vehicle ahead, one that is there for a while, one far away."""
    agents = np.zeros((STEPS, 3, 5))
    agents[:, 0] = [30.0, 0.0, 0.0, 5.0, 0.0]
    agents[:, 0, 0] += 0.5 * np.arange(STEPS)
    agents[:, 1] = [50.0, 8.0, np.pi / 2, 0.0, 0.0]
    agents[:, 2] = [600.0, 0.0, 0.0, 0.0, 0.0]
    valid = np.ones((STEPS, 3), np.bool_)
    valid[:40, 1] = valid[80:, 1] = False
    agents[~valid] = 0.0
    signal = np.full((STEPS, 1), SignalState.RED, np.uint8)
    signal[50:] = SignalState.GREEN
    command = np.full(STEPS, Command.STRAIGHT, np.uint8)
    command[70:] = Command.LEFT
    return Episode(
        name="train-0000-00", network="train-0000", seed=7, ego=drive(),
        agent_type=np.zeros(3, np.uint8), agent_model=np.zeros(3, np.uint8),
        agent_size=np.tile([4.5, 1.9, 1.5], (3, 1)),
        agent_color=np.full((3, 3), 90, np.uint8), agent_state=agents, agent_valid=valid,
        agent_braking=np.zeros((STEPS, 3), np.bool_), signal_state=signal,
        route_lanes=("a_0", ":j_0_0", "b_0"),
        route_centerline=np.stack([np.arange(-40.0, 400.0), np.zeros(440)], axis=1),
        route_speed_limit=np.full(440, 13.9), command=command,
    )  # fmt: skip


class StripeRenderer:
    """Paints where the camera is: same place, same picture, and never twice the same place."""

    def render(
        self,
        episode: Episode,
        step: int,
        intrinsics: NDArray[np.float64],
        width: int,
        height: int,
        ego_from_camera: NDArray[np.float64],
        ego_pose: NDArray[np.float64] | None = None,
    ) -> NDArray[np.uint8]:
        """Return an (H, W, 3) uint8 picture."""
        del intrinsics
        ego = episode.ego[step] if ego_pose is None else ego_pose
        place = ego[0] + ego_from_camera[0, 3]
        columns = np.arange(width)[None, :, None] + 10.0 * place
        rows = np.arange(height)[:, None, None] * (1.0 + ego_from_camera[1, 3])
        shade = 127.0 + 100.0 * np.sin(0.05 * columns + 0.03 * rows + np.arange(3))
        return shade.astype(np.uint8)


@pytest.fixture
def renderer() -> StripeRenderer:
    """The renderer of the hand-made road."""
    return StripeRenderer()
