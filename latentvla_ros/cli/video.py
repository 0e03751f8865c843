"""Writing a film: H.264 in MP4 through PyAV, else an animated GIF through Pillow."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from latentvla_ros.cli.errors import CommandError

Image = NDArray[np.uint8]

#: A GIF holds 256 colours a frame and no motion compensation: smaller and slower, or it gets huge.
_GIF_WIDTH = 640
_GIF_STRIDE = 2


def video_format() -> str | None:
    """Return ``mp4``, ``gif`` or None: what the installed packages can write."""
    if importlib.util.find_spec("av"):
        return "mp4"
    return "gif" if importlib.util.find_spec("PIL") else None


def write_video(
    frames: Iterable[Image], stem: Path, rate_hz: float, format_: str | None = None
) -> Path:
    """Write ``frames`` (H, W, 3) uint8 RGB of one even size and return the file.

    Args:
        stem: path without its suffix, which follows from the format.
        rate_hz: frames per second.
        format_: ``mp4`` or ``gif``; None for the best that is installed.

    Raises:
        CommandError: neither PyAV nor Pillow is installed, or there are no frames.
    """
    chosen = format_ or video_format()
    if chosen is None:
        raise CommandError(
            "no-video-encoder",
            "neither PyAV nor Pillow is installed",
            "pip install av, or give --no-video",
        )
    if rate_hz <= 0:
        raise ValueError(f"rate_hz: found {rate_hz}, expected a positive rate")
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise CommandError(
            "no-frames", "there is no frame to film", "replay a longer part of the bag"
        )
    stem.parent.mkdir(parents=True, exist_ok=True)
    if chosen == "mp4":
        return _write_mp4(first, iterator, stem.with_suffix(".mp4"), rate_hz)
    return _write_gif(first, iterator, stem.with_suffix(".gif"), rate_hz)


def _write_mp4(first: Image, rest: Iterator[Image], path: Path, rate_hz: float) -> Path:
    import av

    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream: Any = container.add_stream(
            "libx264", rate=Fraction(rate_hz).limit_denominator(1000)
        )
        stream.height, stream.width = first.shape[0], first.shape[1]
        stream.pix_fmt = "yuv420p"  # the only one that every browser and player decodes
        stream.options = {"crf": "24", "preset": "veryfast"}
        stream.codec_context.thread_count = 1
        for image in _chain(first, rest):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _write_gif(first: Image, rest: Iterator[Image], path: Path, rate_hz: float) -> Path:
    from PIL import Image as Pillow

    width = min(_GIF_WIDTH, first.shape[1])
    height = round(first.shape[0] * width / first.shape[1])
    pictures = [
        Pillow.fromarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)).quantize(
            128
        )
        for index, image in enumerate(_chain(first, rest))
        if index % _GIF_STRIDE == 0
    ]
    pictures[0].save(
        path,
        save_all=True,
        append_images=pictures[1:],
        loop=0,
        duration=round(1000.0 * _GIF_STRIDE / rate_hz),
        optimize=False,
    )
    return path


def _chain(first: Image, rest: Iterator[Image]) -> Iterator[Image]:
    yield first
    yield from rest
