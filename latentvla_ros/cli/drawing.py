"""Pictures of a plan: painted on the road in a camera image, and seen from above.

Images are (H, W, 3) uint8 RGB and are drawn into in place; OpenCV only, no plotting library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from latentvla_ros.geometry import camera, se2, se3

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]

PLAN: Colour = (34, 211, 178)
PLAN_SLOW: Colour = (250, 163, 60)
DRIVEN: Colour = (245, 245, 250)
CANDIDATE: Colour = (139, 124, 246)
CONSTANT: Colour = (244, 114, 82)
TEXT: Colour = (229, 231, 240)
MUTED: Colour = (139, 146, 165)
BACKGROUND: Colour = (17, 20, 31)
GRID: Colour = (38, 43, 60)
EGO: Colour = (96, 165, 250)

#: Fixed-point fraction bits of OpenCV's anti-aliased drawing.
_SHIFT = 4
_NEAR_M = 0.6
_EGO_WIDTH_M = 1.9
_EGO_FRONT_M, _EGO_REAR_M = 3.8, -1.0


@dataclass(frozen=True)
class CameraView:
    """A rectified camera image's geometry.

    Attributes:
        intrinsics: (3, 3) of the image that is drawn into, pixel centre of the top-left at (0, 0).
        ego_from_camera: (4, 4), optical axes.
    """

    intrinsics: NDArray[np.floating]
    ego_from_camera: NDArray[np.float64]

    def project(self, points_ego: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return pixels (N, 2) and whether each of points (N, 3) in the ego frame is in front."""
        points = se3.transform_points(se3.inverse(self.ego_from_camera), points_ego)
        return camera.project(self.intrinsics, points, _NEAR_M)


def text(
    image: Image,
    words: str,
    origin: tuple[int, int],
    size_px: int,
    colour: Colour = TEXT,
    bold: bool = False,
) -> None:
    """Write ``words`` with its baseline starting at ``origin`` (x, y); OpenCV 5 has real fonts."""
    if hasattr(cv2, "FontFace"):
        face = _FACES.setdefault("sans", cv2.FontFace("sans"))
        cv2.putText(image, words, origin, colour, face, size_px, 700 if bold else 450)
        return
    scale = size_px / 30.0
    cv2.putText(
        image,
        words,
        origin,
        cv2.FONT_HERSHEY_SIMPLEX,
        scale,
        colour,
        2 if bold else 1,
        cv2.LINE_AA,
    )


_FACES: dict[str, Any] = {}


def polyline(image: Image, pixels: NDArray[np.float64], colour: Colour, thickness: int = 1) -> None:
    """Draw an anti-aliased open line through pixels (N, 2); sub-pixel accurate."""
    if len(pixels) >= 2:
        cv2.polylines(image, [_fixed(pixels)], False, colour, thickness, cv2.LINE_AA, _SHIFT)


def _fixed(pixels: NDArray[np.float64]) -> NDArray[np.int32]:
    finite = pixels if np.isfinite(pixels).all() else np.nan_to_num(pixels)
    limited = np.clip(finite, -1e4, 1e4)
    return np.round(limited * (1 << _SHIFT)).astype(np.int32)


def _blend(image: Image, layer: Image, mask: Image, opacity: float) -> None:
    """Mix ``layer`` over ``image`` where ``mask`` (H, W) is set, in place."""
    x, y, width, height = cv2.boundingRect(mask)
    if not width:
        return
    part = np.s_[y : y + height, x : x + width]
    mixed = cv2.addWeighted(image[part], 1.0 - opacity, layer[part], opacity, 0.0)
    image[part][mask[part] > 0] = mixed[mask[part] > 0]


def draw_band(image: Image, opacity: float = 0.6) -> None:
    """Darken a picture, in place, so that words on it can be read."""
    layer = np.full_like(image, BACKGROUND)
    image[:] = cv2.addWeighted(image, 1.0 - opacity, layer, opacity, 0.0)


