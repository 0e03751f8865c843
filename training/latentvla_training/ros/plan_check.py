"""Two drivers on the same frames: how far their plans are apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latentvla_ros.contract import Plan, Rig
from latentvla_ros.safety.plan_checks import check_plan
from latentvla_training.world.drivers import Driver, SensorFrame

#: What a plan may change on its way through the nodes (issue 3: within 1 cm), m and rad.
TOLERANCE_M = 0.01


@dataclass
class PlanDifference:
    """What was found so far.

    Attributes:
        compared: frames that both had a plan for. only_one: frames that just one had a plan for.
        refused: frames whose plan cannot be driven: the nodes did not let it through.
        largest_m: between two knots of the same time. largest_rad: between their yaws.
        worst_stamp_ns: of the frame of ``largest_m``.
    """

    compared: int = 0
    only_one: int = 0
    refused: int = 0
    largest_m: float = 0.0
    largest_rad: float = 0.0
    worst_stamp_ns: int = 0

    @property
    def passed(self) -> bool:
        """Whether every plan of one is the other's, within ``TOLERANCE_M``."""
        return self.compared > 0 and self.only_one == 0 and self.largest_m <= TOLERANCE_M

    def add(self, ours: Plan | None, theirs: Plan | None, frame: SensorFrame) -> None:
        """Take in the plans of one frame, ours unchecked, theirs from behind the checks."""
        if ours is None or theirs is None:
            if ours is not None and not _drivable(ours, frame):
                self.refused += 1
            else:
                self.only_one += ours is not theirs
            return
        self.compared += 1
        apart = np.asarray(ours.poses, np.float64) - np.asarray(theirs.poses, np.float64)
        metres = float(np.hypot(apart[:, 0], apart[:, 1]).max())
        turn = float(np.abs(np.angle(np.exp(1j * apart[:, 2]))).max())
        self.largest_rad = max(self.largest_rad, turn)
        if metres > self.largest_m:
            self.largest_m, self.worst_stamp_ns = metres, frame.stamp_ns

    def include(self, other: PlanDifference) -> None:
        """Take in what was found on another route."""
        self.compared += other.compared
        self.only_one += other.only_one
        self.refused += other.refused
        self.largest_rad = max(self.largest_rad, other.largest_rad)
        if other.largest_m > self.largest_m:
            self.largest_m, self.worst_stamp_ns = other.largest_m, other.worst_stamp_ns

    def __str__(self) -> str:
        """One line for people."""
        verdict = "the same" if self.passed else "NOT the same"
        return (
            f"{verdict}: {self.compared} plans compared, largest difference "
            f"{self.largest_m * 1e3:.3f} mm and {np.degrees(self.largest_rad):.4f} degrees, "
            f"{self.refused} refused by the plan checks, {self.only_one} planned by one alone"
        )


class CheckedDriver:
    """A ``Driver`` that asks a second one about every frame and drives as the first one says.

    Attributes:
        difference: of all routes so far.
    """

    uses_cameras = True

    def __init__(self, driver: Driver, other: Driver) -> None:
        self._driver, self._other = driver, other
        self.name = driver.name
        self.difference = PlanDifference()

    def start(self, rig: Rig) -> None:
        """Start both."""
        self._driver.start(rig)
        self._other.start(rig)

    def plan(self, frame: SensorFrame) -> Plan | None:
        """Return the first driver's plan."""
        ours, theirs = self._driver.plan(frame), self._other.plan(frame)
        self.difference.add(ours, theirs, frame)
        return ours

    def close(self) -> None:
        """Close both, whatever happens to one."""
        try:
            self._driver.close()
        finally:
            self._other.close()


def _drivable(plan: Plan, frame: SensorFrame) -> bool:
    return check_plan(plan.poses, float(frame.twist[0]), 0.0).valid
