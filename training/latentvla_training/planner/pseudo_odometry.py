"""Pseudo-trajectories: how the ego moved, read off pictures, for drives without odometry.

An inverse-dynamics net learns on drives with odometry which motion lies between two front frames,
and says it of all others; chained, its motions stand for the driven future and the ego state, which
a planner then imitates (video pre-training, Baker et al. 2022, section 3; row of experiments.md
section 6). It reads later frames, so it is for training alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Subset

from latentvla_ros.contract import ContractError
from latentvla_ros.geometry import se2, se3
from latentvla_training.data.shard_footer import shard_info
from latentvla_training.data.shards import ShardReader, load_split
from latentvla_training.data.whole_file import write_whole
from latentvla_training.latent_action.dynamics import weights_hash
from latentvla_training.latent_action.pairs import later_rows
from latentvla_training.latent_action.scene_set import SceneSet
from latentvla_training.planner.dataset import collate
from latentvla_training.planner.motion_net import (
    MOTION_SCALE,
    STEP_S,
    FramePairs,
    MotionNet,
    PseudoOdometryRecipe,
    front_pair,
)
from latentvla_training.world.networks import data_root

_FUTURE, _PAST = 8, 3
_FORMAT, _NAME = "latentvla-pseudo-odometry-1", "motion"


def pseudo_file(recipe: str, split: str) -> Path:
    """Return where the motions of a split's Scenes are kept, as the net of a recipe says them."""
    return data_root() / "pseudo_odometry" / recipe / f"{split}.safetensors"


@torch.inference_mode()
def say_motion(
    net: MotionNet, recipe: PseudoOdometryRecipe, reader: ShardReader, progress: bool = True
) -> NDArray[np.float32]:
    """Return the motion (N, 3) of the half second before every Scene, m, m, rad.

    In the frame of where it began; NaN where a frame is missing.
    """
    from tqdm import tqdm

    pairs = FramePairs(reader, recipe)
    device = next(net.parameters()).device
    motion = np.full((len(reader), 3), np.nan, np.float32)
    loader = DataLoader(
        Subset(pairs, np.flatnonzero(pairs.seen).tolist()), batch_size=32, collate_fn=collate
    )
    for batch in tqdm(loader, desc="motion off pictures", disable=not progress, leave=False):
        moved = {name: value.to(device) for name, value in batch.items()}
        motion[batch["index"].numpy()] = net.read(moved).cpu().numpy() * MOTION_SCALE
    return motion


def say_motion_of_all(net: MotionNet, recipe: PseudoOdometryRecipe, progress: bool = True) -> str:
    """Write what a net says of the Scenes to train on; returns in words how far off it is.

    That is measured on the split to validate on: distance of what its motions come to from what was
    driven, on average over 4 s.

    Raises:
        OSError: no space left.
    """
    data = recipe.data
    train = load_split(data.train_split)
    path = pseudo_file(recipe.name, data.train_split)
    write_motion(path, net, recipe, train, say_motion(net, recipe, train, progress))
    val = load_split(data.val_split)
    motion = say_motion(net, recipe, val, progress).astype(np.float64)
    said = assumed_columns(val, motion)
    known = said["future_mask"].all(axis=1)
    error = np.linalg.norm((said["future_2hz"] - val.columns["future_2hz"])[..., :2], axis=-1).mean(
        axis=1
    )
    return (
        f"{path}: made; on {known.sum()} Scenes of {data.val_split} the pseudo-trajectories are "
        f"{error[known].mean() if known.any() else float('nan'):.2f} m from the driven ones"
    )


def write_motion(
    path: Path, net: MotionNet, recipe: PseudoOdometryRecipe, reader: ShardReader, motion: Any
) -> None:
    """Keep the motions of a split's Scenes."""
    from safetensors.numpy import save

    about = {
        "format": _FORMAT,
        "id": f"{recipe.name}-{weights_hash(net)}",
        "odometry_share": str(recipe.data.odometry_share),
        "shards": _hashes(reader),
        "tokens": reader.columns["token"].astype(str).tolist(),
    }
    write_whole(path, save({_NAME: np.ascontiguousarray(motion)}, {"about": json.dumps(about)}))


def _hashes(reader: ShardReader) -> dict[str, str]:
    return {path.stem: shard_info(path).content_sha256[:16] for path in reader.paths}


