"""Groups of Scenes, to say where cameras decide: by what the ego does, by light, by tag."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from latentvla_training.data.shards import ShardReader

Groups = dict[str, NDArray[np.bool_]]

DECISION = "decision"
#: What the names of groups made from the column ``tags`` begin with.
TAG = "tag: "


def scene_groups(reader: ShardReader, decision: NDArray[np.bool_]) -> Groups:
    """Return which of N Scenes belong to which group.

    Args:
        decision: (N,) where constant velocity is wrong by more than ``open_loop.DECISION_ADE_M``.
    """
    columns = reader.columns
    speed, future = columns["ego_dynamics"][:, 0], columns["future_2hz"]
    light, distance = columns["own_light"], columns["own_light_distance_m"]
    near = (light >= 0) & (np.nan_to_num(distance, nan=1e9) <= 50.0)
    switched = near & columns["own_light_switched"]
    command = columns["command"].argmax(axis=1)
    travelled = np.hypot(future[:, -1, 0], future[:, -1, 1])
    last_step = np.hypot(*(future[:, -1] - future[:, -2])[:, :2].T)
    return {
        DECISION: decision,
        "decision, unswitched or no light": decision & ~switched,
        "standing still": (speed < 0.5) & (travelled < 1.0),
        "starting off": (speed < 0.5) & (travelled >= 1.0),
        "stopping": (speed >= 3.0) & (last_step < 0.5),
        "turning": (command == 0) | (command == 2),
        "light within 50 m, unswitched": near & ~columns["own_light_switched"],
        "light within 50 m, will switch": switched,
        "no light within 50 m": ~near,
    }


def tag_groups(reader: ShardReader) -> Groups:
    """Return which Scenes carry which tag (events, weather); none where there is no such column."""
    if "tags" not in reader.columns:
        return {}
    tags = [{tag for tag in str(text).split(",") if tag} for text in reader.columns["tags"]]
    names = sorted(set().union(*tags))
    return {f"{TAG}{name}": np.array([name in found for found in tags]) for name in names}
