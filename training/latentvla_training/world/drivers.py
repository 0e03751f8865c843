"""What drives the ego in the closed loop: sensor frames in, plans out.

The closed loop, the planner node in lock-step and the table of results meet here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import Command, Plan, Rig

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SensorFrame:
    """What the ego's sensors say at one moment.

    Attributes:
        stamp_ns: of all of it, t0.
        jpegs: by slot, of every camera of the rig, exposed at ``stamp_ns``; empty for a driver that
            looks at none.
        pose: (3,) x, y, yaw of the rear axle; the odometry frame is the map frame.
        twist: (3,) vx, vy, yaw rate in the ego frame.
        command: what the route asks for, by the rule of ``sensing.route_command``.
    """

    stamp_ns: int
    jpegs: Mapping[str, bytes]
    pose: Array
    twist: Array
    command: Command


class Driver(Protocol):
    """Plans from one frame to the next; 10 Hz, in order, on one thread.

    Attributes:
        name: of its row in a table. uses_cameras: whether its frames need pictures.
    """

    name: str
    uses_cameras: bool

    def start(self, rig: Rig) -> None:
        """Get ready for a route, forgetting the one before; every route starts with it."""

    def plan(self, frame: SensorFrame) -> Plan | None:
        """Return the plan of a frame (its stamp is the frame's), None while warming up."""

    def close(self) -> None:
        """Free what was loaded; the last call."""
