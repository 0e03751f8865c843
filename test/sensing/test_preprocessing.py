"""One preprocessing: identity where it should be, the same view by every route, true intrinsics."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentvla_ros.contract import CameraModel, CameraSlot, ContractError
from latentvla_ros.geometry import camera
from latentvla_ros.sensing.image_decoding import (
    CompressedImage,
    ImageError,
    RawImage,
    decode_compressed,
)
from latentvla_ros.sensing.preprocessing import ViewPreprocessor

DISTORTIONS = {
    "": [],
    "plumb_bob": [-0.3, 0.1, 0.001, -0.001, 0.0],
    "rational_polynomial": [0.1, 0.01, 0.0, 0.0, 0.0, 0.2, 0.01, 0.0],
    "equidistant": [0.02, -0.01, 0.002, 0.0],
}


def model(width: int, height: int, fov_deg: float, kind: str = "") -> CameraModel:
    matrix = camera.pinhole_matrix(fov_deg, width, height)
    return CameraModel(width, height, matrix, kind, np.array(DISTORTIONS[kind]))


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """A smooth colourful picture with some structure, as a camera would see."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 20 + 2, width // 20 + 2, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))


def jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()


def blank(width: int = 256, height: int = 128) -> np.ndarray:
    return np.full((height, width, 3), 77, np.uint8)


def test_a_view_sized_image_passes_untouched_by_every_route() -> None:
    """The world's cameras, a bag of them and the car must give the network the very same bytes."""
    image = decode_compressed(jpeg(picture(256, 128)), "jpeg")
    source = model(256, 128, 60.0)
    view = ViewPreprocessor(source, True, 256, 128, horizontal_fov_deg=60.0)
    assert view.identity
    np.testing.assert_array_equal(view.intrinsics, source.matrix.astype(np.float32))
    data = jpeg(picture(256, 128))
    called, from_jpeg, written, raw = blank(), blank(), blank(), blank()
    view(image, called)
    view.from_jpeg(data, from_jpeg)
    view.write(CompressedImage(data), written)
    view.write(RawImage(image.tobytes(), "rgb8", 256, 128, 768), raw)
    for out in (called, from_jpeg, written, raw):
        np.testing.assert_array_equal(out, image)


@pytest.mark.parametrize("kind", DISTORTIONS)
@pytest.mark.parametrize("size", [(640, 400), (1600, 900), (1936, 1216), (513, 259), (300, 200)])
def test_reduced_decoding_differs_little_from_full_decoding(
    kind: str, size: tuple[int, int]
) -> None:
    view = ViewPreprocessor(model(*size, 75.0, kind), kind == "", 256, 128, horizontal_fov_deg=60)
    data = jpeg(picture(*size))
    reduced, full = blank(), blank()
    view.from_jpeg(data, reduced)
    view(decode_compressed(data, "jpeg"), full)
    difference = np.abs(reduced.astype(int) - full)
    assert difference.mean() < 1.5
    assert difference.max() <= 24
    if view.reduction == 1:
        np.testing.assert_array_equal(reduced, full)


@settings(max_examples=25)
@given(
    st.sampled_from([(640, 400), (1280, 960), (1600, 900), (257, 199)]),
    st.floats(62.0, 110.0),
    st.sampled_from(list(DISTORTIONS)),
    st.floats(-20, 20),
    st.floats(-20, 20),
)
def test_intrinsics_say_where_a_point_appears(
    size: tuple[int, int], fov_deg: float, kind: str, dx: float, dy: float
) -> None:
    """Paint the published image by viewing ray; every pixel of the view must show its own ray."""
    source = model(*size, fov_deg, kind)
    source.matrix[0, 2] += dx
    source.matrix[1, 2] += dy
    view = ViewPreprocessor(source, kind == "", 256, 128, horizontal_fov_deg=60.0)
    # A target of concentric colour: brightness is the angle to a ray that the view contains.
    pixel = np.array([[180.0, 40.0]])
    ray = camera.pixel_rays(view.intrinsics, pixel)
    if kind == "":
        where = camera.project(source.matrix, ray)[0][0]
    else:
        where = camera.distort(source, ray)[0]
    columns, rows = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    spread = 4.0 * max(view.reduction, source.matrix[0, 0] / view.intrinsics[0, 0], 1.0)
    dot = np.exp(-((columns - where[0]) ** 2 + (rows - where[1]) ** 2) / (2 * spread**2))
    out = blank()
    view(np.repeat(np.rint(255 * dot).astype(np.uint8)[..., None], 3, axis=2), out)
    weight = np.where(out[..., 0] > 60, out[..., 0], 0).astype(float)
    ys, xs = np.indices(weight.shape)
    found = ((xs * weight).sum() / weight.sum(), (ys * weight).sum() / weight.sum())
    assert found == pytest.approx((180.0, 40.0), abs=0.35)


def test_a_wider_camera_is_cropped_to_the_trained_field_of_view() -> None:
    view = ViewPreprocessor(model(1600, 900, 100.0), True, 256, 128, horizontal_fov_deg=60.0)
    assert view.horizontal_fov_deg == pytest.approx(60.0, abs=0.5)
    whole = ViewPreprocessor(model(1600, 900, 100.0), True, 256, 128)
    assert whole.horizontal_fov_deg == pytest.approx(100.0, abs=0.01)


