"""Which shards of a split can be used: whole, of this version of the code, and of one recipe.

A footer has the hash of the Scenes; to compare it all of them are decoded, 30 ms of CPU a shard. So
``world make`` also keeps the sha256 of every file, once it has been compared, in ``summary.json``:
a file that still has it is whole, which takes 1 ms to tell.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latentvla_ros.contract import ContractError
from latentvla_ros.runtime.bundle import sha256_of
from latentvla_training.data import scene_table
from latentvla_training.data.shard_footer import ShardInfo, read_footer, versions

logger = logging.getLogger(__name__)

#: Of a split, beside its shards: what ``world make`` did last.
SUMMARY = "summary.json"
NO_FOOTER, DAMAGED_INSIDE = "damaged: no readable footer", "damaged inside"


def usable_shards(split: str, paths: Sequence[Path]) -> list[Path]:
    """Return those of a split's shards that can be used; the log names the others.

    Args:
        split: name, for messages. paths: of its shards, all in one folder.

    Raises:
        ContractError: none of them can be used, or they are of several recipes and nothing says
            which of them is wanted.
    """
    last = last_summary(paths[0].parent)
    known = known_files(last)
    left_out: dict[str, str] = {}
    usable: dict[Path, ShardInfo] = {}
    for path in paths:
        info = read_footer(path)
        reason = _unusable(path, info, known.get(path.stem))
        if info is None or reason is not None:
            left_out[path.stem] = reason or NO_FOOTER
        else:
            usable[path] = info
    recipes = {_key(info.recipe) for info in usable.values()}
    if len(recipes) > 1:
        wanted = _key(last.get("recipe"))
        if wanted not in recipes:
            by_recipe = [
                [path.stem for path, info in usable.items() if _key(info.recipe) == recipe][:3]
                for recipe in recipes
            ]
            raise ContractError(
                f"shards of {split}",
                f"{len(recipes)} recipes, e.g. {sorted(by_recipe)}",
                f"one recipe; repeat latentvla-train world make --split {split}",
            )
        for path in [path for path, info in usable.items() if _key(info.recipe) != wanted]:
            left_out[path.stem] = "made by another recipe"
            del usable[path]
    if left_out:
        names = "; ".join(f"{name}: {reason}" for name, reason in sorted(left_out.items()))
        logger.warning(
            "%d of %d shards of %s left out: %s", len(left_out), len(paths), split, names
        )
    if not usable:
        raise ContractError(
            f"shards of {split}",
            "; ".join(sorted(set(left_out.values()))),
            f"shards of this version; make them with latentvla-train world make --split {split}",
        )
    return list(usable)


def last_summary(folder: Path) -> dict[str, Any]:
    """Return what ``world make`` wrote last beside a split's shards; empty where there is none."""
    try:
        found = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def known_files(summary: dict[str, Any]) -> dict[str, str]:
    """Return the sha256 by shard of the files that a summary says are whole."""
    found = summary.get("files")
    return found if isinstance(found, dict) else {}


def is_whole(path: Path, info: ShardInfo, known_sha256: str | None) -> bool:
    """Return whether a shard can be read and holds the Scenes that were written into it.

    Args:
        path: of the shard. info: its footer.
        known_sha256: of the whole file, where that is known; the Scenes are hashed where it is not,
            or is another (of the shard that was there before).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if sha256_of(path) == known_sha256:
            return True
        scenes = scene_table.from_table(pq.read_table(path, use_threads=False))
        return scene_table.scenes_hash(scenes) == info.content_sha256
    except (OSError, pa.ArrowException, ValueError, KeyError):
        return False


def _unusable(path: Path, info: ShardInfo | None, known_sha256: str | None) -> str | None:
    """Say why a shard cannot be used, or None."""
    if info is None:
        return NO_FOOTER
    if info.format_version != scene_table.FORMAT_VERSION:
        return f"of format {info.format_version}, this code reads {scene_table.FORMAT_VERSION}"
    for name, wanted in versions().items():
        found = info.recipe.get(name, wanted)  # a recording has no version
        if found != wanted:
            return f"of {name} {found}, this code makes {wanted}"
    return None if is_whole(path, info, known_sha256) else DAMAGED_INSIDE


def _key(recipe: Any) -> str:
    return json.dumps(recipe, sort_keys=True)
