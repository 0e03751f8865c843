"""Scores of a comparison, kept beside its result until the costs are measured too.

Scoring takes minutes to hours and so may measuring: who is ended in between goes on from here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentvla_training.planner.evaluation import write_result

logger = logging.getLogger(__name__)

SUFFIX = ".scored"


def _place(result: Path) -> Path:
    return result.with_name(result.name + SUFFIX)


def keep_scores(result: Path, scored: dict[str, Any]) -> None:
    """Keep what is to be written to ``result``, all but the costs.

    Raises:
        OSError: it cannot be written.
    """
    write_result(_place(result), scored)


def kept_scores(
    result: Path,
    about: Mapping[str, Any],
    split_names: Sequence[str],
    gates: Mapping[str, float],
) -> dict[str, Any] | None:
    """Return what was kept for ``result``; None where nothing is, or it is of another comparison.

    Args:
        about: entries that tell one comparison from another; the commit does not.
        split_names: that are to be scored. gates: where those of the first seed stand by row, which
            tells runs that were trained again.
    """
    place = _place(result)
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict):
        return None
    wanted = json.loads(json.dumps(dict(about)))
    other = [name for name in wanted if _plain(found.get(name)) != _plain(wanted[name])]
    if list(found.get("splits", {})) != list(split_names):
        other.append("splits")
    if {row: values[0] for row, values in found.get("gates", {}).items()} != dict(gates):
        other.append("gates")
    if other:
        logger.warning("%s is of another comparison (%s): scored anew", place, ", ".join(other))
        return None
    logger.info("scores are those of %s", place)
    return found


def forget_scores(result: Path) -> None:
    """Remove what was kept for ``result``."""
    _place(result).unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """Return an entry without the commit."""
    if isinstance(value, dict):
        return {name: entry for name, entry in value.items() if name != "commit"}
    return value
