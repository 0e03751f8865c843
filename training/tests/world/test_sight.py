"""Lines of sight agree with shapely's."""

from __future__ import annotations

import numpy as np
import shapely
import shapely.affinity
from hypothesis import given, settings
from hypothesis import strategies as st
from latentvla_training.world.sight import Occluders

points = st.tuples(st.floats(-20, 20), st.floats(-20, 20))


@settings(max_examples=150, deadline=None)
@given(
    eye=points,
    target=points,
    center=points,
    yaw=st.floats(-3.2, 3.2),
    size=st.tuples(st.floats(0.5, 9), st.floats(0.5, 9)),
)
def test_clear_where_the_line_misses_the_box(
    eye: tuple[float, float],
    target: tuple[float, float],
    center: tuple[float, float],
    yaw: float,
    size: tuple[float, float],
) -> None:
    box = shapely.box(-size[0] / 2, -size[1] / 2, size[0] / 2, size[1] / 2)
    box = shapely.affinity.rotate(box, yaw, (0.0, 0.0), use_radians=True)
    box = shapely.affinity.translate(box, *center)
    line = shapely.LineString([eye, target])
    if abs(line.distance(box)) < 1e-6 and not line.intersects(box.buffer(-1e-6)):
        return  # it just touches
    one = Occluders(np.array([center]), np.array([yaw]), np.array([size]))
    assert one.clear(eye, target) == (not line.intersects(box))


def test_nothing_hides_behind_nothing() -> None:
    none = Occluders(np.zeros((0, 2)), np.zeros(0), np.zeros((0, 2)))
    assert none.clear((0.0, 0.0), (10.0, 0.0))
