"""What is hidden of Scenes where labels or odometry are scarce (experiments.md section 6).

Values that tell nothing stand in the small columns then; heavy labels are refused by the reader.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import Command, ContractError

_GOLDEN = (5**0.5 - 1) / 2
#: What stands in the small columns of labels where these are hidden.
_LABELS = {
    "own_light": -1,
    "own_light_distance_m": np.nan,
    "own_light_switched": False,
    "expert_pdms": np.nan,
    "expert_epdms": np.nan,
}
#: What stands in the small columns where odometry is hidden; of the future nothing that computes.
HIDDEN_ODOMETRY = {
    "ego_pose": np.nan,
    "ego_history": 0.0,
    "ego_history_mask": False,
    "ego_dynamics": 0.0,
    "ego_dynamics_mask": False,
    "command": Command.UNKNOWN.one_hot(),
    "future_2hz": np.nan,
    "future_10hz": np.nan,
    "future_mask": False,
    "past_states": np.nan,
}


def spread(name: str) -> float:
    """Return where a shard stands, 0 to 1, when a share of all is asked for.

    It hangs on the name alone, so that what is hidden stays hidden whatever else is there, and
    numbers that follow each other are spread evenly (multiples of the golden ratio).
    """
    digits = "".join(filter(str.isdecimal, name))
    number = int(digits or hashlib.sha256(name.encode()).hexdigest(), 10 if digits else 16)
    return float((number % 2**32 + 1) * _GOLDEN % 1.0)


def hide_labels(columns: Mapping[str, NDArray[Any]], rows: NDArray[np.bool_]) -> None:
    """Hide, in place, lights and the expert's scores of rows (N,)."""
    for name, nothing in _LABELS.items():
        columns[name][rows] = nothing


def hide_odometry(columns: Mapping[str, NDArray[Any]], rows: NDArray[np.bool_]) -> None:
    """Hide, in place, how the ego moves and where it is to go, of rows (N,)."""
    for name, nothing in HIDDEN_ODOMETRY.items():
        columns[name][rows] = nothing


def forget_motion_of_views(
    columns: Mapping[str, NDArray[Any]], rows: slice, views: Sequence[Mapping[str, Any]], name: str
) -> None:
    """Put past views where their camera stands now; a camera that has no view now is missing.

    How a past view is placed tells how the ego has moved since.

    Args:
        rows: of the columns, changed in place. views: slot and time of each. name: of the shard.

    Raises:
        ContractError: the views are not known.
    """
    masks, poses = columns["view_mask"][rows], columns["ego_from_camera"][rows]
    if len(views) != masks.shape[1]:
        expected = "slots and times of its views in the footer, to hide odometry"
        raise ContractError(f"shard {name}: views", views, expected)
    place_as_now(masks, poses, views_now(views))


def views_now(views: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
    """Return for every view the one of the same camera at t0, -1 where there is none."""
    now = {view["slot"]: n for n, view in enumerate(views) if view["time_offset_s"] == 0.0}
    return tuple(now.get(view["slot"], -1) for view in views)


def place_as_now(mask: NDArray[np.bool_], poses: NDArray[np.float32], now: Sequence[int]) -> None:
    """Put, in place, views of Scenes, (..., V) and (..., V, 4, 4), where ``views_now`` stand."""
    for number, other in enumerate(now):
        mask[..., number] &= other >= 0
        poses[..., number, :, :] = poses[..., other, :, :] if other >= 0 else np.eye(4)
