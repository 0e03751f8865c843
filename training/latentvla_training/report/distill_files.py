"""What result files of ``distill evaluate`` and ``teacher evaluate`` must hold to be reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from latentvla_ros.contract import ContractError
from latentvla_training.report.checks import NUMBER, each, estimates, has, poses
from latentvla_training.report.network_sums import NetworkSums, pooled, sums_from_json
from latentvla_training.teacher.calibration import BINS, Calibration

#: Entries by which a file is known.
DISTILL_MARKS = ("distilled", "teacher", "codebook", "contenders", "splits")
TEACHER_MARKS = ("kind", "split", "seeds")

_DISTILL: dict[str, Any] = {
    "distilled": str, "regime": dict, "teacher": str, "teacher_run": str, "codebook": str,
    "passes": int, "seeds": list, "contenders": list, "identity": dict, "gates": dict,
    "goals": dict, "costs": dict, "examples": dict, "splits": dict,
}  # fmt: skip
_SPLIT: dict[str, Any] = {
    "scenes": int, "networks": int, "decision_scenes": int, "rows": dict, "differences": dict,
    "retention": dict, "tokens": dict, "sums": list,
}  # fmt: skip
_COST: dict[str, Any] = dict.fromkeys(
    ("parameters", "flops", "cpu_ms", "to_host", "peak_mib"), NUMBER
)
_PINNED: dict[str, Any] = {
    "recipe": str, "system_shape": str, "teacher_shape": str,
    **dict.fromkeys(("system_flops", "teacher_flops", "ratio"), NUMBER),
}  # fmt: skip
_EXAMPLE: dict[str, Any] = {
    "split": str, "token": str, "tag": str, "shard_sha256": str, "pdms": dict, "plans": dict,
    "driven": list,
}  # fmt: skip
_SEED: dict[str, Any] = {
    "teacher_id": str, "codebook_id": str, "scenes_id": str, "recipe": str, "seed": int,
    "passes": int, "scenes": int,
}  # fmt: skip


def check_distill(document: dict[str, Any]) -> None:
    """Check a result of ``distill evaluate``.

    Raises:
        ContractError: an entry is absent or wrong, or sums are not of the same Scenes; names it.
    """
    has(document, "", _DISTILL)
    has(document["regime"], "regime.", {"labelled_share": NUMBER})
    has(document["identity"], "identity.", {"host": str, "data": dict, "recipes": dict})
    for split, entry in document["identity"]["data"].items():
        has(entry, f"identity.data.{split}.", {})
    for row, gates in document["gates"].items():
        has({row: gates}, "gates.", {row: list})
    for split, found in document["splits"].items():
        where = f"splits.{split}."
        has(found, where, _SPLIT)
        for part in ("rows", "differences", "retention", "tokens"):
            estimates(found[part], f"{where}{part}.")
        check_sums(found, document["seeds"], f"{where}sums")
    costs = document["costs"]
    wanted = {"rows": dict, "teacher_by_student": dict, "pinned": dict, "calls": int}
    has(costs, "costs.", {**wanted, "machine": str, "teacher_precision": str})
    for row, cost in costs["rows"].items():
        has(cost, f"costs.rows.{row}.", _COST)
    has(costs["teacher_by_student"], "costs.teacher_by_student.", {"cpu": NUMBER, "flops": NUMBER})
    has(costs["pinned"], "costs.pinned.", _PINNED)
    has(document["examples"], "examples.", {"rule": str, "scenes": list})
    each(document["examples"], "scenes", _EXAMPLE)
    for number, scene in enumerate(document["examples"]["scenes"]):
        where = f"scenes[{number}]."
        poses(scene["driven"], f"{where}driven")
        for row, plan in scene["plans"].items():
            poses(plan, f"{where}plans.{row}")
            has(scene["pdms"], f"{where}pdms.", {row: NUMBER})


def sums_of_split(found: Mapping[str, Any], where: str = "sums") -> NetworkSums:
    """Return the sums of a split, averaged over its seeds.

    Raises:
        ContractError: there are none, they are damaged or not of the same Scenes.
    """
    if not found["sums"]:
        raise ContractError(where, "none", "sums of one seed or more")
    return pooled(seed_sums(found, where))


def seed_sums(found: Mapping[str, Any], where: str = "sums") -> list[NetworkSums]:
    """Return the sums of every seed of a split.

    Raises:
        ContractError: they are damaged.
    """
    return [sums_from_json(part, where) for part in found["sums"]]


def check_sums(found: Mapping[str, Any], seeds: Sequence[Any], where: str) -> None:
    """Check the sums of a split.

    Raises:
        ContractError: they are not one for each seed, damaged or not of the same Scenes.
    """
    sums_of_split(found, where)
    if len(found["sums"]) != len(seeds):
        raise ContractError(where, len(found["sums"]), f"{len(seeds)}, one for each seed")


def check_teacher(document: dict[str, Any]) -> None:
    """Check a result of ``teacher evaluate``.

    Raises:
        ContractError: it is of another kind, an entry is absent or wrong, or its seeds are of
            several recipes, codebooks or Scenes; names it.
    """
    has(document, "", {"kind": str, "split": str, "seeds": dict})
    if document["kind"] != "teacher" or not document["seeds"]:
        raise ContractError("kind", document["kind"], "teacher, of one seed or more")
    for name, seed in document["seeds"].items():
        has(seed, f"seeds.{name}.", {"identity": dict, "sums": dict})
        for entry in ("calibration", "own_calibration"):
            calibration_of(seed.get(entry), f"seeds.{name}.{entry}")
        has(seed["identity"], f"seeds.{name}.identity.", _SEED)
    identities = [seed["identity"] for seed in document["seeds"].values()]
    for entry in ("recipe", "codebook_id", "scenes_id", "passes"):
        _alike([identity[entry] for identity in identities], entry)
    sums_of_seeds([document])


def calibration_of(found: Any, where: str = "calibration") -> Calibration:
    """Read what ``Calibration.to_json`` returned.

    Raises:
        ContractError: it is not that; names the place.
    """
    names = ("count", "confidence", "right")
    try:
        networks = tuple(str(name) for name in found["networks"])
        parts = [np.array(found[name], np.float64) for name in names]
    except (KeyError, TypeError, ValueError) as error:
        raise ContractError(where, str(error), "networks, and numbers by network") from error
    for name, part in zip(names, parts, strict=True):
        if part.shape != (len(networks), BINS):
            raise ContractError(f"{where}.{name}", part.shape, f"{(len(networks), BINS)}")
    return Calibration(networks, *parts)


def _alike(values: Sequence[Any], entry: str) -> None:
    if len(set(values)) > 1:
        raise ContractError(f"seeds: {entry}", values, "the same for all seeds of a file")


def sums_of_seeds(documents: Sequence[Mapping[str, Any]]) -> list[NetworkSums]:
    """Return the sums of every seed of results of ``teacher evaluate``.

    Raises:
        ContractError: they are damaged, or not of the same Scenes.
    """
    parts = [
        sums_from_json(seed["sums"], f"seeds.{name}.sums")
        for document in documents
        for name, seed in document["seeds"].items()
    ]
    pooled(parts)
    return parts
