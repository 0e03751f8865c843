"""Shards of Scenes: Parquet files, written whole or not at all, read by index.

A shard holds the Scenes of one episode (or log). Its footer carries how it was made and the hash of
its contents; a file without a readable footer is no shard.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import ContractError
from latentvla_training.data import scene_table
from latentvla_training.data.hidden import (
    forget_motion_of_views,
    hide_labels,
    hide_odometry,
    spread,
)
from latentvla_training.data.image_encoding import ImageError, decode_views
from latentvla_training.data.scene import Scene
from latentvla_training.data.shard_footer import ShardInfo, read_shard_info, shard_info
from latentvla_training.data.usable_shards import usable_shards
from latentvla_training.world.networks import data_root

if TYPE_CHECKING:
    import pyarrow

SUFFIX = ".parquet"
_UNDAMAGED = "a whole shard; remove the file and make its split (or import its recording) again"


class DiskFullError(OSError):
    """The disk filled up while a shard was made; nothing of the shard is left."""


def is_disk_full(error: OSError) -> bool:
    """Return whether an error says that there is no space left, on the disk or in the quota."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def split_folder(split: str, root: Path | None = None) -> Path:
    """Return the folder of a split's shards."""
    return (root or data_root()) / "scenes" / split


def write_shard(
    path: Path,
    scenes: Iterable[Scene],
    recipe: dict[str, Any] | None = None,
    provenance: dict[str, Any] | None = None,
) -> ShardInfo:
    """Write Scenes into one shard; the file appears under its name only when it is complete.

    Args:
        path: ends in ``.parquet``; its stem names the shard.
        scenes: of one episode or log.
        recipe, provenance: see ``ShardInfo``.

    Raises:
        DiskFullError: no space left.
        ContractError: there is no Scene, or one breaks the table's shapes.
    """
    import pyarrow.parquet as pq

    rows = list(scenes)
    if not rows:
        raise ContractError(f"shard[{path.stem}].scenes", 0, "at least one Scene")
    info = ShardInfo(
        path.stem, len(rows), scene_table.scenes_hash(rows), recipe or {}, provenance or {}
    )
    table = scene_table.to_table(rows).replace_schema_metadata(info.as_metadata())
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            # One page a column: what neighbouring Scenes share lies within zstd's window.
            pq.write_table(
                table,
                file,
                compression="zstd",
                compression_level=3,
                use_dictionary=list(scene_table.TEXT_COLUMNS),
                data_page_size=1 << 30,
                write_statistics=False,
            )
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        if is_disk_full(error):
            what = f"no space left for shard {path.stem} ({table.nbytes} bytes)"
            raise DiskFullError(error.errno, what, str(path)) from error
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
    return info


