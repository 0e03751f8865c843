"""What training changes in an observation: colours, calibration, missing views, hidden ego state.

Acceleration, wheel angle and history reveal what the expert has already decided; they are dropped
together (experiments.md section 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import Command, ContractError
from latentvla_ros.geometry import se3


@dataclass(frozen=True)
class AugmentationSettings:
    """Probabilities and sizes of what training changes.

    Attributes:
        photometric: probability of new colours; gain, contrast: their largest relative change.
        rotation_deg, translation_m, focal: standard deviations of the calibration's error.
        drop_optional_view: probability that a view other than the first is missing, each.
        drop_ego_state: probability that history, acceleration and wheel angle are hidden together.
        drop_command: probability that the command is unknown.
    """

    photometric: float = 0.8
    gain: float = 0.25
    contrast: float = 0.25
    rotation_deg: float = 0.3
    translation_m: float = 0.02
    focal: float = 0.005
    drop_optional_view: float = 0.04
    drop_ego_state: float = 0.5
    drop_command: float = 0.05

    def __post_init__(self) -> None:
        for name in ("photometric", "drop_optional_view", "drop_ego_state", "drop_command"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ContractError(f"augmentation.{name}", getattr(self, name), "0 to 1")
        for name in ("gain", "contrast", "rotation_deg", "translation_m", "focal"):
            if getattr(self, name) < 0.0:
                raise ContractError(f"augmentation.{name}", getattr(self, name), "at least 0")


def change_colours(
    images: NDArray[np.uint8], settings: AugmentationSettings, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Return images (V, H, W, 3) under another exposure, contrast and white balance."""
    gain = 1.0 + rng.uniform(-settings.gain, settings.gain)
    contrast = 1.0 + rng.uniform(-settings.contrast, settings.contrast)
    balance = 1.0 + rng.uniform(-0.06, 0.06, 3)
    level = np.arange(256, dtype=np.float32)[:, None]
    table = ((level - 110.0) * contrast + 110.0) * gain * balance[None]
    lookup = np.clip(table, 0, 255).astype(np.uint8)[None]  # (1, 256, 3)
    views, height, width = images.shape[:3]
    flat = images.reshape(views * height, width, 3)
    return cv2.LUT(flat, lookup).reshape(images.shape).astype(np.uint8, copy=False)


def disturb_calibration(
    intrinsics: NDArray[np.float32],
    ego_from_camera: NDArray[np.float32],
    settings: AugmentationSettings,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return calibration (V, 3, 3) and (V, 4, 4) with an error of its own in every view.

    Views of one camera at two times differ too: that stands for errors of the motion compensation.
    """
    views = len(intrinsics)
    moved = ego_from_camera.astype(np.float64)
    angles = np.radians(settings.rotation_deg) * rng.standard_normal((views, 3))
    shifts = settings.translation_m * rng.standard_normal((views, 3))
    for view in range(views):
        moved[view] = moved[view] @ se3.from_xyz_rpy(shifts[view], angles[view])
    scaled = intrinsics.copy()
    factor = 1.0 + settings.focal * rng.standard_normal(views)
    scaled[:, 0, 0] *= factor
    scaled[:, 1, 1] *= factor
    return scaled, moved.astype(np.float32)


def hide_ego_state(
    history: NDArray[np.float32],
    history_mask: NDArray[np.bool_],
    dynamics: NDArray[np.float32],
    dynamics_mask: NDArray[np.bool_],
) -> None:
    """Hide, in place, past poses (4, 3), acceleration and wheel angle (6,); the rest stays.

    Leading batch dimensions are free.
    """
    history[..., :-1, :] = 0.0
    history_mask[..., :-1] = False
    dynamics[..., 3:] = 0.0
    dynamics_mask[..., 3:] = False


def augment(
    item: dict[str, NDArray[np.generic]],
    settings: AugmentationSettings,
    rng: np.random.Generator,
) -> None:
    """Change the inputs of one Scene, named as ``Observation``, in place; it owns its arrays."""
    if rng.random() < settings.photometric:
        item["images"] = change_colours(item["images"], settings, rng)  # type: ignore[arg-type]
    item["intrinsics"], item["ego_from_camera"] = disturb_calibration(
        item["intrinsics"],  # type: ignore[arg-type]
        item["ego_from_camera"],  # type: ignore[arg-type]
        settings,
        rng,
    )
    missing = rng.random(len(item["view_mask"])) < settings.drop_optional_view
    missing[0] = False
    item["view_mask"] = item["view_mask"] & ~missing
    item["images"][missing] = 0
    if rng.random() < settings.drop_ego_state:
        hide_ego_state(
            item["ego_history"],  # type: ignore[arg-type]
            item["ego_history_mask"],  # type: ignore[arg-type]
            item["ego_dynamics"],  # type: ignore[arg-type]
            item["ego_dynamics_mask"],  # type: ignore[arg-type]
        )
    if rng.random() < settings.drop_command:
        item["command"] = Command.UNKNOWN.one_hot()
