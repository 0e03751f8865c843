"""Names of latent actions, by what the ego was measured to do where a code stands (ours).

A name says how the ego's motion changes over a transition: of speed "brake" or "slow", "speed up"
or "accelerate", of heading "left" or "right", at twice the size "sharp"; both together, as in
"slow left". Delta v and delta yaw are in units of their standard deviation over all pairs of one
length, so that one vocabulary serves one and two seconds. Of the pairs where a code stands at a
position:

- a mean change of half a unit or more is named, of a whole unit by the stronger word, provided that
  it is told from the mean of all pairs by two standard errors (networks drawn as wholes);
- "hold": neither is named, and both stay nearer to no change than those of all pairs do;
- "unclear": neither is named and it does not hold either, or it stands at too few pairs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import ContractError, LatentActionNames, latent_action_names
from latentvla_training.data.whole_file import write_whole
from latentvla_training.latent_action.meaning import Motion

#: Mean changes that are named, and that get the stronger word, in standard deviations of all pairs.
NAMED, STRONG = 0.5, 1.0
#: Standard errors by which a named change must be told from the mean of all pairs.
TOLD_APART = 2.0
#: A code that stands at fewer pairs, or on fewer networks, has no name.
LEAST_PAIRS, LEAST_NETWORKS = 20, 3

HOLD, UNCLEAR = "hold", "unclear"
_SPEED = (("slow", "brake"), ("speed up", "accelerate"))
_HEADING = (("right", "sharp right"), ("left", "sharp left"))

#: Beside the codes of splits: names of their codebook.
NAMES_FILE = "names.json"
_KEY = "latent_action_names"


@dataclass(frozen=True)
class CodeNames:
    """What the ego codes of a codebook mean.

    Attributes:
        codebook_id: whose codes they are.
        names: (4, 16) by position and code.
        splits: the motion was measured on. pairs: frame pairs of them.
    """

    codebook_id: str
    names: LatentActionNames
    splits: tuple[str, ...]
    pairs: int

    def record(self) -> dict[str, Any]:
        """Return what a codebook's manifest keeps of them."""
        return {"names": self.names, "splits": self.splits, "pairs": self.pairs}


def name_codes(
    codes: NDArray[np.int64],
    motion: Motion,
    interval: NDArray[np.int64],
    networks: NDArray[np.str_],
    entries: int,
) -> LatentActionNames:
    """Return names (positions, entries) of codes.

    Args:
        codes: (P, positions). motion: of the same pairs. interval: (P,) which length each has.
        networks: (P,) which network each is from.
    """
    changes = np.stack([motion.delta_v, motion.delta_yaw], axis=1).astype(np.float64)
    for length in np.unique(interval):
        chosen = interval == length
        spread = changes[chosen].std(axis=0)
        changes[chosen] /= np.where(spread > 0, spread, np.inf)  # what never changes departs by 0
    return tuple(
        tuple(_name(changes, codes[:, position] == code, networks) for code in range(entries))
        for position in range(codes.shape[1])
    )


def _name(
    changes: NDArray[np.float64], members: NDArray[np.bool_], networks: NDArray[np.str_]
) -> str:
    """Return the name of what changes (P, 2), in their units, where ``members`` (P,) are."""
    found, places = changes[members], networks[members]
    if len(found) < LEAST_PAIRS or len(np.unique(places)) < LEAST_NETWORKS:
        return UNCLEAR
    mean, everywhere = found.mean(axis=0), changes.mean(axis=0)
    apart = np.abs(mean - everywhere) > TOLD_APART * standard_error(found, places)
    words = [
        (down if value < 0 else up)[int(abs(value) >= STRONG)]
        for value, told, (down, up) in zip(mean, apart, (_SPEED, _HEADING), strict=True)
        if told and abs(value) >= NAMED
    ]
    if words:
        return " ".join(words)
    holds = (np.abs(mean) < NAMED).all() and (np.square(found).mean(axis=0) < 1.0).all()
    return HOLD if holds else UNCLEAR


def standard_error(values: NDArray[np.float64], networks: NDArray[np.str_]) -> NDArray[np.float64]:
    """Return the standard error of the mean of values (n, ...), networks drawn as wholes."""
    names, which = np.unique(networks, return_inverse=True)
    sums = np.zeros((len(names), *values.shape[1:]))
    np.add.at(sums, which, values - values.mean(axis=0))
    share = len(names) / (len(names) - 1)
    return np.asarray(np.sqrt(share * np.square(sums).sum(axis=0)) / len(values))


def write_names(path: Path, names: CodeNames) -> None:
    """Write names beside codes; raises OSError when they cannot be written."""
    content = {"codebook_id": names.codebook_id, **names.record()}
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())


def read_names(path: Path) -> CodeNames:
    """Read the names beside codes.

    Raises:
        FileNotFoundError: there are none. ContractError: the file is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no names at {path}; see latentvla-train codebook encode")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        codebook_id = str(content["codebook_id"])
        names = recorded_names(codebook_id, {_KEY: content}, str(path))
    except (ValueError, KeyError, TypeError) as error:
        raise ContractError(f"names {path}", repr(error), "a file of codebook encode") from error
    assert names is not None
    return names


def recorded_names(codebook_id: str, manifest: Any, where: str) -> CodeNames | None:
    """Return the names in a codebook's manifest; None where it has none.

    Raises:
        ContractError: they are damaged.
    """
    record = manifest.get(_KEY)
    if record is None:
        return None
    try:
        names, splits, pairs = (record[name] for name in ("names", "splits", "pairs"))
    except (KeyError, TypeError) as error:
        raise ContractError(f"{where} {_KEY}", repr(error), "names, splits and pairs") from error
    checked = latent_action_names(names, f"{where} {_KEY}")
    return CodeNames(codebook_id, checked, tuple(splits), int(pairs))


def manifest_entry(names: CodeNames) -> dict[str, Any]:
    """Return the entry of a codebook's manifest that holds names."""
    return {_KEY: names.record()}
