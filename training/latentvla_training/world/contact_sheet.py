"""Pictures of the world for people: a sheet of rendered scenes, and an episode as a film."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import Command, ContractError
from latentvla_training.world.birds_eye import draw_birds_eye
from latentvla_training.world.cameras import Renderer
from latentvla_training.world.episode import STEP_S, Episode
from latentvla_training.world.rig import default_rig
from latentvla_training.world.road_map import RoadMap

Image = NDArray[np.uint8]

_MARGIN_PX, _CAPTION_PX = 6, 22
#: Width and height of a film, pixels.
FILM_SIZE = (1280, 800)
_PAPER, _INK = 250, 40


def contact_sheet(
    scenes: Sequence[tuple[Episode, int]],
    path: Path | str,
    columns: int = 2,
    road_map_of: Callable[[str], RoadMap] | None = None,
) -> None:
    """Write a PNG grid of scenes: front camera, left and right beside it, and the view from above.

    Args:
        scenes: (episode, step) in reading order.
        path: of the PNG; its folder is made.
        columns: scenes side by side.
        road_map_of: network name to road map, ``networks.build_road_map`` by default.

    Raises:
        ContractError: no scenes, or fewer than one column.
    """
    if not scenes or columns < 1:
        raise ContractError(
            "contact sheet", (len(scenes), columns), "scenes and columns, 1 or more"
        )
    renderers: dict[str, Renderer] = {}
    panels = []
    for episode, step in scenes:
        if episode.network not in renderers:
            renderers[episode.network] = Renderer(_road_map(episode.network, road_map_of))
        panels.append(_panel(renderers[episode.network], episode, step))
    blank = np.full_like(panels[0], _PAPER)
    panels += [blank] * (-len(panels) % columns)
    rows = [np.hstack(panels[i : i + columns]) for i in range(0, len(panels), columns)]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))


def telling_scenes(
    episodes: Iterable[Episode], road_maps: Callable[[str], RoadMap]
) -> list[tuple[Episode, int]]:
    """Return one step per episode with much to see: lights and traffic ahead, and a turn."""
    chosen = []
    for episode in episodes:
        signals = road_maps(episode.network).signals
        best, best_score = 0, -1.0
        for step in range(0, episode.num_steps, 5):
            x, y, yaw = episode.ego[step, :3]
            forward = np.array([np.cos(yaw), np.sin(yaw)])
            agents = episode.agent_state[step, episode.agent_valid[step], :2] - (x, y)
            near = np.linalg.norm(agents, axis=1) < 45.0
            score = float(np.sum(near & (agents @ forward > 3.0)))
            for signal in signals:
                ahead = signal.lamp_centers[0, :2] - (x, y)
                facing = np.cos(signal.facing_yaw - yaw) < -0.8
                if facing and 12.0 < ahead @ forward < 45.0 and np.linalg.norm(ahead) < 50.0:
                    score += 1.5
            score += 4.0 * min(abs(float(episode.ego[step, 6])), 0.3)
            if score > best_score:
                best, best_score = step, score
        chosen.append((episode, best))
    return chosen


def show_episode(
    name: str,
    path: Path | str,
    episode: Episode | None = None,
    road_map_of: Callable[[str], RoadMap] | None = None,
) -> None:
    """Write an MP4 (H.264) of the three cameras and the view from above, in real time.

    Args:
        name: of the episode, simulated when ``episode`` is not given.
        path: of the MP4; its folder is made.
    """
    import av

    if episode is None:
        from latentvla_training.world.simulation import simulate_episode

        episode = simulate_episode(name)
    renderer = Renderer(_road_map(episode.network, road_map_of))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=round(1.0 / STEP_S))
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "23", "preset": "veryfast", "threads": "1"}
        stream.width, stream.height = FILM_SIZE
        for step in range(episode.num_steps):
            frame = film_frame(renderer, episode, step)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def film_frame(renderer: Renderer, episode: Episode, step: int) -> Image:
    """Return one frame (800, 1280, 3): front and view from above, left and right below."""
    front = _view(renderer, episode, step, "front", 840)
    above = draw_birds_eye(renderer.road_map, episode, step, 420)
    gap = np.full((420, 20, 3), 24, np.uint8)
    sides = [_view(renderer, episode, step, slot, 640) for slot in ("left", "right")]
    frame = np.vstack([np.hstack([front, gap, above]), np.hstack(sides)])
    frame = np.vstack([frame, np.full((60, 1280, 3), 24, np.uint8)])
    _write(frame, caption(episode, step), (16, 740 + 38), 0.75, 235)
    return frame


def caption(episode: Episode, step: int) -> str:
    """Return name, time, speed and command of a scene."""
    speed = 3.6 * episode.ego[step, 3]
    command = Command(int(episode.command[step])).name.lower()
    return f"{episode.name}   {step * STEP_S:4.1f} s   {speed:3.0f} km/h   {command}"


def _panel(renderer: Renderer, episode: Episode, step: int) -> Image:
    sides = [_view(renderer, episode, step, slot, 256) for slot in ("left", "right")]
    front = _view(renderer, episode, step, "front", 512)
    above = draw_birds_eye(renderer.road_map, episode, step, 256)
    picture = np.hstack([np.vstack(sides), front, above])
    margin = _MARGIN_PX
    panel = np.full(
        (256 + _CAPTION_PX + margin, picture.shape[1] + 2 * margin, 3), _PAPER, np.uint8
    )
    panel[_CAPTION_PX : _CAPTION_PX + 256, margin:-margin] = picture
    _write(panel, caption(episode, step), (margin, _CAPTION_PX - 6), 0.45, _INK)
    return panel


def _view(renderer: Renderer, episode: Episode, step: int, slot: str, width: int) -> Image:
    camera = default_rig(width, width // 2).camera(slot)
    assert camera is not None and camera.model is not None
    return renderer.render(
        episode, step, camera.model.matrix, width, width // 2, camera.ego_from_camera
    )


def _write(image: Image, text: str, corner: tuple[int, int], scale: float, ink: int) -> None:
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(image, text, corner, font, scale, (ink, ink, ink), 1, cv2.LINE_AA)


def _road_map(network: str, road_map_of: Callable[[str], RoadMap] | None) -> RoadMap:
    if road_map_of is not None:
        return road_map_of(network)
    from latentvla_training.world.networks import build_road_map

    return build_road_map(network)
