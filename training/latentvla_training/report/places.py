"""Where things are, and one thing that exists: what the inventory is made of."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentvla_ros.data import data_path
from latentvla_training.data.shards import part_of
from latentvla_training.latent_action.codes import contents_identity
from latentvla_training.report.identity import joined_hash
from latentvla_training.world.networks import data_root

_PACKAGE = Path(__file__).resolve().parents[1]
_CHECKOUT = _PACKAGE.parents[1]


@dataclass(frozen=True)
class Places:
    """Where things are.

    Attributes:
        data: root of Scenes and caches. runs: of training runs. released: folder of weights that
            come with the training package. bundles: of those that ship. results: of result files.
    """

    data: Path = field(default_factory=data_root)
    runs: Path = _CHECKOUT / "runs"
    released: Path = _PACKAGE / "released"
    bundles: Path = field(default_factory=lambda: data_path("bundles"))
    results: Path = _CHECKOUT / "docs" / "results"


@dataclass(frozen=True)
class Entry:
    """One thing that exists: its cells, and in words why it is stale (empty where it is not)."""

    cells: tuple[str, ...]
    stale: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """Things of a kind; ``absent`` says how to make the first."""

    title: str
    headers: tuple[str, ...]
    entries: tuple[Entry, ...]
    absent: str


@dataclass(frozen=True)
class SplitOnDisk:
    """Scenes of a split: shards there are, what the last call of ``world make`` wrote of them."""

    name: str
    shards: tuple[Path, ...]
    summary: dict[str, Any]

    @property
    def hashes(self) -> dict[str, str]:
        """Content hashes by shard, of the summary."""
        return dict(self.summary.get("hashes") or {})

    @property
    def content_sha256(self) -> str | None:
        """Hash of all Scenes; None unless the summary is of these shards."""
        whole = self.shards and {path.stem for path in self.shards} == set(self.hashes)
        return joined_hash(self.hashes) if whole else None

    def scenes_id(self, max_shards: int = 0, odometry_share: float = 1.0) -> str | None:
        """Return the identity of a part of the Scenes as codes and runs name it, see ``part_of``.

        None unless the summary is of these shards.
        """
        if self.content_sha256 is None:
            return None
        part = part_of(self.shards, max_shards, odometry_share)
        return contents_identity({path.stem: self.hashes[path.stem] for path in part})


def split_on_disk(name: str, root: Path) -> SplitOnDisk:
    """Look at the folder of a split."""
    folder = root / "scenes" / name
    shards = sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))
    return SplitOnDisk(name, tuple(shards), json_object(folder / "summary.json"))


def json_object(path: Path) -> dict[str, Any]:
    """Return a JSON object, or an empty one where there is none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.2f} GB"
