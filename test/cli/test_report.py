"""Figures, pages and films from records whose content is known."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_bundle import NAMES

from latentvla_ros.cli.charts import Series, line_chart, ticks
from latentvla_ros.cli.driven_path import DrivenPath
from latentvla_ros.cli.replay_summary import (
    format_table,
    latent_action_rows,
    latent_actions,
    summarise,
    table_rows,
)
from latentvla_ros.cli.report import write_report
from latentvla_ros.cli.video import video_format, write_video
from latentvla_ros.geometry import se2
from latentvla_ros.geometry.trajectory import constant_turn_rate
from latentvla_ros.nodes.recording import (
    CameraHealth,
    DiagnosticSample,
    GateOutput,
    RecordedPlan,
    Recording,
    StatusSample,
)

SPEED = 10.0


def path() -> DrivenPath:
    times = np.arange(0.0, 8.0, 0.02)
    poses = np.stack([SPEED * times, np.zeros_like(times), np.zeros_like(times)], axis=1)
    twists = np.tile([SPEED, 0.0, 0.0], (len(times), 1))
    return DrivenPath(np.round(times * 1e9).astype(np.int64), poses, twists)


def plan(index: int) -> RecordedPlan:
    time_s = 0.1 * index
    pose = np.array([SPEED * time_s, 0.0, 0.0])
    ahead = np.stack([np.arange(41) * 0.1 * SPEED, np.zeros(41), np.zeros(41)], axis=1)
    knots = constant_turn_rate(SPEED, 0.0) + np.array([0.0, 0.5, 0.0])
    return RecordedPlan(
        stamp_ns=round(time_s * 1e9),
        sequence=index,
        pose=pose,
        knots=knots,
        candidates=knots[None],
        scores=np.zeros(1),
        points=se2.compose(pose, ahead),
        speeds=np.full(41, SPEED),
        latent_actions=np.zeros(12, np.int64),
        latent_probabilities=np.full(12, 0.25),
        received_s=100.0 + time_s,
        latency_s=0.020 + 0.001 * index,
        age_s=0.05,
    )


def status(received_s: float, plans: int, starving: bool = False) -> StatusSample:
    return StatusSample(
        received_s=received_s,
        lifecycle_state="active",
        health=2,
        cause="",
        detail="",
        first_cause="",
        bundle_id="tiny-1",
        backend="onnxruntime",
        frames=plans + 2,
        plans=plans,
        age_s=0.05,
        drops={"warming_up": 2, "superseded": 0},
        cameras={"front": CameraHealth("/front", 40, 38, 0, 10.0, starving)},
        odometry_jumps=0,
        command=1,
        stages_s={"backend": 0.01, "receipt_to_publish": 0.001 * plans},
    )


def recording() -> Recording:
    return Recording(
        plans=[plan(i) for i in range(31)],
        gated=[GateOutput(0, 0, 100.0), GateOutput(1, 1, 100.1)],
        statuses=[status(101.0, 10), status(102.0, 20), status(102.2, 20), status(105.0, 31, True)],
        diagnostics=[
            DiagnosticSample(101.0, "planner", 0, "ok", {}),
            DiagnosticSample(101.0, "planner", 1, "command <lost>", {}),
            DiagnosticSample(105.0, "planner", 2, "odometry silent", {}),
        ],
        published={"/front": 40},
        lateness_s=[0.001, 0.002],
        played_until_s=104.0,
    )


def result() -> dict[str, Any]:
    return summarise(recording(), path(), "/front", 1.0) | {"bag": "/x/demo", "ros_distro": "k"}


def test_summary_counts_times_and_errors() -> None:
    figures = result()
    assert (figures["frames"], figures["plans"]) == (40, 31)
    assert figures["plan_rate_hz"] == pytest.approx(10.0)
    assert figures["scored_frames"] == 31
    assert figures["ade_m"] == pytest.approx(0.5) == figures["fde_m"]
    assert figures["constant_turn_rate"] == {"ade_m": 0.0, "fde_m": 0.0}
    assert figures["image_to_plan_ms"]["p50"] == pytest.approx(35.0)
    assert figures["gate"]["stops"] == {"comfortable": 1}
    json.dumps(figures, allow_nan=False)


def test_a_status_after_the_play_counts_for_drops_only() -> None:
    figures = result()
    assert figures["drops"] == {"warming_up": 2, "superseded": 0}
    assert figures["cameras"]["front"]["starving"] is False
    assert figures["diagnostics"] == {"warning: planner: command <lost>": 1}


@pytest.mark.parametrize(("last_sent_s", "early_s"), [(103.9, 0.0), (102.1, 1.9)])
@pytest.mark.parametrize("starved_before", [False, True])
def test_a_camera_whose_recording_ends_early_does_not_starve(
    last_sent_s: float, early_s: float, starved_before: bool
) -> None:
    made = recording()
    made.statuses = [status(102.0, 20, starved_before), status(103.8, 20, True)]
    made.last_sent_s = {"/front": last_sent_s}
    figures = summarise(made, path(), "/front", 1.0)
    camera = figures["cameras"]["front"]
    assert camera["starving"] is (starved_before or early_s == 0.0)
    assert camera["ends_early_s"] == pytest.approx(early_s)
    rows = dict(table_rows(figures))
    assert ("recording of a camera ends early" in rows) == (early_s > 0.0)
    assert ("starving cameras" in rows) is camera["starving"]


def test_stages_count_each_plan_once() -> None:
    figures = result()
    assert figures["staged_plans"] == 3
    assert figures["receipt_to_publish_ms"]["p50"] == pytest.approx(20.0)


def test_a_replay_without_plans_has_no_numbers_and_no_nan() -> None:
    figures = summarise(Recording(), path(), "/front", 1.0)
    assert figures["ade_m"] is None and figures["receipt_to_publish_ms"] is None
    json.dumps(figures, allow_nan=False)
    assert "no plan" in format_table(table_rows(figures))


def test_table_names_causes_but_not_zeros() -> None:
    words = format_table(table_rows(result()))
    assert "warming_up 2" in words and "superseded" not in words
    assert "1 comfortable stops" in words


def coded_plan(index: int) -> RecordedPlan:
    return replace(
        plan(index),
        latent_actions=np.arange(12),
        latent_probabilities=np.arange(12) / 16,
        codebook_id="book-<1>",
    )


def test_latent_actions_of_the_last_plan() -> None:
    plans = [plan(0), coded_plan(10)]
    said = latent_actions(plans, NAMES)
    assert said["ids"] == list(range(12)) and said["probabilities"][3] == 0.188
    assert said["codebook_id"] == "book-<1>" and said["time_s"] == 1.0
    assert latent_action_rows({"latent_actions": said}) == [
        ("0-1 s", "p0 c0 0 %, p1 c1 6 %, p2 c2 12 %, p3 c3 19 %"),
        ("1-2 s", "p0 c4 25 %, p1 c5 31 %, p2 c6 38 %, p3 c7 44 %"),
        ("2-4 s", "p0 c8 50 %, p1 c9 56 %, p2 c10 62 %, p3 c11 69 %"),
    ]
    json.dumps(said)


def test_latent_actions_without_a_meaning_are_not_shown() -> None:
    assert latent_actions([], NAMES) == {} and latent_actions([plan(0)], None) == {}
    nameless = latent_actions([coded_plan(0)], None)
    assert nameless["ids"] == list(range(12)) and "by_name" not in nameless
    assert latent_action_rows({"latent_actions": nameless}) == [] == latent_action_rows({})


class _Balanced(HTMLParser):
    """Fails on tags that are closed in the wrong order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br", "img", "line", "circle", "path", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("line", "circle", "path"):
            assert self.open.pop() == tag


