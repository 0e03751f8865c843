"""The world's rig and the slots that a bundle trained on it declares."""

from __future__ import annotations

import numpy as np
import pytest
from latentvla_training.world.rig import (
    MountedCamera,
    camera_model,
    default_rig,
    default_slots,
)

from latentvla_ros.contract import ContractError


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


def test_rig_lies_in_the_envelope_of_its_slots():
    rig = default_rig()
    assert [slot.name for slot in default_slots()] == [camera.slot for camera in rig.cameras]
    for slot in default_slots():
        camera = rig.camera(slot.name)
        assert camera is not None and camera.model is not None
        x, y, z = camera.ego_from_camera[:3, 3]
        assert slot.x_range_m[0] < x < slot.x_range_m[1]
        assert slot.y_range_m[0] < y < slot.y_range_m[1]
        assert slot.z_range_m[0] < z < slot.z_range_m[1]
        forward = camera.ego_from_camera[:3, 2]
        assert np.degrees(np.arctan2(forward[1], forward[0])) == pytest.approx(slot.yaw_deg)
        fov = 2 * np.degrees(np.arctan(0.5 * camera.model.width / camera.model.matrix[0, 0]))
        assert fov == pytest.approx(slot.horizontal_fov_deg)
        assert slot.fov_range_deg[0] < fov < slot.fov_range_deg[1]
        assert camera.topic == f"/sensing/camera/{slot.name}/image/compressed"


def test_left_mirrors_right():
    left, right = (default_rig().camera(slot).ego_from_camera for slot in ("left", "right"))
    assert left[:3, 3] * [1, -1, 1] == pytest.approx(right[:3, 3])
    assert left[:3, 2] * [1, -1, 1] == pytest.approx(right[:3, 2])


def test_impossible_field_of_view_is_refused():
    with pytest.raises(ContractError, match="horizontal_fov_deg"):
        MountedCamera("front", 180.0, (1.8, 0.0, 1.6), 0.0)