def test_a_field_of_view_within_the_slack_is_not_cropped() -> None:
    view = ViewPreprocessor(model(256, 128, 60.8), True, 256, 128, horizontal_fov_deg=60.0)
    assert view.identity


def test_sixteen_by_nine_is_cropped_and_not_squeezed() -> None:
    view = ViewPreprocessor(model(1600, 900, 60.0), True, 256, 128)
    assert view.intrinsics[0, 0] == pytest.approx(view.intrinsics[1, 1])
    assert view.horizontal_fov_deg == pytest.approx(60.0, abs=0.01)


@pytest.mark.parametrize("kind", ["plumb_bob", "rational_polynomial", "equidistant"])
def test_a_rectified_view_has_no_empty_border(kind: str) -> None:
    view = ViewPreprocessor(model(640, 400, 70.0, kind), False, 256, 128)
    out = blank()
    view(np.full((400, 640, 3), 255, np.uint8), out)
    assert out.min() > 250


def test_a_distorted_image_marked_rectified_is_not_remapped() -> None:
    source = model(256, 128, 60.0, "plumb_bob")
    assert ViewPreprocessor(source, True, 256, 128).identity
    assert not ViewPreprocessor(source, False, 256, 128).identity


def test_zero_distortion_needs_no_remapping() -> None:
    source = CameraModel(256, 128, camera.pinhole_matrix(60, 256, 128), "plumb_bob", np.zeros(5))
    assert ViewPreprocessor(source, False, 256, 128).identity
    fisheye = CameraModel(256, 128, camera.pinhole_matrix(60, 256, 128), "equidistant", np.zeros(4))
    assert not ViewPreprocessor(fisheye, False, 256, 128).identity


def test_unsupported_distortion_names_the_camera() -> None:
    source = CameraModel(64, 32, np.eye(3), "omni", np.zeros(4))
    with pytest.raises(ContractError, match=r"camera\[left\].distortion_model.*'omni'"):
        ViewPreprocessor(source, False, 64, 32, name="left")


def test_a_camera_narrower_than_the_slot_is_named() -> None:
    slot = CameraSlot(
        "front",
        True,
        60.0,
        (54.0, 66.0),
        0.0,
        5.0,
        (-5.0, 5.0),
        (0.0, 3.0),
        (-1.0, 1.0),
        (1.0, 2.0),
    )
    assert ViewPreprocessor.for_slot(slot, model(256, 128, 60.0), True, 256, 128).identity
    with pytest.raises(ContractError, match=r"camera\[front\].horizontal_fov_deg: found 40"):
        ViewPreprocessor.for_slot(slot, model(256, 128, 40.0), True, 256, 128)
    with pytest.raises(ContractError, match="crop"):
        ViewPreprocessor.for_slot(slot, model(640, 128, 40.0, "equidistant"), False, 256, 128)


def test_an_image_of_another_size_is_refused_before_it_is_decoded() -> None:
    view = ViewPreprocessor(model(640, 400, 75.0), True, 256, 128)
    out = blank()
    broken = jpeg(picture(256, 128))[:300]
    for call in (
        lambda: view(picture(256, 128), out),
        lambda: view.from_jpeg(jpeg(picture(256, 128)), out),
        lambda: view.from_jpeg(broken + bytes(400), out),
    ):
        with pytest.raises(ImageError) as raised:
            call()
        assert raised.value.cause in ("wrong_size", "corrupt")
    assert (out == 77).all()


def test_a_wrong_buffer_is_a_programming_error() -> None:
    view = ViewPreprocessor(model(256, 128, 60.0), True, 256, 128)
    for out in (blank(128, 128), blank().astype(np.float32), blank(512, 128)[:, ::2]):
        with pytest.raises(ValueError, match="out"):
            view(picture(256, 128), out)


def test_the_view_is_written_into_the_callers_buffer() -> None:
    buffers = np.zeros((3, 128, 256, 3), np.uint8)
    for index, (size, kind) in enumerate([((640, 400), ""), ((640, 400), "plumb_bob")]):
        view = ViewPreprocessor(model(*size, 75.0, kind), kind == "", 256, 128)
        view.from_jpeg(jpeg(picture(*size)), buffers[index])
        assert buffers[index].std() > 10
    assert (buffers[2] == 0).all()


def test_a_small_lamp_does_not_alias_away() -> None:
    """A 4 px lamp in a 6x larger image keeps its share of light wherever it falls."""
    view = ViewPreprocessor(model(1536, 768, 60.0), True, 256, 128)
    light = []
    for shift in range(6):
        image = np.zeros((768, 1536, 3), np.uint8)
        image[300:304, 700 + shift : 704 + shift] = 255
        out = blank()
        view(image, out)
        light.append(float(out.sum()))
    assert min(light) > 0.6 * max(light)


@given(st.binary(max_size=200), st.booleans())
def test_random_payloads_name_a_cause(data: bytes, as_jpeg: bool) -> None:
    view = ViewPreprocessor(model(256, 128, 60.0), True, 256, 128)
    with pytest.raises(ImageError):
        view.write(CompressedImage((b"\xff\xd8" if as_jpeg else b"") + data), blank())