def test_page_stands_alone_and_escapes_what_it_shows(tmp_path: Path) -> None:
    film = write_video(
        [np.full((64, 96, 3), 40 * i, np.uint8) for i in range(4)], tmp_path / "f", 10
    )
    page = write_report(tmp_path, result(), recording(), path(), film, "latentvla replay '<b>'")
    text = page.read_text(encoding="utf-8")
    parser = _Balanced()
    parser.feed(text)
    assert parser.open == []
    assert "$" not in re.sub(r"data:[^\"]+", "", text)
    assert "data:video/mp4;base64," in text and text.count("<svg") == 4
    assert "&lt;b&gt;" in text and "&lt;lost&gt;" in text and "<lost>" not in text
    assert not re.search(r"(src|href)=\"https?:", text)


def test_page_names_latent_actions_where_they_have_names(tmp_path: Path) -> None:
    figures = result()
    plain = write_report(tmp_path, figures, recording(), path(), None, "x").read_text()
    assert "Latent actions" not in plain
    figures["latent_actions"] = latent_actions([coded_plan(0)], NAMES)
    text = write_report(tmp_path, figures, recording(), path(), None, "x").read_text()
    parser = _Balanced()
    parser.feed(text)
    assert parser.open == []
    assert "<tr><td>1-2 s</td><td>p0 c4 25 %, p1 c5 31 %" in text and "book-&lt;1&gt;" in text


