"""Which front camera a codebook was trained on: what it sees is told by pixels, and by its rig.

Pictures of one size may be of another field of view or mount; the same motion then moves them in
another way, and codes read off them mean something else. So a codebook keeps what its training
Scenes' cameras ranged over (a fleet's differ a little), and encodes none far beyond.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import ContractError
from latentvla_training.data.whole_file import write_whole
from latentvla_training.latent_action.scene_set import SceneSet, front_present
from latentvla_training.latent_action.settings import FrameSettings

logger = logging.getLogger(__name__)

#: Of a codebook's manifest; with ``.json`` the file in a run's folder.
FRONT_CAMERA = "front_camera"

F64 = NDArray[np.float64]

#: How far beyond those of training a camera may be (ours).
TOLERANCES = {
    "horizontal_fov_deg": 3.0,
    "vertical_fov_deg": 3.0,
    "x_m": 0.3,
    "y_m": 0.3,
    "z_m": 0.3,
    "yaw_deg": 3.0,
    "pitch_deg": 3.0,
    "roll_deg": 3.0,
}


def front_cameras(scenes: SceneSet, settings: FrameSettings) -> dict[str, F64]:
    """Return field of view and mount (ego_from_camera) of every Scene's front camera, (N,) each.

    Yaw is positive to the left, pitch down, roll clockwise as the camera sees it.
    """
    matrix = scenes.front_column("intrinsics").astype(np.float64)
    mount = scenes.front_column("ego_from_camera").astype(np.float64)
    size = (settings.source_width, settings.source_height)
    fields = [
        np.arctan((matrix[:, axis, 2] + 0.5) / matrix[:, axis, axis])
        + np.arctan((size[axis] - 0.5 - matrix[:, axis, 2]) / matrix[:, axis, axis])
        for axis in (0, 1)
    ]
    right, down, ahead = (mount[:, :3, axis] for axis in range(3))
    angles = [
        *fields,
        np.arctan2(ahead[:, 1], ahead[:, 0]),
        -np.arcsin(ahead[:, 2].clip(-1.0, 1.0)),
        np.arctan2(-right[:, 2], -down[:, 2]),
    ]
    values = [*angles[:2], *mount[:, :3, 3].T, *angles[2:]]
    return {
        name: np.degrees(found) if name.endswith("_deg") else found
        for name, found in zip(TOLERANCES, values, strict=True)
    }


def keep_front_camera(folder: Path, scenes: SceneSet, settings: FrameSettings) -> None:
    """Write into a run's folder what the front cameras of its training Scenes range over."""
    present = front_present(scenes)
    ranges = {
        name: [round(float(found[present].min()), 4), round(float(found[present].max()), 4)]
        for name, found in front_cameras(scenes, settings).items()
    }
    write_whole(_path(folder), (json.dumps(ranges, indent=1) + "\n").encode())


def kept_front_camera(folder: Path) -> dict[str, Any]:
    """Return the entry of a manifest that a run's folder has; empty where it is older than that."""
    path = _path(folder)
    return {FRONT_CAMERA: json.loads(path.read_text("utf-8"))} if path.is_file() else {}


def check_front_camera(
    manifest: Mapping[str, Any], codebook_id: str, scenes: SceneSet, settings: FrameSettings
) -> None:
    """Check that Scenes were seen by such a front camera as a codebook was trained on.

    Args:
        manifest: of the codebook. One of before manifests said so takes any, with a warning.

    Raises:
        ContractError: one was not; names Scene and codebook, and what differs of both.
    """
    if FRONT_CAMERA not in manifest:
        _warn_once(codebook_id)
        return
    present = front_present(scenes)
    for name, found in front_cameras(scenes, settings).items():
        low, high = manifest[FRONT_CAMERA][name]
        most = TOLERANCES[name]
        outside = present & ~((found >= low - most) & (found <= high + most))
        if outside.any():
            row = int(outside.argmax())
            raise ContractError(
                f"front camera of scene {scenes.column('token')[row]}, {name}",
                round(float(found[row]), 2),
                f"{low:.2f} to {high:.2f}, as codebook {codebook_id} was trained on, or at most "
                f"{most:g} beyond; train one with such recordings (data.recordings)",
            )


@lru_cache
def _warn_once(codebook_id: str) -> None:
    logger.warning(
        "codebook %s does not say which front camera it was trained on: Scenes of any are encoded",
        codebook_id,
    )


def _path(folder: Path) -> Path:
    return folder / f"{FRONT_CAMERA}.json"
