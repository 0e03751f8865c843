"""Rig files: read back equal, every mistake named with its camera, the envelope enforced."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from latentvla_ros.contract import (
    BundleManifest,
    CameraModel,
    CameraSlot,
    ContractError,
    Rig,
    RigCamera,
    View,
)
from latentvla_ros.geometry import camera, se3
from latentvla_ros.sensing.rig_file import (
    check_rig,
    load_rig,
    mounting_angles_deg,
    parse_rig,
    save_rig,
)

TEXT = """
name: demo
base_frame: base_link
reference_camera: front
odometry: {child_frame: imu_link, base_from_twist: [1.2, 0.0, 0.1]}
cameras:
  front:
    topic: /front/image/compressed
    camera_info_topic: /front/camera_info
    message_type: compressed
    frame_id: front_optical
    mount: {xyz: [1.8, 0.0, 1.6]}
  left:
    topic: /left/image
    message_type: raw
    frame_id: left_optical
    mount: {xyz: [1.6, 0.5, 1.6], yaw_deg: 55.0, pitch_deg: 3.0}
    rectified: false
    reliability: reliable
    time_offset_s: -0.01
    intrinsics:
      width: 640
      height: 400
      matrix: [320.0, 321.0, 319.5, 199.5]
      distortion_model: plumb_bob
      distortion: [-0.1, 0.01, 0.0, 0.0, 0.0]
