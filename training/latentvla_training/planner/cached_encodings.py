"""What a host with a frozen encoder knows of every Scene, computed once and kept on disk.

Where the head alone learns, what it reads never changes but by augmentation. So every training
Scene is encoded a few times, disturbed anew each time, and training draws one of them: a pass costs
a third. Scenes to validate on or to be scored are encoded once, as they are.

One safetensors file a shard of Scenes, written aside and renamed, so that making them may be killed
and repeated. A file says of which host, Scenes and disturbances it is; others are never read.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentvla_ros.contract import ContractError, Observation
from latentvla_ros.model.planner import Encoded, StudentPlanner
from latentvla_training.data.shard_footer import shard_info
from latentvla_training.data.shards import ShardReader
from latentvla_training.data.whole_file import write_whole
from latentvla_training.planner.augmentation import AugmentationSettings, augment
from latentvla_training.planner.cached_features import SUFFIX, CachedFeatures
from latentvla_training.planner.dataset import Item, collate
from latentvla_training.world.networks import data_root

logger = logging.getLogger(__name__)

INPUTS = tuple(name for name in Observation.INPUTS if name != "images")
FEATURES = "image_features"
#: Entries of a batch that stand for ``Encoded``. Thousands of numbers a Scene are kept in float16,
#: the few that a plan is integrated from in float32.
HALF = ("bev", "memory", "context")
WHOLE = ("ego", "prior_steps", "prior_curvature")

_BATCH = 8
_ABOUT = "about"


def feature_item(
    reader: ShardReader,
    features: CachedFeatures,
    index: int,
    augmentation: AugmentationSettings | None = None,
    rng: np.random.Generator | None = None,
) -> Item:
    """Return the inputs of Scene ``index`` with ``image_features`` (V, C, h, w) in place of images.

    Args:
        augmentation: None for none. rng: what it draws from.
    """
    item: Item = {name: reader.columns[name][index].copy() for name in INPUTS}
    item["images"] = np.array(features[index])
    if augmentation is not None:
        augment(item, augmentation, rng or np.random.default_rng())
    item[FEATURES] = item.pop("images")
    return item


def to_arrays(encoded: Encoded) -> dict[str, Tensor]:
    """Return what is kept of ``encoded``, by name."""
    steps, curvature = encoded.prior
    return {
        "bev": encoded.bev,
        "memory": encoded.memory,
        "context": encoded.context,
        "ego": encoded.ego,
        "prior_steps": steps,
        "prior_curvature": curvature,
    }


def from_batch(batch: Mapping[str, Tensor]) -> Encoded:
    """Return what a batch of kept arrays stands for; its image features are left out (empty)."""
    bev, memory, context = (batch[name].float() for name in HALF)
    prior = (batch["prior_steps"], batch["prior_curvature"])
    return Encoded(memory[:, :0], bev, memory, context, batch["ego"], prior)


def encoder_id(planner: StudentPlanner) -> str:
    """Return what tells one encoder from another: a hash of all weights but head and reasoner."""
    digest = hashlib.sha256(json.dumps(planner.config.to_dict(), sort_keys=True).encode())
    for name, value in sorted(planner.state_dict().items()):
        if not name.startswith(("head.", "reasoner.")):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


class CachedEncodings:
    """Encodings of the Scenes of a ``ShardReader``, ``draws`` of each.

    Files are mapped into memory, not read: processes share what is in memory.

    Args:
        folder: of the files. reader: of the Scenes. identity: of their host and disturbances.

    Raises:
        FileNotFoundError: a shard has none. ContractError: a file is damaged or of another host,
            other disturbances or other Scenes; both are named.
    """

    def __init__(
        self, folder: Path, reader: ShardReader, identity: Mapping[str, str], draws: int
    ) -> None:
        self.draws = draws
        self._files = [
            _open(folder / f"{path.stem}{SUFFIX}", _of_shard(identity, contents))
            for path, contents in zip(reader.paths, reader.contents(), strict=True)
        ]
        counts = [int(file["ego"].get_shape()[0]) // draws for file in self._files]
        self._starts = np.append(0, np.cumsum(counts)).astype(np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, index: int, draw: int = 0) -> dict[str, NDArray[Any]]:
        """Return encoding ``draw`` of Scene ``index``."""
        if not (0 <= index < len(self) and 0 <= draw < self.draws):
            raise IndexError(f"encoding {draw} of {self.draws}, scene {index} of {len(self)}")
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        row = (index - int(self._starts[shard])) * self.draws + draw
        return {name: values[row] for name, values in self._files[shard].items()}


def ensure_encodings(
    planner: StudentPlanner,
    reader: ShardReader,
    features: CachedFeatures,
    split: str,
    augmentation: AugmentationSettings | None = None,
    draws: int = 1,
    root: Path | None = None,
    progress: bool = True,
) -> CachedEncodings:
    """Return encodings of a split, computing those that are absent or of other Scenes.

    The planner is put into inference mode, and onto the GPU where there is one.

    Args:
        features: of the same Scenes. augmentation: None for one encoding of each as it is.
        draws: how many are made of each.

    Raises:
        OSError: no space left; what is there stays, and the same call goes on from it.
    """
    from tqdm import tqdm

    changes = "" if augmentation is None else json.dumps(asdict(augmentation), sort_keys=True)
    identity = {"encoder": encoder_id(planner), "augmentation": changes, "draws": str(draws)}
    if reader.assumed:
        identity["assumed"] = reader.assumed
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    folder = (root or data_root()) / "cache" / "encodings" / digest / split
    starts = np.append(0, np.cumsum([shard_info(path).scenes for path in reader.paths])).tolist()
    wanted = [_of_shard(identity, contents) for contents in reader.contents()]
    absent = [
        number
        for number, path in enumerate(reader.paths)
        if not _is_current(folder / f"{path.stem}{SUFFIX}", wanted[number])
    ]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    planner.to(device).eval()
    total = sum(starts[number + 1] - starts[number] for number in absent)
    with tqdm(
        total=total, desc=f"encodings of {split}", unit="scene", disable=not progress or not absent
    ) as bar:
        for number in absent:
            rows = [
                (index, draw)
                for index in range(starts[number], starts[number + 1])
                for draw in range(draws)
            ]
            tensors = _encode(planner, reader, features, rows, augmentation, device)
            name = f"{reader.paths[number].stem}{SUFFIX}"
            _write(folder / name, tensors, wanted[number])
            bar.update(len(rows) // draws)
    return CachedEncodings(folder, reader, identity, draws)


@torch.inference_mode()
def _encode(
    planner: StudentPlanner,
    reader: ShardReader,
    features: CachedFeatures,
    rows: Sequence[tuple[int, int]],
    augmentation: AugmentationSettings | None,
    device: torch.device,
) -> dict[str, NDArray[Any]]:
    """Return encodings of (Scene, draw), always in batches of the same ones and in float32."""
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in (*HALF, *WHOLE)}
    for low in range(0, len(rows), _BATCH):
        items = [
            feature_item(
                reader, features, index, augmentation, np.random.default_rng((draw, index))
            )
            for index, draw in rows[low : low + _BATCH]
        ]
        batch = {name: value.to(device) for name, value in collate(items).items()}
        inputs = [batch[name] for name in INPUTS]
        encoded = planner.encode(batch[FEATURES].float(), *inputs)
        for name, value in to_arrays(encoded).items():
            parts[name].append(value.float().cpu().numpy())
    found = {name: np.concatenate(values) for name, values in parts.items()}
    for name in HALF:
        found[name] = found[name].astype(np.float16)
    for name, values in found.items():
        if not np.isfinite(values).all():
            token = reader.columns["token"][rows[0][0]]
            raise FloatingPointError(f"{name} of scene {token} and its shard exceed float16")
    return found


def _of_shard(identity: Mapping[str, str], contents: str) -> dict[str, str]:
    return {**identity, "scenes_sha256": contents}


def _open(path: Path, wanted: Mapping[str, str]) -> dict[str, Any]:
    """Return rows of the tensors of a file by name, to be read one at a time."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"no {path}")
    try:
        file = safe_open(path, framework="numpy")  # type: ignore[no-untyped-call]
        found = json.loads((file.metadata() or {})[_ABOUT])
        rows = {name: file.get_slice(name) for name in (*HALF, *WHOLE)}
    except (SafetensorError, KeyError, ValueError) as error:
        raise ContractError(
            f"encodings {path}", str(error), "a whole file; remove it to have it made again"
        ) from error
    if found != wanted:
        raise ContractError(f"encodings {path}", found, str(dict(wanted)))
    return rows


def _is_current(path: Path, wanted: Mapping[str, str]) -> bool:
    if not path.is_file():
        return False
    try:
        _open(path, wanted)
    except ContractError as error:
        logger.warning("%s: made again", error)
        return False
    return True


def _write(path: Path, tensors: dict[str, NDArray[Any]], identity: dict[str, str]) -> None:
    from safetensors.numpy import save

    about = json.dumps(identity, sort_keys=True)
    write_whole(path, save(tensors, {_ABOUT: about}))
