"""What is drawn lies where the geometry says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentvla_ros.cli import drawing
from latentvla_ros.cli.drawing import BirdsEye, CameraView
from latentvla_ros.geometry import camera, se3

WIDTH, HEIGHT = 640, 320


def view() -> CameraView:
    return CameraView(
        camera.pinhole_matrix(60.0, WIDTH, HEIGHT), se3.camera_mount((1.8, 0.0, 1.6), 0.0)
    )


def straight(length_m: float = 30.0) -> np.ndarray:
    return np.stack([np.linspace(0, length_m, 41), np.zeros(41), np.zeros(41)], axis=1)


def test_ribbon_covers_the_road_ahead_and_nothing_above_the_horizon() -> None:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    drawing.draw_ribbon(image, view(), straight(), np.full(41, 10.0))
    painted = image.any(axis=2)
    assert not painted[: HEIGHT // 2].any()
    pixel, visible = view().project(np.array([[10.0, 0.0, 0.0], [10.0, 1.4, 0.0]]))
    assert visible.all()
    on, beside = np.round(pixel).astype(int)
    assert painted[on[1], on[0]]
    assert not painted[beside[1], beside[0]]


def test_ribbon_behind_the_camera_draws_nothing() -> None:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    drawing.draw_ribbon(image, view(), -straight(), np.full(41, 10.0))
    assert not image.any()


def test_points_behind_the_camera_are_not_visible() -> None:
    pixels, visible = view().project(np.array([[5.0, 0.0, 1.6], [1.0, 0.0, 1.6]]))
    assert visible.tolist() == [True, False]
    assert pixels[0] == pytest.approx([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])


@given(st.floats(-8, 50), st.floats(-15, 15))
def test_birds_eye_has_forward_up_and_left_left(x: float, y: float) -> None:
    road = BirdsEye(300, 640)
    u, v = road.pixels([[x, y]])[0]
    u0, v0 = road.pixels([[0.0, 0.0]])[0]
    assert u - u0 == pytest.approx(-y * road.pixels_per_metre)
    assert v - v0 == pytest.approx(-x * road.pixels_per_metre)


def test_birds_eye_draws_plan_driven_path_and_ego() -> None:
    road = BirdsEye(300, 640)
    image = road.canvas()
    road.draw_plan(image, straight(), np.full(41, 20.0), straight()[5::5])
    road.draw_driven(image, np.array([[20.0, 4.0, 0.0], [np.nan, 0.0, 0.0]]))
    road.draw_ego(image)
    for point, colour in (
        ((25.3, 0.0), drawing.PLAN),
        ((20.0, 4.0), drawing.DRIVEN),
        ((0.0, 0.0), drawing.EGO),
    ):
        u, v = np.round(road.pixels([point])[0]).astype(int)
        assert np.abs(image[v, u].astype(int) - colour).max() < 40, point


def test_faint_lines_are_mixed_with_what_is_below() -> None:
    road = BirdsEye(300, 640)
    image = np.zeros((640, 300, 3), np.uint8)
    road.draw_faint(image, [straight()], (200, 100, 0), 0.5)
    assert image.max(axis=(0, 1)).tolist() == [100, 50, 0]


def test_speed_colours_run_from_slow_to_fast() -> None:
    slow, middle, fast = drawing.speed_colours([0.0, 7.5, 99.0])
    assert slow == drawing.PLAN_SLOW and fast == drawing.PLAN
    assert min(slow[0], fast[0]) <= middle[0] <= max(slow[0], fast[0])


@pytest.mark.parametrize("command", [0, 1, 2, 3])
def test_every_command_has_its_own_sign(command: int) -> None:
    signs = []
    for which in (command, (command + 1) % 4):
        image = np.zeros((60, 60, 3), np.uint8)
        drawing.draw_command(image, (30, 30), 24, which)
        signs.append(image)
    assert signs[0].any() and not np.array_equal(signs[0], signs[1])


def test_an_impossible_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 16x16"):
        BirdsEye(4, 640)
