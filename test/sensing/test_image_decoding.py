"""Every encoding against a known picture; every broken message has a cause and nothing else."""

from __future__ import annotations

from array import array

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentvla_ros.sensing.image_decoding import (
    RAW_ENCODINGS,
    CompressedImage,
    ImageError,
    RawImage,
    decode,
    decode_compressed,
    decode_raw,
    jpeg_size,
)

#: Red, green, blue and grey quarters: every swap of channels or halves shows.
PICTURE = np.zeros((32, 48, 3), np.uint8)
PICTURE[:16, :24], PICTURE[:16, 24:] = (200, 30, 40), (20, 190, 50)
PICTURE[16:, :24], PICTURE[16:, 24:] = (30, 40, 210), (120, 120, 120)


def jpeg(image: np.ndarray = PICTURE, quality: int = 95) -> bytes:
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def png(image: np.ndarray = PICTURE) -> bytes:
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def packed_yuv(luma_first: bool) -> np.ndarray:
    yuv = cv2.cvtColor(PICTURE, cv2.COLOR_RGB2YUV).astype(int)
    # cv2's own YUV is full range; video YUV 4:2:2 is BT.601 limited range.
    r, g, b = (PICTURE[..., i].astype(float) for i in range(3))
    y = 16 + 0.257 * r + 0.504 * g + 0.098 * b
    u = 128 - 0.148 * r - 0.291 * g + 0.439 * b
    v = 128 + 0.439 * r - 0.368 * g - 0.071 * b
    out = np.empty((*yuv.shape[:2], 2), np.uint8)
    chroma = np.where(np.arange(48) % 2 == 0, u, v)
    out[..., 0 if luma_first else 1] = np.rint(y)
    out[..., 1 if luma_first else 0] = np.rint(chroma)
    return out


def semi_planar(v_first: bool) -> np.ndarray:
    packed = packed_yuv(luma_first=True)
    chroma = packed[::2, :, 1].reshape(16, 24, 2)
    if v_first:
        chroma = chroma[..., ::-1]
    return np.concatenate([packed[..., 0], chroma.reshape(16, 48)])


def bayer(pattern: str) -> np.ndarray:
    mosaic = np.empty(PICTURE.shape[:2], np.uint8)
    for index, channel in enumerate(pattern):
        row, column = divmod(index, 2)
        mosaic[row::2, column::2] = PICTURE[row::2, column::2, "rgb".index(channel)]
    return mosaic


SAMPLES: dict[str, np.ndarray] = {
    "rgb8": PICTURE,
    "bgr8": PICTURE[..., ::-1],
    "rgba8": np.dstack([PICTURE, np.full((32, 48), 255, np.uint8)]),
    "bgra8": np.dstack([PICTURE[..., ::-1], np.full((32, 48), 255, np.uint8)]),
    "yuv422": packed_yuv(luma_first=False),
    "uyvy": packed_yuv(luma_first=False),
    "yuv422_yuy2": packed_yuv(luma_first=True),
    "yuyv": packed_yuv(luma_first=True),
    "nv12": semi_planar(v_first=False),
    "nv21": semi_planar(v_first=True),
    "bayer_rggb8": bayer("rggb"),
    "bayer_bggr8": bayer("bggr"),
    "bayer_gbrg8": bayer("gbrg"),
    "bayer_grbg8": bayer("grbg"),
    "mono8": PICTURE[..., 0],
}


def quarters(image: np.ndarray) -> np.ndarray:
    """Mean colour inside each quarter, away from its edges: (4, 3)."""
    return np.array(
        [image[r : r + 8, c : c + 16].mean(axis=(0, 1)) for r in (4, 20) for c in (4, 28)]
    )


@pytest.mark.parametrize("encoding", SAMPLES)
@pytest.mark.parametrize("padding", [0, 7])
def test_raw_encodings(encoding: str, padding: int) -> None:
    pixels = SAMPLES[encoding].reshape(SAMPLES[encoding].shape[0], -1)
    rows = np.pad(pixels, ((0, 0), (0, padding)), constant_values=99)
    image = decode_raw(rows.tobytes(), encoding, 48, 32, rows.shape[1], False)
    assert image.shape == (32, 48, 3)
    assert image.dtype == np.uint8
    expected = PICTURE if encoding != "mono8" else np.repeat(PICTURE[..., :1], 3, axis=2)
    np.testing.assert_allclose(quarters(image), quarters(expected), atol=3)


