"""Reads the result files that the report is made of; refuses by name what it cannot use.

Files of ``evaluate``, ``drive``, ``world gates``, ``probe-lights``, ``oracle-codes``,
``teacher evaluate``, ``distill evaluate``, ``distill drive``, ``score-vectors``, ``bench-scoring``
and ``latentvla bench``, told apart by what they hold, whatever they are called.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from latentvla_ros.contract import ContractError
from latentvla_training.report.checks import NUMBER, each, estimates, has
from latentvla_training.report.distill_files import (
    DISTILL_MARKS,
    TEACHER_MARKS,
    check_distill,
    check_sums,
    check_teacher,
)
from latentvla_training.report.identity import different
from latentvla_training.report.network_sums import NetworkSums, sums_from_json
from latentvla_training.report.present import Present

#: As ``planner.evaluation.SCHEMA``, without the number.
OPEN_LOOP_SCHEMA, OPEN_LOOP_VERSION = "latentvla open loop", "1"


class Kind(str, Enum):
    """Which command wrote a result file."""

    OPEN_LOOP = "evaluate"
    CLOSED_LOOP = "drive"
    DISTILL_DRIVE = "distill drive"
    GATES = "world gates"
    LIGHT_PROBE = "probe-lights"
    ORACLE_CODES = "oracle-codes"
    TEACHER = "teacher evaluate"
    DISTILL = "distill evaluate"
    BENCH = "bench"
    SCORE_VECTORS = "score-vectors"
    BENCH_SCORING = "bench-scoring"


#: Entries that a file of a kind has, by which it is known. The first kind that fits is it.
_MARKS: dict[Kind, tuple[str, ...]] = {
    Kind.DISTILL_DRIVE: ("contender", "driver", "split", "routes", "summary"),
    Kind.CLOSED_LOOP: ("driver", "split", "routes", "summary"),
    Kind.GATES: ("gates", "split", "means", "missed", "failures"),
    Kind.LIGHT_PROBE: ("accuracy", "bins", "states"),
    Kind.ORACLE_CODES: ("codebook", "gate_opened", "verdict", "splits"),
    Kind.TEACHER: TEACHER_MARKS,
    Kind.DISTILL: DISTILL_MARKS,
    Kind.BENCH: ("backend_cpu_ms", "node_cpu_ms", "rates"),
    Kind.SCORE_VECTORS: ("cases", "discrete_mismatches"),
    Kind.BENCH_SCORING: ("v1_ms_256", "v2_ms_256"),
}


@dataclass(frozen=True)
class ResultFile:
    """One result file.

    Attributes:
        name: of the file. kind: which command wrote it. document: its contents.
        stale: in words, what it was made with that is no longer so; empty where nothing is.
        sums: of an open-loop result.
    """

    name: str
    kind: Kind
    document: dict[str, Any]
    stale: tuple[str, ...] = ()
    sums: NetworkSums | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What it hangs on, by its own account; of several teachers what the first says."""
        found = self.document.get("identity")
        if self.kind is Kind.TEACHER:
            seeds = [seed["identity"] for seed in self.document["seeds"].values()]
            found = {**seeds[0], "seed": [seed["seed"] for seed in seeds]}
        return found if isinstance(found, dict) else {}

    @property
    def host_run(self) -> str:
        """Name of the run that its host is the planner of; nothing where that is a bundle's."""
        if self.identity.get("bundle_sha256") is not None:
            return ""
        return str(self.identity["host"]).rpartition("-step")[0]  # <run>-step<N>-<hash>

    @property
    def split(self) -> str:
        """The split it is of, or nothing."""
        return str(self.document.get("split", ""))


@dataclass
class Results:
    """All result files of a folder: those read, and why the others were refused, by name."""

    files: list[ResultFile] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    def of(self, kind: Kind, split: str | None = None) -> list[ResultFile]:
        """Return the files of a kind (and split) in the order of their names."""
        return [file for file in self.files if file.kind is kind and split in (None, file.split)]


def check_folder(folder: Path) -> None:
    """Check that a folder of results is there.

    Raises:
        FileNotFoundError: it is not.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder} with result files")


def read_results(folder: Path, present: Present) -> Results:
    """Read every ``*.json`` of a folder.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    check_folder(folder)
    results = Results()
    for path in sorted(folder.glob("*.json")):
        try:
            results.files.append(read_result(path, present))
        except ContractError as error:
            results.refused[path.name] = str(error)
    return results