def _read_columns(path: Path, names: Sequence[str]) -> pyarrow.Table:
    """Read some columns of a shard.

    Raises:
        ContractError: the file is damaged or gone; the message says what to do.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path, columns=list(names), use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise ContractError(f"shard {path}", " ".join(str(error).split()), _UNDAMAGED) from error


class ShardReader(Sequence[Scene]):
    """Scenes of many shards by index.

    Opening reads the small columns of every shard (``columns``), enough for baselines; pictures and
    heavy labels are read a shard at a time when first asked for and kept while they fit the cache.
    A reader may be forked or pickled into loader workers; each then fills its own cache, so call
    ``preload`` before forking to share one.

    Args:
        paths: shards, in the order of the index.
        cached_shards: how many shards' pictures stay in memory (heavy labels: eight).
        labelled_share: about so much of the shards (see ``spread``) have labels of maps, road users
            and lights for whoever reads; of the others there are pictures and odometry (the driven
            future is odometry), no light, and NaN for the expert's scores. 1: all of them.
        odometry_share: likewise come with odometry; of the others there are pictures alone: no
            label, no ego state, no route, no driven future, and past views stand where the camera
            stands now. 1: all of them.

    Attributes:
        labelled: (N,) whether a Scene is in a shard with labels.
        has_odometry: (N,) whether it is in one with odometry.
        assumed: who says what stands in the place of odometry that is hidden, or "".

    Raises:
        ContractError: a file is no complete shard; so do the methods when one is damaged inside,
            and those that read labels of a Scene that has none. No shard has any. Odometry is to be
            hidden in a recording that does not say which of its views are past.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        cached_shards: int | None = None,
        labelled_share: float = 1.0,
        odometry_share: float = 1.0,
    ) -> None:
        self.paths = tuple(Path(path) for path in paths)
        self._cached_shards = cached_shards
        self._labelled_share, self.odometry_share = labelled_share, odometry_share
        self.assumed = ""
        places = np.array([spread(path.stem) for path in self.paths])
        self._shard_has_odometry = places < odometry_share
        self._shard_labelled = places < min(labelled_share, odometry_share)
        for name, share in (("labelled_share", labelled_share), ("odometry_share", odometry_share)):
            if len(places) and not (places < share).any():
                raise ContractError(name, share, f"at least one of {len(places)} shards")
        self._pictures: OrderedDict[int, pyarrow.Table] = OrderedDict()
        self._labels: OrderedDict[int, dict[str, list[np.ndarray[Any, Any]]]] = OrderedDict()
        self.columns: dict[str, NDArray[Any]] = {}
        self._scan()

    def _scan(self) -> None:
        wanted = [*scene_table.TEXT_COLUMNS, *scene_table.LIGHT_COLUMNS]
        parts: dict[str, list[Any]] = {name: [] for name in wanted}
        counts = []
        for path in self.paths:
            if read_shard_info(path) is None:
                raise ContractError(f"shard {path}", "no readable footer", _UNDAMAGED)
            table = _read_columns(path, wanted)
            counts.append(table.num_rows)
            for name in scene_table.TEXT_COLUMNS:
                parts[name].extend(table.column(name).to_pylist())
            for name in scene_table.LIGHT_COLUMNS:
                parts[name].extend(scene_table.column_arrays(table, name))
        self._starts = np.append(0, np.cumsum(counts)).astype(np.int64)
        views = {len(mask) for mask in parts["view_mask"]}
        if len(views) > 1:
            raise ContractError("shards.views", sorted(views), "one number of views in all shards")
        for name, values in parts.items():
            self.columns[name] = np.asarray(values)
        self.labelled: NDArray[np.bool_] = np.repeat(self._shard_labelled, np.diff(self._starts))
        hide_labels(self.columns, ~self.labelled)
        self.has_odometry: NDArray[np.bool_] = np.repeat(
            self._shard_has_odometry, np.diff(self._starts)
        )
        hide_odometry(self.columns, ~self.has_odometry)
        for shard in np.flatnonzero(~self._shard_has_odometry):
            path, rows = self.paths[shard], slice(*self._starts[shard : shard + 2])
            views = shard_info(path).recipe.get("views", [])
            forget_motion_of_views(self.columns, rows, views, path.stem)

    def contents(self) -> list[str]:
        """Return what of every shard whoever reads may hang on: its hash, and what is hidden.

        Labels are no inputs and do not count.
        """
        kept = zip(self.paths, self._shard_has_odometry, strict=True)
        pictures = " without odometry" + (f", as {self.assumed} says" if self.assumed else "")
        return [shard_info(path).content_sha256 + ("" if has else pictures) for path, has in kept]

    def assuming(self, columns: Mapping[str, NDArray[Any]], what: str) -> ShardReader:
        """Return a reader with values in the place of hidden odometry, of all Scenes by column.

        Args:
            what: whose word it is.
        """
        found = copy.copy(self)
        found.assumed = what
        hidden = ~self.has_odometry
        found.columns = dict(self.columns)
        for name, values in columns.items():
            found.columns[name] = self.columns[name].copy()
            found.columns[name][hidden] = values[hidden]
        return found

    def part(
        self, max_shards: int = 0, labelled_share: float = 1.0, odometry_share: float = 1.0
    ) -> ShardReader:
        """Return a reader of the first ``max_shards`` (0: all), with nothing that is hidden here.

        Where odometry is hidden of some, those with it are among them all the same.

        Raises:
            ContractError: no shard would have labels.
        """
        shares = (
            min(labelled_share, self._labelled_share),
            min(odometry_share, self.odometry_share),
        )
        if not max_shards and shares == (self._labelled_share, self.odometry_share):
            return self
        paths = part_of(self.paths, max_shards, shares[1])
        return ShardReader(paths, self._cached_shards, *shares)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _locate(self, index: int) -> tuple[int, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"scene {index} of {len(self)}")
        index %= len(self)
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        return shard, index - int(self._starts[shard])

    def jpegs(self, index: int) -> tuple[bytes, ...]:
        """Return the encoded pictures of a Scene, in the order of its views."""
        shard, row = self._locate(index)
        table = self._pictures.get(shard)
        if table is None:
            table = _read_columns(self.paths[shard], [scene_table.PICTURES])
            self._pictures[shard] = table
            if self._cached_shards is not None and len(self._pictures) > self._cached_shards:
                self._pictures.popitem(last=False)
        else:
            self._pictures.move_to_end(shard)
        return scene_table.pictures(table, row)

    def views(
        self, index: int, width: int, height: int, most: int | None = None
    ) -> NDArray[np.uint8]:
        """Return the decoded pictures of a Scene, (V, height, width, 3) uint8 RGB.

        Args:
            index: of the Scene. width, height: of every view. most: only the first so many views.

        Raises:
            ContractError: a picture is damaged or of another size; names Scene and shard.
        """
        try:
            return decode_views(self.jpegs(index)[:most], width, height)
        except ImageError as error:
            token, path = self.columns["token"][index], self.paths[self._locate(index)[0]]
            expected = _UNDAMAGED
            if error.cause == "wrong_size":
                made = f"world make (or bag import) with --image-size {width}x{height}"
                expected = f"scenes of that size, of {made}, below another LATENTVLA_DATA"
            raise ContractError(f"scene {token} in shard {path}", str(error), expected) from error

    def preload(self) -> None:
        """Read all pictures now (at most as many shards as the cache holds)."""
        for shard in range(len(self.paths))[: self._cached_shards]:
            self.jpegs(int(self._starts[shard]))

    def heavy_label(self, index: int, name: str) -> NDArray[Any]:
        """Return one label of varying length, e.g. ``agent_state``, of a Scene."""
        shard, row = self._locate(index)
        return self._heavy(shard)[name][row]

    def _heavy(self, shard: int) -> dict[str, list[np.ndarray[Any, Any]]]:
        if not self._shard_labelled[shard]:
            raise ContractError(f"labels of shard {self.paths[shard].stem}", "hidden", "labelled")
        if shard not in self._labels:
            table = _read_columns(self.paths[shard], scene_table.HEAVY_LABELS)
            self._labels[shard] = {
                name: list(scene_table.column_arrays(table, name))
                for name in scene_table.HEAVY_LABELS
            }
            if len(self._labels) > 8:
                self._labels.popitem(last=False)
        self._labels.move_to_end(shard)
        return self._labels[shard]

    def __getitem__(self, index: Any) -> Any:
        """Return one Scene (an int) or a list of them (a slice)."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        shard, row = self._locate(index)
        flat = int(self._starts[shard]) + row
        values: dict[str, Any] = {name: self.columns[name][flat] for name in self.columns}
        values.update({name: arrays[row] for name, arrays in self._heavy(shard).items()})
        return scene_table.scene_of(values, self.jpegs(flat))

    def __iter__(self) -> Iterator[Scene]:
        return (self[index] for index in range(len(self)))


def part_of(paths: Sequence[Path], max_shards: int = 0, odometry_share: float = 1.0) -> list[Path]:
    """Return the first ``max_shards`` (0: all), and those with odometry where not all have some."""
    most = max_shards or len(paths)
    return [
        path
        for number, path in enumerate(paths)
        if number < most or spread(path.stem) < odometry_share < 1.0
    ]


def split_shards(split: str, root: Path | None = None) -> list[Path]:
    """Return the shards of a split in the order of their names.

    Raises:
        FileNotFoundError: there is none; the message says how to make them.
    """
    folder = split_folder(split, root)
    paths = [path for path in sorted(folder.glob(f"*{SUFFIX}")) if not path.name.startswith(".")]
    if not paths:
        raise FileNotFoundError(
            f"no shards in {folder}; make them with latentvla-train world make --split {split}"
        )
    return paths


def load_split(
    split: str, root: Path | None = None, cached_shards: int | None = None
) -> ShardReader:
    """Open the shards of a split, in the order of their names.

    Shards that are damaged, of another version of the code's Scenes, or of another recipe than the
    one that ``make_split`` used last are left out with a warning that names them.

    Raises:
        FileNotFoundError: the split has no shard; the message says how to make it.
        ContractError: none of them can be used, or they are of several recipes and nothing says
            which of them is wanted.
    """
    return ShardReader(usable_shards(split, split_shards(split, root)), cached_shards)
