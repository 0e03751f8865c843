"""One picture of the film: the plan in the front camera, the other cameras, the view from above."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from latentvla_ros.cli import drawing
from latentvla_ros.cli.drawing import BirdsEye, CameraView, Image
from latentvla_ros.contract import LatentActionNames, latent_action_lines
from latentvla_ros.geometry import camera, se2
from latentvla_ros.nodes.recording import RecordedPlan

#: Height of a line of latent actions, and where their words begin, pixels.
_LINE_PX, _WORDS_PX = 21, 68
_COMMANDS = ("left", "straight", "right", "command unknown")


@dataclass(frozen=True)
class CameraPicture:
    """A camera's image for the film: rectified RGB (H, W, 3) uint8 and its geometry."""

    image: Image
    view: CameraView


@dataclass(frozen=True)
class Moment:
    """What is known about one frame of the reference camera.

    Attributes:
        time_s: since the start of the recording.
        cameras: pictures by slot.
        plan: the plan of this very frame, or None when the node made none.
        pose: (3,) driven pose at t0 in the odometry frame; NaN when unknown.
        driven: (N, 3) driven poses over the horizon in the ego frame of t0; may hold NaN.
        constant: (N, 3) constant velocity and turn rate, ego frame of t0.
        speed_mps: driven speed; NaN when unknown.
        command: as ``contract.Command``.
        why_no_plan: words where ``plan`` is None.
    """

    time_s: float
    cameras: Mapping[str, CameraPicture]
    plan: RecordedPlan | None
    pose: NDArray[np.float64]
    driven: NDArray[np.float64]
    constant: NDArray[np.float64]
    speed_mps: float
    command: int
    why_no_plan: str = ""


@dataclass(frozen=True)
class FilmLayout:
    """Sizes in pixels: a front picture over a row of side cameras, beside the view from above."""

    front_width: int = 880
    front_height: int = 440
    side_height: int = 200
    birds_eye_width: int = 380
    bar_height: int = 56

    @property
    def width(self) -> int:
        """Width of the whole picture, even as H.264 wants it."""
        return (self.front_width + self.birds_eye_width) // 2 * 2

    @property
    def height(self) -> int:
        """Height of the whole picture, even as H.264 wants it."""
        return (self.front_height + self.side_height + self.bar_height) // 2 * 2


