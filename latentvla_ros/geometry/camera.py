"""Pinhole cameras: projection, crop and resize of intrinsics, rectification maps.

Pixels: the centre of the top-left pixel is (0, 0), as in OpenCV and sensor_msgs/CameraInfo; an
image of width W covers -0.5 ... W - 0.5. Camera axes are optical: x right, y down, z forward.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latentvla_ros.contract import CameraModel, ContractError

Matrix = NDArray[np.float64]

#: Numbers of coefficients that each distortion model may have.
DISTORTION_MODELS: dict[str, tuple[int, ...]] = {
    "": (0,),
    "plumb_bob": (0, 4, 5),
    "rational_polynomial": (8, 12, 14),
    "equidistant": (4,),
}


def pinhole_matrix(horizontal_fov_deg: float, width: int, height: int) -> Matrix:
    """Return the (3, 3) matrix of a centred camera with square pixels."""
    focal = width / 2.0 / np.tan(np.deg2rad(horizontal_fov_deg) / 2.0)
    return np.array(
        [[focal, 0.0, (width - 1) / 2.0], [0.0, focal, (height - 1) / 2.0], [0.0, 0.0, 1.0]]
    )


def horizontal_fov_deg(matrix: ArrayLike, width: float) -> float:
    """Return the angle between the left and right edge of an image along its principal row."""
    k = np.asarray(matrix, np.float64)
    left, right = (k[0, 2] + 0.5) / k[0, 0], (width - 0.5 - k[0, 2]) / k[0, 0]
    return float(np.rad2deg(np.arctan(left) + np.arctan(right)))


def crop_intrinsics(matrix: ArrayLike, x0: float, y0: float) -> Matrix:
    """Return the matrix of the image whose top-left pixel was pixel (x0, y0)."""
    result = np.array(matrix, np.float64)
    result[0, 2] -= x0
    result[1, 2] -= y0
    return result


def resize_intrinsics(matrix: ArrayLike, scale_x: float, scale_y: float) -> Matrix:
    """Return the matrix after resizing: u' = (u + 0.5) * scale - 0.5, as every cv2.resize does."""
    result = np.array(matrix, np.float64)
    result[0, :2] *= scale_x
    result[1, 1] *= scale_y
    result[0, 2] = (result[0, 2] + 0.5) * scale_x - 0.5
    result[1, 2] = (result[1, 2] + 0.5) * scale_y - 0.5
    return result


def project(
    matrix: ArrayLike, points_camera: ArrayLike, min_depth_m: float = 1e-3
) -> tuple[Matrix, NDArray[np.bool_]]:
    """Project points.

    Args:
        matrix: (3, 3). points_camera: (..., 3) m, optical axes.
        min_depth_m: points nearer than this along z, or behind, are not visible.

    Returns:
        (..., 2) pixels, NaN where not visible, and (...) bool whether visible.
    """
    k, points = np.asarray(matrix, np.float64), np.asarray(points_camera, np.float64)
    visible = points[..., 2] >= min_depth_m
    depth = np.where(visible, points[..., 2], np.nan)
    x, y = points[..., 0] / depth, points[..., 1] / depth
    pixels = np.stack([k[0, 0] * x + k[0, 1] * y + k[0, 2], k[1, 1] * y + k[1, 2]], axis=-1)
    return pixels, visible


def pixel_rays(matrix: ArrayLike, pixels: ArrayLike) -> Matrix:
    """Return rays (..., 3) with z = 1 through ``pixels`` (..., 2)."""
    k, uv = np.asarray(matrix, np.float64), np.asarray(pixels, np.float64)
    y = (uv[..., 1] - k[1, 2]) / k[1, 1]
    x = (uv[..., 0] - k[0, 2] - k[0, 1] * y) / k[0, 0]
    return np.stack([x, y, np.ones_like(x)], axis=-1)