@pytest.mark.parametrize("encoding", ["rgb16", "bgr16", "mono16"])
@pytest.mark.parametrize("big_endian", [False, True])
def test_sixteen_bits_are_scaled_to_eight(encoding: str, big_endian: bool) -> None:
    channels = PICTURE[..., ::-1] if encoding == "bgr16" else PICTURE
    if encoding == "mono16":
        channels = PICTURE[..., :1]
    wide = (channels.astype(np.uint16) * 257).astype(">u2" if big_endian else "<u2")
    step = wide.shape[1] * wide.shape[2] * 2
    image = decode_raw(wide.tobytes(), encoding, 48, 32, step, big_endian)
    expected = np.repeat(PICTURE[..., :1], 3, axis=2) if encoding == "mono16" else PICTURE
    np.testing.assert_array_equal(image, expected)


def test_every_encoding_of_the_table_is_tested() -> None:
    assert set(RAW_ENCODINGS) == {*SAMPLES, "rgb16", "bgr16", "mono16"}


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda data: array("B", data)])
def test_every_kind_of_buffer_is_read_in_place(wrap) -> None:  # type: ignore[no-untyped-def]
    np.testing.assert_array_equal(
        decode_raw(wrap(PICTURE.tobytes()), "rgb8", 48, 32, 144, False), PICTURE
    )
    np.testing.assert_array_equal(
        decode_compressed(wrap(jpeg()), "jpeg"), decode_compressed(jpeg(), "jpeg")
    )


def test_rgb_is_a_view_of_the_message() -> None:
    data = np.frombuffer(PICTURE.tobytes(), np.uint8)
    assert np.shares_memory(decode_raw(data, "rgb8", 48, 32, 144, False), data)


def test_compressed_images_decode_to_rgb() -> None:
    np.testing.assert_array_equal(decode_compressed(png(), "rgb8; png compressed"), PICTURE)
    image = decode_compressed(jpeg(), "bgr8; jpeg compressed bgr8")
    np.testing.assert_allclose(quarters(image), quarters(PICTURE), atol=4)
    assert jpeg_size(jpeg()) == (48, 32)


@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_reduced_decode_sees_the_same_picture(reduction: int) -> None:
    big = cv2.resize(PICTURE, (480, 320), interpolation=cv2.INTER_NEAREST)
    small = decode_compressed(jpeg(big), "jpeg", reduction)
    assert small.shape == (320 // reduction, 480 // reduction, 3)
    area = cv2.resize(big, small.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - area).mean() < 2.0


def test_an_exif_orientation_does_not_turn_the_picture() -> None:
    plain = jpeg()
    orientation = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    turned = plain[:2] + b"\xff\xe1" + (len(orientation) + 2).to_bytes(2, "big") + orientation
    np.testing.assert_array_equal(
        decode_compressed(turned + plain[2:], "jpeg"), decode_compressed(plain, "jpeg")
    )


def cause_of(call) -> str:  # type: ignore[no-untyped-def]
    with pytest.raises(ImageError) as raised:
        call()
    assert str(raised.value).startswith(raised.value.cause)
    return raised.value.cause


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
def test_a_truncated_picture_is_corrupt(share: float) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (64, 96, 3), np.uint8)
    for data in (jpeg(image), png(image)):
        part = data[: int(len(data) * share)]
        assert cause_of(lambda part=part: decode_compressed(part, "jpeg")) == "corrupt"


def test_a_thumbnail_does_not_hide_a_truncated_picture() -> None:
    """The thumbnail in the header ends properly; the picture itself does not."""
    plain = jpeg(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8))
    thumbnail = jpeg(quality=30)
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    whole = plain[:2] + segment + plain[2:]
    assert decode_compressed(whole, "jpeg").shape == (64, 96, 3)
    assert cause_of(lambda: decode_compressed(whole[:-300], "jpeg")) == "corrupt"


def test_padding_after_the_picture_is_allowed() -> None:
    np.testing.assert_array_equal(
        decode_compressed(jpeg() + b"\0" * 100, "jpeg"), decode_compressed(jpeg(), "jpeg")
    )