def with_pseudo_odometry(reader: ShardReader, path: Path) -> ShardReader:
    """Return the reader with what ``write_motion`` kept in the place of odometry that it hides.

    The driven future, the past poses, speed, yaw rate and where past views stand are said of it;
    acceleration, wheel angle and command stay unknown, labels hidden.

    Raises:
        FileNotFoundError: there is no such file.
        ContractError: it is damaged, of other Scenes, or of a net that has seen the odometry of
            other drives than this reader shows; both are named.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"no {path}; make it with latentvla-train pseudo-odometry")
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {})["about"])
            motion = file.get_tensor(_NAME).astype(np.float64)
            tokens = np.asarray(about["tokens"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise ContractError(f"pseudo-odometry {path}", str(error), "a whole file") from error
    wanted = {"format": _FORMAT, "odometry_share": str(reader.odometry_share)}
    for name, value in wanted.items():
        if about.get(name) != value:
            raise ContractError(f"pseudo-odometry {path}: {name}", about.get(name), value)
    hashes = _hashes(reader)
    other = [name for name, value in hashes.items() if about["shards"].get(name) != value]
    rows = np.flatnonzero(np.isin(tokens, reader.columns["token"].astype(str)))
    if other or len(rows) != len(reader):
        raise ContractError(
            f"pseudo-odometry {path}: Scenes", f"others in {other[:3]}", "those here"
        )
    motion = motion[rows]
    return reader.assuming(assumed_columns(reader, motion), str(about["id"]))


def assumed_columns(reader: ShardReader, motion: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """Return columns of all Scenes as motions (N, 3) of the half second before each say them."""
    scenes = SceneSet([reader])
    count = len(reader)
    future = np.full((count, _FUTURE, 3), np.nan)
    pose, whole = np.zeros((count, 3)), np.ones(count, np.bool_)
    for step in range(_FUTURE):
        rows = later_rows(scenes, (step + 1) * STEP_S)
        whole &= (rows >= 0) & np.isfinite(motion[rows]).all(axis=1)
        pose = se2.compose(pose, np.where(whole[:, None], motion[rows], 0.0))
        future[whole, step] = pose[whole]
    known = np.isfinite(future).all(axis=2)
    future[known.any(axis=1)[:, None] & ~known] = 0.0  # masked in a future that is imitated
    history, seen = np.zeros((count, _PAST + 1, 3)), np.zeros((count, _PAST + 1), np.bool_)
    pose, whole = np.zeros((count, 3)), np.ones(count, np.bool_)
    for step in range(_PAST):
        rows = np.arange(count) if step == 0 else later_rows(scenes, -step * STEP_S)
        whole &= (rows >= 0) & np.isfinite(motion[rows]).all(axis=1)
        pose = se2.compose(pose, se2.inverse(np.where(whole[:, None], motion[rows], 0.0)))
        history[whole, _PAST - 1 - step], seen[whole, _PAST - 1 - step] = pose[whole], True
    seen[:, -1] = True
    there = np.isfinite(motion).all(axis=1)
    rows = later_rows(scenes, STEP_S)
    after = np.where((rows >= 0)[:, None], motion[rows], np.nan)
    after = np.where(np.isfinite(after), after, motion)
    rates = (motion + after)[there] / (2 * STEP_S)  # at t0: half a second before and after it
    dynamics, measured = np.zeros((count, 6)), np.zeros((count, 6), np.bool_)
    dynamics[there, 0], dynamics[there, 2] = rates[:, 0], rates[:, 2]
    measured[there, :3] = True
    return {
        "future_2hz": future.astype(np.float32),
        "future_mask": known,
        "ego_history": history.astype(np.float32),
        "ego_history_mask": seen,
        "ego_dynamics": dynamics.astype(np.float32),
        "ego_dynamics_mask": measured,
        "ego_from_camera": _moved_views(reader, history[:, -2], there),
    }


def _moved_views(
    reader: ShardReader, past: NDArray[np.float64], there: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return where views stand (N, V, 4, 4), the front one of before moved to its pose ``past``."""
    now, before = front_pair(reader)
    poses = np.array(reader.columns["ego_from_camera"], np.float64)
    for row in np.flatnonzero(there):
        poses[row, before] = se3.from_se2(past[row]) @ poses[row, now]
    return poses.astype(np.float32)
