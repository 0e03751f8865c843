"""Bundles: a folder of ``manifest.json`` and hashed files; found by name, verified before use.

No pickle anywhere: the manifest is JSON, weights are safetensors, the graph is ONNX.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from latentvla_ros.contract import (
    SCHEMA_VERSION,
    BundleManifest,
    CameraSlot,
    ContractError,
    View,
    latent_action_names,
)
from latentvla_ros.data import data_path

MANIFEST_FILE = "manifest.json"
ONNX_FILE = "model.onnx"
WEIGHTS_FILE = "model.safetensors"


class BundleError(ContractError):
    """A bundle that is absent, damaged, or made for another version of this software."""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    Attributes:
        path: the folder.
        manifest: its parsed ``manifest.json``.
    """

    path: Path
    manifest: BundleManifest

    @property
    def content_sha256(self) -> str:
        """One sha256 of the names and hashes of its files; the manifest's texts are not in it."""
        text = "\n".join(f"{name} {sha}" for name, sha in sorted(self.manifest.files.items()))
        return hashlib.sha256(text.encode()).hexdigest()

    def file(self, name: str) -> Path:
        """Return the path of the hashed file ``name``.

        Raises:
            BundleError: the bundle has no such file.
        """
        if name not in self.manifest.files:
            raise BundleError("manifest.files", sorted(self.manifest.files), f"an entry {name!r}")
        return self.path / name


def shipped_bundles() -> list[str]:
    """Return the names of the bundles that come with this package."""
    root = data_path() / "bundles"
    if not root.is_dir():
        return []
    return sorted(
        entry.name
        for entry in root.iterdir()
        if (entry / MANIFEST_FILE).is_file() and not entry.name.startswith(".")  # being written
    )


