"""Bytes of a camera message to an RGB image, with one named cause for everything that can be wrong.

Nothing here copies the message's payload: ``bytes``, ``memoryview``, ``array.array`` and numpy
arrays are read in place. OpenCV decodes a truncated JPEG to a half-grey picture without an error,
so the end-of-image marker is checked first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
ImageFault = Literal["corrupt", "wrong_size", "unknown_encoding", "empty"]

#: Larger pictures are refused before anything is allocated for them.
MAX_PIXELS = 64_000_000

_JPEG_SOI, _JPEG_SOS, _JPEG_EOI = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"


class ImageError(ValueError):
    """An image that cannot be used.

    Attributes:
        cause: ``corrupt``, ``wrong_size``, ``unknown_encoding`` or ``empty``.
    """

    def __init__(self, cause: ImageFault, detail: str) -> None:
        super().__init__(f"{cause}: {detail}")
        self.cause: ImageFault = cause
        self.detail = detail


@dataclass(frozen=True)
class CompressedImage:
    """Payload of a sensor_msgs/CompressedImage: any buffer of bytes and the ``format`` text."""

    data: Any
    format: str = "jpeg"


@dataclass(frozen=True)
class RawImage:
    """Payload of a sensor_msgs/Image: any buffer of bytes and its layout."""

    data: Any
    encoding: str
    width: int
    height: int
    step: int
    is_bigendian: bool = False


def jpeg_size(data: Any) -> tuple[int, int]:
    """Return (width, height) from the frame header of a JPEG, without decoding it.

    Raises:
        ImageError: ``empty``; ``unknown_encoding`` (not a JPEG); ``corrupt`` (no frame header).
    """
    return _jpeg_size(_buffer(data))


def decode_compressed(data: Any, format_: str, reduction: int = 1) -> Image:
    """Decode a JPEG or PNG.

    Args:
        data: the encoded bytes, any buffer.
        format_: ``format`` of the message, used for the error text: the content is what counts.
        reduction: 1, 2, 4 or 8: decode at that fraction of the size (rounded up), which for a JPEG
            is cheaper than decoding it all.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ImageError: ``empty``, ``corrupt``, ``wrong_size`` (beyond ``MAX_PIXELS``) or
            ``unknown_encoding`` (neither JPEG nor PNG).
    """
    bgr = decode_bgr(data, format_, reduction)
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]


def decode_bgr(data: Any, format_: str, reduction: int = 1) -> Image:
    """Decode as ``decode_compressed`` does, leaving OpenCV's channel order: (H, W, 3) uint8 BGR."""
    buffer = _buffer(data)
    head = buffer[:8].tobytes()
    if head.startswith(_JPEG_SOI):
        width, height = _jpeg_size(buffer)
        content = buffer.tobytes()
        if content.rfind(_JPEG_EOI) < content.rfind(_JPEG_SOS):
            raise ImageError("corrupt", f"JPEG of {len(buffer)} bytes ends before its picture does")
    elif head == _PNG_SIGNATURE:
        if len(buffer) < 24 or _PNG_END not in buffer[-64:].tobytes():
            raise ImageError("corrupt", f"PNG of {len(buffer)} bytes has no end chunk")
        width, height = (int.from_bytes(buffer[i : i + 4].tobytes(), "big") for i in (16, 20))
    else:
        raise ImageError(
            "unknown_encoding", f"format {format_!r} begins with {head.hex()}, expected JPEG or PNG"
        )
    if not 0 < width * height <= MAX_PIXELS:
        raise ImageError("wrong_size", f"{width}x{height}, expected at most {MAX_PIXELS} pixels")
    flags = {
        1: cv2.IMREAD_COLOR,
        2: cv2.IMREAD_REDUCED_COLOR_2,
        4: cv2.IMREAD_REDUCED_COLOR_4,
        8: cv2.IMREAD_REDUCED_COLOR_8,
    }[reduction]
    try:
        image = cv2.imdecode(buffer, flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ImageError("corrupt", f"OpenCV: {error.err or error}") from error
    if image is None:
        raise ImageError("corrupt", f"{len(buffer)} bytes of {format_!r} do not decode")
    expected = (-(-height // reduction), -(-width // reduction), 3)
    if image.shape != expected or image.dtype != np.uint8:
        raise ImageError("corrupt", f"decoded to {image.shape}, header says {expected}")
    return image  # type: ignore[return-value]


def decode_raw(
    data: Any, encoding: str, width: int, height: int, step: int, is_bigendian: bool = False
) -> Image:
    """Convert the payload of a sensor_msgs/Image to RGB.

    Args:
        data: pixel bytes, any buffer of ``step * height`` bytes (half as many again
            for NV12 and NV21).
        encoding: a key of ``RAW_ENCODINGS`` (sensor_msgs/image_encodings names).
        width, height: pixels.
        step: bytes from one row to the next, padding included.
        is_bigendian: byte order of 16-bit encodings.

    Returns:
        (H, W, 3) uint8 RGB; a view of ``data`` where the encoding is already ``rgb8``.

    Raises:
        ImageError: ``empty``, ``unknown_encoding``, ``wrong_size`` (beyond ``MAX_PIXELS``, or odd
            where chroma is shared) or ``corrupt`` (length, step and size disagree).
    """
    layout = RAW_ENCODINGS.get(encoding.lower())
    if layout is None:
        raise ImageError(
            "unknown_encoding", f"{encoding!r}, expected one of {', '.join(RAW_ENCODINGS)}"
        )
    buffer = _buffer(data)
    if width <= 0 or height <= 0:
        raise ImageError("empty", f"{width}x{height} pixels")
    if width * height > MAX_PIXELS:
        raise ImageError("wrong_size", f"{width}x{height}, expected at most {MAX_PIXELS} pixels")
    if width % layout.even or (height % 2 and layout.rows_per_two == 3):
        raise ImageError("wrong_size", f"{width}x{height} with {encoding}, expected even sizes")
    rows = height * layout.rows_per_two // 2
    row_bytes = width * layout.channels * layout.bytes_per_channel
    if step < row_bytes:
        raise ImageError("corrupt", f"step {step}, {width} pixels of {encoding} need {row_bytes}")
    if len(buffer) != step * rows:
        raise ImageError("corrupt", f"{len(buffer)} bytes, {rows} rows of step {step} expected")
    pixels = buffer.reshape(rows, step)[:, :row_bytes]
    if layout.bytes_per_channel == 2:
        order = ">u2" if is_bigendian else "<u2"
        wide = np.ascontiguousarray(pixels).view(order).astype(np.uint16)
        pixels = cv2.convertScaleAbs(wide, alpha=255.0 / 65535.0)  # type: ignore[assignment]
    if layout.channels > 1:
        pixels = pixels.reshape(rows, width, layout.channels)
    if layout.conversion is None:
        return pixels
    try:
        return cv2.cvtColor(pixels, layout.conversion)  # type: ignore[return-value]
    except cv2.error as error:
        raise ImageError("wrong_size", f"{width}x{height} {encoding}: {error.err}") from error


@dataclass(frozen=True)
class RawLayout:
    """How one raw encoding lies in memory and which OpenCV conversion makes RGB of it."""

    channels: int
    conversion: int | None
    bytes_per_channel: int = 1
    even: int = 1
    rows_per_two: int = 2


#: Every raw encoding understood, by its sensor_msgs name. OpenCV names a Bayer pattern by the
#: second row's second pixel, ROS by the first row's first: rggb is OpenCV's BG.
RAW_ENCODINGS: dict[str, RawLayout] = {
    "rgb8": RawLayout(3, None),
    "bgr8": RawLayout(3, cv2.COLOR_BGR2RGB),
    "rgba8": RawLayout(4, cv2.COLOR_RGBA2RGB),
    "bgra8": RawLayout(4, cv2.COLOR_BGRA2RGB),
    "mono8": RawLayout(1, cv2.COLOR_GRAY2RGB),
    "mono16": RawLayout(1, cv2.COLOR_GRAY2RGB, bytes_per_channel=2),
    "rgb16": RawLayout(3, None, bytes_per_channel=2),
    "bgr16": RawLayout(3, cv2.COLOR_BGR2RGB, bytes_per_channel=2),
    "yuv422": RawLayout(2, cv2.COLOR_YUV2RGB_UYVY, even=2),
    "uyvy": RawLayout(2, cv2.COLOR_YUV2RGB_UYVY, even=2),
    "yuv422_yuy2": RawLayout(2, cv2.COLOR_YUV2RGB_YUY2, even=2),
    "yuyv": RawLayout(2, cv2.COLOR_YUV2RGB_YUY2, even=2),
    "nv12": RawLayout(1, cv2.COLOR_YUV2RGB_NV12, even=2, rows_per_two=3),
    "nv21": RawLayout(1, cv2.COLOR_YUV2RGB_NV21, even=2, rows_per_two=3),
    "bayer_rggb8": RawLayout(1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": RawLayout(1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": RawLayout(1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": RawLayout(1, cv2.COLOR_BayerGB2RGB),
}


def decode(image: CompressedImage | RawImage | Image) -> Image:
    """Return (H, W, 3) uint8 RGB of any payload; an array is taken to be that already.

    Raises:
        ImageError: as ``decode_compressed`` and ``decode_raw``; ``corrupt`` for another array.
    """
    if isinstance(image, CompressedImage):
        return decode_compressed(image.data, image.format)
    if isinstance(image, RawImage):
        return decode_raw(
            image.data, image.encoding, image.width, image.height, image.step, image.is_bigendian
        )
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
        raise ImageError("corrupt", f"array {image.shape} {image.dtype}, expected (H, W, 3) uint8")
    return image


def _buffer(data: Any) -> Image:
    """View any buffer as (N,) uint8 without copying."""
    if isinstance(data, np.ndarray):
        buffer = data.reshape(-1).view(np.uint8)
    elif len(data) == 0:
        raise ImageError("empty", "no bytes")
    else:
        buffer = np.frombuffer(data, np.uint8)
    if len(buffer) == 0:
        raise ImageError("empty", "no bytes")
    return buffer


def _jpeg_size(buffer: Image) -> tuple[int, int]:
    """Walk the marker segments of a JPEG (ITU T.81 B.1.1) to its frame header."""
    if buffer[:2].tobytes() != _JPEG_SOI:
        raise ImageError("unknown_encoding", f"begins with {buffer[:4].tobytes().hex()}, not JPEG")
    byte: Callable[[int], int] = lambda index: int(buffer[index])  # noqa: E731
    position, length = 2, len(buffer)
    while position + 9 <= length:
        if byte(position) != 0xFF:
            break
        marker = byte(position + 1)
        if marker == 0xFF:
            position += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            position += 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height = byte(position + 5) << 8 | byte(position + 6)
            width = byte(position + 7) << 8 | byte(position + 8)
            return width, height
        if marker in (0xDA, 0xD9):
            break
        position += 2 + (byte(position + 2) << 8 | byte(position + 3))
    raise ImageError("corrupt", f"JPEG of {length} bytes without a frame header")
