"""Raw encodings that our own table lacks, through cv_bridge where that is installed.

What the table has it converts itself: the same result (a test holds the two equal), faster, and
without Boost. Runs on the inference thread.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.sensing.image_decoding import RAW_ENCODINGS, CompressedImage, RawImage


@functools.cache
def cv_bridge() -> Any | None:
    """Return a CvBridge, or None where cv_bridge is not installed."""
    try:
        from cv_bridge import CvBridge
    except ImportError:
        return None
    return CvBridge()


def understood(
    payload: CompressedImage | RawImage,
) -> CompressedImage | RawImage | NDArray[np.uint8]:
    """Return RGB where only cv_bridge can make it, else the payload itself.

    What cv_bridge cannot convert either stays as it is: the decoder names the encoding.
    """
    if isinstance(payload, CompressedImage) or payload.encoding.lower() in RAW_ENCODINGS:
        return payload
    bridge = cv_bridge()
    if bridge is None:
        return payload
    try:
        return np.asarray(bridge.imgmsg_to_cv2(payload, "rgb8"), np.uint8)
    except Exception:  # cv_bridge raises its own error and whatever NumPy does
        return payload