def speed_colours(speeds: ArrayLike, top_mps: float = 15.0) -> list[Colour]:
    """Return a colour per speed (m/s): orange at standstill, green at ``top_mps`` and above."""
    share = np.clip(np.asarray(speeds, np.float64) / top_mps, 0.0, 1.0)
    slow, fast = np.asarray(PLAN_SLOW, np.float64), np.asarray(PLAN, np.float64)
    mixed = slow + share[:, None] * (fast - slow)
    return [(int(r), int(g), int(b)) for r, g, b in mixed]


def draw_ribbon(
    image: Image,
    view: CameraView,
    poses: ArrayLike,
    speeds: ArrayLike,
    width_m: float = _EGO_WIDTH_M,
) -> None:
    """Paint a plan on the road as a translucent band as wide as the vehicle.

    Args:
        poses: (N, 3) x, y, yaw in the ego frame, m and rad, in order of time.
        speeds: (N,) m/s, which colour the band.
    """
    path = np.asarray(poses, np.float64)
    normal = np.stack([-np.sin(path[:, 2]), np.cos(path[:, 2])], axis=1) * (width_m / 2.0)
    ground = np.zeros((len(path), 1))
    left, left_visible = view.project(np.hstack([path[:, :2] + normal, ground]))
    right, right_visible = view.project(np.hstack([path[:, :2] - normal, ground]))
    visible = left_visible & right_visible
    layer, mask = image.copy(), np.zeros(image.shape[:2], np.uint8)
    colours = speed_colours(speeds)
    for index in range(len(path) - 1, 0, -1):  # far to near
        if not (visible[index] and visible[index - 1]):
            continue
        quad = _fixed(np.stack([left[index - 1], left[index], right[index], right[index - 1]]))
        cv2.fillConvexPoly(layer, quad, colours[index], cv2.LINE_AA, _SHIFT)
        cv2.fillConvexPoly(mask, quad, 255, cv2.LINE_8, _SHIFT)
    _blend(image, layer, mask, 0.5)
    for side in (left, right):
        polyline(image, side[visible], PLAN, 2)


def draw_path(
    image: Image, view: CameraView, poses: ArrayLike, colour: Colour, thickness: int = 1
) -> None:
    """Draw the centre line of poses (N, 3) in the ego frame on the road."""
    path = np.asarray(poses, np.float64)
    if not len(path):
        return
    pixels, visible = view.project(np.hstack([path[:, :2], np.zeros((len(path), 1))]))
    polyline(image, pixels[visible], colour, thickness)