def test_page_of_a_replay_without_plans_or_film(tmp_path: Path) -> None:
    figures = summarise(Recording(), path(), "/front", 1.0) | {"bag": "b", "ros_distro": ""}
    text = write_report(tmp_path, figures, Recording(), path(), None, "x").read_text()
    assert "<video" not in text and "nan" not in text.lower()


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_round_sorted_and_inside(low: float, span: float) -> None:
    values = ticks(low, low + span)
    assert 1 <= len(values) <= 12
    assert values == sorted(values)
    assert all(low - span * 1e-3 <= v <= low + span * 1.001 for v in values)


@given(st.lists(st.one_of(st.floats(-1e5, 1e5), st.just(float("nan"))), max_size=30))
def test_charts_are_well_formed_whatever_they_show(values: list[float]) -> None:
    x = np.arange(len(values))
    for style in ("line", "dots", "dashed"):
        figure = line_chart([Series("a & b", x, values, "red", style)], "x", "y")
        ElementTree.fromstring(figure)
        assert "nan" not in figure


def test_a_map_keeps_its_proportions() -> None:
    square = np.array([[0, 0], [100, 0], [100, 100], [0, 100]], float)
    figure = line_chart([Series("", square[:, 0], square[:, 1], "red")], "x", "y", equal_axes=True)
    found = re.search(r'<path d="([^"]+)"', figure)
    assert found is not None
    corners = np.array(re.findall(r"([\d.]+) ([\d.]+)", found.group(1)), float)
    sides = np.linalg.norm(np.diff(corners, axis=0), axis=1)
    assert sides == pytest.approx([sides[0]] * 3, abs=0.2)


@pytest.mark.parametrize("format_", ["mp4", "gif"])
def test_films_can_be_played(tmp_path: Path, format_: str) -> None:
    pytest.importorskip("av" if format_ == "mp4" else "PIL")
    frames = [np.full((128, 256, 3), 20 * i, np.uint8) for i in range(10)]
    film = write_video(iter(frames), tmp_path / "film", 10.0, format_)
    assert film.suffix == f".{format_}"
    if format_ == "mp4":
        import av

        with av.open(str(film)) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.average_rate) == ("h264", 10)
            assert stream.codec_context.pix_fmt == "yuv420p"
            pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert len(pictures) == 10
        assert pictures[9].mean() == pytest.approx(180, abs=6)
    else:
        from PIL import Image

        with Image.open(film) as image:
            assert getattr(image, "n_frames", 1) == 5


def test_a_film_of_nothing_is_an_error(tmp_path: Path) -> None:
    from latentvla_ros.cli.errors import CommandError

    assert video_format() in ("mp4", "gif")
    with pytest.raises(CommandError, match="no-frames"):
        write_video([], tmp_path / "film", 10.0)
