"""A driven route as a film: cameras, the view from above with the plan, and what went wrong."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import Command
from latentvla_ros.geometry import camera, se2, se3
from latentvla_ros.geometry.trajectory import resample
from latentvla_training.closed_loop.infractions import Infraction
from latentvla_training.closed_loop.routes import DrivenRoute, FollowedPlan
from latentvla_training.closed_loop.sensors import renderer_of
from latentvla_training.world.birds_eye import draw_birds_eye
from latentvla_training.world.episode import STEP_S
from latentvla_training.world.rig import default_rig

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

#: Width and height of a film, pixels.
FILM_SIZE = (960, 480)
_BIG, _SMALL = 640, 320
#: Every so many steps are a frame: a film costs as much as the drive.
_STRIDE = 2
_PLAN = (250, 150, 30)
_OTHERS = (120, 120, 200)
_WARNING = (235, 60, 60)
_INK, _DIM = (235, 235, 235), (150, 150, 150)
#: An infraction stays written on the picture for so long.
_SHOWN_S = 3.0
_RIBBON_M, _NEAREST_M = 1.6, 0.5


def film_route(driven: DrivenRoute, path: Path) -> None:
    """Write an MP4 (H.264) of a route in real time; a broken one never takes the place of a whole.

    Args:
        driven: with its plans kept. path: of the MP4.
    """
    import av

    part = path.with_name(f".{path.stem}.part.mp4")
    try:
        with av.open(str(part), "w") as container:
            stream = container.add_stream("libx264", rate=round(1.0 / (STEP_S * _STRIDE)))
            stream.pix_fmt = "yuv420p"
            stream.options = {"crf": "24", "preset": "veryfast", "threads": "1"}
            stream.width, stream.height = FILM_SIZE
            for step in film_steps(driven.episode.num_steps):
                frame = film_frame(driven, step)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def film_steps(num_steps: int) -> list[int]:
    """Return the steps that are frames, the last one always among them."""
    return sorted({*range(0, num_steps, _STRIDE), num_steps - 1})


def film_frame(driven: DrivenRoute, step: int) -> Image:
    """Return one frame (480, 960, 3): front and view from above, sides and text below."""
    plan = next((p for p in reversed(driven.followed) if step - 40 <= p.step <= step), None)
    front = _front(driven, step, plan)
    above = draw_birds_eye(
        renderer_of(driven.network).road_map,
        driven.episode,
        step,
        _SMALL,
        70.0,
        _paths(plan),
    )
    left, right = (_view(driven, step, slot, _SMALL) for slot in ("left", "right"))
    text = _panel(driven, step, plan)
    return np.vstack([np.hstack([front, above]), np.hstack([left, right, text])])


def _paths(plan: FollowedPlan | None) -> tuple[tuple[Array, tuple[int, int, int]], ...]:
    """Return the plan and its best alternatives in the map frame, the plan last."""
    if plan is None:
        return ()
    best = np.argsort(-plan.plan.scores, kind="stable")[1:6]
    candidates = [(plan.plan.candidates[index], _OTHERS) for index in best[::-1]]
    lines = []
    for poses, color in [*candidates, (plan.plan.poses, _PLAN)]:
        points = se2.compose(plan.pose, np.asarray(poses, np.float64))[:, :2]
        lines.append((np.concatenate([plan.pose[None, :2], points]), color))
    return tuple(lines)


def _view(driven: DrivenRoute, step: int, slot: str, width: int) -> Image:
    mounted = default_rig(width, width // 2).camera(slot)
    assert mounted is not None and mounted.model is not None
    return renderer_of(driven.network).render(
        driven.episode, step, mounted.model.matrix, width, width // 2, mounted.ego_from_camera
    )


def _front(driven: DrivenRoute, step: int, plan: FollowedPlan | None) -> Image:
    """Return the front view with the plan as a ribbon on the ground."""
    image = _view(driven, step, "front", _BIG)
    if plan is None:
        return image
    mounted = default_rig(_BIG, _BIG // 2).camera("front")
    assert mounted is not None and mounted.model is not None
    speed = float(driven.episode.ego[plan.step, 3])
    trajectory = resample(np.asarray(plan.plan.poses, np.float64), max(speed, 0.0))
    now_from_then = se2.compose(se2.inverse(driven.episode.ego[step, :3]), plan.pose)
    x, y, yaw = se2.compose(now_from_then, trajectory.poses).T
    sides = []
    for offset in (-_RIBBON_M / 2, _RIBBON_M / 2):
        points = np.stack([x - offset * np.sin(yaw), y + offset * np.cos(yaw), 0.0 * x], axis=-1)
        in_camera = se3.transform_points(se3.inverse(mounted.ego_from_camera), points)
        sides.append(camera.project(mounted.model.matrix, in_camera, _NEAREST_M))
    (left, left_seen), (right, right_seen) = sides
    seen = left_seen & right_seen
    painted = image.copy()
    for index in np.flatnonzero(seen[:-1] & seen[1:]):
        ring = np.stack([left[index], left[index + 1], right[index + 1], right[index]])
        ring = np.clip(ring, -1e4, 1e4).round().astype(np.int32)
        cv2.fillConvexPoly(painted, ring, _PLAN, cv2.LINE_AA)
    return np.asarray(cv2.addWeighted(painted, 0.4, image, 0.6, 0.0), np.uint8)


def _panel(driven: DrivenRoute, step: int, plan: FollowedPlan | None) -> Image:
    """Return the text of a step, infractions in red."""
    panel = np.full((_SMALL // 2, _SMALL, 3), 24, np.uint8)
    episode = driven.episode
    speed = 3.6 * episode.ego[step, 3]
    command = Command(int(episode.command[step])).name.lower()
    last = step == episode.num_steps - 1
    lines = [
        (f"{driven.name}   {driven.weather}", _INK),
        (", ".join(driven.events) or "ordinary traffic", _DIM),
        (f"{step * STEP_S:5.1f} s   {speed:3.0f} km/h   {command}", _INK),
        ("" if plan is not None else "expert or brake: no plan", _DIM),
    ]
    recent = [e for e in driven.infractions if 0 <= (step - e.step) * STEP_S <= _SHOWN_S]
    lines += [(_caption(event), _WARNING) for event in recent[-3:]]
    if last:
        result = driven.result
        lines.append((f"{result.status}, driving score {result.driving_score:.0f}", _INK))
    for row, (text, color) in enumerate(lines):
        place = (10, 22 + 20 * row)
        cv2.putText(panel, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, color, 1, cv2.LINE_AA)
    return panel


def _caption(event: Infraction) -> str:
    fault = f" ({event.fault})" if event.fault else ""
    return f"{event.kind.replace('_', ' ')}: {event.what}{fault}"
