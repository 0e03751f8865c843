"""Pseudo-trajectories: how the ego moved, read off pictures, for drives without odometry.

An inverse-dynamics net learns on drives with odometry which motion lies between two front frames,
and says it of all others; chained, its motions stand for the driven future and the ego state, which
a planner then imitates (video pre-training, Baker et al. 2022, section 3; row of experiments.md
section 6). It reads later frames, so it is for training alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from latentvla_ros.contract import ContractError
from latentvla_ros.geometry import se2, se3
from latentvla_training.data.shard_footer import shard_info
from latentvla_training.data.shards import ShardReader, load_split
from latentvla_training.data.whole_file import write_whole
from latentvla_training.engine.loop import run_training
from latentvla_training.engine.recipe import (
    DataSettings,
    LoopSettings,
    OptimizerSettings,
    load_record,
)
from latentvla_training.latent_action.dynamics import weights_hash
from latentvla_training.latent_action.pairs import later_rows
from latentvla_training.latent_action.scene_set import SceneSet
from latentvla_training.planner.augmentation import AugmentationSettings, change_colours
from latentvla_training.planner.dataset import Item, RunSampler, collate
from latentvla_training.world.networks import data_root

RECIPES = "pseudo_odometry"
#: Seconds between the two front frames of a Scene, and between poses of a plan.
STEP_S = 0.5
_FUTURE, _PAST = 8, 3
#: m, m, rad: about what half a second of driving comes to.
_SCALE = np.array([4.0, 0.2, 0.05], np.float32)
_FORMAT, _NAME = "latentvla-pseudo-odometry-1", "motion"


@dataclass(frozen=True)
class PseudoOdometryRecipe:
    """Everything that decides a net.

    Attributes:
        name: of the recipe. width: of its first layer. image_width, image_height: of the frames as
            it sees them, pixels.
        data: Scenes; it learns on those with odometry. optimizer, run: settings.
    """

    name: str
    width: int = 32
    image_width: int = 128
    image_height: int = 64
    data: DataSettings = field(default_factory=DataSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    run: LoopSettings = field(default_factory=LoopSettings)

    def __post_init__(self) -> None:
        if self.width < 8 or self.width % 8:
            raise ContractError("width", self.width, "a multiple of 8")
        for name in ("image_width", "image_height"):
            if getattr(self, name) < 16 or getattr(self, name) % 16:
                raise ContractError(name, getattr(self, name), "a multiple of 16")


def load_pseudo_recipe(name_or_path: str) -> PseudoOdometryRecipe:
    """Read a recipe that ships (by name) or any YAML file (by path)."""
    return load_record(PseudoOdometryRecipe, name_or_path, RECIPES)


def pseudo_file(recipe: str, split: str) -> Path:
    """Return where the motions of a split's Scenes are kept, as the net of a recipe says them."""
    return data_root() / "pseudo_odometry" / recipe / f"{split}.safetensors"


