"""Features of front frames on disk, one file a shard of Scenes, mapped into memory when read.

A file's name holds the encoder's identity and that of the shard's Scenes, and files appear whole,
so that making them may be killed and repeated and none is ever read for another; one that has been
damaged since is made again (``kept_array``).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from latentvla_ros.contract import ContractError
from latentvla_training.data.shards import read_shard_info
from latentvla_training.latent_action.frame_encoder import FrameEncoder
from latentvla_training.latent_action.kept_array import kept_array
from latentvla_training.latent_action.scene_set import SceneSet
from latentvla_training.world.networks import data_root

_BATCH = 64


class FeatureStore:
    """Features (places, C) float16 of the front frames of a ``SceneSet``, by index.

    Args:
        arrays: one a shard. encoder_id: identity of the frame encoder whose features they are.
    """

    def __init__(self, arrays: list[NDArray[np.float16]], encoder_id: str) -> None:
        self._arrays, self.encoder_id = arrays, encoder_id
        self._starts = np.append(0, np.cumsum([len(array) for array in arrays])).astype(np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def gather(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """Return features (n, places, C) float32 of some Scenes."""
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        picked = [
            self._arrays[shard][row - self._starts[shard]]
            for shard, row in zip(shards, rows, strict=True)
        ]
        return torch.from_numpy(np.stack(picked)).float()


def store_folder(encoder: FrameEncoder, root: Path | None = None) -> Path:
    """Return where features of an encoder are kept."""
    return (root or data_root() / "cache" / "frames") / encoder.identity()


def ensure_features(
    encoder: FrameEncoder, scenes: SceneSet, root: Path | None = None, progress: bool = True
) -> FeatureStore:
    """Return the features of Scenes, computing those that are absent.

    Scenes without a front frame have zeros; no pair is made of them.

    Raises:
        OSError: no space left; what is there stays, and the same call goes on from it.
        ContractError: a picture is damaged or of another size.
    """
    from tqdm import tqdm

    folder = store_folder(encoder, root)
    arrays = []
    with tqdm(
        total=len(scenes), desc="features", unit="frame", disable=not progress, leave=False
    ) as bar:
        start = 0
        for path in scenes.paths:
            info = read_shard_info(path)
            if info is None:
                raise ContractError(f"shard {path}", "no readable footer", "a whole shard")
            count = info.scenes
            file = folder / f"{path.stem}-{info.content_sha256[:16]}.npy"
            shape = (count, *encoder.centre.shape)
            make = partial(_encoded, encoder, scenes, start, count)
            arrays.append(kept_array(file, shape, np.float16, make, mapped=True))
            start += count
            bar.update(count)
    return FeatureStore(arrays, encoder.identity())


@torch.inference_mode()
def _encoded(
    encoder: FrameEncoder, scenes: SceneSet, start: int, count: int
) -> NDArray[np.float16]:
    """Return the features of ``count`` Scenes, always in the same batches."""
    present = scenes.front_column("view_mask")[start : start + count]
    features = np.zeros((count, *encoder.centre.shape), np.float16)
    rows = np.flatnonzero(present)
    for low in range(0, len(rows), _BATCH):
        chosen = rows[low : low + _BATCH]
        frames = np.stack([scenes.front(start + int(row), encoder.settings) for row in chosen])
        found = encoder.encode(frames).cpu().numpy()
        if not np.isfinite(found).all():
            raise FloatingPointError(f"features of {scenes.column('token')[start]} are not finite")
        features[chosen] = found.clip(-60000.0, 60000.0)
    return features
