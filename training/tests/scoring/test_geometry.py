"""Planar predicates against shapely, in torch and in the compiled kernels."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from latentvla_training.scoring import geometry
from latentvla_training.scoring.scene_batch import PolygonBatch, PolylineBatch
from latentvla_training.scoring.vehicle import oriented_box_corners

GEOMETRIES = ("auto", "torch")
# Coarse coordinates make touching, collinear and coincident cases common; all are exact in binary.
coarse = st.integers(-8, 8).map(lambda v: v / 2.0)
point = st.tuples(coarse, coarse)


@pytest.fixture(params=GEOMETRIES)
def each_geometry(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("LATENTVLA_SCORING_GEOMETRY", request.param)
    return str(request.param)


def polygon_batch(rings: list[np.ndarray]) -> PolygonBatch:
    longest = max(len(ring) for ring in rings)
    padded = np.stack([np.concatenate([r, np.repeat(r[-1:], longest - len(r), 0)]) for r in rings])
    counts = torch.tensor([[len(ring) for ring in rings]])
    return PolygonBatch(torch.from_numpy(padded)[None], counts)


@st.composite
def star_polygon(draw: st.DrawFn) -> np.ndarray:
    """A simple, usually concave ring around the origin."""
    count = draw(st.integers(3, 12))
    radius = np.array(draw(st.lists(st.floats(0.5, 8.0), min_size=count, max_size=count)))
    angle = np.linspace(0.0, 2.0 * np.pi, count, endpoint=False)
    ring = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    ring = np.round(ring * 2.0) / 2.0
    return (
        ring
        if shapely.Polygon(ring).is_valid and shapely.Polygon(ring).area > 0
        else (np.array([[-1.0, -1.0], [2.0, -1.0], [2.0, 1.0], [-1.0, 1.0]]))
    )


@settings(max_examples=60, deadline=None)
@given(rings=st.lists(star_polygon(), min_size=1, max_size=3), points=st.lists(point, min_size=1))
def test_points_in_polygons_is_strict(rings: list[np.ndarray], points: list[tuple]) -> None:
    array = np.array(points, np.float64)
    expected = np.stack([shapely.contains_xy(shapely.Polygon(r), array) for r in rings])
    for backend in GEOMETRIES:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LATENTVLA_SCORING_GEOMETRY", backend)
            inside = geometry.points_in_polygons(
                torch.from_numpy(array)[None], polygon_batch(rings)
            )
        np.testing.assert_array_equal(inside[0].numpy(), expected)


@settings(max_examples=60, deadline=None)
@given(
    ring=star_polygon(),
    center=point,
    heading=st.sampled_from([0.0, np.pi / 2, 0.3, 2.2]),
    half=st.tuples(st.sampled_from([0.5, 1.0, 3.0]), st.sampled_from([0.5, 2.0])),
)
def test_boxes_touch_polygons_like_shapely(ring, center, heading, half) -> None:
    corners = oriented_box_corners(
        torch.tensor(center, dtype=torch.float64), torch.tensor(heading).double(), *half
    )
    # The box that shapely sees is the one of these very corners.
    box, outline = shapely.Polygon(corners.numpy()), shapely.Polygon(ring)
    expected = box.intersects(outline)
    if abs(box.distance(outline)) < 1e-9 and heading != 0.0:
        return  # touching at rounded corners is undecided
    for backend in GEOMETRIES:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LATENTVLA_SCORING_GEOMETRY", backend)
            touched = geometry.boxes_touch_polygons(
                corners[None, None, None], torch.ones(1, 1, 1).bool(), polygon_batch([ring])
            )
        assert bool(touched) == expected


@settings(max_examples=60, deadline=None)
@given(line=st.lists(point, min_size=2, max_size=12), points=st.lists(point, min_size=1))
def test_projection_is_shapelys(line: list[tuple], points: list[tuple]) -> None:
    if len(set(line)) < 2:
        return
    path = shapely.LineString(line)
    lines = PolylineBatch(torch.tensor(line, dtype=torch.float64)[None])
    array = torch.tensor(points, dtype=torch.float64)[None]
    for backend in GEOMETRIES:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LATENTVLA_SCORING_GEOMETRY", backend)
            arc, distance = geometry.project_onto_polylines(array, lines)
        for i, xy in enumerate(points):
            target = shapely.Point(xy)
            assert float(distance[0, i]) == pytest.approx(path.distance(target), abs=1e-12)
            # Where the line comes equally near twice, either place is right.
            here = path.interpolate(float(arc[0, i]))
            assert here.distance(target) == pytest.approx(path.distance(target), abs=1e-9)


def test_projection_takes_the_first_of_equals(each_geometry: str) -> None:
    # A hairpin: both legs are 1 m from the point.
    line = PolylineBatch(torch.tensor([[[0.0, 1.0], [10.0, 1.0], [10.0, -1.0], [0.0, -1.0]]]))
    arc, distance = geometry.project_onto_polylines(torch.tensor([[[4.0, 0.0]]]), line)
    assert float(arc) == 4.0
    assert float(distance) == 1.0


def test_first_contact_counts_touching_and_keeps_order(each_geometry: str) -> None:
    centers = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0]], dtype=torch.float64)
    zero = torch.zeros(4, dtype=torch.float64)
    boxes = oriented_box_corners(centers, zero, 1.0, 1.0)[None, None]  # (1, 1, 4, 4, 2)
    shifts = torch.tensor([[0.0, 0.0], [0.5, 0.0]]).double().expand(1, 1, 4, 2, 2)
    active = torch.tensor([[[True, True, True, True]]])
    frames = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 3]])
    agent_center = torch.tensor([5.0, 0.0], dtype=torch.float64).expand(4, 2)
    agents = oriented_box_corners(agent_center, zero, 1.5, 1.0)[None, None]  # begins at x = 3.5
    valid = torch.ones(1, 1, 4, dtype=torch.bool)
    arguments = [boxes, shifts, active, frames, agents, valid]
    # Step 2 shifted by 0.5 m ends at 3.5 m exactly: query 2 * 2 + 1.
    assert geometry.first_contacts(*arguments).tolist() == [[[5]]]
    arguments[2] = torch.tensor([[[True, True, False, True]]])
    assert geometry.first_contacts(*arguments).tolist() == [[[6]]]
    arguments[5] = torch.tensor([[[True, True, True, False]]])
    assert geometry.first_contacts(*arguments).tolist() == [[[-1]]]
    arguments[4] = agents[:, :0]
    assert geometry.first_contacts(*arguments[:5], valid[:, :0]).shape == (1, 1, 0)


def test_rings_with_nan_contain_nothing(each_geometry: str) -> None:
    ring = np.array([[-1.0, -1.0], [1.0, np.nan], [1.0, 1.0], [-1.0, 1.0]])
    points = torch.zeros(1, 3, 2, dtype=torch.float64)
    points[0, 1] = torch.nan
    assert not geometry.points_in_polygons(points, polygon_batch([ring])).any()
