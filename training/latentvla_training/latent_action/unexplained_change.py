"""Where a front frame changes in ways that the ego's own motion does not explain.

The later frame is compared with the earlier one as it was, and as a flat ground would look from the
later pose (plane plus parallax, Irani and Anandan 1998; as something that latent actions say it is
ours). A road that stands still agrees with the second, what keeps its distance to the ego with the
first, what crosses with neither. Two pictures, odometry and the camera's mount: no label is read.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from latentvla_training.latent_action.codes import scenes_identity
from latentvla_training.latent_action.kept_array import kept_array
from latentvla_training.latent_action.pairs import Pairs
from latentvla_training.latent_action.scene_set import SceneSet, front_frames
from latentvla_training.latent_action.settings import FrameSettings
from latentvla_training.world.networks import data_root

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

#: Parts of a map: a frame is cut into 4 by 8, and the uppermost row, mostly sky, is left out.
ROWS, COLUMNS = 3, 8
#: Numbers that say the unexplained change of a pair.
WIDTH = 2 * ROWS * COLUMNS

#: A camera is at least so far above the ground, metres; a lower one sees no ground plane.
_LEAST_HEIGHT_M = 0.3
#: Pictures are compared within so many pixels: the ground is not quite flat.
_BLUR = (3, 3)
#: Of a picture's contrast: less change than this is none.
_LEAST_CHANGE = 0.01


def ground_homography(intrinsics: tuple[F64, F64], mounts: tuple[F64, F64], motion: F64) -> F64:
    """Return where pixels of the later frame that show the ground were in the earlier one.

    Args:
        intrinsics: (3, 3) of the earlier and the later frame.
        mounts: (4, 4) ego_from_camera of either; the ego frame lies on the ground.
        motion: (3,) x, y, yaw of the later ego in the earlier ego frame (m, rad).

    Returns:
        Earlier pixel from later pixel, (3, 3).
    """
    cos, sin = np.cos(motion[2]), np.sin(motion[2])
    driven = np.eye(4)
    driven[:2, :2], driven[:2, 3] = [[cos, -sin], [sin, cos]], motion[:2]
    moved = np.linalg.inv(mounts[0]) @ driven @ mounts[1]
    height = max(float(mounts[1][2, 3]), _LEAST_HEIGHT_M)
    down = -mounts[1][2, :3]  # the ground's normal in the later camera's frame
    plane = moved[:3, :3] + np.outer(moved[:3, 3], down) / height
    return np.asarray(intrinsics[0] @ plane @ np.linalg.inv(intrinsics[1]))


def change_maps(earlier: NDArray[np.uint8], later: NDArray[np.uint8], homography: F64) -> F32:
    """Return how much each part of a frame changed, and how much rather than ground, (WIDTH,).

    Args:
        earlier, later: grey frames (H, W). homography: of ``ground_homography``.

    Returns:
        First the mean logarithm of the change from the earlier frame as it was and as ground, then
        the logarithm of the latter over the former: above 0 where things keep their place.
    """
    before, after = (frame.astype(np.float32) - frame.mean() for frame in (earlier, later))
    height, width = before.shape
    ground = cv2.warpPerspective(
        before,
        homography,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    contrast = before.std() + 1.0
    changes = []
    for expected in (before, ground):
        change = cv2.blur(np.abs(after - expected), _BLUR) / contrast
        parts = cv2.resize(change, (COLUMNS, ROWS + 1), interpolation=cv2.INTER_AREA)[1:]
        changes.append(np.log(parts + _LEAST_CHANGE))
    as_it_was, as_ground = changes
    both = [(as_it_was + as_ground) / 2, as_ground - as_it_was]
    return np.stack(both).astype(np.float32).ravel()


def unexplained_change(
    scenes: SceneSet,
    pairs: Pairs,
    settings: FrameSettings,
    root: Path | None = None,
    progress: bool = True,
) -> F32:
    """Return the maps of all pairs (P, WIDTH), from a file if they were computed before.

    The file's name holds what decides them: Scenes, pairs, how the ego moved between their frames
    as far as it is known, and the size of the frames.

    Args:
        root: of all such files; ``data/cache/unexplained_change`` by default.

    Raises:
        ContractError: a picture is damaged or of another size. OSError: no space left.
    """
    folder = root or data_root() / "cache" / "unexplained_change"
    digest = hashlib.sha256(repr((settings.width, settings.height)).encode())
    for decides in (pairs.earlier, pairs.later, pairs.motion):
        digest.update(np.ascontiguousarray(decides).tobytes())
    path = folder / f"{digest.hexdigest()[:16]}-{scenes_identity(scenes)}.npy"
    shape = (len(pairs), WIDTH)
    return kept_array(path, shape, np.float32, lambda: _maps(scenes, pairs, settings, progress))


def _maps(scenes: SceneSet, pairs: Pairs, settings: FrameSettings, progress: bool) -> F32:
    from tqdm import tqdm

    found = np.empty((len(pairs), WIDTH), np.float32)
    if not len(pairs):
        return found
    rows, places = np.unique(np.stack([pairs.earlier, pairs.later]), return_inverse=True)
    frames = [
        cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in front_frames(scenes, settings, rows)
    ]
    intrinsics = _of_encoder(scenes.front_column("intrinsics")[rows], settings)
    mounts = scenes.front_column("ego_from_camera")[rows].astype(np.float64)
    earlier, later = places.reshape(2, -1)
    shown = tqdm(
        range(len(pairs)), "unexplained change", unit="pair", disable=not progress, leave=False
    )
    for pair in shown:
        old, new = earlier[pair], later[pair]
        homography = ground_homography(
            (intrinsics[old], intrinsics[new]),
            (mounts[old], mounts[new]),
            pairs.motion[pair].astype(np.float64),
        )
        found[pair] = change_maps(frames[old], frames[new], homography)
    return found


def _of_encoder(intrinsics: F32, settings: FrameSettings) -> F64:
    """Return intrinsics (n, 3, 3) of the frames as the encoder sees them."""
    scale = np.array(
        [settings.width / settings.source_width, settings.height / settings.source_height]
    )
    found = intrinsics.astype(np.float64)
    found[:, :2] *= scale[:, None]
    found[:, :2, 2] += (scale - 1.0) / 2.0  # pixel centres are at whole numbers
    return found