class FramePainter:
    """Composes the film's pictures.

    Args:
        main_slot: the camera that the plan is drawn into.
        bundle_id: named in the picture.
        names: of latent actions; None: none are shown.
    """

    def __init__(
        self,
        main_slot: str,
        bundle_id: str,
        layout: FilmLayout | None = None,
        names: LatentActionNames | None = None,
    ) -> None:
        self._main = main_slot
        self._bundle_id = bundle_id
        self._names = names
        self.layout = layout or FilmLayout()
        self._birds_eye = BirdsEye(self.layout.birds_eye_width, self.layout.height)
        self._empty_road = self._birds_eye.canvas()
        self._empty = np.empty((self.layout.height, self.layout.width, 3), np.uint8)
        self._empty[:] = drawing.BACKGROUND

    def paint(self, moment: Moment) -> Image:
        """Return the picture (height, width, 3) of ``moment``."""
        layout = self.layout
        picture = self._empty.copy()
        front = picture[: layout.front_height, : layout.front_width]
        self._paint_camera(front, moment.cameras.get(self._main), moment, caption=False)
        if self._names is not None and moment.plan is not None:
            _paint_latent_actions(front, moment.plan, self._names)
        self._paint_sides(picture, moment)
        self._paint_above(picture[:, layout.front_width :], moment)
        self._paint_bar(
            picture[layout.front_height + layout.side_height :, : layout.front_width], moment
        )
        return picture

    def _paint_camera(
        self,
        target: Image,
        picture: CameraPicture | None,
        moment: Moment,
        caption: bool,
        name: str = "",
    ) -> None:
        if picture is None:
            drawing.text(target, f"{name} no image".strip(), (16, 30), 16, drawing.MUTED)
            return
        height, width = target.shape[:2]
        scale = max(width / picture.image.shape[1], height / picture.image.shape[0])
        size = (round(picture.image.shape[1] * scale), round(picture.image.shape[0] * scale))
        large = cv2.resize(picture.image, size, interpolation=cv2.INTER_CUBIC)
        left, top = (size[0] - width) // 2, (size[1] - height) // 2
        target[:] = large[top : top + height, left : left + width]
        matrix = camera.resize_intrinsics(picture.view.intrinsics, scale, scale)
        view = CameraView(camera.crop_intrinsics(matrix, left, top), picture.view.ego_from_camera)
        if moment.plan is not None:
            if not caption:
                drawing.draw_path(target, view, _dense(moment.constant), drawing.CONSTANT, 1)
            drawing.draw_ribbon(target, view, _ego_points(moment.plan), moment.plan.speeds)
        if not caption:
            drawing.draw_path(target, view, _finite(moment.driven), drawing.DRIVEN, 2)
        if caption:
            drawing.text(target, name, (10, height - 10), 15, drawing.TEXT, True)

    def _paint_sides(self, picture: Image, moment: Moment) -> None:
        """Put the other cameras side by side, from the left of the vehicle to its right."""
        others = sorted(
            (slot for slot in moment.cameras if slot != self._main),
            key=lambda slot: -_bearing(moment.cameras[slot].view.ego_from_camera),
        )
        if not others:
            return
        top, height = self.layout.front_height, self.layout.side_height
        edges = np.linspace(0, self.layout.front_width, len(others) + 1).astype(int)
        for slot, start, end in zip(others, edges[:-1], edges[1:], strict=True):
            target = picture[top + 2 : top + height, start + (2 if start else 0) : end]
            self._paint_camera(target, moment.cameras[slot], moment, caption=True, name=slot)

    def _paint_above(self, target: Image, moment: Moment) -> None:
        image = self._empty_road.copy()
        road = self._birds_eye
        if moment.plan is not None:
            origin = np.zeros((1, 3))
            paths = [np.vstack([origin, candidate]) for candidate in moment.plan.candidates]
            road.draw_faint(image, paths, drawing.CANDIDATE, 0.35)
            road.draw_faint(image, [_dense(moment.constant)], drawing.CONSTANT, 0.8)
            road.draw_plan(image, _ego_points(moment.plan), moment.plan.speeds, moment.plan.knots)
        road.draw_driven(image, _finite(moment.driven)[::2])
        road.draw_ego(image)
        legend = (
            ("plan", drawing.PLAN),
            ("driven", drawing.DRIVEN),
            ("candidates", drawing.CANDIDATE),
            ("constant turn", drawing.CONSTANT),
        )
        for row, (word, colour) in enumerate(legend):
            y = 22 + 20 * row
            cv2.circle(image, (image.shape[1] - 132, y - 5), 5, colour, -1, cv2.LINE_AA)
            drawing.text(image, word, (image.shape[1] - 118, y), 14, drawing.TEXT)
        target[:] = image[: target.shape[0], : target.shape[1]]

    def _paint_bar(self, target: Image, moment: Moment) -> None:
        base = target.shape[0] // 2 + 8
        drawing.draw_command(target, (34, target.shape[0] // 2), 20, moment.command)
        drawing.text(target, _COMMANDS[min(max(moment.command, 0), 3)], (66, base), 17)
        speed = f"{moment.speed_mps * 3.6:.0f} km/h" if np.isfinite(moment.speed_mps) else "- km/h"
        drawing.text(target, speed, (230, base), 24, drawing.TEXT, True)
        if moment.plan is None:
            drawing.text(target, moment.why_no_plan or "no plan", (370, base), 17, drawing.CONSTANT)
        else:
            latency = moment.plan.latency_s * 1e3
            drawing.text(
                target, f"plan {moment.plan.sequence}", (370, base), 17, drawing.PLAN, True
            )
            if np.isfinite(latency):
                drawing.text(target, f"image in to plan out {latency:.0f} ms", (470, base), 17)
        words = f"{self._bundle_id}   {moment.time_s:5.1f} s"
        left = target.shape[1] - 12 - 8 * len(words)
        drawing.text(target, words, (max(left, 690), base), 15, drawing.MUTED)


def _paint_latent_actions(target: Image, plan: RecordedPlan, names: LatentActionNames) -> None:
    """Write what the plan's latent actions mean over the top of a picture, a transition a line."""
    lines = latent_action_lines(
        names, plan.latent_actions.tolist(), plan.latent_probabilities.tolist()
    )
    drawing.draw_band(target[: _LINE_PX * len(lines) + 10])
    for row, (time, actions) in enumerate(lines):
        base = _LINE_PX * (row + 1)
        drawing.text(target, time, (14, base), 15, drawing.MUTED)
        drawing.text(target, actions, (_WORDS_PX, base), 15, drawing.TEXT)


def _ego_points(plan: RecordedPlan) -> NDArray[np.float64]:
    return se2.relative(plan.pose, plan.points)


def _finite(poses: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(poses[np.isfinite(poses).all(axis=1)])


def _dense(poses: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.vstack([np.zeros((1, 3)), poses])


def _bearing(ego_from_camera: NDArray[np.float64]) -> float:
    """Return the yaw (rad) that the camera's optical axis has in the ego frame, left positive."""
    return float(np.arctan2(ego_from_camera[1, 2], ego_from_camera[0, 2]))
