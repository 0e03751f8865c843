"""A frame of the ego's sensors as ROS messages, and a trajectory message back as a plan."""

from __future__ import annotations

from array import array
from dataclasses import replace

import numpy as np
from nav_msgs.msg import Odometry
from sensor_msgs.msg import CameraInfo, CompressedImage

from latentvla_msgs.msg import DrivingCommand, Trajectory
from latentvla_ros.contract import (
    CODEBOOK_SIZE,
    KNOT_INTERVAL_S,
    NUM_KNOTS,
    ContractError,
    Plan,
    Rig,
    RigCamera,
)
from latentvla_ros.geometry import se2
from latentvla_ros.geometry.trajectory import POINT_INTERVAL_S
from latentvla_ros.nodes import conversions
from latentvla_ros.nodes.trajectory_messages import ego_pose_of, from_message
from latentvla_training.world.drivers import SensorFrame

#: Points of a trajectory from one knot to the next.
_STRIDE = round(KNOT_INTERVAL_S / POINT_INTERVAL_S)


def compressed_image(frame: SensorFrame, camera: RigCamera) -> CompressedImage:
    """Return the picture of a camera; its header stamp is such that it was exposed at t0.

    Raises:
        ContractError: the frame has no picture of this camera.
    """
    if camera.slot not in frame.jpegs:
        raise ContractError(
            f"frame.jpegs[{camera.slot}]", sorted(frame.jpegs), "a picture of every camera"
        )
    message = CompressedImage(format="jpeg", data=array("B", frame.jpegs[camera.slot]))
    _stamp(message, frame.stamp_ns - round(camera.time_offset_s * 1e9), camera.frame_id)
    return message


def camera_info(frame: SensorFrame, camera: RigCamera) -> CameraInfo:
    """Return the intrinsics of a camera; a rectified one has P = K and no distortion.

    Raises:
        ContractError: the rig does not know them.
    """
    model = camera.model
    if model is None:
        raise ContractError(f"rig.cameras[{camera.slot}].model", None, "intrinsics")
    matrix = np.asarray(model.matrix, np.float64)
    message = CameraInfo(
        width=model.width,
        height=model.height,
        distortion_model=model.distortion_model or "plumb_bob",
        d=[0.0] * 5 if camera.rectified else [float(value) for value in model.distortion],
        k=matrix.ravel(),
        r=np.eye(3).ravel(),
        p=np.hstack([matrix, np.zeros((3, 1))]).ravel(),
    )
    _stamp(message, frame.stamp_ns - round(camera.time_offset_s * 1e9), camera.frame_id)
    return message


def odometry(frame: SensorFrame, rig: Rig, frame_id: str) -> Odometry:
    """Return pose and twist; raises ContractError where the rig's twist is not in base_frame."""
    if rig.odometry_child_frame != rig.base_frame:
        raise ContractError(
            "rig.odometry.child_frame", rig.odometry_child_frame, f"base_frame {rig.base_frame!r}"
        )
    message = Odometry(child_frame_id=rig.base_frame)
    _stamp(message, frame.stamp_ns, frame_id)
    conversions.set_pose(message.pose.pose, *(float(value) for value in frame.pose))
    vx, vy, yaw_rate = (float(value) for value in frame.twist)
    message.twist.twist.linear.x, message.twist.twist.linear.y = vx, vy
    message.twist.twist.angular.z = yaw_rate
    return message


def driving_command(frame: SensorFrame, rig: Rig) -> DrivingCommand:
    """Return what the route asks for."""
    message = DrivingCommand(command=int(frame.command))
    _stamp(message, frame.stamp_ns, rig.base_frame)
    return message


def plan_from_message(message: Trajectory) -> Plan:
    """Return a trajectory as the plan it was made from.

    The planner's own carries its 8 knots. Of one that does not (a stop of the gate, or another
    stack's) the 41 points are taken, moved into the ego frame of t0.

    Raises:
        ContractError: points or knots are not finite, or points do not come every 0.1 s.
    """
    knots = np.array(message.knots, np.float32).reshape(NUM_KNOTS, 3)
    if not knots.any():
        ego_pose = np.asarray(ego_pose_of(message), np.float64)
        points = from_message(message).poses[_STRIDE::_STRIDE]
        knots = se2.relative(ego_pose, points).astype(np.float32)
    if not np.isfinite(knots).all():
        raise ContractError("trajectory", "not finite", "finite knots and points")
    candidates = np.array([entry.knots for entry in message.candidates], np.float32)
    scores = np.array([entry.score for entry in message.candidates], np.float32)
    if not len(scores):
        candidates, scores = knots[None], np.ones(1, np.float32)
    ids = np.array(message.latent_actions.ids, np.int64)
    return Plan(
        poses=knots,
        candidates=candidates.reshape(-1, NUM_KNOTS, 3),
        scores=scores,
        latent_actions=np.minimum(ids, CODEBOOK_SIZE - 1),
        latent_probabilities=np.array(message.latent_actions.probabilities, np.float32),
        stamp_ns=conversions.stamp_to_ns(message.header.stamp),
    )


def plan_from_now(message: Trajectory, frame: SensorFrame, frame_id: str) -> Plan:
    """Return what is left of a trajectory at a later frame, as that frame's plan.

    A controller samples a trajectory at now - t0; past its end it goes straight on as fast.

    Args:
        frame: of now, its pose in the odometry frame. frame_id: name of that frame.

    Raises:
        ContractError: the trajectory is in another frame, not finite, or in the future.
    """
    if message.header.frame_id != frame_id:
        raise ContractError("trajectory.header.frame_id", message.header.frame_id, repr(frame_id))
    age_s = (frame.stamp_ns - conversions.stamp_to_ns(message.header.stamp)) * 1e-9
    if age_s < 0:
        raise ContractError("trajectory.header.stamp", f"{-age_s:.3f} s ahead", "now or earlier")
    trajectory = from_message(message)
    if not (np.isfinite(trajectory.poses).all() and np.isfinite(trajectory.speeds).all()):
        raise ContractError("trajectory", "not finite", "finite points")
    poses = []
    for knot in range(NUM_KNOTS):
        time_s = age_s + (knot + 1) * KNOT_INTERVAL_S
        pose, speed, _ = trajectory.at(time_s)
        beyond_s = max(time_s - float(trajectory.times_s[-1]), 0.0)
        poses.append(se2.compose(pose, (speed * beyond_s, 0.0, 0.0)))
    knots = se2.relative(frame.pose, np.array(poses)).astype(np.float32)
    plan = plan_from_message(message)
    return replace(
        plan,
        poses=knots,
        candidates=knots[None],
        scores=np.ones(1, np.float32),
        stamp_ns=frame.stamp_ns,
    )


def _stamp(message: CompressedImage | CameraInfo | Odometry | DrivingCommand, stamp_ns: int,
           frame_id: str) -> None:  # fmt: skip
    message.header.stamp = conversions.ns_to_stamp(stamp_ns)
    message.header.frame_id = frame_id
