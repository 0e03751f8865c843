"""Scenes as an Arrow table: one row a Scene, one column a field, lists for arrays.

Any Parquet reader opens it. An array of shape (n, a, b) is one flat list a row; the trailing shape
is fixed by ``COLUMNS``. Neighbouring Scenes share pictures, tracks and polygons byte by byte, which
zstd finds, so nothing is stored twice on disk.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from latentvla_ros.contract import ContractError
from latentvla_training.data.scene import Scene, SceneLabels

if TYPE_CHECKING:
    import pyarrow

#: Raised when columns change meaning; readers refuse other versions.
FORMAT_VERSION = 2


@dataclass(frozen=True)
class Column:
    """How a field of ``Scene`` (or of its labels) is stored.

    Attributes:
        name: of the field. dtype: of the array.
        shape: () for a scalar; otherwise the array's shape, -1 for a length that differs from row
            to row and V for the number of views (as stored, also -1).
        label: whether it belongs to ``SceneLabels``.
        light: small and of one shape in every Scene: ``ShardReader`` keeps it for all Scenes.
    """

    name: str
    dtype: type
    shape: tuple[int, ...]
    label: bool = False
    light: bool = True


#: The network's inputs but its pictures, and what identifies a Scene.
_INPUTS = (
    Column("stamp_ns", np.int64, ()),
    Column("ego_pose", np.float64, (3,)),
    Column("view_mask", np.bool_, (-1,)),
    Column("intrinsics", np.float32, (-1, 3, 3)),
    Column("ego_from_camera", np.float32, (-1, 4, 4)),
    Column("ego_history", np.float32, (4, 3)),
    Column("ego_history_mask", np.bool_, (4,)),
    Column("ego_dynamics", np.float32, (6,)),
    Column("ego_dynamics_mask", np.bool_, (6,)),
    Column("command", np.float32, (4,)),
)
_LABELS = (
    Column("future_2hz", np.float32, (8, 3), True),
    Column("future_10hz", np.float32, (41, 3), True),
    Column("future_mask", np.bool_, (8,), True),
    Column("past_states", np.float64, (4, 11), True),
    Column("agent_type", np.uint8, (-1,), True, False),
    Column("agent_size", np.float32, (-1, 2), True, False),
    Column("agent_height", np.float32, (-1,), True, False),
    Column("agent_state", np.float64, (-1, 51, 5), True, False),
    Column("agent_valid", np.bool_, (-1, 51), True, False),
    Column("agent_braking", np.bool_, (-1,), True, False),
    Column("polygon_xy", np.float64, (-1, 2), True, False),
    Column("polygon_offset", np.int64, (-1,), True, False),
    Column("polygon_layer", np.uint8, (-1,), True, False),
    Column("polygon_on_route", np.bool_, (-1,), True, False),
    Column("light_polygon", np.int64, (-1,), True, False),
    Column("light_red", np.bool_, (-1, 41), True, False),
    Column("centerline", np.float64, (-1, 3), True, False),
    Column("own_light", np.int8, (), True),
    Column("own_light_distance_m", np.float64, (), True),
    Column("own_light_switched", np.bool_, (), True),
    Column("pdm_reference_10hz", np.float64, (41, 3), True, False),
    Column("speed_limit_mps", np.float64, (-1,), True, False),
    Column("expert_pdms", np.float64, (), True),
    Column("expert_epdms", np.float64, (), True),
)
COLUMNS = _INPUTS + _LABELS
TEXT_COLUMNS = ("token", "network", "tags")
_LABEL_TEXTS = ("tags",)
PICTURES = "view_jpegs"
LIGHT_COLUMNS = tuple(column.name for column in COLUMNS if column.light)
HEAVY_LABELS = tuple(column.name for column in COLUMNS if not column.light)

assert {c.name for c in _INPUTS} | {"token", "network", PICTURES, "labels"} == {
    f.name for f in fields(Scene)
}
assert {c.name for c in _LABELS} | set(_LABEL_TEXTS) == {f.name for f in fields(SceneLabels)}


def _text(scene: Scene, name: str) -> str:
    return str(getattr(scene.labels if name in _LABEL_TEXTS else scene, name))


def _value(scene: Scene, column: Column) -> Any:
    return getattr(scene.labels if column.label else scene, column.name)


def _checked(scene: Scene, column: Column) -> np.ndarray[Any, Any]:
    array = np.asarray(_value(scene, column))
    if column.shape == ():
        return array.astype(column.dtype)
    fits = array.ndim == len(column.shape) and all(
        wanted in (-1, found) for wanted, found in zip(column.shape, array.shape, strict=True)
    )
    if not fits or array.dtype != column.dtype:
        raise ContractError(
            f"scene[{scene.token}].{column.name}",
            f"{array.dtype} {array.shape}",
            f"{np.dtype(column.dtype)} {column.shape} (-1: any)",
        )
    return np.ascontiguousarray(array)


def scenes_hash(scenes: Sequence[Scene]) -> str:
    """Return the sha256 of the contents of Scenes, whatever file they are stored in."""
    digest = hashlib.sha256(f"latentvla scenes {FORMAT_VERSION}".encode())
    for scene in scenes:
        texts = "\0".join(_text(scene, name) for name in TEXT_COLUMNS)
        digest.update(f"{texts}\0{len(scene.view_jpegs)}".encode())
        for picture in scene.view_jpegs:
            digest.update(len(picture).to_bytes(8, "little"))
            digest.update(picture)
        for column in COLUMNS:
            array = _checked(scene, column)
            digest.update(f"{column.name}{array.shape}".encode())
            digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def to_table(scenes: Sequence[Scene]) -> pyarrow.Table:
    """Return Scenes as a table.

    Raises:
        ContractError: an array has another shape or type than ``COLUMNS`` says.
    """
    import pyarrow as pa

    data: dict[str, Any] = {
        name: pa.array([_text(scene, name) for scene in scenes], pa.string())
        for name in TEXT_COLUMNS
    }
    data[PICTURES] = pa.array([list(scene.view_jpegs) for scene in scenes], pa.list_(pa.binary()))
    for column in COLUMNS:
        arrays = [_checked(scene, column) for scene in scenes]
        flat = np.concatenate([array.ravel() for array in arrays]) if arrays else np.zeros(0)
        values = pa.array(flat.astype(column.dtype, copy=False))
        if column.shape != ():
            ends = np.append(0, np.cumsum([array.size for array in arrays])).astype(np.int32)
            values = pa.ListArray.from_arrays(pa.array(ends), values)
        data[column.name] = values
    return pa.table(data)


def column_arrays(table: pyarrow.Table, name: str) -> Iterator[np.ndarray[Any, Any]]:
    """Yield the array of every row of one column, read-only views where Arrow allows."""
    column = next(column for column in COLUMNS if column.name == name)
    chunk = table.column(name).combine_chunks()
    if column.shape == ():
        yield from np.asarray(chunk.to_numpy(zero_copy_only=False)).astype(column.dtype)
        return
    values = chunk.values.to_numpy(zero_copy_only=False)
    offsets = chunk.offsets.to_numpy()
    for start, end in itertools.pairwise(offsets.tolist()):
        yield values[start:end].reshape(column.shape)


def pictures(table: pyarrow.Table, row: int) -> tuple[bytes, ...]:
    """Return the encoded pictures of one row."""
    return tuple(table.column(PICTURES)[row].as_py())


def scene_of(values: dict[str, Any], view_jpegs: tuple[bytes, ...]) -> Scene:
    """Return the Scene of one row: its columns by name but the pictures, and the pictures."""
    values = dict(values)
    labels = {column.name: values.pop(column.name) for column in COLUMNS if column.label}
    labels["own_light"] = int(labels["own_light"])
    labels["own_light_distance_m"] = float(labels["own_light_distance_m"])
    labels["own_light_switched"] = bool(labels["own_light_switched"])
    for name in ("expert_pdms", "expert_epdms"):
        labels[name] = float(labels[name])
    labels["tags"] = str(values.pop("tags"))
    values["token"], values["network"] = str(values["token"]), str(values["network"])
    values["stamp_ns"] = int(values["stamp_ns"])
    return Scene(view_jpegs=view_jpegs, labels=SceneLabels(**labels), **values)


def from_table(table: pyarrow.Table) -> list[Scene]:
    """Return the Scenes of a table that ``to_table`` made.

    Raises:
        KeyError: a column is missing.
        ValueError: an array is not of the shape that ``COLUMNS`` says.
    """
    columns: dict[str, list[Any]] = {name: table.column(name).to_pylist() for name in TEXT_COLUMNS}
    columns |= {column.name: list(column_arrays(table, column.name)) for column in COLUMNS}
    return [
        scene_of({name: values[row] for name, values in columns.items()}, pictures(table, row))
        for row in range(table.num_rows)
    ]
