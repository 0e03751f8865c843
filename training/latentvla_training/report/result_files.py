"""Reads the result files that the report is made of; refuses by name what it cannot use.

Files of ``evaluate``, ``drive``, ``world gates``, ``probe-lights``, ``oracle-codes``,
``teacher evaluate``, ``distill evaluate``, ``score-vectors``, ``bench-scoring`` and ``latentvla
bench``, told apart by what they hold, whatever they are called.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from latentvla_ros.contract import ContractError
from latentvla_ros.runtime.bundle import sha256_of
from latentvla_training.report.checks import NUMBER, each, estimates, has
from latentvla_training.report.distill_files import (
    DISTILL_MARKS,
    TEACHER_MARKS,
    check_distill,
    check_teacher,
)
from latentvla_training.report.identity import different
from latentvla_training.report.network_sums import NetworkSums, sums_from_json

#: As ``planner.evaluation.SCHEMA``, without the number.
OPEN_LOOP_SCHEMA, OPEN_LOOP_VERSION = "latentvla open loop", "1"


class Kind(str, Enum):
    """Which command wrote a result file."""

    OPEN_LOOP = "evaluate"
    CLOSED_LOOP = "drive"
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
class Present:
    """What results are compared with to tell whether they are stale; None is not compared.

    Attributes:
        code: hashes of the code that open-loop figures hang on (``identity.code_identity``).
        drive_code: those that closed-loop figures hang on.
        scenes: hash of the Scenes that are here, by split.
        bundle_sha256: of the bundle that ships. released_sha256: of the manifest of the baselines
            that ship.
        bundle_host: identity of the host that the bundle that ships went on from, if any.
        distill_code: hashes of the code that comparisons with a teacher hang on besides.
        recipes: hashes of the settings of their recipes, by name.
        scenes_ids: identity of the Scenes as codes and teachers name them, by split.
        commit: of this checkout; it is named beside code that has changed.
    """

    code: Mapping[str, Any] = field(default_factory=dict)
    drive_code: Mapping[str, Any] = field(default_factory=dict)
    scenes: Mapping[str, str | None] = field(default_factory=dict)
    bundle_sha256: str | None = None
    released_sha256: str | None = None
    bundle_host: str | None = None
    distill_code: Mapping[str, Any] = field(default_factory=dict)
    recipes: Mapping[str, str] = field(default_factory=dict)
    scenes_ids: Mapping[str, str | None] = field(default_factory=dict)
    commit: str | None = None


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


def here() -> Present:
    """Return what results are compared with in this checkout."""
    from latentvla_training.closed_loop.benchmark import identity as drive_identity
    from latentvla_training.planner.released import MANIFEST, released_folder
    from latentvla_training.report import identity

    shipped = identity.shipped_identity()
    drive = drive_identity("expert", "", "")
    released = released_folder() / MANIFEST
    scenes, scenes_ids = {}, {}
    for split in ("val", "test", "longtail", "ood"):
        found = identity.split_identity(split)
        scenes[split] = None if found is None else str(found["content_sha256"])
        scenes_ids[split] = identity.coded_scenes(split)
    return Present(
        identity.code_identity(),
        {name: drive[name] for name in ("world", "scoring", "closed_loop")},
        scenes,
        None if shipped is None else shipped["bundle_sha256"],
        sha256_of(released) if released.is_file() else None,
        None if shipped is None else shipped["start_from"],
        identity.distill_identity(),
        identity.distill_recipes(),
        scenes_ids,
        identity.commit(),
    )


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
    if kind is Kind.CLOSED_LOOP:
        each(document, "routes", {**_ROUTE, "infractions": dict})
        identity = {"baselines": {}, **(document.get("identity") or {})}
        has(identity, "identity.", {"baselines": dict})
        for row, entry in identity["baselines"].items():
            has(entry, f"identity.baselines.{row}.", {})
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


_ROUTE: dict[str, Any] = {
    "name": str, "network": str, "driving_score": NUMBER, "success": bool, "completion": NUMBER,
}  # fmt: skip
_CAMERAS: dict[str, Any] = {"arrangement": str, "sent": dict, "received": dict, "starving": list}
_HEADS: dict[Kind, dict[str, Any]] = {
    Kind.CLOSED_LOOP: {"driver": str, "split": str, "routes": list, "summary": dict},
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
    found = dict(file.identity)
    if file.kind is Kind.OPEN_LOOP:
        data = found.get("data") or {}
        scenes = {"scenes": data.get("content_sha256")}
        now = {"scenes": present.scenes.get(file.split)}
        return different(found, present.code) + different(scenes, now)
    if file.kind is Kind.CLOSED_LOOP:
        # Bundles are compared when files are pooled: those of other seeds are not stale.
        now = {**present.drive_code, "released_sha256": present.released_sha256}
        return different(found, now)
    if file.kind is Kind.GATES:
        scenes = {"scenes": (found.get("data") or {}).get("content_sha256")}
        now = {"scenes": present.scenes.get(file.split)}
        return different(found, present.code) + different(scenes, now)
    if file.kind in (Kind.SCORE_VECTORS, Kind.BENCH_SCORING):
        return different(found, {"scoring": present.code.get("scoring")})
    if file.kind is Kind.ORACLE_CODES:
        scenes = {split: entry.get("content_sha256") for split, entry in found["data"].items()}
        return different(found, present.code) + different(scenes, present.scenes)
    if file.kind is Kind.TEACHER:
        scenes = {"scenes": found["scenes_id"]}
        return different(scenes, {"scenes": present.scenes_ids.get(file.split)})
    if file.kind is Kind.DISTILL:
        return _stale_distill(found, present)
    found.setdefault("bundle_sha256", file.document.get("bundle_sha256"))
    now = {"world": present.code.get("world"), "bundle_sha256": present.bundle_sha256}
    return different(found, now)


def _stale_distill(found: Mapping[str, Any], present: Present) -> list[str]:
    """Say what of a comparison has changed: code (with both commits), Scenes, recipes, the host.

    A bundle that ships is the host, or a student that went on from it.
    """
    stale = different(found, {**present.code, **present.distill_code})
    if stale:
        stale += different(found, {"commit": present.commit})
    scenes = {split: entry.get("content_sha256") for split, entry in found["data"].items()}
    stale += different(scenes, present.scenes)
    stale += [f"recipe {text}" for text in different(found["recipes"], present.recipes)]
    if present.bundle_host != found["host"]:
        own = {f"host {found['host']}, bundle": found.get("bundle_sha256")}
        stale += different(own, dict.fromkeys(own, present.bundle_sha256))
    return stale