def read_result(path: Path, present: Present) -> ResultFile:
    """Read one result file.

    Raises:
        ContractError: it is damaged, of another schema, or of no known kind.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ContractError("file", " ".join(str(error).split()), "a whole JSON file") from error
    if not isinstance(document, dict):
        raise ContractError("file", type(document).__name__, "a JSON object")
    if "schema" in document:
        return _open_loop(path.name, document, present)
    for kind, marks in _MARKS.items():
        if all(mark in document for mark in marks):
            _check(kind, document)
            file = ResultFile(path.name, kind, document)
            return ResultFile(path.name, kind, document, tuple(_stale(file, present)))
    if {"rows", "ratios"} <= set(document):
        expected = f"{OPEN_LOOP_SCHEMA} {OPEN_LOOP_VERSION}; give evaluate again"
        raise ContractError("schema", "an evaluation of before there was one", expected)
    raise ContractError("entries", sorted(document)[:6], "those of a known command")


def _open_loop(name: str, document: dict[str, Any], present: Present) -> ResultFile:
    schema, _, version = str(document["schema"]).rpartition(" ")
    if (schema, version) != (OPEN_LOOP_SCHEMA, OPEN_LOOP_VERSION):
        raise ContractError("schema", document["schema"], f"{OPEN_LOOP_SCHEMA} {OPEN_LOOP_VERSION}")
    has(document, "", {"split": str, "identity": dict, "scenes": int, "unscored": dict})
    has(document["identity"], "identity.", {"data": dict, "baselines": dict})
    for row, entry in document["identity"]["baselines"].items():
        has(entry, f"identity.baselines.{row}.", {})
    for what, reasons in document["unscored"].items():
        has(reasons, f"unscored.{what}.", {})
    sums = sums_from_json(document.get("sums"))
    file = ResultFile(name, Kind.OPEN_LOOP, document, sums=sums)
    return ResultFile(name, file.kind, document, tuple(_stale(file, present)), sums)


def _check(kind: Kind, document: dict[str, Any]) -> None:
    """Check what the tables read of a file without sums."""
    has(document, "", _HEADS.get(kind, {}))
    for name, wanted in _OPTIONAL.items():
        if document.get(name) is not None:
            has(document, "", {name: wanted})
    if kind in (Kind.CLOSED_LOOP, Kind.DISTILL_DRIVE):
        each(document, "routes", {**_ROUTE, "infractions": dict})
        identity = {"baselines": {}, **(document.get("identity") or {})}
        has(identity, "identity.", {"baselines": dict})
        for row, entry in identity["baselines"].items():
            has(entry, f"identity.baselines.{row}.", {})
        if kind is Kind.DISTILL_DRIVE:
            has(identity, "identity.", {**_DRIVEN, "recipes": dict})
    elif kind is Kind.BENCH:
        each(document, "rates", {"input_rate_hz": NUMBER})
        for number, row in enumerate(document["rates"]):
            for name in ("age_ms", "drops"):
                has(row.get(name) or {}, f"rates[{number}].{name}.", {})
        if document.get("cameras") is not None:
            each(document, "cameras", _CAMERAS)
    elif kind is Kind.GATES:
        each(document, "failures", {"token": str, "lost": list})
        for tag, means in document["means"].items():
            figures = dict.fromkeys(["scenes", *document["means"].get("all", {})], NUMBER)
            has(means, f"means.{tag}.", figures)
        has(document["means"].get("all"), "means.all.", dict.fromkeys(document["gates"], NUMBER))
    elif kind is Kind.ORACLE_CODES:
        _check_oracle_codes(document)
    elif kind is Kind.TEACHER:
        check_teacher(document)
    elif kind is Kind.DISTILL:
        check_distill(document)
    elif kind is Kind.LIGHT_PROBE:
        for name in ("bins", "states"):
            for key, values in document[name].items():
                if values is not None:
                    has(values, f"{name}.{key}.", {"accuracy": NUMBER, "scenes": int})


def _check_oracle_codes(document: dict[str, Any]) -> None:
    has(document["verdict"], "verdict.", {"passed": bool, "figure": str, "beaten": dict})
    for split, others in document["verdict"]["beaten"].items():
        has({split: others}, "verdict.beaten.", {split: list})
    has(document["identity"], "identity.", {"data": dict})
    for split, entry in document["identity"]["data"].items():
        has(entry, f"identity.data.{split}.", {})
    for split, found in document["splits"].items():
        where = f"splits.{split}."
        has(found, where, {"scenes": int, "networks": int, "rows": dict, "differences": dict})
        for part in ("rows", "differences"):
            estimates(found[part], f"{where}{part}.")
        if "sums" in found:
            has(found, where, {"sums": list})
            check_sums(found, document["seeds"], f"{where}sums")


_ROUTE: dict[str, Any] = {
    "name": str, "network": str, "driving_score": NUMBER, "success": bool, "completion": NUMBER,
}  # fmt: skip
_DRIVEN: dict[str, Any] = dict.fromkeys(
    ("host", "recipe", "teacher", "codebook", "trained_on", "weights"), str
)
_CAMERAS: dict[str, Any] = {"arrangement": str, "sent": dict, "received": dict, "starving": list}
_HEADS: dict[Kind, dict[str, Any]] = {
    Kind.CLOSED_LOOP: {"driver": str, "split": str, "routes": list, "summary": dict},
    Kind.DISTILL_DRIVE: {
        "contender": str, "driver": str, "split": str, "teacher_run": str, "routes": list,
        "summary": dict, "identity": dict, "asked": dict,
    },
    Kind.GATES: {
        "split": str, "scenes": int, "gates": dict, "means": dict, "missed": list, "failures": list,
    },
    Kind.LIGHT_PROBE: {"accuracy": NUMBER, "bins": dict, "states": dict},
    Kind.ORACLE_CODES: {
        "codebook": str, "recipe": str, "passes": int, "seeds": list, "gate_opened": dict,
        "verdict": dict, "splits": dict, "identity": dict,
    },
    Kind.BENCH: {"backend_cpu_ms": NUMBER, "rates": list},
    Kind.SCORE_VECTORS: {"cases": int, "discrete_mismatches": int},
    Kind.BENCH_SCORING: {"v1_ms_256": NUMBER, "v2_ms_256": NUMBER},
}  # fmt: skip


#: Entries that a table reads where a file has them.
_OPTIONAL: dict[str, Any] = {
    "identity": dict, "settings": dict, "machine": dict, "cameras": list, "skipped": dict,
    "node_cpu_ms": NUMBER, "node_minus_backend_ms": NUMBER, "max_abs_state": NUMBER,
    "max_abs_score": NUMBER,
    "batch_64x64_ms": NUMBER, "v1_speedup": NUMBER, "v2_speedup": NUMBER,
}  # fmt: skip


def _stale(file: ResultFile, present: Present) -> list[str]:
    """Say what a result was made with that is no longer so, or that it does not say.

    Every kind is asked for what its command writes.
    """
    found = dict(file.identity)
    if file.kind in (Kind.OPEN_LOOP, Kind.GATES):
        data = {file.split: found.get("data") or {}}
        return different(found, present.code) + _other_scenes(data, [file.split], present)
    if file.kind is Kind.CLOSED_LOOP:
        # Bundles are compared when files are pooled: those of other seeds are not stale.
        stale = different(found, present.drive_code)
        if "released_sha256" in found:  # not baselines of another seed, in a folder of their own
            stale += different(found, {"released_sha256": present.released_sha256})
        return stale
    if file.kind is Kind.DISTILL_DRIVE:
        code = {**present.contender_code, **present.distill_code, **present.driving_code}
        stale = different(found, {**present.drive_code, **code})
        stale += present.other_recipe("distill", found["recipes"])
        return stale + present.other_codebook(found["codebook"])
    if file.kind in (Kind.SCORE_VECTORS, Kind.BENCH_SCORING):
        return different(found, {"scoring": present.code.get("scoring")})
    if file.kind in (Kind.ORACLE_CODES, Kind.DISTILL):
        return _stale_comparison(file, present)
    if file.kind is Kind.TEACHER:
        scenes = {"scenes": found["scenes_id"]}
        stale = different(scenes, {"scenes": present.scenes_ids.get(file.split)})
        stale += present.other_codebook(found["codebook_id"])
        return stale + present.other_recipe("teacher", found.get("recipes") or {})
    found.setdefault("bundle_sha256", file.document.get("bundle_sha256"))
    now = {"bundle_sha256": present.bundle_sha256}
    if file.kind is Kind.LIGHT_PROBE:
        now["world"] = present.code.get("world")
    return different(found, now)


def _stale_comparison(file: ResultFile, present: Present) -> list[str]:
    """Say what of a comparison on one host has changed: code (with both commits), Scenes, settings.

    Its codebook is the present one of that recipe, and its host the present bundle, or what that
    went on from; a host that is no bundle is not compared.
    """
    found, distilled = file.identity, file.kind is Kind.DISTILL
    now = {**present.code, **present.contender_code, **(present.distill_code if distilled else {})}
    stale = different(found, now)
    if stale:
        stale += different(found, {"commit": present.commit})
    stale += _other_scenes(found["data"], [*file.document["splits"]], present)
    stale += _other_train(file, present)
    recipes = found.get("recipes") or {}
    name = found.get("recipe") if distilled else file.document["recipe"]
    if present.recipes and name not in recipes:
        stale.append(f"does not say by which settings of recipe {name} it was made")
    stale += present.other_recipe("distill" if distilled else "oracle_codes", recipes)
    stale += present.other_codebook(file.document["codebook"])
    host = found.get("host")
    if present.bundle_host != host and found.get("bundle_sha256", "") is not None:
        own = {f"bundle of host {host}": found.get("bundle_sha256")}
        stale += different(own, dict.fromkeys(own, present.bundle_sha256))
    return stale


def _other_train(file: ResultFile, present: Present) -> list[str]:
    """Say whether a comparison learned from other Scenes than the part of them that is here."""
    told = file.identity["data"].get("train")
    if told is None:
        return []
    regime = file.document.get("regime") or {"max_shards": told.get("shards", 0)}
    now = present.train_sha256(regime.get("max_shards", 0), regime.get("odometry_share", 1.0))
    own = {"Scenes of train": told.get("content_sha256")}
    return different(own, {"Scenes of train": now})


def _other_scenes(
    data: Mapping[str, Mapping[str, Any]], splits: Sequence[str], present: Present
) -> list[str]:
    """Say of which splits, and of all that are named, the Scenes are not those that are here."""
    own = {f"Scenes of {split}": entry.get("content_sha256") for split, entry in data.items()}
    asked = dict.fromkeys([*data, *splits])
    return different(own, {f"Scenes of {split}": present.scenes.get(split) for split in asked})