"""


def slot(name: str, required: bool, fov: float, yaw: float) -> CameraSlot:
    return CameraSlot(
        name=name,
        required=required,
        horizontal_fov_deg=fov,
        fov_range_deg=(0.9 * fov, 1.1 * fov),
        yaw_deg=yaw,
        yaw_tolerance_deg=10.0,
        pitch_range_deg=(-5.0, 5.0),
        x_range_m=(1.0, 2.5),
        y_range_m=(-1.0, 1.0),
        z_range_m=(1.0, 2.0),
    )


MANIFEST = BundleManifest(
    bundle_id="test-1",
    slots=(slot("front", True, 60.0, 0.0), slot("left", False, 80.0, 55.0)),
    views=(View("front"), View("left"), View("front", -0.5)),
    image_width=256,
    image_height=128,
    horizon_s=4.0,
    knot_interval_s=0.5,
    num_candidates=4,
    base_frame_definition="rear axle centre on the ground",
    codebook_id=None,
    model={},
)
FRONT = CameraModel(256, 128, camera.pinhole_matrix(60.0, 256, 128), "", np.zeros(0))


def assert_rigs_equal(first: Rig, second: Rig) -> None:
    for one, two in zip(first.cameras, second.cameras, strict=True):
        left, right = vars(one) | {}, vars(two) | {}
        np.testing.assert_allclose(
            left.pop("ego_from_camera"), right.pop("ego_from_camera"), atol=1e-9
        )
        models = [vars(model) | {} for model in (left.pop("model"), right.pop("model")) if model]
        for name in ("matrix", "distortion"):
            np.testing.assert_array_equal(*(model.pop(name) for model in models))
        assert models[0] == models[1]
        assert left == right
    assert replace(first, cameras=second.cameras) == second


def test_a_rig_file_says_what_it_says() -> None:
    rig = parse_rig(TEXT)
    assert (rig.name, rig.base_frame, rig.reference_camera) == ("demo", "base_link", "front")
    assert (rig.odometry_child_frame, rig.base_from_twist) == ("imu_link", (1.2, 0.0, 0.1))
    front, left = rig.cameras
    assert front.model is None
    assert front.rectified
    assert front.reliability == "best_effort"
    assert (left.message_type, left.reliability, left.time_offset_s) == ("raw", "reliable", -0.01)
    assert left.model is not None
    assert left.model.matrix.tolist() == [[320, 0, 319.5], [0, 321, 199.5], [0, 0, 1]]
    assert mounting_angles_deg(left.ego_from_camera) == pytest.approx((55.0, 3.0, 0.0))


def test_the_base_frame_is_the_odometrys_unless_said_otherwise() -> None:
    document = yaml.safe_load(TEXT)
    del document["odometry"]
    assert parse_rig(yaml.safe_dump(document)).odometry_child_frame == "base_link"


@given(
    st.tuples(st.floats(-9, 9), st.floats(-9, 9), st.floats(-9, 9)),
    st.tuples(st.floats(-3.14, 3.14), st.floats(-1.57, 1.57), st.floats(-3.14, 3.14)),
    st.booleans(),
)
def test_a_rig_reads_back_equal(
    xyz: tuple[float, float, float], angles: tuple[float, float, float], info: bool
) -> None:
    mounted = RigCamera(
        slot="front",
        topic="/a",
        camera_info_topic="/info" if info else None,
        message_type="raw",
        frame_id="f",
        ego_from_camera=se3.camera_mount(xyz, *angles),
        time_offset_s=0.02,
        model=FRONT,
    )
    rig = Rig("r", "base_link", "front", (mounted,))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rig.yaml"
        save_rig(rig, path)
        assert_rigs_equal(load_rig(path), rig)


@given(st.floats(-3, 3), st.floats(-1.5, 1.5), st.floats(-3, 3))
def test_mounting_angles_undo_the_mounting(yaw: float, pitch: float, roll: float) -> None:
    found = np.deg2rad(mounting_angles_deg(se3.camera_mount((0, 0, 0), yaw, pitch, roll)))
    rebuilt = se3.camera_mount((0, 0, 0), *found)
    np.testing.assert_allclose(rebuilt, se3.camera_mount((0, 0, 0), yaw, pitch, roll), atol=1e-9)


def edited(path: str, value: object) -> str:
    """The text with one key set (``None``: removed); dots walk into mappings."""
    document = yaml.safe_load(TEXT)
    *parents, last = path.split(".")
    node = document
    for key in parents:
        node = node[key]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return yaml.safe_dump(document)


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("base_frame", None, "rig.base_frame"),
        ("base_frame", "", "rig.base_frame"),
        ("speed", 3, "rig.speed"),
        ("cameras", {}, "rig.cameras"),
        ("cameras", [1], "rig.cameras"),
        ("reference_camera", "rear", "rig.reference_camera"),
        ("odometry.base_from_twist", [1.0], "rig.odometry.base_from_twist"),
        ("cameras.front", 3, "rig.cameras[front]"),
        ("cameras.front.topic", None, "rig.cameras[front].topic"),
        ("cameras.front.topik", "/a", "rig.cameras[front].topik"),
        ("cameras.front.message_type", "h264", "rig.cameras[front].message_type"),
        ("cameras.front.reliability", "sure", "rig.cameras[front].reliability"),
        ("cameras.front.rectified", "yes", "rig.cameras[front].rectified"),
        ("cameras.front.mount", None, "rig.cameras[front]"),
        ("cameras.front.mount.xyz", [1, 2, "a"], "rig.cameras[front].mount.xyz"),
        ("cameras.front.mount.xyz", [1, 2, float("nan")], "rig.cameras[front].mount.xyz"),
        ("cameras.front.camera_info_topic", None, "rig.cameras[front]"),
        ("cameras.left.time_offset_s", 4.0, "rig.cameras[left].time_offset_s"),
        ("cameras.left.intrinsics.width", 0, "rig.cameras[left].intrinsics.width"),
        ("cameras.left.intrinsics.distortion", [1.0], "camera[left].distortion"),
        ("cameras.left.intrinsics.distortion_model", "omni", "camera[left].distortion_model"),
        ("cameras.left.intrinsics.matrix", [0, 1, 1, 1], "camera[left].matrix"),
        ("cameras.left.ego_from_camera", [[1, 0, 0, 0]], "rig.cameras[left]"),
    ],
)
def test_a_mistake_is_named(path: str, value: object, field: str) -> None:
    with pytest.raises(ContractError) as raised:
        parse_rig(edited(path, value))
    assert raised.value.field == field


@pytest.mark.parametrize("scale", [2.0, -1.0])
def test_a_transform_that_is_not_rigid_is_named(scale: float) -> None:
    document = yaml.safe_load(TEXT)
    del document["cameras"]["front"]["mount"]
    document["cameras"]["front"]["ego_from_camera"] = np.diag([scale, 1.0, 1.0, 1.0]).tolist()
    with pytest.raises(ContractError, match=r"rig.cameras\[front\].ego_from_camera.*rigid"):
        parse_rig(yaml.safe_dump(document))


def test_a_missing_file_and_bad_yaml_are_named(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"nowhere\.yaml"):
        load_rig(tmp_path / "nowhere.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(ContractError, match="valid YAML"):
        load_rig(tmp_path / "bad.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ContractError, match=r"binary\.yaml"):
        load_rig(tmp_path / "binary.yaml")


@given(st.text(max_size=200))
def test_random_text_is_refused_by_name(text: str) -> None:
    with pytest.raises(ContractError):
        parse_rig(text)


leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.sampled_from(
        [
            "name",
            "cameras",
            "odometry",
            "odometry.base_from_twist",
            "cameras.left",
            "cameras.left.mount",
            "cameras.left.mount.xyz",
            "cameras.left.intrinsics",
            "cameras.left.intrinsics.matrix",
            "cameras.left.intrinsics.distortion",
            "cameras.left.time_offset_s",
            "cameras.left.message_type",
        ]
    ),
    values,
)
def test_any_value_anywhere_is_taken_or_refused_by_name(path: str, value: object) -> None:
    try:
        parse_rig(edited(path, value))
    except ContractError as error:
        assert error.field


def rig(**front: object) -> Rig:
    mounted = RigCamera(
        slot="front",
        topic="/a",
        camera_info_topic="/i",
        message_type="raw",
        frame_id="f",
        ego_from_camera=se3.camera_mount((1.8, 0.0, 1.6), 0.0),
    )
    return Rig("r", "base_link", "front", (replace(mounted, **front),))  # type: ignore[arg-type]


def test_a_rig_within_the_envelope_passes() -> None:
    check_rig(rig(), MANIFEST)
    check_rig(rig(), MANIFEST, {"front": FRONT})


def test_a_wider_camera_passes_because_it_is_cropped() -> None:
    wide = CameraModel(1600, 900, camera.pinhole_matrix(100.0, 1600, 900), "", np.zeros(0))
    check_rig(rig(), MANIFEST, {"front": wide})


@pytest.mark.parametrize(
    ("mounting", "bound"),
    [
        (((1.8, 0.0, 1.6), 0.3), "yaw_deg"),
        (((1.8, 0.0, 1.6), 3.0), "yaw_deg"),
        (((1.8, 0.0, 1.6), 0.0, 0.2), "pitch_deg"),
        (((1.8, 0.0, 1.6), 0.0, 0.0, 3.1), "roll_deg"),
        (((3.8, 0.0, 1.6), 0.0), "x_m"),
        (((1.8, 1.5, 1.6), 0.0), "y_m"),
        (((1.8, 0.0, 2.6), 0.0), "z_m"),
    ],
)
def test_a_camera_outside_the_envelope_names_its_bound(
    mounting: tuple[object, ...], bound: str
) -> None:
    outside = rig(ego_from_camera=se3.camera_mount(*mounting))  # type: ignore[arg-type]
    with pytest.raises(ContractError) as raised:
        check_rig(outside, MANIFEST)
    assert raised.value.field == f"rig.cameras[front].{bound}"


def test_a_narrow_camera_names_its_field_of_view() -> None:
    narrow = CameraModel(256, 128, camera.pinhole_matrix(30.0, 256, 128), "", np.zeros(0))
    with pytest.raises(ContractError, match=r"camera\[front\].horizontal_fov_deg.*54 \.\.\. 66"):
        check_rig(rig(), MANIFEST, {"front": narrow})
    with pytest.raises(ContractError, match=r"camera\[front\].horizontal_fov_deg"):
        check_rig(rig(model=narrow), MANIFEST, {"front": FRONT})


def test_a_required_camera_must_be_there_and_an_optional_need_not() -> None:
    left_only = Rig("r", "base_link", "left", (replace(rig().cameras[0], slot="left"),))
    with pytest.raises(ContractError, match="requires"):
        check_rig(left_only, MANIFEST)
    rear = Rig("r", "base_link", "rear", (replace(rig().cameras[0], slot="rear"),))
    with pytest.raises(ContractError, match=r"rig\.reference_camera"):
        check_rig(rear, MANIFEST)
