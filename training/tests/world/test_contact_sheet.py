"""Pictures for people: a sheet, a film, and the view from above."""

from __future__ import annotations

import dataclasses

import av
import cv2
import numpy as np
import pytest
from latentvla_training.world.birds_eye import SIGNAL_COLORS, draw_birds_eye
from latentvla_training.world.cameras import Renderer
from latentvla_training.world.contact_sheet import (
    FILM_SIZE,
    ROW_PX,
    caption,
    contact_sheet,
    film_frame,
    show_episode,
    telling_scenes,
)
from latentvla_training.world.crossroads import crossroads_episode, crossroads_map
from latentvla_training.world.episode import AgentModel, Event, EventName, Weather
from latentvla_training.world.semantics import SEMANTIC_COLORS, SemanticClass
from latentvla_training.world.still_life import StillAgent, still_life

from latentvla_ros.contract import ContractError


def test_sheet_holds_every_scene(tmp_path):
    episodes = [crossroads_episode(seed, num_steps=60) for seed in (1, 2, 3)]
    road_map = crossroads_map()
    scenes = telling_scenes(episodes, lambda _: road_map)
    assert [episode.name for episode, _ in scenes] == [episode.name for episode in episodes]
    path = tmp_path / "out" / "sheet.png"
    contact_sheet(scenes, path, columns=2, road_map_of=lambda _: road_map)
    image = cv2.imread(str(path))
    assert image.shape[1] > 2 * 1024
    half_height, half_width = image.shape[0] // 2, image.shape[1] // 2
    panels = [image[:half_height, :half_width], image[half_height:, :half_width]]
    assert all(panel.std() > 30 for panel in panels)
    assert image[half_height:, half_width:].std() == 0  # the place of a fourth


def test_sheet_without_scenes_is_refused(tmp_path):
    with pytest.raises(ContractError, match="contact sheet"):
        contact_sheet([], tmp_path / "sheet.png")


def test_film_has_a_frame_per_step(tmp_path):
    path = tmp_path / "film.mp4"
    episode = crossroads_episode(1, num_steps=4)
    show_episode(episode.name, path, episode, lambda _: crossroads_map())
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == 10
    assert len(frames) == 4
    assert frames[0].shape == (FILM_SIZE[1], FILM_SIZE[0], 3)


def test_film_with_classes_and_depth_is_taller(tmp_path):
    path = tmp_path / "film.mp4"
    episode = crossroads_episode(1, num_steps=1)
    show_episode(episode.name, path, episode, lambda _: crossroads_map(), semantic=True, depth=True)
    with av.open(str(path)) as container:
        (frame,) = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert frame.shape == (FILM_SIZE[1] + 2 * ROW_PX, FILM_SIZE[0], 3)
    drawn = film_frame(Renderer(crossroads_map()), episode, 0, semantic=True)
    row = drawn[740 : 740 + 212, :424].reshape(-1, 3)
    assert np.isin(row, SEMANTIC_COLORS).all()
    assert (row == SEMANTIC_COLORS[SemanticClass.ROAD]).all(axis=1).mean() > 0.1


def test_caption_names_the_weather_and_the_event_while_it_lasts():
    event = Event(EventName.CUT_IN, 1, 2, {})
    episode = dataclasses.replace(
        crossroads_episode(1, num_steps=3), weather=Weather.FOG, events=(event,)
    )
    assert "fog" in caption(episode, 0)
    renderer = Renderer(crossroads_map())
    amber = [
        int((np.ptp(film_frame(renderer, episode, step)[-60:], axis=2) > 100).sum())
        for step in range(3)
    ]
    assert amber[0] == amber[2] == 0 < amber[1]


def test_view_from_above_tells_kinds_apart():
    road_map = crossroads_map()
    seen = {}
    for model in AgentModel:
        episode = still_life((StillAgent(model, (-24.0, -5.25, 0.0), (90, 90, 90)),))
        episode.ego[0, :3] = -40.0, -5.25, 0.0
        seen[model] = draw_birds_eye(road_map, episode, 0, size=420, meters=80.0)
    for first in AgentModel:
        for second in AgentModel:
            if first < second:
                assert not np.array_equal(seen[first], seen[second]), (first, second)


def test_view_from_above_shows_ego_and_lights():
    road_map = crossroads_map()
    episode = crossroads_episode(1, num_steps=60)
    step = 45
    image = draw_birds_eye(road_map, episode, step, size=240, meters=80.0).astype(int)
    ego = image[180 - 4, 120]
    assert ego[2] > ego[0] + 100
    near_stop = np.abs(image[: 180 - 10] - SIGNAL_COLORS[2]).sum(axis=2) < 30
    assert near_stop.any()  # its own light has turned green
    episode.signal_state[step] = 0
    red = draw_birds_eye(road_map, episode, step, size=240, meters=80.0).astype(int)
    assert not (np.abs(red[: 180 - 10] - SIGNAL_COLORS[2]).sum(axis=2) < 30).any()
    with pytest.raises(ContractError, match="step"):
        draw_birds_eye(road_map, episode, 60)
