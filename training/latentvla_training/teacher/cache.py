"""What the teacher thinks at t0 of every Scene, computed once and kept: what a student learns.

By one procedure for training and test (experiments.md section 4), which never sees a code of what
was driven: states at the places that *predict* each code, after the teacher's own greedy codes;
marginals over sampled prefixes, whose random numbers are those of the Scene's token; visual states
averaged over the cells of each picture, which no code can reach (attention is causal).

One safetensors file a shard of Scenes, written aside and renamed: making them may be killed and
repeated. A file says whose states it holds, of which Scenes, and the hash of its contents; states
of another teacher, codebook, processor, rig or of other Scenes are never read. Whoever reads need
not have the kind of device that they were made on, but states of two kinds, which round in two
ways, are never mixed.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from latentvla_ros.contract import NUM_LATENT_ACTIONS, ContractError
from latentvla_training.data.shard_footer import shard_info
from latentvla_training.data.shards import DiskFullError, ShardReader, is_disk_full, load_split
from latentvla_training.data.whole_file import write_whole
from latentvla_training.planner.dataset import collate
from latentvla_training.teacher.dataset import TeacherDataset
from latentvla_training.teacher.decoding import answer
from latentvla_training.teacher.model import Teacher, weights_identity
from latentvla_training.teacher.processor import check_rig
from latentvla_training.teacher.settings import CacheSettings, TeacherRecipe
from latentvla_training.teacher.training import TeacherRun
from latentvla_training.world.networks import data_root

logger = logging.getLogger(__name__)

SUFFIX = ".safetensors"
_FORMAT = "latentvla-teacher-1"
_ABOUT, _HASH = "about", "content_sha256"

#: Kind of device that states were made on; a file that does not say it was made on a CPU.
_DEVICE, _CPU = "device", "cpu"

#: Tensors of a file, each with one row a Scene.
VISUAL, ACTION, MARGINALS, CODES = "visual", "action", "marginals", "codes"


def teacher_id(recipe: TeacherRecipe, teacher: Teacher) -> str:
    """Return ``<recipe>-<16 hex of its weights>``."""
    return f"{recipe.name}-{weights_identity(teacher)}"


def cache_identity(run: TeacherRun, reader: ShardReader) -> dict[str, str]:
    """Return what states hang on beside the Scenes: compared word by word when they are read.

    Raises:
        ContractError: the teacher's prompt is not made for these cameras.
    """
    settings = run.recipe.cache
    return {
        "format": _FORMAT,
        "teacher": teacher_id(run.recipe, run.teacher),
        "codebook": run.recipe.codebook,
        "processor": run.processor.identity,
        "rig": check_rig(reader, run.recipe.pictures),
        "precision": run.recipe.run.mixed_precision,
        "prefixes": str(settings.prefixes),
        "prefix_seed": str(settings.seed),
        "visual_grid": "x".join(str(side) for side in settings.visual_grid),
        "batch_size": str(settings.batch_size),
    }


def cache_folder(teacher: str, split: str, root: Path | None = None) -> Path:
    """Return where the states of a split are kept, one file a shard."""
    return (root or data_root() / "cache" / "teacher") / teacher / split


def scenes_as_shown(run: TeacherRun, split: str, train_shards: int = 0) -> ShardReader:
    """Open a split as a teacher's states of it are made.

    Where it was trained without odometry of some drives, it does not learn of it here either.

    Args:
        train_shards: at most so many of its training split; 0: all.
    """
    reader = load_split(split, cached_shards=4)
    data = run.recipe.data
    if split != data.train_split:
        return reader
    return reader.part(train_shards, odometry_share=data.odometry_share)


def prefix_uniforms(tokens: Sequence[str] | NDArray[Any], settings: CacheSettings) -> Any:
    """Return the random numbers (N, S, 12) in [0, 1) of Scenes, each by its token alone."""
    shape = (settings.prefixes, NUM_LATENT_ACTIONS)
    found = []
    for token in tokens:
        digest = hashlib.sha256(f"{settings.seed} {token}".encode()).digest()
        found.append(np.random.default_rng(int.from_bytes(digest[:8], "little")).random(shape))
    return np.stack(found)


def pooled_pictures(teacher: Teacher, states: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the prompt's states (B, P, D) averaged over the cells of each picture, (B, 3 G, D)."""
    parts = []
    for picture in teacher.layout.pictures:
        own = states[:, picture.start : picture.start + picture.tokens].float()
        cells = own.transpose(1, 2).unflatten(2, (picture.rows, picture.columns))
        parts.append(functional.adaptive_avg_pool2d(cells, grid).flatten(2).transpose(1, 2))
    return torch.cat(parts, dim=1)


