"""Trajectories as messages: ours, nav_msgs/Path, and Autoware's where it is installed."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose, PoseStamped
from nav_msgs.msg import Path
from numpy.typing import ArrayLike, NDArray

from latentvla_msgs.msg import (
    InputStamp,
    TrajectoryCandidate,
)
from latentvla_msgs.msg import Trajectory as TrajectoryMessage
from latentvla_ros.contract import NUM_KNOTS, BundleManifest, ContractError, Plan
from latentvla_ros.geometry.trajectory import NUM_POINTS, POINT_INTERVAL_S, Trajectory
from latentvla_ros.nodes import conversions


def trajectory_message(
    trajectory: Trajectory, ego_pose: ArrayLike, stamp_ns: int, frame: str, base_frame: str
) -> TrajectoryMessage:
    """Return a trajectory, given in ``frame``, as a message without candidates.

    Args:
        ego_pose: (3,) ``base_frame`` at t0 in ``frame``.
        stamp_ns: t0.
    """
    message = TrajectoryMessage()
    message.header.stamp = conversions.ns_to_stamp(stamp_ns)
    message.header.frame_id = frame
    message.base_frame = base_frame
    message.ego_pose = conversions.to_pose(ego_pose)
    columns = np.stack(
        [
            trajectory.speeds,
            trajectory.accelerations,
            trajectory.yaw_rates,
            trajectory.curvatures,
        ],
        axis=-1,
    ).tolist()
    poses = np.asarray(trajectory.poses, np.float64).tolist()
    for index, point in enumerate(message.points):
        point.time_from_start = conversions.seconds_to_duration(index * POINT_INTERVAL_S)
        conversions.set_pose(point.pose, *poses[index])
        (
            point.longitudinal_velocity,
            point.acceleration,
            point.yaw_rate,
            point.curvature,
        ) = columns[index]
    return message


def add_plan(
    message: TrajectoryMessage,
    plan: Plan,
    manifest: BundleManifest,
    inputs_ns: dict[str, int],
    with_candidates: bool,
) -> None:
    """Write into a message what the planner alone knows."""
    message.kind = TrajectoryMessage.PLAN
    message.knots = np.ascontiguousarray(plan.poses, np.float32).reshape(-1)
    if with_candidates:
        message.candidates = [
            TrajectoryCandidate(knots=knots, score=score)
            for knots, score in zip(
                plan.candidates.astype(np.float32).reshape(-1, 3 * NUM_KNOTS),
                plan.scores.tolist(),
                strict=True,
            )
        ]
    actions = message.latent_actions
    actions.codebook_id = manifest.codebook_id or ""
    actions.ids = plan.latent_actions.astype(np.uint8)
    actions.probabilities = plan.latent_probabilities.astype(np.float32)
    message.bundle_id = manifest.bundle_id
    message.inputs = [
        InputStamp(name=name, stamp=conversions.ns_to_stamp(stamp))
        for name, stamp in inputs_ns.items()
    ]


def path_message(message: TrajectoryMessage) -> Path:
    """Return the points of a trajectory as a path; each pose is stamped with its own time."""
    stamp_ns = conversions.stamp_to_ns(message.header.stamp)
    path = Path(header=message.header)
    for index, point in enumerate(message.points):
        pose = PoseStamped(pose=point.pose)
        pose.header.frame_id = message.header.frame_id
        pose.header.stamp = conversions.ns_to_stamp(
            stamp_ns + round(index * POINT_INTERVAL_S * 1e9)
        )
        path.poses.append(pose)
    return path


def from_message(message: TrajectoryMessage) -> Trajectory:
    """Return a message's points as a trajectory in its own frame.

    Raises:
        ContractError: the points do not follow each other every 0.1 s from t0.
    """
    times = np.array(
        [p.time_from_start.sec + 1e-9 * p.time_from_start.nanosec for p in message.points]
    )
    expected = np.arange(NUM_POINTS) * POINT_INTERVAL_S
    if times.shape != expected.shape or np.abs(times - expected).max() > 1e-3:
        raise ContractError("trajectory.points", times.shape, "41 points every 0.1 s from t0")
    poses = np.array([conversions.planar_pose(point.pose) for point in message.points])
    columns: NDArray[np.float64] = np.array(
        [
            (p.longitudinal_velocity, p.acceleration, p.yaw_rate, p.curvature)
            for p in message.points
        ],
        np.float64,
    )
    return Trajectory(times, poses, columns[:, 0], columns[:, 1], columns[:, 2], columns[:, 3])


def autoware_types() -> Any | None:
    """Return the module autoware_planning_msgs.msg, or None where it is not installed."""
    try:
        return importlib.import_module("autoware_planning_msgs.msg")
    except ImportError:
        return None


def autoware_message(types: Any, message: TrajectoryMessage) -> Any:
    """Return a trajectory as autoware_planning_msgs/Trajectory."""
    converted = types.Trajectory(header=message.header)
    for point in message.points:
        other = types.TrajectoryPoint()
        other.time_from_start = point.time_from_start
        other.pose = point.pose
        other.longitudinal_velocity_mps = point.longitudinal_velocity
        other.acceleration_mps2 = point.acceleration
        other.heading_rate_rps = point.yaw_rate
        converted.points.append(other)
    return converted


def stamp_after(stamp_ns: int, seconds: float) -> Time:
    """Return the stamp ``seconds`` after ``stamp_ns``."""
    return conversions.ns_to_stamp(stamp_ns + round(seconds * 1e9))


def ego_pose_of(message: TrajectoryMessage) -> tuple[float, float, float]:
    """Return x, y, yaw of the ego at t0 in the message's frame."""
    pose: Pose = message.ego_pose
    return conversions.planar_pose(pose)