def check_camera_model(model: CameraModel, rectified: bool, name: str) -> None:
    """Check that ``model`` can be used.

    Raises:
        ContractError: names the camera and what of its size, matrix or distortion is unusable.
    """
    field = f"camera[{name}]"
    if model.width <= 0 or model.height <= 0:
        raise ContractError(f"{field}.size", (model.width, model.height), "positive pixels")
    matrix = np.asarray(model.matrix, np.float64)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        raise ContractError(f"{field}.matrix", matrix.tolist(), "a finite 3x3 matrix")
    if matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
        raise ContractError(
            f"{field}.matrix",
            (float(matrix[0, 0]), float(matrix[1, 1])),
            "positive focal lengths (calibrated)",
        )
    if rectified:
        return
    if model.distortion_model not in DISTORTION_MODELS:
        raise ContractError(
            f"{field}.distortion_model",
            model.distortion_model,
            f"one of {', '.join(name for name in DISTORTION_MODELS if name)}, or a rectified image",
        )
    coefficients = np.asarray(model.distortion, np.float64).reshape(-1)
    counts = DISTORTION_MODELS[model.distortion_model]
    if len(coefficients) not in counts or not np.isfinite(coefficients).all():
        raise ContractError(
            f"{field}.distortion",
            coefficients.tolist(),
            f"{' or '.join(map(str, counts))} finite coefficients of {model.distortion_model!r}",
        )


def distort(model: CameraModel, rays: ArrayLike) -> Matrix:
    """Return the pixels (N, 2) of the published image that see ``rays`` (N, 3), z > 0.

    Formulas: OpenCV ``calib3d`` (plumb_bob, rational_polynomial with thin prism) and
    ``calib3d_fisheye`` (equidistant), evaluated by OpenCV itself.
    """
    import cv2

    points = np.ascontiguousarray(rays, np.float64).reshape(-1, 1, 3)
    coefficients = np.asarray(model.distortion, np.float64).reshape(-1)
    matrix = np.asarray(model.matrix, np.float64)
    if model.distortion_model == "equidistant":
        flat = np.ascontiguousarray(points[..., :2] / points[..., 2:])
        pixels = cv2.fisheye.distortPoints(flat, matrix, coefficients)
    else:
        zero = np.zeros(3)
        pixels, _ = cv2.projectPoints(points, zero, zero, matrix, coefficients)
    return np.asarray(pixels, np.float64).reshape(-1, 2)


def widest_pinhole(
    model: CameraModel, width: int, height: int, max_fov_deg: float
) -> tuple[Matrix, float]:
    """Find the widest centred pinhole view that a distorted camera fills completely.

    The view looks along the optical axis with square pixels; it is widened until its border would
    leave the published image, or ``max_fov_deg`` is reached. Widening from inside out keeps clear
    of the radius at which a distortion polynomial folds back.

    Returns:
        its (3, 3) matrix and its horizontal field of view in degrees (0 when nothing fits).
    """
    columns, rows = np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64)
    border = np.concatenate(
        [
            np.stack([columns, np.zeros(width)], -1),
            np.stack([columns, np.full(width, height - 1.0)], -1),
            np.stack([np.zeros(height), rows], -1),
            np.stack([np.full(height, width - 1.0), rows], -1),
        ]
    )

    def fits(fov_deg: float) -> bool:
        pixels = distort(model, pixel_rays(pinhole_matrix(fov_deg, width, height), border))
        upper = np.array([model.width - 0.5, model.height - 0.5])
        return bool(np.all((pixels >= -0.5) & (pixels <= upper)))

    low, high = 0.0, max_fov_deg
    for fov in np.append(np.arange(2.0, max_fov_deg, 1.0), max_fov_deg):
        if not fits(float(fov)):
            high = float(fov)
            break
        low = float(fov)
    while high - low > 1e-3:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if fits(middle) else (low, middle)
    return pinhole_matrix(max(low, 1e-3), width, height), low


def rectification_maps(
    model: CameraModel, source_scale: float, matrix: ArrayLike, width: int, height: int
) -> tuple[NDArray[np.int16], NDArray[np.uint16]]:
    """Return fixed-point maps for ``cv2.remap`` from a distorted image to a pinhole view.

    Args:
        model: the distorted camera.
        source_scale: size of the image handed to ``remap`` over the published size (1, 1/2, ...).
        matrix: (3, 3) of the pinhole view; width, height: its pixels.
    """
    import cv2

    source = resize_intrinsics(model.matrix, source_scale, source_scale)
    target = np.asarray(matrix, np.float64)
    coefficients = np.asarray(model.distortion, np.float64).reshape(-1)
    if model.distortion_model == "equidistant":
        maps = cv2.fisheye.initUndistortRectifyMap(
            source, coefficients, np.eye(3), target, (width, height), cv2.CV_32FC1
        )
    else:
        maps = cv2.initUndistortRectifyMap(
            source, coefficients, np.eye(3), target, (width, height), cv2.CV_32FC1
        )
    coarse, fine = cv2.convertMaps(maps[0], maps[1], cv2.CV_16SC2)
    return coarse, fine  # type: ignore[return-value]
