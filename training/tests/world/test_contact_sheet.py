"""Pictures for people: a sheet, a film, and the view from above."""

from __future__ import annotations

import av
import cv2
import numpy as np
import pytest
from latentvla_training.world.birds_eye import SIGNAL_COLORS, draw_birds_eye
from latentvla_training.world.contact_sheet import (
    FILM_SIZE,
    contact_sheet,
    show_episode,
    telling_scenes,
)
from latentvla_training.world.crossroads import crossroads_episode, crossroads_map

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