class MotionNet(nn.Module):
    """Two front frames to the motion between them; convolutions over both stacked."""

    def __init__(self, recipe: PseudoOdometryRecipe) -> None:
        super().__init__()
        width = recipe.width
        channels = (6, width, 2 * width, 3 * width, 4 * width)
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(pairwise(channels)):
            size = 7 if number == 0 else 3
            layers += [
                nn.Conv2d(before, after, size, stride=2, padding=size // 2),
                nn.GroupNorm(8, after),
                nn.GELU(approximate="tanh"),
            ]
        places = (recipe.image_width // 16) * (recipe.image_height // 16)
        self.layers = nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Linear(places * channels[-1], 8 * width),
            nn.GELU(approximate="tanh"),
            nn.Linear(8 * width, 3),
        )

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss of a batch ``frames`` (B, 2, H, W, 3) uint8 and ``motion`` (B, 3)."""
        return {"motion": nn.functional.smooth_l1_loss(self.read(batch), batch["motion"])}

    def read(self, batch: dict[str, Tensor]) -> Tensor:
        """Return scaled motions (B, 3)."""
        frames = batch["frames"].float() / 127.5 - 1.0
        stacked = frames.permute(0, 1, 4, 2, 3).flatten(1, 2)
        motion: Tensor = self.layers(stacked)
        return motion.float()


class FramePairs(Dataset[Item]):
    """The front frame of every Scene and the one of half a second before, and what lies between.

    Args:
        augment: other colours, and half of the samples mirrored. seed: of it.

    Raises:
        ContractError: Scenes without a front view of half a second ago.
    """

    def __init__(
        self,
        reader: ShardReader,
        recipe: PseudoOdometryRecipe,
        augment: bool = False,
        seed: int = 0,
    ) -> None:
        self.reader, self.recipe, self.seed = reader, recipe, seed
        self.colours = AugmentationSettings() if augment else None
        self.now, self.before = front_pair(reader)
        info = shard_info(reader.paths[0]).recipe
        self.size = (int(info["image_width"]), int(info["image_height"]))
        columns = reader.columns
        past = columns["ego_history"][:, -2].astype(np.float64)  # of half a second ago, at t0
        self.motion: NDArray[np.float32] = (se2.inverse(past) / _SCALE).astype(np.float32)
        seen = columns["view_mask"][:, [self.now, self.before]].all(axis=1)
        self.known = seen & columns["ego_history_mask"][:, -2] & reader.has_odometry
        self.seen = seen

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, address: int | tuple[int, int]) -> Item:
        """Return Scene ``index``, or (position in the run, index) for an augmented sample."""
        position, index = address if isinstance(address, tuple) else (0, int(address))
        views = self.reader.views(index, *self.size)[[self.before, self.now]]
        motion = self.motion[index].copy()
        if self.colours is not None:
            rng = np.random.default_rng((self.seed, position))
            if rng.random() < self.colours.photometric:
                views = change_colours(views, self.colours, rng)
            if rng.random() < 0.5:
                views, motion = views[:, :, ::-1], motion * np.array([1, -1, -1], np.float32)
        size = (self.recipe.image_width, self.recipe.image_height)
        frames = [
            cv2.resize(np.ascontiguousarray(v), size, interpolation=cv2.INTER_AREA) for v in views
        ]
        return {"frames": np.stack(frames), "motion": motion, "index": np.int64(index)}


def front_pair(reader: ShardReader) -> tuple[int, int]:
    """Return which views are the front camera's at t0 and half a second before.

    Raises:
        ContractError: the shards do not say, or have no such view.
    """
    views = shard_info(reader.paths[0]).recipe.get("views", [])
    times = {(view["slot"], float(view["time_offset_s"])): n for n, view in enumerate(views)}
    now, before = times.get(("front", 0.0)), times.get(("front", -STEP_S))
    if now is None or before is None:
        raise ContractError("views of the Scenes", sorted(times), f"front at 0 and -{STEP_S} s")
    return now, before


class PseudoOdometryTask:
    """``engine.loop.Task`` of the net."""

    def __init__(self, recipe: PseudoOdometryRecipe, train: ShardReader, val: ShardReader) -> None:
        torch.manual_seed(recipe.run.seed)
        self.run = recipe.run
        self.module: nn.Module = MotionNet(recipe)
        self.train = FramePairs(train, recipe, augment=True, seed=recipe.run.seed)
        self.scenes = np.flatnonzero(self.train.known)
        if not len(self.scenes):
            raise ContractError("Scenes with two front frames and odometry", 0, "at least one")
        judged = FramePairs(val, recipe)
        rows = np.flatnonzero(judged.known)
        chosen = np.linspace(0, len(rows) - 1, min(len(rows), self.run.validate_scenes)).astype(int)
        self.val = Subset(judged, rows[np.unique(chosen)].tolist())

    def batches(self, start_step: int, process: int, processes: int) -> Iterable[dict[str, Tensor]]:
        """Yield the batches of this process; each takes its share of every step's Scenes."""
        run = self.run
        sampler = RunSampler(self.scenes, run.batch_size, run.steps, start_step, run.seed)
        share = [batch[process::processes] for batch in sampler]
        return DataLoader(
            self.train, batch_sampler=share, num_workers=run.workers, collate_fn=collate
        )

    @torch.no_grad()
    def validate(self, averaged: nn.Module, device: torch.device) -> dict[str, float]:
        """Return errors of half a second's motion, m and rad, and the share that is explained."""
        assert isinstance(averaged, MotionNet)
        averaged.eval()
        said, true = [], []
        for batch in DataLoader(self.val, batch_size=32, collate_fn=collate):
            moved = {name: value.to(device) for name, value in batch.items()}
            said.append(averaged.read(moved).cpu())
            true.append(batch["motion"])
        found, wanted = torch.cat(said).numpy() * _SCALE, torch.cat(true).numpy() * _SCALE
        error = found - wanted
        spread = np.maximum(wanted.var(axis=0), 1e-9)
        explained = 1.0 - (error**2).mean(axis=0) / spread
        return {
            "distance_m": float(np.abs(error[:, 0]).mean()),
            "turn_rad": float(np.abs(error[:, 2]).mean()),
            "r2_ahead": float(explained[0]),
            "r2_turn": float(explained[2]),
        }


def train_motion_net(
    recipe: PseudoOdometryRecipe,
    folder: Path,
    stop_after_steps: int | None = None,
    progress: bool = True,
) -> MotionNet:
    """Train a recipe in ``folder`` (or continue there); returns the averaged net."""
    data = recipe.data
    train = load_split(data.train_split).part(
        data.max_shards, data.labelled_share, data.odometry_share
    )
    task = PseudoOdometryTask(recipe, train, load_split(data.val_split))
    net = run_training(task, recipe, folder, stop_after_steps, progress)
    assert isinstance(net, MotionNet)
    return net.eval()


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
        motion[batch["index"].numpy()] = net.read(moved).cpu().numpy() * _SCALE
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
    dynamics, measured = np.zeros((count, 6)), np.zeros((count, 6), np.bool_)
    dynamics[there, 0], dynamics[there, 2] = motion[there, 0] / STEP_S, motion[there, 2] / STEP_S
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
