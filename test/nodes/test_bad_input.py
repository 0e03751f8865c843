"""Bad input over DDS: a named cause, no bad plan, and recovery when the input is good again."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from vehicle import Bench

pytestmark = pytest.mark.ros


def recovers(bench: Bench, cause: str) -> None:
    """Drive on with good input: plans come again and the first cause stays visible."""
    from latentvla_msgs.msg import PlannerStatus

    before = len(bench.vehicle.plans)
    bench.drive_until(
        lambda: bench.status().health == PlannerStatus.OK and len(bench.vehicle.plans) >= before + 5
    )
    assert bench.status().first_cause == cause, bench.explain()
    assert bench.status().first_cause_stamp.sec > 0


def diagnostic(bench: Bench, name: str) -> Any:
    """Return the newest /diagnostics entry whose name ends so."""
    for array in reversed(bench.vehicle.diagnostics):
        for status in array.status:
            if status.name.endswith(name):
                return status
    return None


def changed_images(**changes: Any) -> Callable[[str, int], dict[str, Any]]:
    """Return image changes for the front camera alone."""
    return lambda slot, now: changes if slot == "front" else {}


def good_jpeg() -> bytes:
    import drive_bag

    return drive_bag.picture(0.3)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"data": good_jpeg()[:-40]}, "image_corrupt_front"),
        ({"data": b"\xff\xd8\xff\xe0" + bytes(500)}, "image_corrupt_front"),
        ({"data": b"RIFF" + bytes(100)}, "image_unknown_encoding_front"),
        ({"data": b""}, "image_empty_front"),
        ({"frame_id": "somewhere"}, "image_wrong_frame_id_front"),
    ],
)
def test_an_unusable_image(bench: Bench, changes: dict[str, Any], cause: str) -> None:
    bench.running()
    status = bench.seen(cause, image=changed_images(**changes))
    assert status.plans == 0 and not bench.vehicle.plans, bench.explain()
    assert sum(status.drop_counts) >= 1, bench.explain()
    assert next(c for c in status.cameras if c.slot == "front").faults >= 1, bench.explain()
    recovers(bench, cause)


def test_an_image_of_the_wrong_size(bench: Bench) -> None:
    from vehicle import jpeg

    bench.running()
    wrong = changed_images(data=jpeg(320, 128))
    assert "320x128" in bench.seen("image_wrong_size_front", image=wrong).detail
    recovers(bench, "image_wrong_size_front")


@pytest.mark.parametrize(
    ("offset_ns", "cause"),
    [
        (None, "image_zero_stamp_front"),
        (10**9, "image_future_stamp_front"),
        (-(10**9), "image_old_front"),
    ],
)
def test_a_wrong_image_stamp(bench: Bench, offset_ns: int | None, cause: str) -> None:
    bench.running()
    status = bench.drive_until(
        lambda: next((s for s in bench.vehicle.statuses if s.first_cause == cause), None),
        image_stamp=lambda slot, now: 0 if offset_ns is None else now + offset_ns,
    )
    assert status.plans == 0, bench.explain()
    recovers(bench, cause)


def test_missing_optional_cameras_degrade_and_are_named(bench: Bench) -> None:
    from latentvla_msgs.msg import PlannerStatus

    bench.running()
    bench.drive(2.5, slots=("right", "front"))
    assert len(bench.vehicle.plans) >= 23, bench.explain()
    status = bench.seen("image_silent_left", slots=("right", "front"))
    assert status.health == PlannerStatus.DEGRADED and "/cam/left/compressed" in status.detail
    assert next(c for c in status.cameras if c.slot == "left").rate_hz == 0
    bench.drive_until(
        lambda: any(c.starving for c in bench.status().cameras if c.slot == "left"),
        slots=("right", "front"),
    )
    camera = bench.until(lambda: diagnostic(bench, "camera left"))
    assert "starving" in camera.message and "/cam/left/compressed" in camera.message
    recovers(bench, "image_silent_left")


def test_a_missing_required_camera_means_no_plan(bench: Bench) -> None:
    from latentvla_msgs.msg import PlannerStatus

    bench.running()
    bench.drive(1.6, slots=("left", "right"))
    status = bench.seen("image_silent_front", slots=("left", "right"))
    assert status.health == PlannerStatus.FAULT and not bench.vehicle.plans, bench.explain()
    recovers(bench, "image_silent_front")


def test_a_corrupt_optional_image_masks_its_view(bench: Bench) -> None:
    bench.running()

    def corrupt(slot: str, now: int) -> dict[str, Any]:
        return {"data": b"\xff\xd8 no picture"} if slot == "left" else {}

    bench.seen("image_corrupt_left", image=corrupt)
    bench.drive_until(lambda: bench.vehicle.plans, image=corrupt)
    assert all("left" not in {entry.name for entry in plan.inputs} for plan in bench.vehicle.plans)
    recovers(bench, "image_corrupt_left")


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"vx": math.nan}, "odometry_not_finite"),
        ({"x": math.inf}, "odometry_not_finite"),
        ({"child_frame": "imu_link"}, "wrong_twist_frame"),
        ({"child_frame": ""}, "wrong_twist_frame"),
        ({"stamp_ns": 0}, "odometry_zero_stamp"),
        ({"vx": 900.0}, "odometry_implausible"),
    ],
)
def test_unusable_odometry(bench: Bench, changes: dict[str, Any], cause: str) -> None:
    bench.running()

    def complained() -> Any:
        odometry = diagnostic(bench, ": odometry")
        return odometry if odometry is not None and odometry.level != b"\x00" else None

    bench.drive(0.7, odometry=lambda now: changes)
    bench.seen(cause, odometry=lambda now: changes)
    assert bench.status().first_cause == cause, bench.explain()
    bench.drive_until(complained, odometry=lambda now: changes)
    planned = len(bench.vehicle.plans)
    bench.drive(0.4, odometry=lambda now: changes)
    assert len(bench.vehicle.plans) == planned, "odometry is extrapolated by 0.1 s at most"
    recovers(bench, cause)


def test_odometry_from_the_future(bench: Bench) -> None:
    bench.running()
    bench.drive_until(
        lambda: bench.status().first_cause == "odometry_future_stamp",
        odometry=lambda now: {"stamp_ns": now + 10**9},
    )
    recovers(bench, "odometry_future_stamp")


def test_a_jump_of_the_odometry_is_counted_and_plans_go_on(bench: Bench) -> None:
    bench.running()
    bench.drive(0.6)
    planned = len(bench.vehicle.plans)
    bench.drive(1.0, odometry=lambda now: {"x": 500.0})
    bench.drive_until(lambda: bench.status().odometry_jumps >= 1, odometry=lambda now: {"x": 500.0})
    assert bench.status().first_cause == "odometry_jump", bench.explain()
    assert len(bench.vehicle.plans) >= planned + 9, bench.explain()
    assert bench.vehicle.plans[-1].ego_pose.position.x == pytest.approx(500.0, abs=5.0)


def test_odometry_that_stops(bench: Bench) -> None:
    from latentvla_msgs.msg import PlannerStatus

    bench.running()
    bench.drive(0.5)
    planned = len(bench.vehicle.plans)
    bench.drive(1.2, odometry=lambda now: None)
    assert len(bench.vehicle.plans) <= planned + 1, "odometry is extrapolated by 0.1 s at most"
    bench.drive_until(
        lambda: bench.status().health == PlannerStatus.FAULT, odometry=lambda now: None
    )
    assert bench.status().first_cause in ("odometry_stale", "odometry_silent"), bench.explain()


def test_a_lost_command_is_unknown_with_a_warning(bench: Bench) -> None:
    from latentvla_msgs.msg import DrivingCommand, PlannerStatus

    bench.running(command_timeout_s=0.5)
    assert bench.seen("command_missing", command=None).health == PlannerStatus.DEGRADED
    bench.drive_until(lambda: bench.vehicle.plans, command=None)
    assert bench.status().command == DrivingCommand.UNKNOWN
    bench.drive_until(
        lambda: (
            bench.status().command == DrivingCommand.LEFT
            and bench.status().health == PlannerStatus.OK
        ),
        command=DrivingCommand.LEFT,
    )
    planned = len(bench.vehicle.plans)
    bench.drive(1.0, command=None)
    assert len(bench.vehicle.plans) >= planned + 9, bench.explain()
    expired = bench.seen("command_expired", command=None)
    assert expired.health == PlannerStatus.DEGRADED
    bench.vehicle.send_command(0, DrivingCommand.LEFT)
    bench.drive_until(lambda: bench.listed("command_zero_stamp"), command=None)


def test_a_lost_command_means_no_plan_where_it_is_required(bench: Bench) -> None:
    from latentvla_msgs.msg import PlannerStatus

    node = bench.running(require_command=True)
    bench.drive(0.6, command=None)
    assert bench.seen("command_missing", command=None).health == PlannerStatus.FAULT
    assert not bench.vehicle.plans, bench.explain()
    assert node.pipeline.drops["command_missing"] >= 5, bench.explain()
    recovers(bench, "command_missing")


def test_a_plan_that_is_not_finite_or_not_drivable_is_not_published(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    node = bench.running()
    backend = node.pipeline.planner.backend
    honest = backend.infer
    for value, cause in ((np.nan, "plan_not_finite"), (40.0, "plan_speed")):

        def broken(inputs: Any, value: float = value) -> Any:
            return {**honest(inputs), "candidates": honest(inputs)["candidates"] * value}

        monkeypatch.setattr(backend, "infer", broken)
        bench.drive(0.8)
        assert not bench.vehicle.plans, bench.explain()
        assert node.pipeline.drops[cause] >= 7, node.pipeline.drops

    def raises(inputs: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(backend, "infer", raises)
    bench.drive_until(lambda: "out of memory" in (bench.listed("inference_failed") or ""))
    monkeypatch.setattr(backend, "infer", honest)
    recovers(bench, "plan_not_finite")


def test_why_an_input_is_silent_is_said(bench: Bench) -> None:
    import rclpy
    from rclpy.context import Context
    from sensor_msgs.msg import Image

    from latentvla_msgs.msg import DrivingCommand

    bench.running()
    vehicle = bench.vehicle
    for publisher in (vehicle.images["left"], vehicle.images["right"], vehicle.command):
        vehicle.destroy_publisher(publisher)
    inputs = "/planner_node/input"
    other = Context()  # one topic cannot carry two types within one participant
    rclpy.init(context=other)
    driver = rclpy.create_node("driver", context=other)
    driver.create_publisher(Image, f"{inputs}/left/image/compressed", 1)
    driver.create_publisher(DrivingCommand, f"{inputs}/command", 1)  # volatile: nothing is latched
    try:
        for cause, words in (
            ("camera_starving_left", "published as sensor_msgs/msg/Image"),
            ("camera_starving_right", f"nobody publishes {inputs}/right/image"),
            ("command_unmatched", "QoS"),
        ):
            bench.drive_until(
                lambda cause=cause, words=words: words in (bench.listed(cause) or ""),
                command=None,
                slots=("front",),
            )
    finally:
        driver.destroy_node()
        other.try_shutdown()
