"""The files of config/ say what the code does."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml

from latentvla_ros.data import data_path
from latentvla_ros.safety.plan_checks import PlanLimits
from latentvla_ros.sensing.rig_file import load_rig, mounting_angles_deg

CONFIG = Path(__file__).parents[2] / "config"


@pytest.mark.parametrize("name", ["fastdds.xml", "planner.param.yaml"])
def test_one_copy_by_a_relative_link(name: str) -> None:
    link = CONFIG / name
    assert link.is_symlink() and not link.readlink().is_absolute()
    assert link.resolve() == data_path(name).resolve()


@pytest.mark.ros
def test_the_parameter_file_lists_every_default() -> None:
    pytest.importorskip("rclpy")
    from latentvla_ros.nodes.parameters import GateParameters, PlannerParameters

    document = yaml.safe_load(data_path("planner.param.yaml").read_text())
    for node, kind in (("/**/planner_node", PlannerParameters), ("/**/gate", GateParameters)):
        listed = document[node]["ros__parameters"]
        limits = listed.pop("limits", {})
        defaults = {entry.name: entry.default for entry in fields(kind)}
        assert listed == {name: value for name, value in defaults.items() if name != "rig"}
        assert all(type(listed[name]) is type(defaults[name]) for name in listed)
        bounds = {e.name: e.default for e in fields(PlanLimits) if e.name != "deadline_s"}
        assert limits in ({}, bounds)
    assert document["/**/planner_node"]["ros__parameters"]


def test_the_world_rig_is_that_of_the_world() -> None:
    rig = pytest.importorskip("latentvla_training.world.rig").default_rig()
    written = load_rig(CONFIG / "rig" / "world.yaml")
    assert (written.name, written.base_frame) == (rig.name, rig.base_frame)
    assert written.reference_camera == rig.reference_camera
    for ours, theirs in zip(written.cameras, rig.cameras, strict=True):
        assert (ours.slot, ours.topic, ours.frame_id) == (
            theirs.slot,
            theirs.topic,
            theirs.frame_id,
        )
        assert ours.model is not None and theirs.model is not None
        assert np.allclose(ours.ego_from_camera, theirs.ego_from_camera, atol=1e-9)
        assert np.allclose(ours.model.matrix, theirs.model.matrix)


def test_the_example_rig_shows_every_kind_of_camera() -> None:
    rig = load_rig(CONFIG / "rig" / "example_raw.yaml")
    assert {camera.message_type for camera in rig.cameras} == {"raw", "compressed"}
    assert {camera.rectified for camera in rig.cameras} == {True, False}
    assert rig.odometry_child_frame != rig.base_frame
    yaws = [mounting_angles_deg(camera.ego_from_camera)[0] for camera in rig.cameras]
    assert yaws == pytest.approx([0.0, 55.0, -55.0], abs=1e-3)


def test_the_dds_profile_is_large_enough() -> None:
    space = "{http://www.eprosima.com}"
    root = ElementTree.parse(data_path("fastdds.xml")).getroot()
    kinds = {
        transport.findtext(f"{space}type"): transport
        for transport in root.iter(f"{space}transport_descriptor")
    }
    assert int(kinds["SHM"].findtext(f"{space}segment_size", "0")) >= 64 << 20
    assert int(kinds["SHM"].findtext(f"{space}maxMessageSize", "0")) >= 16 << 20
    assert root.find(f".//{space}participant").get("is_default_profile") == "true"  # type: ignore[union-attr]
    assert root.findtext(f".//{space}useBuiltinTransports") == "false"
