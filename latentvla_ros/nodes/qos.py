"""Quality of service of every topic, in one place."""

from __future__ import annotations

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from latentvla_ros.contract.rig import Reliability


def _profile(
    depth: int,
    reliability: ReliabilityPolicy = ReliabilityPolicy.RELIABLE,
    durability: DurabilityPolicy = DurabilityPolicy.VOLATILE,
) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability, durability=durability
    )


#: Trajectories and what is drawn of them: the newest counts.
OUTPUT = _profile(1)
#: Status: a late subscriber gets the last one.
STATUS = _profile(1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
#: /diagnostics, as everywhere in ROS 2.
DIAGNOSTICS = _profile(10)
#: A command or route that was given before we started still holds.
COMMAND = _profile(1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
#: Half a second at 200 Hz: odometry must survive a slow callback. Best effort takes any publisher.
ODOMETRY = _profile(100, ReliabilityPolicy.BEST_EFFORT)
#: Best effort takes any publisher.
CAMERA_INFO = _profile(1, ReliabilityPolicy.BEST_EFFORT)


def no_events() -> SubscriptionEventCallbacks:
    """Return the events of our subscriptions: none.

    rclpy's default events add two waitables to every subscription and publisher, which every wait
    of the executor pays for; ``topic_problems`` looks for mismatches where an input is silent.
    """
    return SubscriptionEventCallbacks(use_default_callbacks=False)


def no_publisher_events() -> PublisherEventCallbacks:
    """Return the events of our publishers: none, as ``no_events``."""
    return PublisherEventCallbacks(use_default_callbacks=False)


def camera(reliability: Reliability) -> QoSProfile:
    """Return the profile of an image subscription; callbacks are quick, so a short queue does."""
    return _profile(
        4,
        ReliabilityPolicy.RELIABLE if reliability == "reliable" else ReliabilityPolicy.BEST_EFFORT,
    )
