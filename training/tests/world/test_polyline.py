"""Resampling keeps the ends and stays on the line."""

from __future__ import annotations

import numpy as np
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from latentvla_training.world.polyline import polyline_length, resample_polyline

points = arrays(np.float64, st.tuples(st.integers(2, 8), st.just(2)), elements=st.floats(-99, 99))


@given(points, st.floats(0.5, 5.0))
def test_resampled_polyline_is_the_same_line(line: np.ndarray, spacing: float) -> None:
    if polyline_length(line) < 1e-3:
        return
    resampled = resample_polyline(line, spacing)
    np.testing.assert_allclose(resampled[[0, -1]], line[[0, -1]], atol=1e-4)
    distance = shapely.distance(shapely.LineString(line), shapely.points(resampled))
    assert distance.max() < 1e-4
    assert np.linalg.norm(np.diff(resampled, axis=0), axis=1).max() < 1.5 * spacing + 1e-6
