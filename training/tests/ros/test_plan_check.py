"""Two drivers compared: what counts as the same."""

from __future__ import annotations

import numpy as np
import pytest
from latentvla_training.ros.plan_check import CheckedDriver
from latentvla_training.world.drivers import SensorFrame

from latentvla_ros.contract import Command, Plan, Rig
from latentvla_ros.geometry.trajectory import constant_turn_rate


def plan(shift_m: float = 0.0, speed: float = 8.0) -> Plan:
    poses = constant_turn_rate(speed, 0.0).astype(np.float32)
    poses[3, 1] += shift_m
    return Plan(
        poses, poses[None], np.ones(1, np.float32), np.zeros(12, np.int64),
        np.ones(12, np.float32), 0,
    )  # fmt: skip


class Says:
    """A driver that gives the same answers in order."""

    uses_cameras = False

    def __init__(self, name: str, *answers: Plan | None) -> None:
        self.name, self._answers = name, list(answers)
        self.closed = False

    def start(self, rig: Rig) -> None:
        """Nothing to do."""

    def plan(self, frame: SensorFrame) -> Plan | None:
        """Return the next answer."""
        return self._answers.pop(0)

    def close(self) -> None:
        """Remember it."""
        self.closed = True


@pytest.mark.parametrize(
    ("ours", "theirs", "passed", "word"),
    [
        ((None, plan()), (None, plan(0.009)), True, "9.000 mm"),
        ((None, plan()), (None, plan(0.011)), False, "NOT the same"),
        ((plan(), plan()), (None, plan()), False, "1 planned by one alone"),
        ((None, plan()), (plan(), plan()), False, "1 planned by one alone"),
        ((plan(speed=60.0), plan()), (None, plan()), True, "1 refused"),
        ((None,), (None,), False, "0 plans compared"),
    ],
)
def test_what_counts_as_the_same(
    ours: tuple[Plan | None, ...], theirs: tuple[Plan | None, ...], passed: bool, word: str
) -> None:
    first, second = Says("bundle", *ours), Says("bundle_ros", *theirs)
    driver = CheckedDriver(first, second)
    for answer in ours:
        twist = np.array([8.0, 0.0, 0.0])
        frame = SensorFrame(1, {}, np.zeros(3), twist, Command.STRAIGHT)
        assert driver.plan(frame) is answer
    assert driver.difference.passed is passed and word in str(driver.difference)
    driver.close()
    assert first.closed and second.closed and driver.name == "bundle"


def test_differences_of_routes_add_up() -> None:
    from latentvla_training.ros.plan_check import PlanDifference

    whole = PlanDifference()
    whole.include(PlanDifference(compared=3, largest_m=0.002, worst_stamp_ns=7))
    whole.include(PlanDifference(compared=2, refused=1, largest_m=0.001, worst_stamp_ns=9))
    assert whole.passed and (whole.compared, whole.refused, whole.worst_stamp_ns) == (5, 1, 7)
    whole.include(PlanDifference(compared=1, only_one=1))
    assert not whole.passed


def test_a_machine_without_ros_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from latentvla_training.closed_loop.commands import Drive
    from latentvla_training.ros import world_node

    from latentvla_ros.contract import ContractError

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ContractError, match="rclpy"):
        Drive(ros=True)()
    assert world_node.main(["test-0000-00"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("wrong", [{"ros": True, "driver": "expert"}, {"check": True}])
def test_the_nodes_drive_with_a_bundle_alone(wrong: dict[str, object]) -> None:
    from latentvla_training.closed_loop.commands import Drive

    from latentvla_ros.contract import ContractError

    with pytest.raises(ContractError, match="--ros"):
        Drive(**wrong)()  # type: ignore[arg-type]
