"""Configure, activate, reload: what is refused, by which name, and that the node lives on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from vehicle import Bench

pytestmark = pytest.mark.ros


def configure(bench: Bench, rig: Any = None, **parameters: Any) -> Any:
    """Configure a fresh node and return the transition's result."""
    return bench.planner(rig, **parameters).trigger_configure()


def refused(bench: Bench, rig: Any = None, **parameters: Any) -> tuple[str, str]:
    """Configure a node that must refuse, by a status; returns cause and detail."""
    from rclpy.lifecycle import TransitionCallbackReturn

    from latentvla_msgs.msg import PlannerStatus

    assert configure(bench, rig, **parameters) == TransitionCallbackReturn.FAILURE
    status = bench.until(
        lambda: next((s for s in bench.vehicle.statuses if s.health == PlannerStatus.FAULT), None)
    )
    assert status.lifecycle_state == "unconfigured"
    return status.cause, status.detail


def copied(bundle: Path, folder: Path, **fields: Any) -> Path:
    """Copy a bundle with other fields in its manifest."""
    shutil.copytree(bundle, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **fields}))
    return folder


def with_camera(slot: str, **changes: Any) -> Any:
    """Return the test rig with one camera changed."""
    import drive_bag

    rig = drive_bag.rig()
    cameras = tuple(replace(c, **changes) if c.slot == slot else c for c in rig.cameras)
    return replace(rig, cameras=cameras)


def test_a_bundle_of_another_version(bench: Bench, bundle: Path, tmp_path: Path) -> None:
    other = copied(bundle, tmp_path / "other", schema_version=[9, 0])
    cause, detail = refused(bench, bundle=str(other))
    assert cause == "bundle_error" and "9.0" in detail and "1.x" in detail


def test_a_bundle_with_a_wrong_hash(bench: Bench, bundle: Path, tmp_path: Path) -> None:
    other = copied(bundle, tmp_path / "other")
    with (other / "model.onnx").open("ab") as stream:
        stream.write(b"x")
    cause, detail = refused(bench, bundle=str(other))
    assert cause == "bundle_error" and "model.onnx" in detail and "sha256" in detail


def test_a_bundle_that_is_not_there(bench: Bench) -> None:
    cause, detail = refused(bench, bundle="/nowhere/at/all")
    assert cause == "bundle_error" and "/nowhere/at/all" in detail


def test_a_rig_file_that_is_not_there(bench: Bench) -> None:
    node = bench.planner()
    node.parameters = replace(node.parameters, rig="/nowhere/rig.yaml")
    node.trigger_configure()
    status = bench.seen("configuration_error")
    assert "/nowhere/rig.yaml" in status.detail


def test_a_camera_outside_the_envelope(bench: Bench) -> None:
    from latentvla_ros.geometry import se3

    rig = with_camera("left", ego_from_camera=se3.camera_mount((1.6, 0.5, 1.6), np.radians(80)))
    cause, detail = refused(bench, rig)
    assert cause == "configuration_error" and "left" in detail and "yaw_deg" in detail


def test_distortion_that_is_not_supported(bench: Bench) -> None:
    import drive_bag

    model = drive_bag.rig().cameras[0].model
    fancy = replace(model, distortion_model="fancy_lens", distortion=np.full(5, 0.1))
    cause, detail = refused(bench, with_camera("front", model=fancy, rectified=False))
    assert cause == "configuration_error" and "front" in detail and "fancy_lens" in detail


