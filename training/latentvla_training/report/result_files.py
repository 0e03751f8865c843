"""Reads the result files that the report is made of; refuses by name what it cannot use.

Files of ``evaluate``, ``drive``, ``world gates``, ``probe-lights``, ``oracle-codes``,
``score-vectors``, ``bench-scoring`` and ``latentvla bench``, told apart by what they hold, whatever
they are called.
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
    BENCH = "bench"
    SCORE_VECTORS = "score-vectors"
    BENCH_SCORING = "bench-scoring"


#: Entries that a file of a kind has, by which it is known. The first kind that fits is it.
_MARKS: dict[Kind, tuple[str, ...]] = {
    Kind.CLOSED_LOOP: ("driver", "split", "routes", "summary"),
    Kind.GATES: ("gates", "split", "means", "missed", "failures"),
    Kind.LIGHT_PROBE: ("accuracy", "bins", "states"),
    Kind.ORACLE_CODES: ("codebook", "gate_opened", "verdict", "splits"),
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
    """

    code: Mapping[str, Any] = field(default_factory=dict)
    drive_code: Mapping[str, Any] = field(default_factory=dict)
    scenes: Mapping[str, str | None] = field(default_factory=dict)
    bundle_sha256: str | None = None
    released_sha256: str | None = None


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
        """What it hangs on, by its own account."""
        found = self.document.get("identity")
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
    scenes = {}
    for split in ("val", "test", "longtail", "ood"):
        found = identity.split_identity(split)
        scenes[split] = None if found is None else str(found["content_sha256"])
    return Present(
        identity.code_identity(),
        {name: drive[name] for name in ("world", "scoring", "closed_loop")},
        scenes,
        None if shipped is None else shipped["bundle_sha256"],
        sha256_of(released) if released.is_file() else None,
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
    _has(document, "", {"split": str, "identity": dict, "scenes": int, "unscored": dict})
    _has(document["identity"], "identity.", {"data": dict, "baselines": dict})
    for row, entry in document["identity"]["baselines"].items():
        _has(entry, f"identity.baselines.{row}.", {})
    for what, reasons in document["unscored"].items():
        _has(reasons, f"unscored.{what}.", {})
    sums = sums_from_json(document.get("sums"))
    file = ResultFile(name, Kind.OPEN_LOOP, document, sums=sums)
    return ResultFile(name, file.kind, document, tuple(_stale(file, present)), sums)


def _check(kind: Kind, document: dict[str, Any]) -> None:
    """Check what the tables read of a file without sums."""
    _has(document, "", _HEADS[kind])
    for name, wanted in _OPTIONAL.items():
        if document.get(name) is not None:
            _has(document, "", {name: wanted})
    if kind is Kind.CLOSED_LOOP:
        _each(document, "routes", {**_ROUTE, "infractions": dict})
        identity = {"baselines": {}, **(document.get("identity") or {})}
        _has(identity, "identity.", {"baselines": dict})
        for row, entry in identity["baselines"].items():
            _has(entry, f"identity.baselines.{row}.", {})
    elif kind is Kind.BENCH:
        _each(document, "rates", {"input_rate_hz": _NUMBER})
        for number, row in enumerate(document["rates"]):
            for name in ("age_ms", "drops"):
                _has(row.get(name) or {}, f"rates[{number}].{name}.", {})
        if document.get("cameras") is not None:
            _each(document, "cameras", _CAMERAS)
    elif kind is Kind.GATES:
        _each(document, "failures", {"token": str, "lost": list})
        for tag, means in document["means"].items():
            figures = dict.fromkeys(["scenes", *document["means"].get("all", {})], _NUMBER)
            _has(means, f"means.{tag}.", figures)
        _has(document["means"].get("all"), "means.all.", dict.fromkeys(document["gates"], _NUMBER))
    elif kind is Kind.ORACLE_CODES:
        _check_oracle_codes(document)
    elif kind is Kind.LIGHT_PROBE:
        for name in ("bins", "states"):
            for key, values in document[name].items():
                if values is not None:
                    _has(values, f"{name}.{key}.", {"accuracy": _NUMBER, "scenes": int})


def _check_oracle_codes(document: dict[str, Any]) -> None:
    _has(document["verdict"], "verdict.", {"passed": bool, "figure": str, "beaten": dict})
    for split, others in document["verdict"]["beaten"].items():
        _has({split: others}, "verdict.beaten.", {split: list})
    _has(document["identity"], "identity.", {"data": dict})
    for split, entry in document["identity"]["data"].items():
        _has(entry, f"identity.data.{split}.", {})
    for split, found in document["splits"].items():
        where = f"splits.{split}."
        _has(found, where, {"scenes": int, "networks": int, "rows": dict, "differences": dict})
        for part in ("rows", "differences"):
            for row, figures in found[part].items():
                _has(figures, f"{where}{part}.{row}.", {})
                for name, values in figures.items():
                    place = f"{where}{part}.{row}.{name}"
                    three = isinstance(values, list) and len(values) == 3
                    if not three or any(type(value) not in _NUMBER for value in values):
                        raise ContractError(place, values, "a value and the ends of its interval")


_NUMBER = (int, float)
_ROUTE: dict[str, Any] = {
    "name": str, "network": str, "driving_score": _NUMBER, "success": bool, "completion": _NUMBER,
}  # fmt: skip
_CAMERAS: dict[str, Any] = {"arrangement": str, "sent": dict, "received": dict, "starving": list}
_HEADS: dict[Kind, dict[str, Any]] = {
    Kind.CLOSED_LOOP: {"driver": str, "split": str, "routes": list, "summary": dict},
    Kind.GATES: {
        "split": str, "scenes": int, "gates": dict, "means": dict, "missed": list, "failures": list,
    },
    Kind.LIGHT_PROBE: {"accuracy": _NUMBER, "bins": dict, "states": dict},
    Kind.ORACLE_CODES: {
        "codebook": str, "recipe": str, "passes": int, "seeds": list, "gate_opened": dict,
        "verdict": dict, "splits": dict, "identity": dict,
    },
    Kind.BENCH: {"backend_cpu_ms": _NUMBER, "rates": list},
    Kind.SCORE_VECTORS: {"cases": int, "discrete_mismatches": int},
    Kind.BENCH_SCORING: {"v1_ms_256": _NUMBER, "v2_ms_256": _NUMBER},
}  # fmt: skip


#: Entries that a table reads where a file has them.
_OPTIONAL: dict[str, Any] = {
    "identity": dict, "settings": dict, "machine": dict, "cameras": list, "skipped": dict,
    "node_cpu_ms": _NUMBER, "node_minus_backend_ms": _NUMBER, "max_abs_state": _NUMBER,
    "max_abs_score": _NUMBER,
    "batch_64x64_ms": _NUMBER, "v1_speedup": _NUMBER, "v2_speedup": _NUMBER,
}  # fmt: skip


def _has(document: Any, where: str, wanted: Mapping[str, Any]) -> None:
    """Check that a mapping has entries of these types.

    Raises:
        ContractError: it has not; names the first that is absent or wrong.
    """
    if not isinstance(document, dict):
        raise ContractError(where.rstrip(".") or "file", document, "a JSON object")
    for name, kind in wanted.items():
        found = document.get(name)
        if not isinstance(found, kind) or (kind is _NUMBER and isinstance(found, bool)):
            names = kind if isinstance(kind, tuple) else (kind,)
            expected = " or ".join(entry.__name__ for entry in names)
            raise ContractError(f"{where}{name}", found, f"a value of type {expected}")


def _each(document: dict[str, Any], name: str, wanted: Mapping[str, Any]) -> None:
    for number, row in enumerate(document[name]):
        _has(row, f"{name}[{number}].", wanted)


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
    if file.kind is Kind.ORACLE_CODES:
        scenes = {split: entry.get("content_sha256") for split, entry in found["data"].items()}
        return different(found, present.code) + different(scenes, present.scenes)
    found.setdefault("bundle_sha256", file.document.get("bundle_sha256"))
    now = {"world": present.code.get("world"), "bundle_sha256": present.bundle_sha256}
    return different(found, now)
