"""What RViz shows of a plan: trajectory by speed, knots, candidates, latent actions by name."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from latentvla_ros.contract import LatentActionNames, Plan, latent_action_lines
from latentvla_ros.geometry import se2
from latentvla_ros.geometry.trajectory import Trajectory
from latentvla_ros.nodes import conversions

#: Candidates shown besides the selected one, by score.
MAX_CANDIDATES = 8
#: Markers disappear by themselves when no new plan comes.
LIFETIME_S = 0.5
_FULL_SPEED_MPS = 15.0
#: Height of the words, and where they stand: above the vehicle.
_TEXT_M, _TEXT_Z_M = 0.6, 3.5


def plan_markers(
    plan: Plan,
    trajectory: Trajectory,
    output_from_ego: NDArray[np.float64],
    frame: str,
    names: LatentActionNames | None = None,
) -> MarkerArray:
    """Return markers of a plan.

    Args:
        trajectory: in ``frame``.
        output_from_ego: (3,) pose of the ego at t0 in ``frame``.
        names: of latent actions, as of the bundle's manifest; None: none are shown.
    """
    selected = _marker(0, "trajectory", Marker.LINE_STRIP, plan.stamp_ns, frame, 0.35)
    selected.points = [_point(x, y) for x, y, _ in trajectory.poses]
    selected.colors = [_speed_colour(float(speed)) for speed in trajectory.speeds]

    knots = _marker(0, "knots", Marker.SPHERE_LIST, plan.stamp_ns, frame, 0.5)
    knots.points = [_point(x, y) for x, y, _ in se2.compose(output_from_ego, plan.poses)]
    knots.color = ColorRGBA(r=1.0, g=1.0, b=1.0, a=0.9)

    others = _marker(0, "candidates", Marker.LINE_LIST, plan.stamp_ns, frame, 0.08)
    others.color = ColorRGBA(r=0.6, g=0.6, b=0.6, a=0.5)
    for index in np.argsort(-plan.scores)[1 : MAX_CANDIDATES + 1]:
        line = np.concatenate([np.zeros((1, 3)), plan.candidates[index]])
        points = [_point(x, y) for x, y, _ in se2.compose(output_from_ego, line)]
        for start, end in pairwise(points):
            others.points += [start, end]
    markers = [selected, knots] + ([others] if others.points else [])
    if names is not None:
        markers.append(_latent_actions(plan, names, output_from_ego, frame))
    return MarkerArray(markers=markers)


def _latent_actions(
    plan: Plan, names: LatentActionNames, output_from_ego: NDArray[np.float64], frame: str
) -> Marker:
    words = _marker(0, "latent_actions", Marker.TEXT_VIEW_FACING, plan.stamp_ns, frame, _TEXT_M)
    lines = latent_action_lines(
        names, plan.latent_actions.tolist(), plan.latent_probabilities.tolist()
    )
    words.text = "\n".join(f"{time}: {actions}" for time, actions in lines)
    words.pose.position = _point(output_from_ego[0], output_from_ego[1])
    words.pose.position.z = _TEXT_Z_M
    words.color = ColorRGBA(r=1.0, g=1.0, b=1.0, a=0.9)
    return words


def _marker(
    identifier: int, namespace: str, kind: int, stamp_ns: int, frame: str, size_m: float
) -> Marker:
    marker = Marker()
    marker.header.frame_id = frame
    marker.header.stamp = conversions.ns_to_stamp(stamp_ns)
    marker.ns, marker.id, marker.type, marker.action = namespace, identifier, kind, Marker.ADD
    marker.pose.orientation.w = 1.0
    marker.scale.x = marker.scale.y = marker.scale.z = size_m
    marker.lifetime = conversions.seconds_to_duration(LIFETIME_S)
    marker.color.a = 1.0
    return marker


def _point(x: float, y: float) -> Point:
    return Point(x=float(x), y=float(y), z=0.1)


def _speed_colour(speed_mps: float) -> ColorRGBA:
    """Return red at rest to green at ``_FULL_SPEED_MPS``."""
    share = min(max(speed_mps / _FULL_SPEED_MPS, 0.0), 1.0)
    return ColorRGBA(r=1.0 - share, g=0.2 + 0.7 * share, b=0.2, a=0.95)
