"""Pixel conventions, intrinsics after crop and resize, rectification against OpenCV's own model."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentvla_ros.contract import CameraModel, ContractError
from latentvla_ros.geometry import camera

DISTORTIONS = [
    ("plumb_bob", [-0.3, 0.1, 0.001, -0.001, 0.0]),
    ("rational_polynomial", [0.1, 0.01, 0.0, 0.0, 0.0, 0.2, 0.01, 0.0]),
    ("equidistant", [0.02, -0.01, 0.002, 0.0]),
]


def model(kind: str, coefficients: list[float], fov_deg: float = 90.0) -> CameraModel:
    matrix = camera.pinhole_matrix(fov_deg, 640, 400)
    return CameraModel(640, 400, matrix, kind, np.array(coefficients))


@given(st.floats(20, 130), st.integers(16, 4000), st.integers(16, 3000))
def test_field_of_view_round_trip(fov_deg: float, width: int, height: int) -> None:
    matrix = camera.pinhole_matrix(fov_deg, width, height)
    assert camera.horizontal_fov_deg(matrix, width) == pytest.approx(fov_deg)


@given(
    st.floats(-20, 20),
    st.floats(-20, 20),
    st.floats(0.1, 100),
    st.floats(100, 2000),
    st.floats(0, 9),
)
def test_pixel_rays_undo_projection(x: float, y: float, z: float, f: float, skew: float) -> None:
    matrix = np.array([[f, skew, 320.0], [0.0, 1.1 * f, 200.0], [0.0, 0.0, 1.0]])
    pixels, visible = camera.project(matrix, np.array([x, y, z]))
    assert visible
    ray = camera.pixel_rays(matrix, pixels)
    np.testing.assert_allclose(ray * z, [x, y, z], atol=1e-6)


def test_points_behind_the_camera_are_invisible() -> None:
    pixels, visible = camera.project(np.eye(3), np.array([[0.0, 0.0, -1.0], [0.0, 0.0, 1.0]]))
    assert visible.tolist() == [False, True]
    assert np.isnan(pixels[0]).all()


@given(st.integers(0, 40), st.integers(0, 30), st.sampled_from([0.25, 0.5, 2.0, 3.0]))
def test_crop_and_resize_keep_what_a_pixel_edge_sees(x0: int, y0: int, scale: float) -> None:
    """The corner of the cropped, resized image sees what the corner of the crop saw."""
    matrix = camera.pinhole_matrix(70.0, 160, 120)
    corner = camera.pixel_rays(matrix, np.array([x0 - 0.5, y0 - 0.5]))
    cropped = camera.resize_intrinsics(camera.crop_intrinsics(matrix, x0, y0), scale, scale)
    np.testing.assert_allclose(camera.pixel_rays(cropped, np.array([-0.5, -0.5])), corner)


def test_resize_convention_is_that_of_opencv() -> None:
    """A blob's centre moves as ``resize_intrinsics`` says when cv2 shrinks the picture."""
    image = np.zeros((120, 160), np.float32)
    image[40:44, 100:104] = 1.0  # centre (101.5, 41.5)
    small = cv2.resize(image, (40, 30), interpolation=cv2.INTER_AREA)
    rows, columns = np.indices(small.shape)
    centre = ((columns * small).sum() / small.sum(), (rows * small).sum() / small.sum())
    scaled = camera.resize_intrinsics([[1.0, 0, 101.5], [0, 1.0, 41.5], [0, 0, 1]], 0.25, 0.25)
    assert centre == pytest.approx((scaled[0, 2], scaled[1, 2]), abs=1e-4)


@pytest.mark.parametrize(("kind", "coefficients"), DISTORTIONS)
def test_rectification_makes_projected_points_land_where_a_pinhole_sees_them(
    kind: str, coefficients: list[float]
) -> None:
    """Draw dots where the distorted camera sees 3-D points; the view must show them undistorted."""
    source = model(kind, coefficients)
    matrix = camera.pinhole_matrix(60.0, 256, 128)
    expected = np.array([[40.0, 30.0], [128.0, 64.0], [220.0, 100.0], [30.0, 110.0]])
    maps = camera.rectification_maps(source, 1.0, matrix, 256, 128)
    for pixel in expected:
        where = camera.distort(source, camera.pixel_rays(matrix, pixel[None]))[0]
        columns, rows = np.meshgrid(np.arange(640), np.arange(400))
        squared = (columns - where[0]) ** 2 + (rows - where[1]) ** 2
        dot = np.exp(-squared / (2 * 3.0**2)).astype(np.float32)
        view = cv2.remap(dot, maps[0], maps[1], cv2.INTER_LINEAR)
        view[view < 0.2] = 0.0
        ys, xs = np.indices(view.shape)
        found = ((xs * view).sum() / view.sum(), (ys * view).sum() / view.sum())
        assert found == pytest.approx(tuple(pixel), abs=0.25)


@pytest.mark.parametrize(("kind", "coefficients"), DISTORTIONS)
def test_widest_pinhole_is_filled_and_no_wider_one_would_be(
    kind: str, coefficients: list[float]
) -> None:
    source = model(kind, coefficients)
    matrix, fov_deg = camera.widest_pinhole(source, 64, 32, 140.0)
    border = np.array([(u, v) for u in range(64) for v in (0, 31)] + [(0, 16), (63, 16)], float)
    pixels = camera.distort(source, camera.pixel_rays(matrix, border))
    assert pixels.min() >= -0.5
    assert (pixels <= [639.5, 399.5]).all()
    wider = camera.pinhole_matrix(fov_deg + 0.5, 64, 32)
    pixels = camera.distort(source, camera.pixel_rays(wider, border))
    assert not ((pixels >= -0.5) & (pixels <= [639.5, 399.5])).all()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"distortion_model": "omni"}, "camera[left].distortion_model"),
        ({"distortion": np.zeros(3)}, "camera[left].distortion"),
        ({"distortion": np.full(5, np.nan)}, "camera[left].distortion"),
        ({"matrix": np.zeros((3, 3))}, "camera[left].matrix"),
        ({"matrix": np.full((3, 3), np.nan)}, "camera[left].matrix"),
        ({"width": 0}, "camera[left].size"),
    ],
)
def test_an_unusable_camera_is_named(change: dict[str, object], field: str) -> None:
    values: dict[str, object] = {
        "width": 640,
        "height": 400,
        "matrix": camera.pinhole_matrix(90.0, 640, 400),
        "distortion_model": "plumb_bob",
        "distortion": np.zeros(5),
    }
    broken = CameraModel(**(values | change))  # type: ignore[arg-type]
    with pytest.raises(ContractError) as raised:
        camera.check_camera_model(broken, rectified=False, name="left")
    assert raised.value.field == field