@dataclass(frozen=True)
class BirdsEye:
    """A bird's-eye picture: x forward is up, y left is left.

    Attributes:
        width, height: pixels.
        ahead_m, behind_m: what is shown in front of and behind the rear axle.
    """

    width: int
    height: int
    ahead_m: float = 62.0
    behind_m: float = 9.0

    def __post_init__(self) -> None:
        if self.width < 16 or self.height < 16 or self.ahead_m <= 0 or self.behind_m < 0:
            raise ValueError(f"{self}: expected at least 16x16 pixels and a positive range")

    @property
    def pixels_per_metre(self) -> float:
        """Scale of the picture."""
        return self.height / (self.ahead_m + self.behind_m)

    def pixels(self, points: ArrayLike) -> NDArray[np.float64]:
        """Return pixels (N, 2) of points (N, 2) or poses (N, 3) in the ego frame."""
        values = np.asarray(points, np.float64)
        u = self.width / 2.0 - values[:, 1] * self.pixels_per_metre
        v = (self.ahead_m - values[:, 0]) * self.pixels_per_metre
        return np.stack([u, v], axis=1)

    def canvas(self) -> Image:
        """Return an empty picture with a grid every 10 m, labelled ahead of the ego."""
        image = np.empty((self.height, self.width, 3), np.uint8)
        image[:] = BACKGROUND
        half = self.width / 2.0 / self.pixels_per_metre
        for x in np.arange(-10 * int(self.behind_m // 10), self.ahead_m, 10.0):
            polyline(image, self.pixels([[x, half], [x, -half]]), GRID)
        for y in np.arange(-10 * int(half // 10), half, 10.0):
            polyline(image, self.pixels([[self.ahead_m, y], [-self.behind_m, y]]), GRID)
        for x in range(10, int(self.ahead_m), 10):
            row = int(self.pixels([[x, 0.0]])[0, 1])
            text(image, f"{x} m", (6, row - 4), 12, MUTED)
        return image

    def draw_ego(self, image: Image) -> None:
        """Draw the vehicle at the origin."""
        half = _EGO_WIDTH_M / 2.0
        corners = [
            [_EGO_FRONT_M, half],
            [_EGO_FRONT_M, -half],
            [_EGO_REAR_M, -half],
            [_EGO_REAR_M, half],
        ]
        cv2.fillConvexPoly(image, _fixed(self.pixels(corners)), EGO, cv2.LINE_AA, _SHIFT)
        nose = [
            [_EGO_FRONT_M, 0.0],
            [_EGO_FRONT_M - 1.2, half * 0.8],
            [_EGO_FRONT_M - 1.2, -half * 0.8],
        ]
        cv2.fillConvexPoly(image, _fixed(self.pixels(nose)), BACKGROUND, cv2.LINE_AA, _SHIFT)

    def draw_plan(self, image: Image, plan: ArrayLike, speeds: ArrayLike, knots: ArrayLike) -> None:
        """Draw a plan (N, 3) coloured by speed (N,), with a dot at each knot (K, 3)."""
        pixels = self.pixels(plan)
        colours = speed_colours(speeds)
        for index in range(len(pixels) - 1):
            polyline(image, pixels[index : index + 2], colours[index], 4)
        for knot in _fixed(self.pixels(knots)):
            cv2.circle(image, knot.tolist(), 4 << _SHIFT, PLAN, -1, cv2.LINE_AA, _SHIFT)

    def draw_faint(
        self, image: Image, paths: Sequence[ArrayLike], colour: Colour, opacity: float
    ) -> None:
        """Draw thin lines (N, 3) each, mixed into the picture with ``opacity`` in 0..1."""
        layer, mask = image.copy(), np.zeros(image.shape[:2], np.uint8)
        for path in paths:
            pixels = self.pixels(path)
            polyline(layer, pixels, colour, 2)
            cv2.polylines(mask, [_fixed(pixels)], False, 255, 2, cv2.LINE_8, _SHIFT)
        _blend(image, layer, mask, opacity)

    def draw_driven(self, image: Image, path: ArrayLike) -> None:
        """Draw the driven path (N, 3) as dots."""
        for point in self.pixels(path):
            if np.isfinite(point).all():
                centre = _fixed(point[None])[0].tolist()
                cv2.circle(image, centre, int(1.6 * (1 << _SHIFT)), DRIVEN, -1, cv2.LINE_AA, _SHIFT)


def draw_command(image: Image, centre: tuple[int, int], size_px: int, command: int) -> None:
    """Draw the driving command (``contract.Command``) as an arrow in a disc, unknown as ?."""
    cv2.circle(image, centre, size_px, GRID, -1, cv2.LINE_AA)
    if command not in (0, 1, 2):
        text(image, "?", (centre[0] - size_px // 4, centre[1] + size_px // 3), size_px, MUTED, True)
        return
    turn = {0: 1.0, 1: 0.0, 2: -1.0}[command]
    shaft = np.array([[-0.55, 0.0, 0.0], [0.1, 0.0, 0.0]])
    tip = se2.compose([0.1, 0.0, turn * np.pi / 2], np.array([[0.5, 0.0, 0.0]]))
    line = np.vstack([shaft, tip])[:, :2]
    pixels = np.stack([centre[0] - line[:, 1] * size_px, centre[1] - line[:, 0] * size_px], axis=1)
    polyline(image, pixels[:-1], PLAN, max(2, size_px // 7))
    start, end = pixels[-2].astype(int).tolist(), pixels[-1].astype(int).tolist()
    cv2.arrowedLine(image, start, end, PLAN, max(2, size_px // 7), cv2.LINE_AA, 0, 0.55)