def test_another_output_frame_without_tf(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    cause, detail = refused(bench, output_frame="map")
    assert cause == "configuration_error" and "output_frame" in detail and "tf2_ros" in detail


def test_a_node_that_was_refused_configures_when_the_cause_is_gone(
    bench: Bench, bundle: Path
) -> None:
    from rclpy.lifecycle import TransitionCallbackReturn

    node = bench.planner(bundle="/nowhere")
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    node.parameters = replace(node.parameters, bundle=str(bundle))
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    bench.until(lambda: node.pipeline.planner)
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert node.pipeline is None
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS


def test_activation_fails_until_the_bundle_is_loaded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    from rclpy.lifecycle import TransitionCallbackReturn

    from latentvla_ros.nodes import bundle_loader

    go_on, create = threading.Event(), bundle_loader.create_backend

    def slow(name: str, threads: int | None) -> Any:
        go_on.wait(120)
        return create(name, threads)

    monkeypatch.setattr(bundle_loader, "create_backend", slow)
    node = bench.planner()
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.FAILURE
    assert bench.seen("loading").lifecycle_state == "inactive"
    go_on.set()
    bench.until(lambda: node.pipeline.planner)
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS


def test_a_backend_that_cannot_load_is_a_named_fault(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rclpy.lifecycle import TransitionCallbackReturn

    from latentvla_ros.nodes import bundle_loader

    def broken(name: str, threads: int | None) -> Any:
        raise OSError("libcompute.so.9: cannot open shared object file")

    monkeypatch.setattr(bundle_loader, "create_backend", broken)
    node = bench.planner()
    node.trigger_configure()
    assert "libcompute" in bench.seen("bundle_error").detail
    assert node.trigger_activate() == TransitionCallbackReturn.FAILURE


def test_intrinsics_from_camera_info(bench: Bench) -> None:
    import drive_bag

    bench.running(drive_bag.rig(with_model=False))
    bench.drive(0.6)
    bench.seen("image_no_camera_info_front", slots=())
    assert not bench.vehicle.plans, bench.explain()
    for slot, fov in (("front", 60.0), ("left", 90.0), ("right", 90.0)):
        bench.vehicle.send_info(slot, fov)
    bench.drive_until(lambda: len(bench.vehicle.plans) >= 5)
    assert {"left", "right"} <= {entry.name for entry in bench.vehicle.plans[-1].inputs}


def test_a_camera_info_outside_the_envelope_is_refused_by_name(bench: Bench) -> None:
    import drive_bag

    node = bench.running(drive_bag.rig(with_model=False))
    bench.vehicle.send_info("front", 30.0)
    bench.until(lambda: node.pipeline.cameras.rejected)
    words = bench.drive_until(lambda: bench.listed("image_camera_rejected_front"))
    assert "front" in words
    assert not bench.vehicle.plans, bench.explain()
    bench.vehicle.send_info("front", 60.0)
    bench.drive_until(lambda: bench.vehicle.plans)


def test_reload_is_refused_while_active(bench: Bench, bundle: Path, tmp_path: Path) -> None:
    node = bench.running()
    answer = reload(node, str(bundle))
    assert not answer.success and "allow_hot_reload" in answer.message
    node.trigger_deactivate()
    assert not reload(node, "/nowhere").success
    other = copied(bundle, tmp_path / "other", bundle_id="tiny-2")
    answer = reload(node, str(other))
    assert answer.success and answer.bundle_id == "tiny-2"
    bench.until(lambda: node.pipeline.bundle.manifest.bundle_id == "tiny-2")
    node.trigger_activate()
    bench.drive_until(lambda: bench.vehicle.plans)
    assert {plan.bundle_id for plan in bench.vehicle.plans} == {"tiny-2"}


def test_hot_reload_goes_on_planning(bench: Bench, bundle: Path, tmp_path: Path) -> None:
    node = bench.running(allow_hot_reload=True)
    bench.drive(0.6)
    other = copied(bundle, tmp_path / "other", bundle_id="tiny-2")
    assert reload(node, str(other)).success
    bench.drive(2.0)
    bench.drive_until(lambda: bench.vehicle.plans[-1].bundle_id == "tiny-2")
    ids = [plan.bundle_id for plan in bench.vehicle.plans]
    assert ids[0] == "tiny-1" and ids == sorted(ids) and len(ids) >= 15, bench.explain()
    assert reload(node, "").success, "empty: the one that is loaded, again"


def test_two_reloads_while_a_plan_is_made_free_both_bundles(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    go_on = threading.Event()
    node = bench.running(allow_hot_reload=True)
    pipeline = node.pipeline
    first, quick = pipeline.planner, pipeline.planner.backend.infer
    monkeypatch.setattr(first.backend, "infer", lambda inputs: go_on.wait(120) and quick(inputs))
    closed: list[object] = []

    def watch(backend: Any) -> None:
        close = backend.close
        monkeypatch.setattr(backend, "close", lambda: (closed.append(backend), close()))

    watch(first.backend)
    now = bench.now()
    bench.vehicle.send_odometry(now)
    for slot in ("left", "right", "front"):
        bench.vehicle.send_image(slot, now)
    bench.until(lambda: not pipeline._worker.free)
    assert reload(node, "").success
    second = bench.until(lambda: pipeline.planner if pipeline.planner is not first else None)
    watch(second.backend)
    assert reload(node, "").success
    bench.until(lambda: pipeline.planner is not second)
    assert not closed, "the first is still at work"
    go_on.set()
    bench.until(lambda: len(closed) == 2)
    assert {id(backend) for backend in closed} == {id(first.backend), id(second.backend)}


def reload(node: Any, bundle: str) -> Any:
    """Call the node's own service handler."""
    from latentvla_msgs.srv import ReloadBundle

    return node._on_reload(ReloadBundle.Request(bundle=bundle), ReloadBundle.Response())


def test_structural_parameters_are_read_only_and_others_are_checked(bench: Bench) -> None:
    from rclpy.parameter import Parameter

    node = bench.running()
    for name, value in (("bundle", "other"), ("sync_wait_s", 0.1), ("limits.max_speed_mps", 9.0)):
        assert not node.set_parameters([Parameter(name, value=value)])[0].successful
    answer = node.set_parameters([Parameter("max_plan_age_s", value=-1.0)])[0]
    assert not answer.successful and "max_plan_age_s" in answer.reason
    assert node.set_parameters([Parameter("require_command", value=True)])[0].successful
    bench.drive(0.6, command=None)
    assert not bench.vehicle.plans, bench.explain()
    assert node.pipeline.drops["command_missing"] >= 5, bench.explain()


@pytest.mark.parametrize(
    ("module", "parameter", "name"),
    [
        ("planner_node", "threads:=many", "threads"),
        ("planner_node", "max_plan_age_s:=-1.0", "max_plan_age_s"),
        ("planner_node", "command_source:=guess", "command_source"),
        ("gate_node", "emergency_after_s:=0.1", "emergency_after_s"),
        ("gate_node", "limits.max_speed_mps:=0.0", "max_speed_mps"),
    ],
)
def test_a_wrong_parameter_ends_the_process_in_one_line(
    module: str, parameter: str, name: str
) -> None:
    command = [sys.executable, "-m", f"latentvla_ros.nodes.{module}", "--ros-args", "-p", parameter]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert ended.returncode == 2
    lines = ended.stderr.strip().splitlines()
    assert name in lines[-1] and "Traceback" not in ended.stderr


@pytest.mark.parametrize("transition", ["configure", "activate"])
def test_what_nobody_foresaw_is_said_and_the_node_starts_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, transition: str
) -> None:
    from rclpy.lifecycle import TransitionCallbackReturn

    def broken(*_: object, **__: object) -> None:
        raise TypeError("a defect")

    node = bench.planner()
    with monkeypatch.context() as patched:
        if transition == "configure":
            patched.setattr("latentvla_ros.nodes.planner_node.Pipeline", broken)
            node.trigger_configure()
        else:
            node.trigger_configure()
            bench.until(lambda: node.pipeline.planner)
            patched.setattr(node.pipeline, "activate", broken)
            node.trigger_activate()
    status = bench.seen("internal_error")
    assert f"on_{transition}: TypeError: a defect" in status.detail
    assert bench.until(lambda: bench.status().lifecycle_state) == "unconfigured"
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    bench.until(lambda: node.pipeline.planner)
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS


@pytest.mark.parametrize("part", ["PlanPublisher", "InferenceWorker"])
def test_a_configuration_that_breaks_halfway_leaves_nothing_subscribed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    from rclpy.lifecycle import TransitionCallbackReturn

    def broken(*_: object, **__: object) -> None:
        raise TypeError("a defect")

    node = bench.planner()
    before = len(list(node.subscriptions)), len(list(node.timers)), len(list(node.guards))
    with monkeypatch.context() as patched:
        patched.setattr(f"latentvla_ros.nodes.pipeline.{part}", broken)
        node.trigger_configure()
    assert "a defect" in bench.seen("internal_error").detail
    after = len(list(node.subscriptions)), len(list(node.timers)), len(list(node.guards))
    assert after == before
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
