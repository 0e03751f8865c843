"""Makes the shards of a split from the built-in world: resumable, the same bytes every time."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from latentvla_ros.contract import ContractError
from latentvla_training.data.parallel import Pool, map_unordered
from latentvla_training.data.shards import (
    SUFFIX,
    DiskFullError,
    ShardInfo,
    ShardReader,
    is_disk_full,
    load_split,
    read_shard_info,
    split_folder,
    write_shard,
)
from latentvla_training.data.world_adapter import (
    SCENE_VERSION,
    SceneSettings,
    episode_scenes,
)
from latentvla_training.world.episode import Episode
from latentvla_training.world.networks import split_networks

logger = logging.getLogger(__name__)

#: Episodes of each network, 48 Scenes each: 17,280 to train on, 864 to validate, 1,152 to test.
DEFAULT_EPISODES = {"train": 9, "val": 3, "test": 2}

Rebuild = Literal["no", "other_code", "all"]

#: Modules of this folder that decide what a Scene holds.
_SCENE_MODULES = ("episode_signals", "image_encoding", "labels", "world_adapter")

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
class SplitSummary:
    """What ``make_split`` did.

    Attributes:
        split: name. shards, scenes: complete now.
        made, kept: shards made by this call and found complete.
        failed: why by episode, for the episodes left out.
        seconds: of wall time. hashes: content hash by shard.
        other_code: shards kept although other code made them.
    """

    split: str
    shards: int
    scenes: int
    made: int
    kept: int
    failed: dict[str, str]
    seconds: float
    hashes: dict[str, str] = field(default_factory=dict)
    other_code: int = 0


def episode_tasks(
    split: str,
    episodes_per_network: int | None = None,
    max_episodes: int | None = None,
    root: Path | None = None,
    settings: SceneSettings | None = None,
) -> list[EpisodeTask]:
    """Return the episodes of a split, one of every network before the second of any.

    Args:
        split: ``train``, ``val`` or ``test``.
        episodes_per_network: ``DEFAULT_EPISODES`` when not given.
        max_episodes: only the first so many.
        root: data root. settings: contents of the Scenes.

    Raises:
        ContractError: unknown split, or a number below 1.
    """
    networks = split_networks(split)
    count = DEFAULT_EPISODES[split] if episodes_per_network is None else episodes_per_network
    for name, value in (("episodes_per_network", count), ("max_episodes", max_episodes)):
        if value is not None and value < 1:
            raise ContractError(name, value, "at least 1")
    folder = split_folder(split, root)
    tasks = [
        EpisodeTask(
            f"{network}-{index:02d}",
            network,
            folder / f"{network}-{index:02d}{SUFFIX}",
            settings or SceneSettings(),
        )
        for index in range(count)
        for network in networks
    ]
    return tasks[:max_episodes]


def recipe_of(settings: SceneSettings) -> dict[str, Any]:
    """Return what decides the contents of a shard, as kept in its footer."""
    recipe: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return {"scene_version": SCENE_VERSION, **recipe}


@lru_cache(maxsize=1)
def code_hash() -> str:
    """Return a hash of the sources that decide what a Scene of the world looks like."""
    import latentvla_ros.sensing
    import latentvla_training.world

    digest = hashlib.sha256()
    folders = (latentvla_training.world, latentvla_ros.sensing)
    files = [path for module in folders for path in sorted(Path(module.__path__[0]).glob("*.py"))]
    here = Path(__file__).parent
    files += [here / f"{name}.py" for name in _SCENE_MODULES]
    for path in files:
        digest.update(f"{path.name} {_code_of(path.read_text())}".encode())
    return digest.hexdigest()[:16]


def _code_of(source: str) -> str:
    """Return what a module does, whatever its layout, comments and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = ""  # a docstring
    return ast.dump(tree)


