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
from latentvla_training.world.episode import STEP_S, Episode, Weather
from latentvla_training.world.rig import default_rig
from latentvla_training.world.road_map import RoadMap
from latentvla_training.world.semantics import SEMANTIC_COLORS

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

_FONT = cv2.FONT_HERSHEY_SIMPLEX

_MARGIN_PX, _CAPTION_PX = 6, 22
#: Width and height of a film, pixels; height of each further row of three views.
FILM_SIZE, ROW_PX = (1280, 800), 214
#: Nearer than this, m, depth is drawn brightest.
_DEPTH_M = 8.0
_PAPER, _INK, _NIGHT = 250, 40, 24
_EVENT_INK = (255, 176, 40)


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
    semantic: bool = False,
    depth: bool = False,
) -> None:
    """Write an MP4 (H.264) of the three cameras and the view from above, in real time.

    Args:
        name: of the episode, simulated when ``episode`` is not given.
        path: of the MP4; its folder is made.
        semantic, depth: add a row of the three cameras' classes, and one of their depth.

    Raises:
        ContractError: the name is no episode of a known network.
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
        stream.width = FILM_SIZE[0]
        stream.height = FILM_SIZE[1] + ROW_PX * (int(semantic) + int(depth))
        for step in range(episode.num_steps):
            frame = film_frame(renderer, episode, step, semantic, depth)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def film_frame(
    renderer: Renderer, episode: Episode, step: int, semantic: bool = False, depth: bool = False
) -> Image:
    """Return one frame (800, 1280, 3): front and view from above, left and right below.

    Rows of ``ROW_PX`` with the classes and the depth of left, front and right follow when asked
    for; the caption stands at the bottom.
    """
    front = _view(renderer, episode, step, "front", 840)
    above = draw_birds_eye(renderer.road_map, episode, step, 420)
    gap = np.full((420, 20, 3), _NIGHT, np.uint8)
    sides = [_view(renderer, episode, step, slot, 640) for slot in ("left", "right")]
    below = np.hstack(sides)
    below[:, 638:642] = _NIGHT
    rows = [np.hstack([front, gap, above]), below]
    for wanted, picture in ((semantic, _semantic_view), (depth, _depth_view)):
        if wanted:
            row = np.full((ROW_PX, FILM_SIZE[0], 3), _NIGHT, np.uint8)
            for place, slot in enumerate(("left", "front", "right")):
                row[:212, 428 * place : 428 * place + 424] = picture(renderer, episode, step, slot)
            rows.append(row)
    footer = np.full((60, FILM_SIZE[0], 3), _NIGHT, np.uint8)
    _write(footer, caption(episode, step), (16, 38), 0.75, 235)
    active = [event.name for event in episode.events if event.start_step <= step < event.end_step]
    event = "   ".join(name.value.replace("_", " ") for name in active)
    cv2.putText(footer, event, (860, 38), _FONT, 0.75, _EVENT_INK, 2, cv2.LINE_AA)
    return np.vstack([*rows, footer])


def caption(episode: Episode, step: int) -> str:
    """Return name, time, speed, command and weather of a scene."""
    speed = 3.6 * episode.ego[step, 3]
    command = Command(int(episode.command[step])).name.lower()
    weather = Weather(episode.weather).value
    time_s = step * STEP_S
    return f"{episode.name}   {time_s:4.1f} s   {speed:3.0f} km/h   {command}   {weather}"


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
    return renderer.render(episode, step, *_camera(slot, width))


def _semantic_view(renderer: Renderer, episode: Episode, step: int, slot: str) -> Image:
    classes = renderer.render_semantic(episode, step, *_camera(slot, 424))
    return np.asarray(SEMANTIC_COLORS[classes])


def _depth_view(renderer: Renderer, episode: Episode, step: int, slot: str) -> Image:
    depth = renderer.render_depth(episode, step, *_camera(slot, 424))
    bright = np.asarray(255.0 * np.minimum(_DEPTH_M / depth, 1.0) ** 0.6, np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(bright, cv2.COLORMAP_MAGMA), cv2.COLOR_BGR2RGB)


def _camera(slot: str, width: int) -> tuple[Array, int, int, Array]:
    """Return intrinsics, width, height and mount of a slot of the default rig."""
    camera = default_rig(width, width // 2).camera(slot)
    assert camera is not None and camera.model is not None
    return camera.model.matrix, width, width // 2, camera.ego_from_camera


def _write(image: Image, text: str, corner: tuple[int, int], scale: float, ink: int) -> None:
    cv2.putText(image, text, corner, _FONT, scale, (ink, ink, ink), 1, cv2.LINE_AA)


def _road_map(network: str, road_map_of: Callable[[str], RoadMap] | None) -> RoadMap:
    if road_map_of is not None:
        return road_map_of(network)
    from latentvla_training.world.networks import build_road_map

    return build_road_map(network)
