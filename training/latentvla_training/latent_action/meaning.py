"""What each ego code means: how the ego moves where it stands, and front frames to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from latentvla_training.data.whole_file import write_whole
from latentvla_training.latent_action.pairs import Pairs
from latentvla_training.latent_action.scene_set import SceneSet

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_WIDTH, _HEIGHT, _CAPTION, _MARGIN = 192, 96, 18, 4
_PAPER, _INK = 250, 40


@dataclass(frozen=True)
class Motion:
    """How the ego moves over each of P pairs: delta v (m/s), delta yaw (degrees), metres driven."""

    delta_v: NDArray[np.float64]
    delta_yaw: NDArray[np.float64]
    driven: NDArray[np.float64]

    @classmethod
    def of(cls, scenes: SceneSet, pairs: Pairs) -> Motion:
        """Return the motion over pairs of Scenes."""
        speed = scenes.column("ego_dynamics")[:, 0].astype(np.float64)
        return cls(
            speed[pairs.later] - speed[pairs.earlier],
            np.degrees(pairs.motion[:, 2].astype(np.float64)),
            pairs.motion[:, 0].astype(np.float64),
        )


def one_second(pairs: Pairs) -> NDArray[np.int64]:
    """Return the pairs of the shortest interval: what a code means is said for one length."""
    return np.flatnonzero(pairs.interval == 0)


def code_meanings(codes: NDArray[np.int64], motion: Motion, entries: int) -> list[dict[str, Any]]:
    """Return, for every code, its share and mean motion overall and at each position.

    Args:
        codes: (P, positions). motion: of the same pairs.
    """
    found = []
    for code in range(entries):
        places = [_mean_motion(codes[:, place] == code, motion) for place in range(codes.shape[1])]
        anywhere = (codes == code).any(axis=1)
        share = float((codes == code).mean())
        found.append(
            {"code": code, "share": share, "all": _mean_motion(anywhere, motion), "at": places}
        )
    return found


def _mean_motion(chosen: NDArray[np.bool_], motion: Motion) -> dict[str, float]:
    if not chosen.any():
        return {"share": 0.0}
    return {
        "share": float(chosen.mean()),
        "delta_v": float(motion.delta_v[chosen].mean()),
        "delta_yaw": float(motion.delta_yaw[chosen].mean()),
        "driven": float(motion.driven[chosen].mean()),
        "spread_driven": float(motion.driven[chosen].std()),
    }


def typical_pairs(
    codes: NDArray[np.int64], motion: Motion, code: int, episodes: NDArray[np.str_], most: int
) -> list[int]:
    """Return the pairs that look most like what a code stands for, of different episodes.

    At the position where the code stands most often, those whose motion is nearest to the mean.
    """
    place = int((codes == code).mean(axis=0).argmax())
    members = np.flatnonzero(codes[:, place] == code)
    if not len(members):
        return []
    values = np.stack([motion.driven / 5.0, motion.delta_v, motion.delta_yaw / 5.0], axis=1)
    distance = np.abs(values[members] - values[members].mean(axis=0)).sum(axis=1)
    chosen: list[int] = []
    for index in members[np.argsort(distance, kind="stable")]:
        if episodes[index] not in {episodes[other] for other in chosen}:
            chosen.append(int(index))
        if len(chosen) == most:
            break
    return chosen


def draw_page(
    path: Path,
    scenes: SceneSet,
    pairs: Pairs,
    codes: NDArray[np.int64],
    motion: Motion,
    entries: int,
    size: tuple[int, int],
    examples: int = 3,
) -> None:
    """Write a page (JPEG) with a row for every code: frame pairs where it stands, and their motion.

    Args:
        pairs, codes, motion: of the same pairs of ``scenes``. size: width, height of their frames.
    """
    episodes = np.array([token.rpartition("/")[0] for token in scenes.column("token")])
    rows = []
    for code in range(entries):
        chosen = typical_pairs(codes, motion, code, episodes[pairs.earlier], examples)
        cells = [_label(code, float((codes == code).mean()))]
        cells += [_example(scenes, pairs, motion, index, size) for index in chosen]
        blank = np.full((_HEIGHT + _CAPTION, 2 * _WIDTH + _MARGIN, 3), _PAPER, np.uint8)
        cells += [blank] * (examples - len(chosen))
        gap = np.full((_HEIGHT + _CAPTION, 3 * _MARGIN, 3), _PAPER, np.uint8)
        parts: list[NDArray[np.uint8]] = []
        for cell in cells:
            parts += [cell, gap]
        rows.append(np.hstack(parts))
    done, data = cv2.imencode(".jpg", np.vstack(rows)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])
    assert done
    write_whole(path, bytes(data.tobytes()))


def _label(code: int, share: float) -> NDArray[np.uint8]:
    cell = np.full((_HEIGHT + _CAPTION, 70, 3), _PAPER, np.uint8)
    _write(cell, str(code), (8, 50), 1.0)
    _write(cell, f"{100 * share:.1f} %", (8, 74), 0.4)
    return cell


def _example(
    scenes: SceneSet, pairs: Pairs, motion: Motion, index: int, size: tuple[int, int]
) -> NDArray[np.uint8]:
    cell = np.full((_HEIGHT + _CAPTION, 2 * _WIDTH + _MARGIN, 3), _PAPER, np.uint8)
    for place, row in enumerate((pairs.earlier[index], pairs.later[index])):
        frame = scenes.picture(int(row), *size)
        left = place * (_WIDTH + _MARGIN)
        cell[:_HEIGHT, left : left + _WIDTH] = cv2.resize(
            frame, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_AREA
        )
    text = (
        f"{motion.driven[index]:4.1f} m  {motion.delta_v[index]:+.1f} m/s  "
        f"{motion.delta_yaw[index]:+.1f} deg"
    )
    _write(cell, text, (4, _HEIGHT + 13), 0.42)
    return cell


def _write(image: NDArray[np.uint8], text: str, corner: tuple[int, int], scale: float) -> None:
    cv2.putText(image, text, corner, _FONT, scale, (_INK, _INK, _INK), 1, cv2.LINE_AA)
