"""Lengths and resampling of planar polylines (N, 2), m."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def polyline_length(points: Array) -> float:
    """Length of a polyline (N, 2), m."""
    return float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())


def resample_polyline(points: Array, spacing_m: float = 1.0) -> Array:
    """Return a polyline with points about ``spacing_m`` apart, ends kept."""
    length = np.linalg.norm(np.diff(points, axis=0), axis=1)
    points = points[np.append(True, length > 1e-6)]
    s = np.append(0.0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1)))
    grid = np.linspace(0.0, s[-1], max(2, round(s[-1] / spacing_m) + 1))
    return np.stack([np.interp(grid, s, points[:, 0]), np.interp(grid, s, points[:, 1])], axis=1)
