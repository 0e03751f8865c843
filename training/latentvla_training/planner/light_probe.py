"""Can the image trunk see the light? A linear probe on its frozen features.

The three lamps of the head that the ego's lane obeys are projected into the front view; the
stride-8 features there, interpolated and put side by side, go through one linear softmax layer. It
is fitted on training networks and tested on others (experiments.md section 3). Heads outside the
image are counted, not probed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from latentvla_ros.model.bev import project
from latentvla_ros.model.planner import StudentPlanner
from latentvla_ros.runtime.bundle import load_bundle
from latentvla_training.data.make import ensure_split
from latentvla_training.data.shards import ShardReader
from latentvla_training.planner.hosts import bundle_planner
from latentvla_training.planner.lamps import own_lamps
from latentvla_training.world.road_map import SignalState

BINS_M = ((0.0, 10.0), (10.0, 20.0), (20.0, 30.0), (30.0, 40.0), (40.0, 55.0))
GATE_M, GATE_ACCURACY = 40.0, 0.9


@dataclass(frozen=True)
class LightScenes:
    """Scenes of a split whose own light can be probed.

    Attributes:
        index: (N,) of the Scene. state: (N,) ``SignalState``. distance_m: (N,) to the stop line.
        lamps: (N, 3, 3) x, y, z of the lamps in the ego frame, red, yellow, green.
        outside: own lights within range whose head the front view does not show.
    """

    index: NDArray[np.int64]
    state: NDArray[np.int64]
    distance_m: NDArray[np.float64]
    lamps: NDArray[np.float64]
    outside: int


def light_scenes(reader: ShardReader, width: int, height: int) -> LightScenes:
    """Find the Scenes with an own light within range whose head the first view shows."""
    columns = reader.columns
    distance = columns["own_light_distance_m"]
    candidates = np.flatnonzero(
        (columns["own_light"] >= 0) & (np.nan_to_num(distance, nan=1e9) <= BINS_M[-1][1])
    )
    chosen, lamps, outside = [], [], 0
    for index in candidates:
        found = own_lamps(reader, int(index))
        if found is None:
            outside += 1
            continue
        _, visible = _project(found[None], reader, np.array([index]), width, height)
        if not bool(visible.all()):
            outside += 1
            continue
        chosen.append(index)
        lamps.append(found)
    rows = np.array(chosen, np.int64)
    return LightScenes(
        rows,
        columns["own_light"][rows].astype(np.int64),
        distance[rows].astype(np.float64),
        np.array(lamps).reshape(-1, 3, 3),
        outside,
    )


def _project(
    lamps: NDArray[np.float64],
    reader: ShardReader,
    rows: NDArray[np.int64],
    width: int,
    height: int,
) -> tuple[Tensor, Tensor]:
    """Project lamps (N, 3, 3) into the first view of Scenes: grid (N, 3, 2), visible (N, 3)."""
    grids, masks = [], []
    for points, row in zip(lamps, rows, strict=True):
        grid, visible = project(
            torch.from_numpy(points).float(),
            torch.from_numpy(reader.columns["intrinsics"][row, :1]),
            torch.from_numpy(reader.columns["ego_from_camera"][row, :1]),
            width,
            height,
        )
        grids.append(grid[0])
        masks.append(visible[0])
    return torch.stack(grids), torch.stack(masks)


@torch.inference_mode()
def probe_features(planner: StudentPlanner, reader: ShardReader, scenes: LightScenes) -> Tensor:
    """Return the trunk's features (N, 3 C) at the lamps."""
    from tqdm import tqdm

    config = planner.config
    rows = []
    for start in tqdm(range(0, len(scenes.index), 32), desc="features", leave=False):
        part = slice(start, start + 32)
        images = np.stack(
            [
                reader.views(int(i), config.image_width, config.image_height, most=1)
                for i in scenes.index[part]
            ]
        )
        features = planner.encode_images(torch.from_numpy(images))[:, 0]
        grid, _ = _project(
            scenes.lamps[part], reader, scenes.index[part], config.image_width, config.image_height
        )
        sampled = functional.grid_sample(features, grid[:, :, None], align_corners=False)
        rows.append(sampled[..., 0].transpose(1, 2).flatten(1))
    return torch.cat(rows)


def fit_linear(features: Tensor, states: Tensor, decay: float = 1e-3) -> tuple[Tensor, Tensor]:
    """Fit softmax regression (N, D) -> 3 by L-BFGS; returns weight (3, D) and bias (3,).

    Classes count alike, so that red lights (most of what one waits at) do not win by number.
    """
    mean, scale = features.mean(dim=0), features.std(dim=0) + 1e-3
    inputs = (features - mean) / scale
    weight = torch.zeros(3, features.shape[1], requires_grad=True)
    bias = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")
    counts = torch.bincount(states, minlength=3).float().clamp(min=1.0)
    balance = len(states) / (3.0 * counts)

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = inputs @ weight.T + bias
        loss = functional.cross_entropy(logits, states, balance) + decay * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        scaled = weight / scale
        return scaled, bias - scaled @ mean


def probe_lights(planner: StudentPlanner, train: ShardReader, test: ShardReader) -> dict[str, Any]:
    """Fit the probe on ``train`` and report its accuracy on ``test`` by distance.

    Returns:
        ``accuracy`` at most 40 m from the stop line, ``scenes`` there, ``passed``; ``bins`` and
        ``states`` with their accuracy and number; how many heads were outside the view.
    """
    planner = planner.eval()
    config = planner.config
    parts = [
        light_scenes(reader, config.image_width, config.image_height) for reader in (train, test)
    ]
    features = [
        probe_features(planner, reader, part)
        for reader, part in zip((train, test), parts, strict=True)
    ]
    weight, bias = fit_linear(features[0], torch.from_numpy(parts[0].state))
    predicted = (features[1] @ weight.T + bias).argmax(dim=1).numpy()
    right, distance = predicted == parts[1].state, parts[1].distance_m
    near = distance <= GATE_M
    accuracy = float(right[near].mean()) if near.any() else float("nan")
    bins = {
        f"{low:.0f}-{high:.0f} m": _share(
            right[(distance > low - 1.1 * (low == 0)) & (distance <= high)]
        )
        for low, high in BINS_M
    }
    states = {
        state.name.lower(): _share(right[near & (parts[1].state == state)]) for state in SignalState
    }
    return {
        "accuracy": accuracy,
        "scenes": int(near.sum()),
        "passed": bool(accuracy >= GATE_ACCURACY),
        "bins": bins,
        "states": states,
        "train_scenes": len(parts[0].index),
        "outside_view": parts[1].outside,
    }


def probe_bundle(bundle_name: str, max_train_shards: int = 0) -> dict[str, Any]:
    """Run ``probe_lights`` on the trunk of a bundle; absent splits are made."""
    bundle = load_bundle(bundle_name)
    train = ensure_split("train")
    if max_train_shards:
        train = ShardReader(train.paths[:max_train_shards])
    return probe_lights(bundle_planner(bundle), train, ensure_split("test"))


def _share(right: NDArray[np.bool_]) -> dict[str, float | int]:
    return {"accuracy": float(right.mean()) if len(right) else float("nan"), "scenes": len(right)}
