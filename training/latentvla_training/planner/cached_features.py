"""Stride-8 features of a frozen image trunk, computed once for every Scene and kept on disk.

One safetensors file a shard of Scenes, written aside and renamed, so that making them may be killed
and repeated. A file says of which trunk and of which Scenes it is: features of another trunk, or of
Scenes that are no longer those of the split, are never read.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from latentvla_ros.contract import ContractError
from latentvla_ros.model.planner import StudentPlanner
from latentvla_training.data.shard_footer import shard_info
from latentvla_training.data.shards import ShardReader
from latentvla_training.data.whole_file import write_whole
from latentvla_training.world.networks import data_root

logger = logging.getLogger(__name__)

F16 = NDArray[np.float16]

SUFFIX = ".safetensors"
_NAME = "image_features"
_BATCH = 8
_LONGEST_HEADER = 1 << 20


def trunk_id(planner: StudentPlanner) -> str:
    """Return what tells one image trunk from another: a hash of its weights and of its input."""
    config = planner.config
    shape = (config.backbone, config.image_channels, config.image_width, config.image_height)
    digest = hashlib.sha256(repr((shape, config.view_time_offsets_s)).encode())
    for name, value in sorted(planner.image_encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def features_root(root: Path | None = None) -> Path:
    """Return the folder of all cached features: a folder a trunk, in it one a split."""
    return (root or data_root()) / "cache" / "features"


def features_folder(trunk: str, split: str, root: Path | None = None) -> Path:
    """Return where the features of a split are kept, one file a shard."""
    return features_root(root) / trunk / split


class CachedFeatures:
    """Features (V, C, h, w) float16 of the Scenes of a ``ShardReader``, by index.

    Files are mapped into memory, not read: a random Scene costs its own bytes alone, and processes
    share what is in memory.

    Args:
        folder: of ``features_folder``. paths: shards, in the order of the reader. trunk: whose
            features are wanted.

    Raises:
        FileNotFoundError: a shard has none yet. ContractError: a file is damaged, or of another
            trunk or other Scenes; both identities are named.
    """

    def __init__(self, folder: Path, paths: Sequence[Path], trunk: str) -> None:
        self.trunk = trunk
        self._arrays = [_open(folder, path, trunk) for path in paths]
        counts = [len(array) for array in self._arrays]
        self._starts = np.append(0, np.cumsum(counts)).astype(np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> F16:
        """Return the features of Scene ``index`` (a view into the file)."""
        if not 0 <= index < len(self):
            raise IndexError(f"scene {index} of {len(self)}")
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        features: F16 = self._arrays[shard][index - int(self._starts[shard])]
        return features


def ensure_features(
    planner: StudentPlanner,
    reader: ShardReader,
    split: str,
    root: Path | None = None,
    progress: bool = True,
) -> CachedFeatures:
    """Return the features of a split, computing those that are absent or of other Scenes.

    The planner is put into inference mode, and onto the GPU where there is one.

    Raises:
        ContractError: the Scenes' views are not the planner's.
        OSError: no space left; what is there stays, and the same call goes on from it.
    """
    from tqdm import tqdm

    _check_views(planner, reader)
    trunk = trunk_id(planner)
    folder = features_folder(trunk, split, root)
    counts = [shard_info(path).scenes for path in reader.paths]
    starts = np.append(0, np.cumsum(counts))[:-1]
    shards = list(zip(reader.paths, starts.tolist(), counts, strict=True))
    absent = [shard for shard in shards if not _is_current(folder, shard[0], trunk)]
    if absent:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        planner.to(device).eval()
        scenes = sum(count for _, _, count in absent)
        with tqdm(
            total=scenes, desc=f"features of {split}", unit="scene", disable=not progress
        ) as bar:
            for path, start, count in absent:
                features = _encode(planner, reader, start, count, device)
                _write(folder, path, trunk, features)
                bar.update(count)
    return CachedFeatures(folder, reader.paths, trunk)


@torch.inference_mode()
def _encode(
    planner: StudentPlanner, reader: ShardReader, start: int, count: int, device: torch.device
) -> F16:
    """Return the features (count, V, C, h, w) of Scenes from ``start`` on.

    Always in batches of the same Scenes and in float32, as the bundle computes them: what comes out
    does not hang on what else is computed, nor on the precision that a head is trained in.
    """
    config = planner.config
    parts = []
    for low in range(start, start + count, _BATCH):
        chosen = range(low, min(low + _BATCH, start + count))
        images = [reader.views(i, config.image_width, config.image_height) for i in chosen]
        features = planner.encode_images(torch.from_numpy(np.stack(images)).to(device))
        parts.append(features.float().cpu().numpy())
    found = np.concatenate(parts)
    if not np.isfinite(found).all() or np.abs(found).max() > np.finfo(np.float16).max:
        token = reader.columns["token"][start]
        raise FloatingPointError(f"features of scene {token} and its shard exceed float16")
    half: F16 = found.astype(np.float16)
    return half


def _check_views(planner: StudentPlanner, reader: ShardReader) -> None:
    wanted = planner.config.view_time_offsets_s
    count = reader.columns["view_mask"].shape[1]
    views = shard_info(reader.paths[0]).recipe.get("views")
    found = tuple(view["time_offset_s"] for view in views) if views else wanted[:count]
    if count != len(wanted) or found != wanted:
        raise ContractError("scene.views", f"{count} at {found} s", f"those at {wanted} s")


def _identity(shard: Path, trunk: str) -> dict[str, str]:
    return {"trunk": trunk, "scenes_sha256": str(shard_info(shard).content_sha256)}


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header of a safetensors file and where its data begins.

    Raises:
        ContractError: the file is cut short or no such file at all.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _LONGEST_HEADER:
                raise ValueError("no header")
            header = json.loads(file.read(length))
        begin, end = header[_NAME]["data_offsets"]
        size = path.stat().st_size
        if begin != 0 or size != 8 + length + end or header[_NAME]["dtype"] != "F16":
            raise ValueError(f"{size} bytes, its header says {8 + length + end}")
    except (ValueError, KeyError, TypeError) as error:
        expected = "a whole file; remove it to have it made again"
        raise ContractError(f"features {path}", str(error), expected) from error
    return header, 8 + length


def _is_current(folder: Path, shard: Path, trunk: str) -> bool:
    path = folder / f"{shard.stem}{SUFFIX}"
    if not path.is_file():
        return False
    try:
        header, _ = _header(path)
    except ContractError as error:
        logger.warning("%s: made again", error)
        return False
    return bool(header.get("__metadata__") == _identity(shard, trunk))


def _open(folder: Path, shard: Path, trunk: str) -> F16:
    path = folder / f"{shard.stem}{SUFFIX}"
    if not path.is_file():
        raise FileNotFoundError(f"no features of shard {shard.stem} in {folder}")
    header, start = _header(path)
    found, wanted = header.get("__metadata__"), _identity(shard, trunk)
    if found != wanted:
        raise ContractError(f"features {path}", found, str(wanted))
    shape = tuple(header[_NAME]["shape"])
    return np.memmap(path, np.dtype("<f2"), "r", offset=start, shape=shape)


def _write(folder: Path, shard: Path, trunk: str, features: F16) -> None:
    from safetensors.numpy import save

    content = save({_NAME: np.ascontiguousarray(features)}, metadata=_identity(shard, trunk))
    write_whole(folder / f"{shard.stem}{SUFFIX}", content)
