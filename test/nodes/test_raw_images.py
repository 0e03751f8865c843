"""Raw images: over DDS, and our table of encodings against cv_bridge where both exist."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from latentvla_ros.sensing.image_decoding import RAW_ENCODINGS, RawImage, decode

if TYPE_CHECKING:
    from vehicle import Bench

pytestmark = pytest.mark.ros


def raw(encoding: str, rng: np.random.Generator) -> RawImage:
    """Return a smooth 64x32 picture in an encoding."""
    layout = RAW_ENCODINGS[encoding]
    rows = 32 * layout.rows_per_two // 2
    step = 64 * layout.channels * layout.bytes_per_channel
    ramp = np.linspace(40, 200, rows)[:, None] + rng.integers(0, 3, (rows, step))
    return RawImage(ramp.astype(np.uint8).tobytes(), encoding, 64, 32, step)


@pytest.mark.skipif(
    importlib.util.find_spec("cv_bridge") is None, reason="cv_bridge is not installed"
)
@pytest.mark.parametrize(
    "encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8", "bayer_rggb8", "bayer_gbrg8"]
)
def test_our_table_equals_cv_bridge(encoding: str) -> None:
    from cv_bridge import CvBridge

    picture = raw(encoding, np.random.default_rng(3))
    expected = CvBridge().imgmsg_to_cv2(picture, "rgb8")
    assert np.abs(decode(picture).astype(int) - expected.astype(int)).max() <= 1


def test_what_only_cv_bridge_understands(monkeypatch: pytest.MonkeyPatch) -> None:
    from latentvla_ros.nodes import raw_images

    class Bridge:
        def imgmsg_to_cv2(self, image: Any, encoding: str) -> np.ndarray:
            assert encoding == "rgb8"
            if image.encoding != "32FC1":
                raise ValueError("unknown")
            return np.full((image.height, image.width, 3), 7, np.uint8)

    strange = RawImage(bytes(32), "32FC1", 4, 2, 16)
    monkeypatch.setattr(raw_images, "cv_bridge", lambda: None)
    assert raw_images.understood(strange) is strange
    monkeypatch.setattr(raw_images, "cv_bridge", Bridge)
    assert np.array_equal(raw_images.understood(strange), np.full((2, 4, 3), 7))
    for left_alone in (replace(strange, encoding="rgb8"), replace(strange, encoding="weird")):
        assert raw_images.understood(left_alone) is left_alone


def test_raw_images_over_dds(bench: Bench) -> None:
    import drive_bag
    from sensor_msgs.msg import Image

    rig = drive_bag.rig()
    cameras = tuple(replace(c, message_type="raw") if c.slot == "front" else c for c in rig.cameras)
    front = bench.vehicle.create_publisher(Image, "/planner_node/input/front/image", 4)
    message = Image(width=256, height=128, step=768, encoding="rgb8")
    message.header.frame_id = "front_optical"
    message.data = bytes(128 * 768)

    class Raw:
        get_subscription_count = front.get_subscription_count

        def publish(self, compressed: Any) -> None:
            message.header.stamp = compressed.header.stamp
            front.publish(message)

    bench.vehicle.images["front"] = Raw()
    bench.running(replace(rig, cameras=cameras))
    message.encoding = "weird16"
    words = bench.drive_until(lambda: bench.listed("image_unknown_encoding_front"))
    assert "weird16" in words
    assert not bench.vehicle.plans
    message.encoding = "rgb8"
    message.step = 700
    bench.drive_until(lambda: bench.listed("image_corrupt_front"))
    assert not bench.vehicle.plans
    message.step = 768
    bench.drive(1.0)
    assert len(bench.vehicle.plans) >= 9, bench.explain()