def find_bundle(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the folder of a shipped bundle (by name) or of any other (by path).

    A value with a path separator is a path. A bare word is the name of a shipped bundle first, and
    otherwise a folder in the working directory.

    Raises:
        BundleError: nothing is found there.
    """
    text = os.fspath(name_or_path)
    path = Path(text).expanduser()
    is_name = not isinstance(name_or_path, os.PathLike) and path.name == text
    if is_name and text:
        shipped = data_path() / "bundles" / text
        if (shipped / MANIFEST_FILE).is_file():
            return shipped
    if text and (path / MANIFEST_FILE).is_file():
        return path.resolve()
    known = ", ".join(shipped_bundles()) or "none is installed"
    raise BundleError(
        "bundle", text, f"a folder that holds {MANIFEST_FILE}, or a shipped bundle ({known})"
    )


def load_bundle(name_or_path: str | os.PathLike[str]) -> Bundle:
    """Find a bundle, then verify its schema version and the sha256 of every file.

    Raises:
        BundleError: with the field, the value found and the value expected.
    """
    folder = find_bundle(name_or_path)
    try:
        text = (folder / MANIFEST_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(MANIFEST_FILE, str(error), "a readable UTF-8 file") from error
    manifest = manifest_from_json(text)
    if not manifest.files:
        raise BundleError("manifest.files", {}, "at least one hashed file")
    for name, expected in manifest.files.items():
        path = folder / name
        if Path(name).name != name or name == MANIFEST_FILE:
            raise BundleError("manifest.files", name, "plain file names inside the bundle")
        if not path.is_file():
            raise BundleError(f"manifest.files[{name}]", "no such file", f"{path} to exist")
        found = sha256_of(path)
        if found != expected:
            raise BundleError(f"manifest.files[{name}].sha256", found, expected)
    return Bundle(folder, manifest)


def sha256_of(path: Path) -> str:
    """Return the sha256 hex digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def manifest_to_json(manifest: BundleManifest) -> str:
    """Return the manifest as JSON text with a stable order of keys."""
    document = asdict(manifest)
    if manifest.latent_action_names is None:
        del document["latent_action_names"]  # what readers of schema 1.0 do not know
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def write_manifest(manifest: BundleManifest, folder: Path) -> None:
    """Write ``manifest.json`` into ``folder``, whole or not at all."""
    temporary = folder / (MANIFEST_FILE + ".tmp")
    temporary.write_text(manifest_to_json(manifest), encoding="utf-8")
    temporary.replace(folder / MANIFEST_FILE)


def manifest_from_json(text: str) -> BundleManifest:
    """Parse and check ``manifest.json``.

    The schema version is read first, so that a bundle of another major version is refused for that
    reason alone. Unknown fields are an error unless the bundle's minor version is newer.

    Raises:
        BundleError: with the field, the value found and the value expected.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise BundleError(MANIFEST_FILE, str(error), "valid JSON") from error
    if not isinstance(document, dict):
        raise BundleError(MANIFEST_FILE, type(document).__name__, "a JSON object")
    version = _version(document.pop("schema_version", None))
    newer = version[1] > SCHEMA_VERSION[1]
    record = _checked(document, BundleManifest, "manifest", newer, skip=("schema_version",))
    slots = tuple(
        _camera_slot(entry, f"manifest.slots[{index}]", newer)
        for index, entry in enumerate(_list(record["slots"], "manifest.slots"))
    )
    views = tuple(
        View(**_checked(entry, View, f"manifest.views[{index}]", newer))
        for index, entry in enumerate(_list(record["views"], "manifest.views"))
    )
    for name in ("files", "model", "metrics", "provenance"):
        if not isinstance(record.get(name, {}), dict):
            raise BundleError(f"manifest.{name}", record[name], "a JSON object")
    for name, digest in record.get("files", {}).items():
        if not isinstance(digest, str) or len(digest) != 64:
            raise BundleError(f"manifest.files[{name}].sha256", digest, "64 hex digits")
    try:
        if record.get("latent_action_names") is not None:
            name = "latent_action_names"
            record[name] = latent_action_names(record[name], f"manifest.{name}")
        return BundleManifest(**{**record, "slots": slots, "views": views}, schema_version=version)
    except ContractError as error:
        raise BundleError(error.field, error.found, error.expected) from error


_SCALARS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "str | None": (str, type(None)),
}


def _version(value: object) -> tuple[int, int]:
    if not (
        isinstance(value, list) and len(value) == 2 and all(type(part) is int for part in value)
    ):
        raise BundleError("manifest.schema_version", value, "[major, minor]")
    if value[0] != SCHEMA_VERSION[0]:
        raise BundleError(
            "manifest.schema_version",
            f"{value[0]}.{value[1]}",
            f"{SCHEMA_VERSION[0]}.x; export the bundle again or install a matching latentvla_ros",
        )
    return (value[0], value[1])


def _list(value: object, name: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise BundleError(name, value, "a list of at least one entry")
    return value


def _checked(
    document: object, record: type, name: str, newer: bool, skip: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return the fields of dataclass ``record`` from a JSON object; scalars are type-checked."""
    if not isinstance(document, dict):
        raise BundleError(name, document, "a JSON object")
    known = {entry.name: entry for entry in fields(record) if entry.name not in skip}
    unknown = sorted(set(document) - set(known))
    if unknown and not newer:
        raise BundleError(name, unknown, f"only the fields {sorted(known)}")
    result: dict[str, Any] = {}
    optional = {"metrics", "provenance", "files", "time_offset_s", "latent_action_names"}
    for key, entry in known.items():
        if key not in document:
            if key in optional:
                continue
            raise BundleError(f"{name}.{key}", "nothing", "a value")
        value = document[key]
        types = _SCALARS.get(str(entry.type))
        if types and (
            not isinstance(value, types) or (isinstance(value, bool) and bool not in types)
        ):
            raise BundleError(f"{name}.{key}", value, f"a value of type {entry.type}")
        result[key] = value
    return result


def _camera_slot(document: object, name: str, newer: bool) -> CameraSlot:
    record = _checked(document, CameraSlot, name, newer)
    for key, value in record.items():
        if key.endswith(("_range_m", "_range_deg")):
            if not (
                isinstance(value, list)
                and len(value) == 2
                and all(isinstance(end, (int, float)) for end in value)
                and value[0] <= value[1]
            ):
                raise BundleError(f"{name}.{key}", value, "[min, max]")
            record[key] = (float(value[0]), float(value[1]))
    return CameraSlot(**record)
