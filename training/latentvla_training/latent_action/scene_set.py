"""Scenes of several readers as one list: their front frames and what odometry knows of them.

Nothing here reads a map, an agent or a light: imported recordings serve as well as the world.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import ContractError
from latentvla_training.data.scene import RECOVERY
from latentvla_training.data.shards import SUFFIX, ShardReader, load_split
from latentvla_training.latent_action.settings import CodebookData, FrameSettings


class SceneSet:
    """Scenes by index over the shards of all readers, in their order."""

    def __init__(self, readers: Sequence[ShardReader]) -> None:
        self.readers = tuple(readers)
        self._starts = np.append(0, np.cumsum([len(reader) for reader in readers])).astype(int)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def paths(self) -> tuple[Path, ...]:
        """Shards in the order of the index."""
        return tuple(path for reader in self.readers for path in reader.paths)

    def column(self, name: str) -> NDArray[Any]:
        """Return a column of all Scenes.

        Of what every view has, ask ``front_column``: recordings may have other views.
        """
        return np.concatenate([reader.columns[name] for reader in self.readers])

    def front_column(self, name: str) -> NDArray[Any]:
        """Return a column that has an entry a view, of the front frame at t0 alone."""
        return np.concatenate([reader.columns[name][:, 0] for reader in self.readers])

    def picture(self, index: int, width: int = 256, height: int = 128) -> NDArray[np.uint8]:
        """Return the front frame at t0 of a Scene as it was taken, (height, width, 3) uint8 RGB.

        Raises:
            ContractError: the picture is damaged or of another size.
        """
        which = int(np.searchsorted(self._starts, index, side="right")) - 1
        row = index - int(self._starts[which])
        return np.asarray(self.readers[which].views(row, width, height, 1)[0])

    def front(self, index: int, settings: FrameSettings) -> NDArray[np.uint8]:
        """Return the front frame at t0 of a Scene as encoders see it, (height, width, 3) uint8.

        Raises:
            ContractError: the picture is damaged or of another size.
        """
        view = self.picture(index, settings.source_width, settings.source_height)
        size = (settings.width, settings.height)
        if size == (settings.source_width, settings.source_height):
            return view
        return np.asarray(cv2.resize(view, size, interpolation=cv2.INTER_AREA), np.uint8)


def training_scenes(data: CodebookData) -> SceneSet:
    """Open the training split of a recipe, and the recordings beside it.

    Raises:
        FileNotFoundError: there are no shards; the message says how to make them.
        ContractError: shards cannot be used.
    """
    reader = load_split(data.train_split, cached_shards=4)
    if data.max_shards:
        reader = ShardReader(reader.paths[: data.max_shards], cached_shards=4)
    return SceneSet([reader, *(_recordings(folder) for folder in data.recordings)])


def scenes_with_odometry(scenes: SceneSet, data: CodebookData) -> NDArray[np.bool_] | None:
    """Return of which training Scenes (N,) odometry may be read; None where it is all of them.

    It is the drives that keep their labels where as many do (``data.labelled_share``). Recordings
    keep what odometry they have.
    """
    if data.odometry_share == 1.0:
        return None
    split, *recordings = scenes.readers
    chosen = split.part(labelled_share=data.odometry_share).labelled
    return np.concatenate([chosen, *(np.ones(len(reader), np.bool_) for reader in recordings)])


def frames_to_learn_from(scenes: SceneSet, data: CodebookData) -> NDArray[np.bool_]:
    """Return which front frames of training Scenes stage 0 may be shown, (N,).

    A start beside the driven path is rendered by who knows the path: a drive without odometry has
    none to show.
    """
    odometry = scenes_with_odometry(scenes, data)
    present = front_present(scenes)
    return present if odometry is None else present & (odometry | driven(scenes))


def driven(scenes: SceneSet) -> NDArray[np.bool_]:
    """Return which Scenes lie on the path that was driven, (N,); others are recovery starts."""
    return np.array([RECOVERY not in str(tags).split(",") for tags in scenes.column("tags")], bool)


def _recordings(folder: str) -> ShardReader:
    paths = sorted(Path(folder).glob(f"*{SUFFIX}"))
    if not paths:
        raise FileNotFoundError(
            f"data.recordings: no shards in {folder}; make them with latentvla-train bag import"
        )
    return ShardReader([path for path in paths if not path.name.startswith(".")], cached_shards=4)


def front_frames(
    scenes: SceneSet, settings: FrameSettings, rows: Sequence[int] | None = None
) -> NDArray[np.uint8]:
    """Decode front frames, (N, height, width, 3) uint8: 24 kB each at 64x128.

    Args:
        rows: of the Scenes; all by default.
    """
    from tqdm import tqdm

    chosen = range(len(scenes)) if rows is None else rows
    frames = np.empty((len(chosen), settings.height, settings.width, 3), np.uint8)
    for place, row in enumerate(tqdm(chosen, desc="front frames", unit="frame", leave=False)):
        frames[place] = scenes.front(int(row), settings)
    return frames


def front_present(scenes: SceneSet) -> NDArray[np.bool_]:
    """Return which Scenes have their front frame, (N,)."""
    mask = scenes.front_column("view_mask")
    if not mask.any():
        raise ContractError("scenes.front frames", 0, "at least one front frame at t0")
    return np.asarray(mask, np.bool_)
