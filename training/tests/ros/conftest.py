"""Frames of a drive that needs no world: a weaving ego, and pictures of where each camera is."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
from latentvla_training.data.image_encoding import encode_jpeg
from latentvla_training.world.drivers import SensorFrame
from latentvla_training.world.rig import default_rig

from latentvla_ros.contract import Command, Rig
from latentvla_ros.geometry import se2

# One domain per test process, and nothing leaves this machine.
os.environ.setdefault("ROS_DOMAIN_ID", str(10 + os.getpid() % 90))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

START_NS = 1_700_000_000_000_000_000


@pytest.fixture
def rig() -> Rig:
    """The cameras of the world's vehicle."""
    return default_rig()


@pytest.fixture
def frames() -> list[SensorFrame]:
    """34 frames at 10 Hz; the command changes in their middle, when plans have begun."""
    return list(drive(34))


def drive(count: int, start_ns: int = START_NS) -> Iterator[SensorFrame]:
    """Yield the frames of a drive at 7 to 8 m/s with a changing turn rate."""
    pose = np.array([40.0, -12.0, 0.4])
    for step in range(count):
        speed, yaw_rate = 7.5 + 0.5 * np.sin(0.3 * step), 0.1 * np.cos(0.4 * step)
        yield SensorFrame(
            stamp_ns=start_ns + step * 100_000_000,
            jpegs={slot: picture(pose, turn) for slot, turn in _TURNS.items()},
            pose=pose,
            twist=np.array([speed, 0.0, yaw_rate]),
            command=Command.LEFT if step < 24 else Command.RIGHT,
        )
        pose = se2.compose(pose, se2.exponential(speed, 0.0, yaw_rate, 0.1))


_TURNS = {"front": 0.0, "left": 1.0, "right": -1.0}


def picture(pose: np.ndarray, turn: float) -> bytes:
    """Return a JPEG of stripes that move with the ego: no two frames look alike."""
    columns = 0.09 * np.arange(256)[None, :, None] + pose[0] + 3.0 * turn
    rows = 0.06 * np.arange(128)[:, None, None] + pose[1]
    shade = 127.0 + 100.0 * np.sin(columns + np.arange(3)) * np.cos(rows)
    return encode_jpeg(shade.astype(np.uint8))