def ensure_cache(
    run: TeacherRun,
    reader: ShardReader,
    split: str,
    root: Path | None = None,
    progress: bool = True,
) -> CachedTeacher:
    """Return the teacher's states of a split, computing what is absent or of other Scenes.

    Raises:
        DiskFullError: no space left; what is there stays, and the same call goes on from it.
        ContractError: the teacher's prompt is not made for these cameras; states are lacking, and
            those that are there were made on another kind of device; names both.
    """
    from tqdm import tqdm

    identity = cache_identity(run, reader)
    folder = cache_folder(identity["teacher"], split, root)
    infos = [shard_info(path) for path in reader.paths]
    wanted = _of_shards(identity, reader)
    starts = np.append(0, np.cumsum([info.scenes for info in infos]))
    absent = [
        number
        for number, path in enumerate(reader.paths)
        if not _is_current(folder / f"{path.stem}{SUFFIX}", wanted[number])
    ]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if absent:
        again = {folder / f"{reader.paths[number].stem}{SUFFIX}" for number in absent}
        _check_device(set(folder.parent.glob(f"*/*{SUFFIX}")) - again, device.type)
    run.teacher.to(device).eval()
    dataset = TeacherDataset(reader, run.processor, blank=run.recipe.blank_images)
    scenes = sum(infos[number].scenes for number in absent)
    with tqdm(total=scenes, desc=f"teacher on {split}", unit="scene", disable=not progress) as bar:
        for number in absent:
            rows = range(int(starts[number]), int(starts[number + 1]))
            tensors = _states(run, dataset, rows, device)
            path = folder / f"{reader.paths[number].stem}{SUFFIX}"
            _write(path, tensors, wanted[number], device.type)
            bar.update(len(rows))
    return CachedTeacher(folder, reader, identity)


@torch.inference_mode()
def _states(
    run: TeacherRun, dataset: TeacherDataset, rows: range, device: torch.device
) -> dict[str, NDArray[Any]]:
    """Return the tensors of one shard's Scenes, always in batches of the same Scenes."""
    settings = run.recipe.cache
    tokens = dataset.reader.columns["token"]
    parts: dict[str, list[Tensor]] = {VISUAL: [], ACTION: [], MARGINALS: [], CODES: []}
    for low in range(rows.start, rows.stop, settings.batch_size):
        chosen = range(low, min(low + settings.batch_size, rows.stop))
        batch = collate([dataset[index] for index in chosen])
        moved = {name: value.to(device) for name, value in batch.items()}
        uniforms = prefix_uniforms([tokens[index] for index in chosen], settings)
        with torch.autocast(device.type, torch.bfloat16, run.mixed):
            found = answer(run.teacher, moved, torch.from_numpy(uniforms).to(device))
        assert found.marginals is not None
        pooled = pooled_pictures(run.teacher, found.prompt_states, settings.visual_grid)
        parts[VISUAL].append(pooled.half().cpu())
        parts[ACTION].append(found.states.half().cpu())
        parts[MARGINALS].append(found.marginals.float().cpu())
        parts[CODES].append(found.codes.to(torch.int8).cpu())
    tensors = {name: torch.cat(values).numpy() for name, values in parts.items()}
    for name in (VISUAL, ACTION):
        if not np.isfinite(tensors[name]).all():
            raise FloatingPointError(f"{name} states of {tokens[rows.start]} exceed float16")
    return tensors


