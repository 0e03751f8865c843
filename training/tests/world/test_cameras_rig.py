"""The world's rig and the slots that a bundle trained on it declares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from latentvla_training.world.rig import (
    MountedCamera,
    RigJitter,
    camera_model,
    default_rig,
    default_slots,
    jittered_rig,
    six_camera_rig,
    six_camera_slots,
)

from latentvla_ros.contract import ContractError
from latentvla_ros.sensing.rig_file import load_rig, mounting_angles_deg

BOTH = [(default_rig(), default_slots()), (six_camera_rig(), six_camera_slots())]


@pytest.mark.parametrize("fov", [60.0, 90.0])
@pytest.mark.parametrize(("width", "height"), [(256, 128), (512, 256), (100, 75)])
def test_field_of_view_is_measured_at_the_outer_edges(fov, width, height):
    model = camera_model(fov, width, height)
    inverse = np.linalg.inv(model.matrix)
    left, right = inverse @ [-0.5, 0.0, 1.0], inverse @ [width - 0.5, 0.0, 1.0]
    assert np.degrees(np.arctan(-left[0])) == pytest.approx(fov / 2)
    assert np.degrees(np.arctan(right[0])) == pytest.approx(fov / 2)
    middle = inverse @ [(width - 1) / 2, (height - 1) / 2, 1.0]
    assert middle == pytest.approx([0.0, 0.0, 1.0])
    assert model.matrix[0, 0] == model.matrix[1, 1]


def check_within(rig, slots):
    """Every camera lies within the envelope of its slot."""
    assert [slot.name for slot in slots] == [camera.slot for camera in rig.cameras]
    for slot in slots:
        camera = rig.camera(slot.name)
        assert camera is not None and camera.model is not None
        x, y, z = camera.ego_from_camera[:3, 3]
        assert slot.x_range_m[0] < x < slot.x_range_m[1]
        assert slot.y_range_m[0] < y < slot.y_range_m[1]
        assert slot.z_range_m[0] < z < slot.z_range_m[1]
        yaw, pitch, roll = mounting_angles_deg(camera.ego_from_camera)
        assert abs((yaw - slot.yaw_deg + 180.0) % 360.0 - 180.0) < slot.yaw_tolerance_deg
        assert slot.pitch_range_deg[0] < pitch < slot.pitch_range_deg[1]
        assert abs(roll) < 10.0
        fov = 2 * np.degrees(np.arctan(0.5 * camera.model.width / camera.model.matrix[0, 0]))
        assert slot.fov_range_deg[0] < fov < slot.fov_range_deg[1]


@pytest.mark.parametrize(("rig", "slots"), BOTH)
def test_rig_is_that_of_its_slots(rig, slots):
    check_within(rig, slots)
    for slot in slots:
        camera = rig.camera(slot.name)
        yaw, pitch, roll = mounting_angles_deg(camera.ego_from_camera)
        assert (yaw - slot.yaw_deg) % 360.0 == pytest.approx(0.0, abs=1e-9)
        assert (pitch, roll) == pytest.approx((0.0, 0.0))
        fov = 2 * np.degrees(np.arctan(0.5 * camera.model.width / camera.model.matrix[0, 0]))
        assert fov == pytest.approx(slot.horizontal_fov_deg)
        assert camera.topic == f"/sensing/camera/{slot.name}/image/compressed"


def test_six_cameras_leave_no_gap():
    seen = np.zeros(360, bool)
    for slot in six_camera_slots():
        away = (np.arange(360) - slot.yaw_deg + 180.0) % 360.0 - 180.0
        seen |= np.abs(away) < 0.5 * slot.horizontal_fov_deg
    assert seen.all()


def test_six_camera_file_is_the_rig():
    written = load_rig(Path(__file__).resolve().parents[3] / "config" / "rig" / "six_cameras.yaml")
    rig = six_camera_rig()
    assert (written.name, written.reference_camera) == (rig.name, rig.reference_camera)
    for ours, theirs in zip(written.cameras, rig.cameras, strict=True):
        assert (ours.slot, ours.topic, ours.frame_id) == (
            theirs.slot,
            theirs.topic,
            theirs.frame_id,
        )
        assert np.allclose(ours.ego_from_camera, theirs.ego_from_camera, atol=1e-9)
        assert np.allclose(ours.model.matrix, theirs.model.matrix)


@pytest.mark.parametrize(("rig", "slots"), BOTH)
def test_every_vehicle_of_a_fleet_stays_within_the_slots(rig, slots):
    for seed in range(60):
        built = jittered_rig(rig, seed)
        check_within(built, slots)
        for drawn, camera in zip(rig.cameras, built.cameras, strict=True):
            shift = camera.ego_from_camera[:3, 3] - drawn.ego_from_camera[:3, 3]
            assert np.abs(shift).max() <= 0.05 + 1e-12
            turn = drawn.ego_from_camera[:3, :3].T @ camera.ego_from_camera[:3, :3]
            assert np.degrees(np.arccos((np.trace(turn) - 1.0) / 2.0)) < 2.0 * np.sqrt(3.0) + 1e-6
            assert camera.model.matrix[0, 0] == camera.model.matrix[1, 1]
            ratio = camera.model.matrix[0, 0] / drawn.model.matrix[0, 0]
            assert 0.97 <= ratio <= 1.03


def test_a_vehicle_depends_on_its_seed_alone():
    first, again, other = (jittered_rig(default_rig(), seed) for seed in (4, 4, 5))
    for one, two, three in zip(first.cameras, again.cameras, other.cameras, strict=True):
        assert np.array_equal(one.ego_from_camera, two.ego_from_camera)
        assert np.array_equal(one.model.matrix, two.model.matrix)
        assert not np.allclose(one.ego_from_camera, three.ego_from_camera, atol=1e-3)
    still = jittered_rig(default_rig(), 4, RigJitter(0.0, 0.0, 0.0, 0.0))
    assert np.allclose(still.cameras[1].ego_from_camera, default_rig().cameras[1].ego_from_camera)
    with pytest.raises(ContractError, match=r"jitter\.angle_deg"):
        RigJitter(angle_deg=20.0)


def test_left_mirrors_right():
    left, right = (default_rig().camera(slot).ego_from_camera for slot in ("left", "right"))
    assert left[:3, 3] * [1, -1, 1] == pytest.approx(right[:3, 3])
    assert left[:3, 2] * [1, -1, 1] == pytest.approx(right[:3, 2])


def test_impossible_field_of_view_is_refused():
    with pytest.raises(ContractError, match="horizontal_fov_deg"):
        MountedCamera("front", 180.0, (1.8, 0.0, 1.6), 0.0)
