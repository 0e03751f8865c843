"""Publishes still JPEG pictures on camera topics at a steady rate, as a camera driver would.

    python -m latentvla_ros.nodes.image_source --image FILE --rate 10 --seconds 8 TOPIC=FRAME ...

For measuring transports: all topics are sent in one burst per period, best effort. It waits until
every topic has a subscriber, prints ``ready``, and at its end the number of messages per topic.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage

from latentvla_ros.nodes.cdr_header import with_header_stamp

_MATCH_TIMEOUT_S = 30.0


def main(argv: Sequence[str] | None = None) -> int:
    """Publish; returns 0, or 1 when nobody subscribed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("topics", nargs="+", metavar="TOPIC=FRAME")
    parser.add_argument("--image", type=Path, required=True, help="JPEG file")
    parser.add_argument("--rate", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--phase", type=float, default=0.0, help="s after the common period starts")
    args = parser.parse_args(argv)
    picture = args.image.read_bytes()
    rclpy.init()
    node = rclpy.create_node("image_source")
    qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    sources = []
    for entry in args.topics:
        topic, _, frame = entry.partition("=")
        message = CompressedImage(format="jpeg", data=picture)
        message.header.frame_id = frame
        publisher = node.create_publisher(CompressedImage, topic, qos)
        sources.append((publisher, serialize_message(message)))
    deadline = time.monotonic() + _MATCH_TIMEOUT_S
    while not all(publisher.get_subscription_count() for publisher, _ in sources):
        if time.monotonic() > deadline:
            print(f"nobody subscribed in {_MATCH_TIMEOUT_S:.0f} s", file=sys.stderr)
            return 1
        time.sleep(0.02)
    print("ready", flush=True)
    period_s = 1.0 / args.rate
    # Aligned to the system clock: several processes then expose at the same time.
    wait_s = period_s - time.time() % period_s + args.phase + period_s
    origin = time.monotonic() + wait_s
    count = round(args.seconds * args.rate)
    for index in range(count):
        time.sleep(max(origin + index * period_s - time.monotonic(), 0.0))
        now_ns = time.time_ns()
        for publisher, data in sources:
            publisher.publish(with_header_stamp(data, now_ns))
    time.sleep(0.5)
    print(json.dumps({publisher.topic_name: count for publisher, _ in sources}), flush=True)
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
