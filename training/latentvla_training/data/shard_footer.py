"""The footer of a shard: what is in it, how it was made, and the hash of its Scenes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from latentvla_ros.contract import ContractError
from latentvla_training.data import scene_table
from latentvla_training.data.scene import SCENE_VERSION

_META_KEY = b"latentvla"


@dataclass(frozen=True)
class ShardInfo:
    """What a shard's footer says.

    Attributes:
        name: of the episode. scenes: how many.
        content_sha256: of the Scenes (``scene_table.scenes_hash``).
        recipe: settings that decide the contents; a shard of another recipe is made again.
        provenance: how it came about (code hash, versions), for people.
        format_version: ``scene_table.FORMAT_VERSION``.
    """

    name: str
    scenes: int
    content_sha256: str
    recipe: dict[str, Any]
    provenance: dict[str, Any] = field(default_factory=dict)
    format_version: int = scene_table.FORMAT_VERSION

    def as_metadata(self) -> dict[bytes, str]:
        """Return it as a table's metadata, which Parquet keeps in the footer."""
        return {_META_KEY: json.dumps(asdict(self), sort_keys=True)}


def versions() -> dict[str, int]:
    """Return what of the code decides, by its version, whether Scenes can still be used."""
    from latentvla_training.scoring.pdm_closed import REFERENCE_VERSION

    return {"scene_version": SCENE_VERSION, "reference_version": REFERENCE_VERSION}


def read_shard_info(path: Path) -> ShardInfo | None:
    """Return a shard's footer, or None when the file is no complete shard of this format."""
    info = read_footer(path)
    return info if info and info.format_version == scene_table.FORMAT_VERSION else None


def shard_info(path: Path) -> ShardInfo:
    """Return a shard's footer.

    Raises:
        ContractError: the file is no complete shard of this format.
    """
    info = read_shard_info(path)
    if info is None:
        raise ContractError(f"shard {path}", "no readable footer", "a whole shard")
    return info


def read_footer(path: Path) -> ShardInfo | None:
    """Return a shard's footer, of this format or another; None when it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(path).metadata or {}
        return ShardInfo(**json.loads(metadata[_META_KEY]))
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError):
        return None
