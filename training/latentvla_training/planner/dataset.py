"""Scenes as network inputs and targets, in an order that depends on the seed and position alone.

A sample is addressed by its position in the whole run, so a resumed run sees what an uninterrupted
one would have seen, augmentation included.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from latentvla_ros.contract import ContractError, Observation
from latentvla_ros.model.config import PlannerConfig
from latentvla_training.data.hidden import HIDDEN_ODOMETRY, place_as_now, views_now
from latentvla_training.data.scene import RECOVERY
from latentvla_training.data.shard_footer import shard_info
from latentvla_training.data.shards import ShardReader
from latentvla_training.engine.recipe import LoopSettings
from latentvla_training.planner.augmentation import AugmentationSettings, augment
from latentvla_training.planner.lamps import own_lamps
from latentvla_training.planner.targets import (
    AuxiliaryTargets,
    RasterGrid,
    auxiliary_targets,
    unknown_targets,
)

Item = dict[str, Any]

#: What odometry and the route say, in the order that networks read it.
EGO_INPUTS = ("ego_history", "ego_history_mask", "ego_dynamics", "ego_dynamics_mask", "command")
_INPUTS = tuple(name for name in Observation.INPUTS if name != "images")


def raster_grid(config: PlannerConfig) -> RasterGrid:
    """Return the raster of the auxiliary targets that belongs to a network."""
    cells = (2 * config.bev_cells[0], 2 * config.bev_cells[1])
    return RasterGrid(config.bev_x_m, config.bev_y_m, cells)


class SceneDataset(Dataset[Item]):
    """Inputs, the driven future and (for training) auxiliary targets of the Scenes of a split.

    Args:
        reader: the split.
        config: of the network.
        augmentation: None for none.
        with_targets: also compute the auxiliary targets (all of them now: workers then share them).
        blank: zero images, without decoding any: for the planner that never sees.
        seed: of the augmentation.
        hide_odometry: see ``RunSettings``; of augmented samples.
    """

    def __init__(
        self,
        reader: ShardReader,
        config: PlannerConfig,
        augmentation: AugmentationSettings | None = None,
        with_targets: bool = False,
        blank: bool = False,
        seed: int = 0,
        hide_odometry: float = 0.0,
    ) -> None:
        self.reader = reader
        self.config = config
        self.augmentation = augmentation
        self.blank = blank
        self.seed, self.hide_odometry = seed, hide_odometry
        self._now: tuple[int, ...] = ()
        if hide_odometry:
            self._now = views_now(shard_info(reader.paths[0]).recipe.get("views", []))
            if len(self._now) != len(config.view_time_offsets_s):
                wanted = "0 for shards that do not say which of their views are past"
                raise ContractError("run.hide_odometry", hide_odometry, wanted)
        self._targets: list[AuxiliaryTargets] | None = None
        if with_targets:
            self._targets = compute_targets(reader, raster_grid(config))
        if not blank:
            reader.preload()

    def __len__(self) -> int:
        return len(self.reader)

    def images(self, index: int) -> NDArray[np.uint8]:
        """Return the decoded views of Scene ``index``."""
        config = self.config
        if self.blank:
            views = len(config.view_time_offsets_s)
            return np.zeros((views, config.image_height, config.image_width, 3), np.uint8)
        return self.reader.views(index, config.image_width, config.image_height)

    def __getitem__(self, address: int | tuple[int, int]) -> Item:
        """Return Scene ``index``, or (position in the run, index) for an augmented sample."""
        position, index = address if isinstance(address, tuple) else (0, int(address))
        columns = self.reader.columns
        item: Item = {name: columns[name][index].copy() for name in _INPUTS}
        item["images"] = self.images(index)
        if self.augmentation is not None:
            chance = np.random.default_rng((self.seed, position, 1)).random()
            if hides := chance < self.hide_odometry:
                place_as_now(item["view_mask"], item["ego_from_camera"], self._now)
            augment(item, self.augmentation, np.random.default_rng((self.seed, position)))
            for name in EGO_INPUTS if hides else ():
                item[name][...] = HIDDEN_ODOMETRY[name]
        item["future"] = columns["future_2hz"][index]
        item["future_mask"] = columns["future_mask"][index]
        item["index"] = np.int64(index)
        if self._targets is not None:
            target = self._targets[index]
            item["raster"], item["velocity"] = target.raster, target.velocity
            item["route"], item["leader"] = target.route, target.leader
            item["light"] = np.int64(target.light)
            item["light_distance_m"] = np.float32(target.light_distance_m)
            item["lamps"], item["labelled"] = target.lamps, self.reader.labelled[index]
        return item


def scenes_recorded(reader: ShardReader) -> NDArray[np.int64]:
    """Return the Scenes whose pictures a drive has.

    A start beside the driven path is rendered by who knows pose and map: a drive without odometry
    has none.
    """
    tags = reader.columns["tags"]
    beside = np.array([RECOVERY in str(text).split(",") for text in tags], np.bool_)
    return np.flatnonzero(reader.has_odometry | ~beside)


def scenes_to_learn_from(reader: ShardReader) -> NDArray[np.int64]:
    """Return the Scenes that training uses: not those where the expert scores 0 in either score.

    Nothing can learn from a failed example (experiments.md section 2). Tests keep every Scene, and
    so does training where a Scene has no labels to score by.
    """
    scenes, columns = scenes_recorded(reader), reader.columns
    good = (columns["expert_pdms"] != 0.0) & (columns["expert_epdms"] != 0.0)
    return scenes[good[scenes]]


def scenes_to_imitate(reader: ShardReader, labelled_repeats: int = 1) -> NDArray[np.int64]:
    """Return the Scenes that training imitates: those to learn from whose future is known.

    Where futures of some are assumed (``pseudo_odometry``), Scenes with odometry are repeated until
    they are about half of all.

    Args:
        labelled_repeats: how often a Scene with labels is among them, where others have none.
    """
    scenes = scenes_to_learn_from(reader)
    scenes = scenes[reader.columns["future_mask"][scenes].any(axis=1)]
    if reader.assumed:
        known = reader.has_odometry[scenes]
        times = max(1, round((~known).sum() / max(1, known.sum())))
        return np.repeat(scenes, np.where(known, times, 1))
    if labelled_repeats == 1 or reader.labelled.all():
        return scenes
    return np.repeat(scenes, np.where(reader.labelled[scenes], labelled_repeats, 1))


def compute_targets(reader: ShardReader, grid: RasterGrid) -> list[AuxiliaryTargets]:
    """Compute the auxiliary targets of every Scene, shard by shard; unlabelled ones are unknown."""
    from tqdm import tqdm

    columns = reader.columns
    unknown = unknown_targets(grid)
    return [
        auxiliary_targets(
            columns["ego_pose"][index],
            lambda name, index=index: reader.heavy_label(index, name),
            int(columns["own_light"][index]),
            float(columns["own_light_distance_m"][index]),
            own_lamps(reader, index),
            grid,
        )
        if reader.labelled[index]
        else unknown
        for index in tqdm(range(len(reader)), desc="targets", unit="scene", leave=False)
    ]


class RunSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (position, scene) from a position of the run on; every epoch is a new shuffle.

    Args:
        scenes: (N,) indices of those to show. batch_size, steps: of the run.
        start_step: where to begin. seed: of the shuffles.
    """

    def __init__(
        self,
        scenes: NDArray[np.int64],
        batch_size: int,
        steps: int,
        start_step: int = 0,
        seed: int = 0,
    ) -> None:
        self.scenes, self.batch_size, self.steps = scenes, batch_size, steps
        self.start_step, self.seed = start_step, seed

    def __len__(self) -> int:
        return self.steps - self.start_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order, epoch = np.zeros(0, np.int64), -1
        for step in range(self.start_step, self.steps):
            batch = []
            for position in range(step * self.batch_size, (step + 1) * self.batch_size):
                if position // len(self.scenes) != epoch:
                    epoch = position // len(self.scenes)
                    order = np.random.default_rng((self.seed, epoch)).permutation(self.scenes)
                batch.append((position, int(order[position % len(order)])))
            yield batch


def run_batches(
    dataset: Dataset[Item],
    scenes: NDArray[np.int64],
    run: LoopSettings,
    start_step: int,
    process: int,
    processes: int,
    generator: torch.Generator | None = None,
) -> DataLoader[Item]:
    """Return the batches of one process from a step of a run on: its share of every step's Scenes.

    Args:
        dataset: takes (position, scene). scenes: (N,) indices of those to show.
        generator: of the loader; without one it draws from torch's own numbers.
    """
    sampler = RunSampler(scenes, run.batch_size, run.steps, start_step, run.seed)
    return DataLoader(
        dataset,
        batch_sampler=[batch[process::processes] for batch in sampler],
        num_workers=run.workers,
        collate_fn=collate,
        prefetch_factor=4 if run.workers else None,
        generator=generator,
    )


def evenly(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return at most so many of some rows, evenly chosen."""
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int)]


def collate(items: list[Item]) -> dict[str, torch.Tensor]:
    """Stack items into a batch of tensors."""
    return {
        name: torch.from_numpy(np.stack([np.asarray(item[name]) for item in items]))
        for name in items[0]
    }
