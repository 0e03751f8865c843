"""Publishes plans: the trajectory, and what others read of it where somebody listens."""

from __future__ import annotations

from functools import partial

from nav_msgs.msg import Path
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import Image
from visualization_msgs.msg import MarkerArray

from latentvla_msgs.msg import Trajectory as TrajectoryMessage
from latentvla_ros.contract import BundleManifest
from latentvla_ros.nodes import qos
from latentvla_ros.nodes.conversions import rgb_image
from latentvla_ros.nodes.markers import plan_markers
from latentvla_ros.nodes.output_frame import OutputFrame
from latentvla_ros.nodes.parameters import PlannerParameters
from latentvla_ros.nodes.plan_maker import MadePlan
from latentvla_ros.nodes.trajectory_messages import (
    add_plan,
    autoware_message,
    autoware_types,
    path_message,
    stamp_after,
    trajectory_message,
)


class PlanPublisher:
    """The node's outputs: lifecycle publishers, silent unless the node is active.

    Attributes:
        sequence: of the newest plan.
    """

    def __init__(self, node: LifecycleNode, output_frame: OutputFrame, base_frame: str) -> None:
        self._node, self._output_frame, self._base_frame = node, output_frame, base_frame
        self.sequence = 0
        create = partial(node.create_lifecycle_publisher, event_callbacks=qos.no_publisher_events())
        self._trajectory = create(TrajectoryMessage, "~/output/trajectory", qos.OUTPUT)
        self._path = create(Path, "~/output/path", qos.OUTPUT)
        self._markers = create(MarkerArray, "~/debug/markers", qos.OUTPUT)
        self._overlay = create(Image, "~/debug/overlay", qos.OUTPUT)
        self._autoware_types = autoware_types()
        self._autoware = None
        if self._autoware_types is not None:
            self._autoware = create(
                self._autoware_types.Trajectory, "~/output/autoware_trajectory", qos.OUTPUT
            )

    def close(self) -> None:
        """Destroy the publishers."""
        publishers = (self._trajectory, self._path, self._markers, self._overlay, self._autoware)
        for publisher in publishers:
            if publisher is not None:
                self._node.destroy_lifecycle_publisher(publisher)

    @property
    def wants_overlay(self) -> bool:
        """Whether somebody listens to ``~/debug/overlay``."""
        return bool(self._overlay.get_subscription_count())

    def publish(
        self,
        made: MadePlan,
        odometry_frame: str,
        manifest: BundleManifest,
        parameters: PlannerParameters,
    ) -> None:
        """Publish a plan.

        Raises:
            NoTransform: the output frame is another one, and TF does not know it at t0.
        """
        t0_ns = made.plan.stamp_ns
        frame, ego_pose = self._output_frame.pose(odometry_frame, made.ego.pose, t0_ns)
        trajectory = made.trajectory.in_frame(ego_pose)
        message = trajectory_message(trajectory, ego_pose, t0_ns, frame, self._base_frame)
        add_plan(message, made.plan, manifest, made.inputs_ns, parameters.publish_candidates)
        message.sequence = self.sequence = self.sequence + 1
        message.valid_until = stamp_after(t0_ns, parameters.max_plan_age_s)
        self._trajectory.publish(message)
        if self._path.get_subscription_count():
            self._path.publish(path_message(message))
        if self._autoware is not None and self._autoware.get_subscription_count():
            self._autoware.publish(autoware_message(self._autoware_types, message))
        if parameters.publish_markers and self._markers.get_subscription_count():
            names = manifest.latent_action_names
            self._markers.publish(plan_markers(made.plan, trajectory, ego_pose, frame, names))
        if made.overlay is not None:
            self._overlay.publish(rgb_image(made.overlay, t0_ns))
