"""How pictures are compressed, in shards and in bags alike, and how they become views again."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from latentvla_ros.sensing import image_decoding
from latentvla_ros.sensing.image_decoding import ImageError

JPEG_QUALITY = 91


def encode_jpeg(image_rgb: NDArray[np.uint8], quality: int = JPEG_QUALITY) -> bytes:
    """Return the JPEG bytes of an (H, W, 3) uint8 RGB image.

    Colour is not subsampled (4:4:4): a lamp three pixels wide keeps its hue.

    Raises:
        ValueError: the image has another shape or type, or cannot be encoded.
    """
    if image_rgb.dtype != np.uint8 or image_rgb.ndim != 3 or image_rgb.shape[2] != 3:
        raise ValueError(
            f"image is {image_rgb.dtype} {image_rgb.shape}, expected uint8 (H, W, 3) RGB"
        )
    settings = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(image_rgb[..., ::-1]), settings)
    if not done:
        raise ValueError(f"OpenCV could not encode an image of shape {image_rgb.shape}")
    return data.tobytes()


def encode_png(image_rgb: NDArray[np.uint8]) -> bytes:
    """Return an (H, W, 3) uint8 RGB image compressed without loss."""
    done, data = cv2.imencode(".png", np.ascontiguousarray(image_rgb[..., ::-1]))
    if not done:
        raise ValueError(f"OpenCV could not encode an image of shape {image_rgb.shape}")
    return data.tobytes()


def decode_views(
    pictures: Sequence[bytes], width: int, height: int, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Decode the pictures of a Scene to the network's views.

    Args:
        pictures: V encoded views as ``Scene.view_jpegs``; ``b""`` gives a black view.
        width, height: pixels of every view.
        out: (V, height, width, 3) uint8 to write into.

    Returns:
        (V, height, width, 3) uint8 RGB.

    Raises:
        ImageError: a picture is damaged or of another size.
    """
    if out is None:
        out = np.empty((len(pictures), height, width, 3), np.uint8)
    for view, data in zip(out, pictures, strict=True):
        if not data:
            view[:] = 0
            continue
        image = image_decoding.decode_compressed(data, "")
        if image.shape != view.shape:
            raise ImageError("wrong_size", f"a view of shape {image.shape}, expected {view.shape}")
        view[:] = image
    return out
