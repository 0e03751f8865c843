"""Why an input is silent, as far as the ROS graph knows: nobody publishes, or nothing can match."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible


def why_silent(node: Node, topic: str, type_name: str, profile: QoSProfile) -> str:
    """Return why nothing can arrive on a topic, "" where the graph shows no reason.

    Args:
        topic: resolved name. type_name: ``package/msg/Name`` that we subscribe with.
        profile: that we subscribe with.
    """
    publishers = node.get_publishers_info_by_topic(topic)
    if not publishers:
        return f"nobody publishes {topic}"
    types = sorted({publisher.topic_type for publisher in publishers})
    if type_name not in types:
        return f"{topic} is published as {', '.join(types)}, expected {type_name}"
    reasons = []
    for publisher in publishers:
        if publisher.topic_type != type_name:
            continue
        compatibility, reason = qos_check_compatible(publisher.qos_profile, profile)
        if compatibility != QoSCompatibility.ERROR:
            return ""
        reasons.append(f"{publisher.node_name}: {reason.strip()}")
    return f"{topic} is published with a QoS that we cannot receive ({'; '.join(reasons)})"