class CachedTeacher:
    """The teacher's states of the Scenes of a ``ShardReader``, by index.

    Args:
        folder: of ``cache_folder``. reader: the split. identity: of ``cache_identity``.

    Raises:
        FileNotFoundError: a shard has no states yet.
        ContractError: a file is damaged, or of another teacher, codebook, processor, rig or of
            other Scenes, or two were made on two kinds of devices; both are named.
    """

    def __init__(self, folder: Path, reader: ShardReader, identity: dict[str, str]) -> None:
        parts: dict[str, list[NDArray[Any]]] = {VISUAL: [], ACTION: [], MARGINALS: [], CODES: []}
        made_on = ""
        for shard, wanted in zip(reader.paths, _of_shards(identity, reader), strict=True):
            path = folder / f"{shard.stem}{SUFFIX}"
            tensors, device = _read(path, wanted)
            made_on = made_on or device
            if device != made_on:
                raise ContractError(f"teacher cache {path}: {_DEVICE}", device, made_on)
            for name, values in parts.items():
                values.append(tensors[name])
        self.identity = identity
        self.visual: NDArray[np.float16] = np.concatenate(parts[VISUAL])  # (N, 3 G, D)
        self.action: NDArray[np.float16] = np.concatenate(parts[ACTION])  # (N, 12, D)
        self.marginals: NDArray[np.float32] = np.concatenate(parts[MARGINALS])  # (N, 12, 16)
        self.codes: NDArray[np.int8] = np.concatenate(parts[CODES])  # (N, 12)

    def __len__(self) -> int:
        return len(self.codes)


def _of_shards(identity: dict[str, str], reader: ShardReader) -> list[dict[str, str]]:
    names = [path.stem for path in reader.paths]
    contents = zip(names, reader.contents(), strict=True)
    return [{**identity, "shard": name, "scenes": what} for name, what in contents]


def _content_hash(tensors: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name, values in sorted(tensors.items()):
        digest.update(f"{name} {values.dtype} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _check_device(paths: Iterable[Path], device: str) -> None:
    """Check that what is there of a teacher was made on the kind of device that goes on with it."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(paths):
        try:
            with safe_open(path, framework="numpy") as file:
                found = _about(file).get(_DEVICE, _CPU)
        except (SafetensorError, KeyError, ValueError):
            continue  # whoever reads it will say that it is damaged
        if found != device:
            wanted = f"{device}, as here; go on where it was begun, or remove {path.parents[1]}"
            raise ContractError(f"teacher cache {path}: {_DEVICE}", found, wanted)


def _write(
    path: Path, tensors: dict[str, NDArray[Any]], identity: dict[str, str], device: str
) -> None:
    from safetensors.numpy import save

    made_on = {} if device == _CPU else {_DEVICE: device}
    about = {**identity, **made_on, _HASH: _content_hash(tensors)}
    # One key: of several the order would be any.
    content = save(tensors, {_ABOUT: json.dumps(about, sort_keys=True)})
    try:
        write_whole(path, content)
    except OSError as error:
        if is_disk_full(error):
            what = f"no space left for the teacher's states of {path.stem} ({len(content)} bytes)"
            raise DiskFullError(error.errno, what, str(path)) from error
        raise


def _about(file: Any) -> dict[str, str]:
    found: dict[str, str] = json.loads((file.metadata() or {})[_ABOUT])
    return found


def _read(path: Path, wanted: dict[str, str]) -> tuple[dict[str, NDArray[Any]], str]:
    """Return the tensors of a file, and the kind of device that they were made on."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"no {path}; make it with latentvla-train teacher cache")
    try:
        with safe_open(path, framework="numpy") as file:
            found = _about(file)
            tensors = {name: file.get_tensor(name) for name in (VISUAL, ACTION, MARGINALS, CODES)}
    except (SafetensorError, KeyError, ValueError) as error:
        raise ContractError(
            f"teacher cache {path}", str(error), "a whole file; remove it to have it made again"
        ) from error
    content, device = found.pop(_HASH, ""), found.pop(_DEVICE, _CPU)
    for name in sorted({*found, *wanted}):
        if found.get(name) != wanted.get(name):
            raise ContractError(
                f"teacher cache {path}: {name}", found.get(name), str(wanted.get(name))
            )
    if content != _content_hash(tensors):
        raise ContractError(
            f"teacher cache {path}",
            f"contents of hash {_content_hash(tensors)[:16]}",
            f"{content[:16]}; remove it to have it made again",
        )
    return tensors, device


def _is_current(path: Path, wanted: dict[str, str]) -> bool:
    if not path.is_file():
        return False
    try:
        _read(path, wanted)
    except ContractError as error:
        logger.warning("%s: made again", error)
        return False
    return True


def describe_cache(cached: CachedTeacher) -> str:
    """Return in one line what a cache holds."""
    size = sum(a.nbytes for a in (cached.visual, cached.action, cached.marginals, cached.codes))
    shapes = {"visual": cached.visual.shape[1:], "action": cached.action.shape[1:]}
    return f"{len(cached)} Scenes, {size / 1e6:.1f} MB, {json.dumps(shapes)}"
