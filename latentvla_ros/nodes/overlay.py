"""The plan drawn into what the network saw of the reference camera, for ``~/debug/overlay``."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import LatentActionNames, Plan, latent_action_lines
from latentvla_ros.geometry import camera, se3
from latentvla_ros.geometry.trajectory import Trajectory

#: The network's view is small: people get it enlarged.
SCALE = 3
#: Width of the drawn ribbon on the ground, m.
_RIBBON_M = 1.6
_NEAREST_M = 0.5
#: Of words: height of a line and left margin in pixels, and OpenCV's scale of the letters.
_LINE_PX, _MARGIN_PX, _LETTERS = 18, 8, 0.45


def draw_plan(
    view: NDArray[np.uint8],
    intrinsics: NDArray[np.float32],
    ego_from_camera: NDArray[np.float32],
    trajectory: Trajectory,
) -> NDArray[np.uint8]:
    """Return an enlarged picture of a view with the trajectory as a ribbon on the ground.

    Args:
        view: (H, W, 3) uint8 RGB. intrinsics: (3, 3). ego_from_camera: (4, 4), at t0.
        trajectory: ego frame of t0.
    """
    height, width = view.shape[:2]
    canvas = cv2.resize(view, (width * SCALE, height * SCALE), interpolation=cv2.INTER_LINEAR)
    matrix = camera.resize_intrinsics(intrinsics, SCALE, SCALE)
    x, y, yaw = trajectory.poses.T
    sides = []
    for offset_m in (-_RIBBON_M / 2, _RIBBON_M / 2):
        points = np.stack([x - offset_m * np.sin(yaw), y + offset_m * np.cos(yaw), 0.0 * x], -1)
        points_camera = se3.transform_points(se3.inverse(ego_from_camera), points)
        pixels, visible = camera.project(matrix, points_camera, _NEAREST_M)
        sides.append((pixels, visible))
    (left, left_seen), (right, right_seen) = sides
    seen = left_seen & right_seen
    painted = canvas.copy()
    for index in np.flatnonzero(seen[:-1] & seen[1:]):
        corners = np.stack([left[index], left[index + 1], right[index + 1], right[index]])
        corners = np.clip(corners, -1e4, 1e4).round().astype(np.int32)
        share = min(float(trajectory.speeds[index]) / 15.0, 1.0)
        colour = (int(255 * (1 - share)), int(60 + 180 * share), 60)
        cv2.fillConvexPoly(painted, corners, colour, cv2.LINE_AA)
    return np.asarray(cv2.addWeighted(painted, 0.45, canvas, 0.55, 0.0), np.uint8)


def draw_latent_actions(picture: NDArray[np.uint8], plan: Plan, names: LatentActionNames) -> None:
    """Write the latent actions of a plan, by name and probability, over the top of a picture.

    Args:
        picture: (H, W, 3) uint8 RGB, drawn into in place.
    """
    lines = latent_action_lines(
        names, plan.latent_actions.tolist(), plan.latent_probabilities.tolist()
    )
    band = picture[: _LINE_PX * len(lines) + _MARGIN_PX]
    band[:] = band // 3
    for row, (time, actions) in enumerate(lines):
        origin = (_MARGIN_PX, _LINE_PX * (row + 1))
        words = f"{time}: {actions}"
        cv2.putText(
            picture,
            words,
            origin,
            cv2.FONT_HERSHEY_SIMPLEX,
            _LETTERS,
            (255, 255, 255),
            1,
            cv2.LINE_AA,
        )