def provenance() -> dict[str, str]:
    """Return the versions and the code hash that a shard's footer keeps for people."""
    found = {"code": code_hash()}
    for package in ("numpy", "numba", "eclipse-sumo", "opencv-python-headless"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


@lru_cache(maxsize=1)
def _network(name: str) -> tuple[Any, Any]:
    """Index and renderer of a network, kept for its next episode in this process."""
    from latentvla_training.data.labels import RoadIndex
    from latentvla_training.world.cameras import Renderer
    from latentvla_training.world.networks import build_road_map

    road_map = build_road_map(name)
    return RoadIndex(road_map), Renderer(road_map)


def _simulate(name: str) -> Episode:
    from latentvla_training.world.simulation import simulate_episode

    return simulate_episode(name)


def make_episode(task: EpisodeTask) -> ShardInfo:
    """Simulate an episode, render its Scenes and write their shard."""
    road, renderer = _network(task.network)
    scenes = episode_scenes(
        _simulate(task.episode), road, settings=task.settings, renderer=renderer
    )
    return write_shard(task.path, scenes, recipe_of(task.settings), provenance())


def make_episodes(tasks: tuple[EpisodeTask, ...]) -> list[ShardInfo | str]:
    """Make some episodes one after the other; an episode that fails gives the reason instead.

    Raises:
        DiskFullError: the disk is full, so that nothing after it can work either.
    """
    results: list[ShardInfo | str] = []
    for task in tasks:
        try:
            results.append(make_episode(task))
        except Exception as error:
            if isinstance(error, OSError) and is_disk_full(error):
                raise DiskFullError(error.errno, f"no space left to make {task.episode}") from error
            results.append(f"{type(error).__name__}: {error}")
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

    Complete shards of the same recipe are kept, so that an interrupted call is simply repeated. An
    episode that fails is left out, logged and counted. ``summary.json`` beside the shards lists the
    content hashes.

    Args:
        split: ``train``, ``val`` or ``test``.
        episodes_per_network, max_episodes, root, settings: see ``episode_tasks``.
        workers: processes (``pool``: see ``parallel.map_unordered``).
        rebuild: which complete shards to make again: none, those that other code made, or all.
        progress: show a progress bar.

    Raises:
        DiskFullError: the disk is full; the shards made so far stay.
        ContractError: unknown split, or a number below 1.
    """
    from tqdm import tqdm

    began = time.monotonic()
    tasks = episode_tasks(split, episodes_per_network, max_episodes, root, settings)
    recipe = recipe_of(tasks[0].settings)
    infos: dict[str, ShardInfo] = {}
    for task in tasks if rebuild != "all" else ():
        info = read_shard_info(task.path)
        if info is None or info.recipe != recipe:
            continue
        if rebuild == "no" or info.provenance.get("code") == code_hash():
            infos[task.episode] = info
    kept = len(infos)
    other_code = sum(info.provenance.get("code") != code_hash() for info in infos.values())
    if other_code:
        logger.warning(
            "%d of %d shards of %s were made by other code (rebuild='other_code')",
            other_code, kept, split,
        )  # fmt: skip
    missing = [task for task in tasks if task.episode not in infos]
    batches = _batches(missing)
    failed: dict[str, str] = {}
    if missing:
        _remove_stale_parts(split_folder(split, root))
    bar = tqdm(total=len(tasks), initial=kept, desc=split, unit="episode", disable=not progress)
    with bar:
        for batch, results in map_unordered(make_episodes, batches, workers, pool):
            if isinstance(results, Exception):
                raise results
            for task, result in zip(batch, results, strict=True):
                if isinstance(result, ShardInfo):
                    infos[task.episode] = result
                else:
                    failed[task.episode] = result
                    logger.error("%s left out: %s", task.episode, result)
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
        other_code=other_code,
    )
    _write_summary(split_folder(split, root), summary)
    return summary


def ensure_split(split: str, workers: int = 1, root: Path | None = None) -> ShardReader:
    """Return a split of the default size, making what is absent first.

    Raises:
        FileNotFoundError: every episode failed.
    """
    make_split(split, workers=workers, root=root)
    return load_split(split, root)


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


def _write_summary(folder: Path, summary: SplitSummary) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".summary.{os.getpid()}.part"
    part.write_text(json.dumps(asdict(summary), indent=1))
    part.replace(folder / "summary.json")