def test_named_causes_of_compressed_images() -> None:
    assert cause_of(lambda: decode_compressed(b"", "jpeg")) == "empty"
    assert cause_of(lambda: decode_compressed(b"GIF89a" + bytes(50), "gif")) == "unknown_encoding"
    assert cause_of(lambda: decode_compressed(jpeg()[:20], "jpeg")) == "corrupt"
    huge = bytearray(jpeg())
    frame = huge.find(b"\xff\xc0")
    huge[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    assert cause_of(lambda: decode_compressed(bytes(huge), "jpeg")) == "wrong_size"


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"encoding": "32FC1"}, "unknown_encoding"),
        ({"data": b""}, "empty"),
        ({"width": 0}, "empty"),
        ({"height": -1}, "empty"),
        ({"data": PICTURE.tobytes()[:-1]}, "corrupt"),
        ({"data": PICTURE.tobytes() + b"1"}, "corrupt"),
        ({"step": 100}, "corrupt"),
        ({"width": 49}, "corrupt"),
        ({"width": 10**9}, "wrong_size"),
        ({"encoding": "yuyv", "width": 47}, "wrong_size"),
        ({"encoding": "nv12", "height": 31}, "wrong_size"),
    ],
)
def test_named_causes_of_raw_images(change: dict[str, object], cause: str) -> None:
    values: dict[str, object] = {
        "data": PICTURE.tobytes(),
        "encoding": "rgb8",
        "width": 48,
        "height": 32,
        "step": 144,
    }
    assert cause_of(lambda: decode(RawImage(**(values | change)))) == cause


def test_decode_takes_every_payload() -> None:
    np.testing.assert_array_equal(decode(CompressedImage(png(), "png")), PICTURE)
    np.testing.assert_array_equal(decode(RawImage(PICTURE.tobytes(), "rgb8", 48, 32, 144)), PICTURE)
    assert decode(PICTURE) is PICTURE
    assert cause_of(lambda: decode(PICTURE.astype(np.float32))) == "corrupt"


@given(
    st.binary(max_size=400),
    st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", jpeg()[:300], png()[:40]]),
    st.sampled_from([b"", b"\xff\xd9", b"IEND\xaeB`\x82"]),
)
def test_random_bytes_decode_or_name_a_cause(body: bytes, head: bytes, tail: bytes) -> None:
    try:
        image = decode_compressed(head + body + tail, "jpeg")
    except ImageError:
        return
    assert image.ndim == 3


@given(st.data())
def test_a_damaged_jpeg_decodes_or_names_a_cause(data: st.DataObject) -> None:
    damaged = bytearray(jpeg())
    for _ in range(data.draw(st.integers(1, 8))):
        index = data.draw(st.integers(0, len(damaged) - 1))
        damaged[index] = data.draw(st.integers(0, 255))
    try:
        image = decode_compressed(bytes(damaged), "jpeg")
    except ImageError:
        return
    assert image.dtype == np.uint8


@given(
    st.binary(max_size=600),
    st.sampled_from([*RAW_ENCODINGS, "", "8UC3"]),
    st.integers(-2, 40),
    st.integers(-2, 40),
    st.integers(-5, 200),
    st.booleans(),
)
def test_random_raw_messages_decode_or_name_a_cause(
    data: bytes, encoding: str, width: int, height: int, step: int, big_endian: bool
) -> None:
    try:
        image = decode_raw(data, encoding, width, height, step, big_endian)
    except ImageError:
        return
    assert image.shape == (height, width, 3)


@given(st.sampled_from(list(RAW_ENCODINGS)), st.integers(1, 12), st.integers(1, 12), st.data())
def test_well_formed_raw_messages_of_any_size_decode_or_name_a_cause(
    encoding: str, width: int, height: int, data: st.DataObject
) -> None:
    layout = RAW_ENCODINGS[encoding]
    step = width * layout.channels * layout.bytes_per_channel + data.draw(st.integers(0, 5))
    buffer = bytes(step * (height * layout.rows_per_two // 2))
    try:
        image = decode_raw(buffer, encoding, width, height, step, False)
    except ImageError as error:
        assert error.cause in ("wrong_size", "empty")
        return
    assert image.shape == (height, width, 3)
