"""Frames to observation: right pixels in the right view, every view placed at its own time."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentvla_ros.contract import (
    BundleManifest,
    CameraModel,
    CameraSlot,
    Command,
    ContractError,
    Rig,
    RigCamera,
    View,
)
from latentvla_ros.geometry import camera, se2, se3
from latentvla_ros.sensing.ego_motion_buffer import EgoMotionBuffer, OdometryStale, WarmingUp
from latentvla_ros.sensing.image_decoding import CompressedImage, ImageError
from latentvla_ros.sensing.observation_builder import (
    BUFFERS,
    CameraFrame,
    ObservationBuilder,
    compensated_extrinsics,
)
from latentvla_ros.sensing.preprocessing import ViewPreprocessor

T0 = 5_000_000_000_000
MS = 1_000_000
TWIST = (9.0, 0.0, 0.25)
WIDTH, HEIGHT = 64, 32
FOV = {"front": 60.0, "left": 90.0}


def slot(name: str, required: bool) -> CameraSlot:
    return CameraSlot(
        name, required, FOV[name], (30.0, 120.0), 0.0, 90.0, (-9, 9), (-9, 9), (-9, 9), (-9, 9)
    )


MANIFEST = BundleManifest(
    bundle_id="t",
    slots=(slot("front", True), slot("left", False)),
    views=(View("front"), View("left"), View("front", -0.5)),
    image_width=WIDTH,
    image_height=HEIGHT,
    horizon_s=4.0,
    knot_interval_s=0.5,
    num_candidates=4,
    base_frame_definition="rear axle",
    codebook_id=None,
    model={},
)


def mounted(name: str, xyz: tuple[float, float, float], yaw: float) -> RigCamera:
    return RigCamera(name, f"/{name}", None, "raw", name, se3.camera_mount(xyz, yaw))


RIG = Rig(
    "r",
    "base_link",
    "front",
    (mounted("front", (1.8, 0, 1.6), 0), mounted("left", (1.6, 0.5, 1.6), 1)),
)


def preprocessors() -> dict[str, ViewPreprocessor]:
    return {
        name: ViewPreprocessor(
            CameraModel(WIDTH, HEIGHT, camera.pinhole_matrix(fov, WIDTH, HEIGHT), "", np.zeros(0)),
            True,
            WIDTH,
            HEIGHT,
            name=name,
        )
        for name, fov in FOV.items()
    }


def odometry(until_ms: float = 3000.0) -> EgoMotionBuffer:
    """A steady turn at 50 Hz: pose at time t is the exponential of the twist."""
    buffer = EgoMotionBuffer()
    for index in range(int(until_ms / 20) + 1):
        buffer.add(T0 + index * 20 * MS, se2.exponential(*TWIST, index * 0.02), TWIST)
    return buffer


def builder() -> ObservationBuilder:
    return ObservationBuilder(MANIFEST, RIG, preprocessors())


def shade(value: int) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), value, np.uint8)


def frame(time_ms: float, value: int) -> CameraFrame:
    return CameraFrame(T0 + round(time_ms * MS), shade(value))


def ego_at(time_ms: float) -> np.ndarray:
    return se2.exponential(*TWIST, time_ms * 1e-3)


def test_every_view_shows_its_own_frame_from_its_own_place() -> None:
    build, buffer = builder(), odometry()
    build.build(
        {"front": frame(2003, 11), "left": frame(2011, 12)}, buffer, T0 + 2003 * MS, Command.LEFT
    )
    frames = {"front": frame(2503, 21), "left": frame(2491, 22)}
    observation = build.build(frames, buffer, T0 + 2503 * MS, Command.LEFT)
    assert [int(view.mean()) for view in observation.images] == [21, 22, 11]
    assert observation.view_mask.all()
    assert build.view_stamps_ns == (T0 + 2503 * MS, T0 + 2491 * MS, T0 + 2003 * MS)
    for index, (time_ms, name) in enumerate([(2503, "front"), (2491, "left"), (2003, "front")]):
        moved = se3.from_se2(se2.relative(ego_at(2503), ego_at(time_ms)))
        mounting = RIG.camera(name)
        assert mounting is not None
        np.testing.assert_allclose(
            observation.ego_from_camera[index], moved @ mounting.ego_from_camera, atol=1e-4
        )
        focal = camera.pinhole_matrix(FOV[name], WIDTH, HEIGHT)[0, 0]
        assert observation.intrinsics[index, 0, 0] == pytest.approx(focal)
    assert observation.stamp_ns == T0 + 2503 * MS
    assert observation.command.tolist() == [1, 0, 0, 0]
    np.testing.assert_allclose(
        observation.ego_history[0], se2.relative(ego_at(2503), ego_at(1003)), atol=1e-4
    )
    assert observation.ego_dynamics[:5] == pytest.approx([9.0, 0.0, 0.25, 0.0, 2.25], abs=1e-3)


@given(st.integers(-80, 80), st.tuples(st.floats(5, 50), st.floats(-20, 20), st.floats(0, 3)))
def test_a_still_point_projects_alike_whenever_the_camera_fired(
    skew_ms: int, point: tuple[float, float, float]
) -> None:
    """A point fixed in the world, seen by a skewed camera, lies where its extrinsics say."""
    buffer, mounting = odometry(), RIG.cameras[0].ego_from_camera
    t0, stamp = T0 + 2500 * MS, T0 + (2500 + skew_ms) * MS
    ego_from_camera = compensated_extrinsics(buffer, t0, stamp, mounting)
    world = se3.transform_points(se3.from_se2(ego_at(2500)), np.array([point]))
    seen = se3.transform_points(se3.inverse(se3.from_se2(ego_at(2500 + skew_ms)) @ mounting), world)
    believed = se3.transform_points(se3.inverse(ego_from_camera), np.array([point]))
    np.testing.assert_allclose(believed, seen, atol=2e-3)


def test_a_missing_optional_camera_is_zero_and_masked() -> None:
    build = builder()
    build.build(
        {"front": frame(2000, 1), "left": frame(2000, 200)},
        odometry(),
        T0 + 2000 * MS,
        Command.UNKNOWN,
    )
    for _ in range(BUFFERS):
        observation = build.build(
            {"front": frame(2500, 9)}, odometry(), T0 + 2500 * MS, Command.UNKNOWN
        )
    assert observation.view_mask.tolist() == [True, False, True]
    assert not observation.images[1].any()
    np.testing.assert_array_equal(observation.ego_from_camera[1], np.eye(4))


def test_a_past_view_is_masked_until_one_is_near_enough() -> None:
    build, buffer = builder(), odometry()
    masks = []
    for time_ms in (1600, 1850, 2000, 2250, 2501):
        observation = build.build(
            {"front": frame(time_ms, 5)}, buffer, T0 + time_ms * MS, Command.STRAIGHT
        )
        masks.append(bool(observation.view_mask[2]))
    # Nearest to -0.5 s: none, none, 1600 (100 ms off), 1850 (100 ms off), 2000.
    assert masks == [False, False, True, True, True]
    assert build.drops == {"no_past_front": 2}
    build.clear()
    observation = build.build({"front": frame(2600, 5)}, buffer, T0 + 2600 * MS, Command.STRAIGHT)
    assert not observation.view_mask[2]


def test_frames_may_be_remembered_without_an_observation() -> None:
    build = builder()
    build.remember("front", frame(2000, 33))
    build.remember("left", frame(2000, 34))
    observation = build.build(
        {"front": frame(2500, 5)}, odometry(), T0 + 2500 * MS, Command.STRAIGHT
    )
    assert observation.view_mask.tolist() == [True, False, True]
    assert int(observation.images[2].mean()) == 33


def test_a_corrupt_optional_image_is_masked_and_a_required_one_refused() -> None:
    build, buffer = builder(), odometry()
    broken = CameraFrame(T0 + 2000 * MS, CompressedImage(b"\xff\xd8 no picture"))
    observation = build.build(
        {"front": frame(2000, 1), "left": broken}, buffer, T0 + 2000 * MS, Command.STRAIGHT
    )
    assert observation.view_mask.tolist() == [True, False, False]
    assert build.drops["corrupt_left"] == 1
    with pytest.raises(ImageError, match="'front'") as raised:
        build.build({"front": broken}, buffer, T0 + 2000 * MS, Command.STRAIGHT)
    assert raised.value.cause == "corrupt"
    with pytest.raises(ImageError, match="required camera 'front'"):
        build.build({}, buffer, T0 + 2000 * MS, Command.STRAIGHT)
    # Good input again: nothing of the failures lingers.
    observation = build.build({"front": frame(2040, 3)}, buffer, T0 + 2040 * MS, Command.STRAIGHT)
    assert observation.view_mask[0]


def test_odometry_faults_come_through() -> None:
    with pytest.raises(WarmingUp):
        builder().build({"front": frame(100, 1)}, odometry(), T0 + 100 * MS, Command.LEFT)
    with pytest.raises(OdometryStale):
        builder().build({"front": frame(3200, 1)}, odometry(), T0 + 3200 * MS, Command.LEFT)


def test_images_stay_valid_while_the_next_are_built() -> None:
    build, buffer = builder(), odometry()
    built = [
        build.build(
            {"front": frame(2000 + 10 * i, i + 1)}, buffer, T0 + (2000 + 10 * i) * MS, Command.LEFT
        )
        for i in range(BUFFERS)
    ]
    assert [int(observation.images[0].mean()) for observation in built] == [1, 2, 3]


def test_a_rig_that_cannot_serve_is_named() -> None:
    with pytest.raises(ContractError, match=r"rig.cameras\[front\]"):
        ObservationBuilder(MANIFEST, RIG, {})
    wrong = preprocessors()
    wrong["left"] = ViewPreprocessor(
        CameraModel(64, 32, camera.pinhole_matrix(90, 64, 32), "", np.zeros(0)), True, 32, 16
    )
    with pytest.raises(ContractError, match=r"camera\[left\].view size"):
        ObservationBuilder(MANIFEST, RIG, wrong)
    with pytest.raises(ContractError, match=r"rig\.reference_camera"):
        ObservationBuilder(
            replace(MANIFEST, views=(View("front"),)),
            replace(RIG, reference_camera="left"),
            preprocessors(),
        )


def test_compressed_and_raw_frames_give_the_same_observation() -> None:
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (8, 16, 3), np.uint8), (WIDTH, HEIGHT))
    png = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    build, buffer = builder(), odometry()
    stamp = T0 + 2000 * MS
    first = build.build({"front": CameraFrame(stamp, image)}, buffer, stamp, Command.LEFT)
    second = build.build(
        {"front": CameraFrame(stamp, CompressedImage(png, "png"))}, buffer, stamp, Command.LEFT
    )
    for name, value in first.inputs().items():
        np.testing.assert_array_equal(value, second.inputs()[name])
