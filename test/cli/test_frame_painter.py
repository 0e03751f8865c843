"""The film says what the latent actions of its plan mean, and only where they mean something."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_report import coded_plan
from tiny_bundle import NAMES

from latentvla_ros.cli import drawing
from latentvla_ros.cli.drawing import CameraView
from latentvla_ros.cli.frame_painter import CameraPicture, FramePainter, Moment
from latentvla_ros.geometry import camera, se3


def moment() -> Moment:
    view = CameraView(camera.pinhole_matrix(60.0, 256, 128), se3.camera_mount((1.8, 0.0, 1.6), 0.0))
    picture = CameraPicture(np.full((128, 256, 3), 200, np.uint8), view)
    still = np.zeros((1, 3))
    return Moment(1.0, {"front": picture}, coded_plan(0), np.zeros(3), still, still, 5.0, 1)


def test_names_are_written_over_the_top_of_the_front_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[str] = []
    put = drawing.text

    def listen(image: drawing.Image, words: str, *arguments: object, **options: object) -> None:
        written.append(words)
        put(image, words, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(drawing, "text", listen)
    plain = FramePainter("front", "coded-1").paint(moment())
    assert not any("p1 c5" in words for words in written)
    painter = FramePainter("front", "coded-1", names=NAMES)
    named = painter.paint(moment())
    assert "1-2 s" in written and "p0 c4 25 %, p1 c5 31 %, p2 c6 38 %, p3 c7 44 %" in written
    changed = (named != plain).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert rows[0] == 0 and 60 < rows[-1] < 100  # three lines, and nothing beside the picture
    assert columns[-1] < painter.layout.front_width
    assert named[:70, :500].max() > 220 > named[:70, 700:800].max()  # light words on a dark band


def test_a_frame_without_a_plan_names_nothing() -> None:
    dropped = replace(moment(), plan=None)
    plain, named = (
        FramePainter("front", "c", names=names).paint(dropped) for names in (None, NAMES)
    )
    assert np.array_equal(plain, named)
