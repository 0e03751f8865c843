"""Makes the shards of a split from the built-in world: resumable, the same bytes every time."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from latentvla_ros.contract import ContractError
from latentvla_ros.runtime.bundle import sha256_of
from latentvla_training.data.parallel import Pool, map_unordered
from latentvla_training.data.scene_table import FORMAT_VERSION
from latentvla_training.data.shard_footer import ShardInfo, read_footer, versions
from latentvla_training.data.shards import (
    SUFFIX,
    DiskFullError,
    ShardReader,
    is_disk_full,
    load_split,
    split_folder,
    write_shard,
)
from latentvla_training.data.source_hash import code_hash, provenance
from latentvla_training.data.split_summary import SplitSummary
from latentvla_training.data.usable_shards import SUMMARY, is_whole, known_files, last_summary
from latentvla_training.data.whole_file import write_whole
from latentvla_training.data.world_adapter import SceneSettings, episode_scenes
from latentvla_training.world.episode import Episode
from latentvla_training.world.logged_traffic import LaneFinder
from latentvla_training.world.networks import split_networks
from latentvla_training.world.sumo_network import NetworkBuildError

logger = logging.getLogger(__name__)

#: Episodes of each network, 48 Scenes each: 17,280 to train on (and recovery starts), 864 to
#: validate, 1,152 to test, 1,152 out of distribution; every long-tail event once on every network,
#: about 13 Scenes each.
DEFAULT_EPISODES = {"train": 9, "val": 3, "test": 2, "longtail": 8, "ood": 3}

#: What differs from the defaults in the Scenes of a split.
SPLIT_SETTINGS = {
    "train": SceneSettings(jitter_rig=True, recovery_share=0.2),
    "longtail": SceneSettings(events_only=True),
}

Rebuild = Literal["no", "other_code", "all"]

#: Episodes that a worker makes at a time.
EPISODES_PER_BATCH = 5


@dataclass(frozen=True)
class EpisodeTask:
    """One episode to make: its name, the network, where its shard goes and what is in it."""

    episode: str
    network: str
    path: Path
    settings: SceneSettings


@dataclass(frozen=True)
class LeftOut:
    """Why an episode has no shard; ``no_event``: nothing went wrong, but no event happened."""

    reason: str
    no_event: bool = False


def split_settings(split: str, image_size: tuple[int, int] | None = None) -> SceneSettings:
    """Return what is in the Scenes of a split.

    Args:
        image_size: width and height of pictures, pixels; those of ``nano`` by default.
    """
    settings = SPLIT_SETTINGS.get(split, SceneSettings())
    if image_size is None:
        return settings
    return replace(settings, image_width=image_size[0], image_height=image_size[1])


def episode_tasks(
    split: str,
    episodes_per_network: int | None = None,
    max_episodes: int | None = None,
    root: Path | None = None,
    settings: SceneSettings | None = None,
) -> list[EpisodeTask]:
    """Return the episodes of a split, one of every network before the second of any.

    Args:
        split: see ``networks.SPLIT_SIZES``.
        episodes_per_network: ``DEFAULT_EPISODES`` when not given.
        max_episodes: only the first so many.
        root: data root. settings: contents of the Scenes; ``SPLIT_SETTINGS`` when not given.

    Raises:
        ContractError: unknown split, or a number below 1.
    """
    networks = split_networks(split)
    count = DEFAULT_EPISODES[split] if episodes_per_network is None else episodes_per_network
    for name, value in (("episodes_per_network", count), ("max_episodes", max_episodes)):
        if value is not None and value < 1:
            raise ContractError(name, value, "at least 1")
    folder = split_folder(split, root)
    settings = settings or split_settings(split)
    tasks = [
        EpisodeTask(
            f"{network}-{index:02d}",
            network,
            folder / f"{network}-{index:02d}{SUFFIX}",
            settings,
        )
        for index in range(count)
        for network in networks
    ]
    return tasks[:max_episodes]


def recipe_of(settings: SceneSettings) -> dict[str, Any]:
    """Return what decides the contents of a shard, as kept in its footer."""
    recipe: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return {**versions(), **recipe}


@lru_cache(maxsize=1)
def _network(name: str) -> tuple[Any, Any]:
    """Index and renderer of a network, kept for its next episode in this process."""
    from latentvla_training.data.labels import RoadIndex
    from latentvla_training.world.cameras import Renderer
    from latentvla_training.world.networks import build_road_map

    road_map = build_road_map(name)
    return RoadIndex(road_map), Renderer(road_map)


@lru_cache(maxsize=1)
def _lanes(name: str) -> LaneFinder:
    from latentvla_training.world.networks import build_road_map

    return LaneFinder(build_road_map(name))


def _simulate(name: str) -> Episode:
    from latentvla_training.world.simulation import simulate_episode

    return simulate_episode(name)


def make_episode(task: EpisodeTask) -> ShardInfo | LeftOut:
    """Simulate an episode, render its Scenes and write their shard."""
    road, renderer = _network(task.network)
    lost: list[str] = []
    scenes = list(
        episode_scenes(
            _simulate(task.episode),
            road,
            settings=task.settings,
            renderer=renderer,
            lanes=_lanes(task.network) if task.settings.recovery_share else None,
            left_out=lost.append,
        )
    )
    if task.settings.events_only and not scenes:
        return LeftOut("no long-tail event came about", no_event=True)
    made = {**provenance(), "recovery_left_out": len(lost)}
    return write_shard(task.path, scenes, recipe_of(task.settings), made)


def make_episodes(tasks: tuple[EpisodeTask, ...]) -> list[ShardInfo | LeftOut]:
    """Make some episodes one after the other; an episode that fails gives the reason instead.

    A network that cannot be built is not tried again for its other episodes.

    Raises:
        DiskFullError: the disk is full, so that nothing after it can work either.
    """
    results: list[ShardInfo | LeftOut] = []
    unbuilt: dict[str, LeftOut] = {}
    for task in tasks:
        if task.network in unbuilt:
            results.append(unbuilt[task.network])
            continue
        try:
            results.append(make_episode(task))
        except Exception as error:
            if isinstance(error, OSError) and is_disk_full(error):
                raise DiskFullError(error.errno, f"no space left to make {task.episode}") from error
            reason = LeftOut(f"{type(error).__name__}: {error}")
            if isinstance(error, NetworkBuildError):
                unbuilt[task.network] = reason
            results.append(reason)
    return results


def _batches(tasks: Sequence[EpisodeTask]) -> list[tuple[EpisodeTask, ...]]:
    """Group episodes by network, so that a process builds and paints a network once for several."""
    by_network: dict[str, list[EpisodeTask]] = {}
    for task in tasks:
        by_network.setdefault(task.network, []).append(task)
    return [
        tuple(group[first : first + EPISODES_PER_BATCH])
        for group in by_network.values()
        for first in range(0, len(group), EPISODES_PER_BATCH)
    ]


def make_split(
    split: str,
    episodes_per_network: int | None = None,
    workers: int = 1,
    max_episodes: int | None = None,
    root: Path | None = None,
    settings: SceneSettings | None = None,
    pool: Pool = "auto",
    rebuild: Rebuild = "no",
    progress: bool = True,
) -> SplitSummary:
    """Make the shards of a split that are not there yet.

    Complete shards of the same recipe are kept, so that an interrupted call is simply repeated;
    damaged ones are named and made again. An episode that fails is left out, logged and counted.
    ``summary.json`` beside the shards lists the hashes of contents and files.

    Args:
        split: see ``networks.SPLIT_SIZES``.
        episodes_per_network, max_episodes, root, settings: see ``episode_tasks``.
        workers: processes (``pool``: see ``parallel.map_unordered``).
        rebuild: which complete shards to make again: none, those that other code made, or all.
        progress: show a progress bar.

    Raises:
        DiskFullError: the disk is full; the shards made so far stay.
        ContractError: unknown split, a number below 1, or shards whose pictures are of another size
            are there and ``rebuild`` is not all.
    """
    from tqdm import tqdm

    began = time.monotonic()
    tasks = episode_tasks(split, episodes_per_network, max_episodes, root, settings)
    recipe = recipe_of(tasks[0].settings)
    folder = split_folder(split, root)
    last = last_summary(folder)
    infos = _kept_shards(split, tasks, recipe, rebuild, known_files(last))
    kept = len(infos)
    other_code = sum(info.provenance.get("code") != code_hash() for info in infos.values())
    if other_code:
        logger.warning(
            "%d of %d shards of %s were made by other code (rebuild='other_code')",
            other_code, kept, split,
        )  # fmt: skip
    without_event = _known_without_event(last, recipe, rebuild)
    without_event &= {task.episode for task in tasks}
    missing = [task for task in tasks if task.episode not in infos.keys() | without_event]
    batches = _batches(missing)
    failed: dict[str, str] = {}
    if missing:
        _remove_stale_parts(folder)
    done = len(tasks) - len(missing)
    bar = tqdm(total=len(tasks), initial=done, desc=split, unit="episode", disable=not progress)
    with bar:
        for batch, results in map_unordered(make_episodes, batches, workers, pool):
            if isinstance(results, Exception):
                raise results
            for task, result in zip(batch, results, strict=True):
                if isinstance(result, ShardInfo):
                    infos[task.episode] = result
                    continue
                task.path.unlink(missing_ok=True)  # what other code made of it is not it
                if result.no_event:
                    without_event.add(task.episode)
                else:
                    failed[task.episode] = result.reason
                    logger.error("%s left out: %s", task.episode, result.reason)
            bar.update(len(batch))
            bar.set_postfix(scenes=sum(info.scenes for info in infos.values()), failed=len(failed))
    summary = SplitSummary(
        split=split,
        shards=len(infos),
        scenes=sum(info.scenes for info in infos.values()),
        made=len(infos) - kept,
        kept=kept,
        failed=dict(sorted(failed.items())),
        seconds=round(time.monotonic() - began, 1),
        hashes={name: infos[name].content_sha256 for name in sorted(infos)},
        files={name: sha256_of(folder / f"{name}{SUFFIX}") for name in sorted(infos)},
        other_code=other_code,
        without_event=tuple(sorted(without_event)),
        recovery_left_out=sum(
            int(info.provenance.get("recovery_left_out", 0)) for info in infos.values()
        ),
        recipe=recipe,
        code=code_hash(),
    )
    write_whole(folder / SUMMARY, json.dumps(asdict(summary), indent=1).encode())
    return summary


def ensure_split(split: str, workers: int = 1, root: Path | None = None) -> ShardReader:
    """Return a split of the default number of episodes, making what is absent first.

    Pictures are of the size of those that are there.

    Raises:
        FileNotFoundError: every episode failed.
    """
    size = _image_size(last_summary(split_folder(split, root)).get("recipe", {}))
    make_split(split, workers=workers, root=root, settings=split_settings(split, size))
    return load_split(split, root)


def _kept_shards(
    split: str,
    tasks: Sequence[EpisodeTask],
    recipe: dict[str, Any],
    rebuild: Rebuild,
    known: Mapping[str, str],
) -> dict[str, ShardInfo]:
    """Return the footers of the shards that need not be made again, by episode.

    Args:
        split, tasks, rebuild: see ``make_split``. recipe: of the shards that are wanted.
        known: sha256 of whole files by episode.
    """
    kept: dict[str, ShardInfo] = {}
    damaged = []
    for task in tasks if rebuild != "all" else ():
        info = read_footer(task.path)
        if info is None:
            damaged += [task.episode] if task.path.exists() else []
            continue
        there, wanted = _image_size(info.recipe), _image_size(recipe)
        if there not in (None, wanted):
            others = "others go below another LATENTVLA_DATA, or in their place with --rebuild all"
            raise ContractError(
                f"pictures of {split} in {task.path.parent}",
                there,
                f"{wanted}; give --image-size as these are, {others}",
            )
        if info.format_version != FORMAT_VERSION or info.recipe != recipe:
            continue
        if rebuild == "other_code" and info.provenance.get("code") != code_hash():
            continue
        if is_whole(task.path, info, known.get(task.episode)):
            kept[task.episode] = info
        else:
            damaged.append(task.episode)
    if damaged:
        logger.warning(
            "%d shards of %s are damaged and made again: %s",
            len(damaged), split, ", ".join(damaged),
        )  # fmt: skip
    return kept


def _image_size(recipe: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return width and height of the pictures of a recipe of shards, None where it has none."""
    try:
        return int(recipe["image_width"]), int(recipe["image_height"])
    except (KeyError, TypeError, ValueError):
        return None


def _remove_stale_parts(folder: Path) -> None:
    """Delete what killed writers left behind; parts of living processes stay."""
    parts: Sequence[Path] = list(folder.glob(f".*{SUFFIX}.*.part"))
    for part in parts:
        pid = int(part.name.split(".")[-2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            part.unlink(missing_ok=True)
        except PermissionError:
            continue


def _known_without_event(
    last: dict[str, Any], recipe: dict[str, Any], rebuild: Rebuild
) -> set[str]:
    """Return the episodes that the last call found to be without an event, where that holds."""
    try:
        known, same_code = set(last["without_event"]), last["code"] == code_hash()
        same_recipe = last["recipe"] == recipe
    except (KeyError, TypeError):
        return set()
    if not same_recipe or rebuild == "all" or not (rebuild == "no" or same_code):
        return set()
    return known
