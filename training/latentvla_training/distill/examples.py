"""Scenes to be shown: chosen by a rule, with the plans of host, teacher and student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentvla_training.data.shards import ShardReader, read_shard_info
from latentvla_training.distill.settings import STUDENT, TEACHER
from latentvla_training.planner.contender_scores import Plans
from latentvla_training.planner.contenders import HOST
from latentvla_training.planner.scene_groups import TAG, tag_groups
from latentvla_training.world.episode import EventName

F64 = NDArray[np.float64]

#: The split that they are taken from, where it is scored.
LONGTAIL = "longtail"
SHOWN = (HOST, TEACHER, STUDENT)
_FIGURE, _COUNT = "pdms", 3
RULE = (
    "of every kind of event the scene where the PDMS of the teacher online exceeds the host's most "
    "(the first of equals); of these the three with the largest gain, whatever the student does"
)


def telling_scenes(
    groups: Mapping[str, NDArray[np.bool_]], host: F64, teacher: F64, count: int = _COUNT
) -> list[tuple[str, int]]:
    """Return kinds of event and Scenes by ``RULE``; fewer where the teacher gains nowhere else.

    Args:
        groups: (N,) bool by tag, of events alone. host, teacher: (N,) scores.
    """
    gain = teacher - host
    best = []
    for tag, chosen in groups.items():
        index = int(np.where(chosen, gain, -np.inf).argmax())
        if chosen[index] and gain[index] > 0.0:
            best.append((tag, index))
    found: list[tuple[str, int]] = []
    for tag, index in sorted(best, key=lambda entry: -gain[entry[1]]):
        if index not in {other for _, other in found}:
            found.append((tag, index))
    return found[:count]


def event_groups(reader: ShardReader) -> dict[str, NDArray[np.bool_]]:
    """Return which Scenes carry which event, by its name."""
    found = tag_groups(reader)
    events = [event.value for event in EventName]
    return {name: found[f"{TAG}{name}"] for name in events if f"{TAG}{name}" in found}


def shown_scenes(
    split: str,
    reader: ShardReader,
    values: Mapping[str, Mapping[str, F64]],
    plans: Mapping[str, Plans],
    seed: int,
) -> list[dict[str, Any]]:
    """Return what is needed to draw them, of one seed.

    Args:
        values: (N,) by ``<row>/<seed>`` and figure. plans: (N, 8, 3) likewise.

    Returns:
        token, tag, hash of the Scenes of its shard, plans and PDMS by row, what was driven.
    """
    scores = {row: values[f"{row}/{seed}"].get(_FIGURE) for row in SHOWN}
    if any(found is None for found in scores.values()):
        return []  # no Scene could be scored
    known = {row: found for row, found in scores.items() if found is not None}
    entries = []
    for tag, index in telling_scenes(event_groups(reader), known[HOST], known[TEACHER]):
        entries.append(
            {
                "split": split,
                "token": str(reader.columns["token"][index]),
                "tag": tag,
                "shard_sha256": _shard_hash(reader, index),
                "seed": seed,
                "pdms": {row: round(float(known[row][index]), 4) for row in SHOWN},
                "plans": {row: _poses(plans[f"{row}/{seed}"][index]) for row in SHOWN},
                "driven": _poses(reader.columns["future_2hz"][index]),
            }
        )
    return entries


def _shard_hash(reader: ShardReader, index: int) -> str:
    episode = str(reader.columns["token"][index]).rpartition("/")[0]
    path = next(path for path in reader.paths if path.stem == episode)
    info = read_shard_info(path)
    return "" if info is None else info.content_sha256


def _poses(values: NDArray[Any]) -> Sequence[Sequence[float]]:
    return [[round(float(number), 3) for number in pose] for pose in values]
