"""Episodes on disk: one small npz each, no pickle, written whole or not at all.

Agents' positions are stored as differences in centimetres, which compress well;
``simulate_episode`` rounds to the same steps, so a file gives back exactly what was saved.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import tokenize
import zipfile
import zlib
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from latentvla_ros.contract import ContractError
from latentvla_training.world.episode import Episode, Event, EventName, Weather

SCHEMA = 2
#: Units of one count in the columns of ``agent_state``: m, m, rad, m/s, m/s.
_STATE_UNITS = np.array([0.01, 0.01, 1e-4, 0.01, 0.01])
_STATE_DIGITS = (2, 2, 4, 2, 2)
#: What numpy, zipfile and zlib raise on damaged bytes (found by flipping them).
_UNREADABLE = (
    OSError, ValueError, KeyError, EOFError, SyntaxError, NotImplementedError,
    zipfile.BadZipFile, zlib.error, tokenize.TokenError,
)  # fmt: skip
_ARRAYS = (
    "ego", "agent_type", "agent_model", "agent_size", "agent_color", "agent_valid", "agent_braking",
    "signal_state", "route_centerline", "route_speed_limit", "command",
)  # fmt: skip


def save_episode(episode: Episode, path: Path | str) -> None:
    """Write ``episode``; a reader sees the whole file or none."""
    target = Path(path)
    counts = np.rint(episode.agent_state / _STATE_UNITS).astype(np.int32)
    meta = {
        "schema": SCHEMA,
        "name": episode.name,
        "network": episode.network,
        "seed": episode.seed,
        "route_lanes": list(episode.route_lanes),
        "weather": episode.weather.value,
        "events": [{**asdict(event), "name": event.name.value} for event in episode.events],
    }
    arrays = {name: getattr(episode, name) for name in _ARRAYS}
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        meta=np.frombuffer(json.dumps(meta).encode(), np.uint8),
        agent_state_steps=np.diff(counts, axis=0, prepend=0),
        **arrays,
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, scratch = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(buffer.getvalue())
        Path(scratch).replace(target)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def load_episode(path: Path | str) -> Episode:
    """Read an episode.

    Raises:
        FileNotFoundError: there is no such file.
        ContractError: the file is truncated, damaged or of another schema; names the file.
    """
    source = Path(path)
    try:
        with np.load(source, allow_pickle=False) as archive:
            content: dict[str, Any] = {name: archive[name] for name in archive.files}
        meta = json.loads(bytes(content.pop("meta")))
        steps = content.pop("agent_state_steps")
    except FileNotFoundError:
        raise
    except _UNREADABLE as error:
        raise ContractError(
            f"episode file {source}", f"{type(error).__name__}: {error}", "a whole episode npz"
        ) from error
    if meta.get("schema") != SCHEMA:
        raise ContractError(f"episode file {source}: schema", meta.get("schema"), str(SCHEMA))
    missing = set(_ARRAYS) - set(content)
    if missing:
        raise ContractError(f"episode file {source}", sorted(content), f"also {sorted(missing)}")
    counts = np.cumsum(steps, axis=0, dtype=np.int32)
    state = np.empty(counts.shape)
    for column, digits in enumerate(_STATE_DIGITS):
        state[..., column] = (counts[..., column] * _STATE_UNITS[column]).round(digits)
    known = {field.name for field in fields(Episode)}
    return Episode(
        name=meta["name"],
        network=meta["network"],
        seed=meta["seed"],
        agent_state=state,
        route_lanes=tuple(meta["route_lanes"]),
        weather=Weather(meta["weather"]),
        events=tuple(
            Event(**{**event, "name": EventName(event["name"])}) for event in meta["events"]
        ),
        **{name: array for name, array in content.items() if name in known},
    )
