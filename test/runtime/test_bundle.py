"""Bundles are found by name and path, and anything damaged is refused by field, found, expected."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from latentvla_ros.contract import BundleManifest, CameraSlot, View
from latentvla_ros.runtime.bundle import (
    BundleError,
    find_bundle,
    load_bundle,
    manifest_from_json,
    manifest_to_json,
    sha256_of,
    write_manifest,
)


def make_manifest(**changes: object) -> BundleManifest:
    slot = CameraSlot(
        "front",
        True,
        60.0,
        (50.0, 70.0),
        0.0,
        5.0,
        (-5.0, 5.0),
        (0.0, 4.0),
        (-1.0, 1.0),
        (1.0, 2.0),
    )
    settings: dict[str, object] = {
        "bundle_id": "tiny-1",
        "slots": (slot,),
        "views": (View("front"), View("front", -0.5)),
        "image_width": 64,
        "image_height": 32,
        "horizon_s": 4.0,
        "knot_interval_s": 0.5,
        "num_candidates": 4,
        "base_frame_definition": "rear axle centre on the ground",
        "codebook_id": None,
        "model": {"width": 32},
    }
    return BundleManifest(**{**settings, **changes})  # type: ignore[arg-type]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"graph")
    write_manifest(make_manifest(files={"model.onnx": sha256_of(folder / "model.onnx")}), folder)
    return folder


def test_manifest_round_trip() -> None:
    manifest = make_manifest(files={"model.onnx": "0" * 64}, metrics={"test": {"ade": 0.5}})
    assert manifest_from_json(manifest_to_json(manifest)) == manifest


def test_found_by_path_and_verified(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_bundle(bundle).manifest.bundle_id == "tiny-1"
    assert load_bundle(str(bundle)).path == bundle.resolve()
    monkeypatch.chdir(bundle.parent)
    assert find_bundle("tiny") == bundle.resolve()


def test_absent_bundle_is_named() -> None:
    with pytest.raises(BundleError, match="no_such_bundle"):
        load_bundle("no_such_bundle")


def test_changed_file_is_refused(bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match=r"files\[model.onnx\].sha256"):
        load_bundle(bundle)


def test_missing_file_is_refused(bundle: Path) -> None:
    (bundle / "model.onnx").unlink()
    with pytest.raises(BundleError, match="no such file"):
        load_bundle(bundle)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"schema_version": [2, 0]}, "schema_version"),
        ({"schema_version": "1.0"}, "schema_version"),
        ({"image_width": "64"}, "image_width"),
        ({"image_width": -1}, "image size"),
        ({"surprise": 1}, "manifest"),
        ({"views": []}, "views"),
        ({"views": [{"slot": "rear", "time_offset_s": 0.0}]}, "views"),
        ({"files": {"model.onnx": "abc"}}, "sha256"),
        ({"files": {"../model.onnx": "0" * 64}}, "files"),
        ({"files": {}}, "files"),
        ({"model": None}, "model"),
    ],
)
def test_bad_manifest_names_the_field(bundle: Path, change: dict[str, object], field: str) -> None:
    document = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps({**document, **change}))
    with pytest.raises(BundleError) as caught:
        load_bundle(bundle)
    assert field in str(caught.value)


NAMES = tuple(tuple(f"p{place} c{code}" for code in range(16)) for place in range(4))


def test_names_of_latent_actions_round_trip() -> None:
    manifest = make_manifest(codebook_id="book-1", latent_action_names=NAMES)
    text = manifest_to_json(manifest)
    assert manifest_from_json(text) == manifest
    assert manifest_from_json(text).schema_version == (1, 1)


def test_a_manifest_without_names_is_what_older_readers_know() -> None:
    document = json.loads(manifest_to_json(make_manifest(codebook_id="book-1")))
    assert "latent_action_names" not in document
    document["schema_version"] = [1, 0]
    assert manifest_from_json(json.dumps(document)).latent_action_names is None


@pytest.mark.parametrize(
    ("codebook_id", "names", "said"),
    [
        ("book-1", [list(row) for row in NAMES[:3]], "found '3 positions x [16, 16, 16] names'"),
        ("book-1", [list(row[:15]) for row in NAMES], "expected 4 positions x 16 names"),
        ("book-1", "hold", "latent_action_names"),
        ("book-1", [["hold"] * 15 + [" "]] + [["hold"] * 16] * 3, "names[0][15]"),
        ("book-1", [["hold"] * 16] * 3 + [[7] * 16], "names[3][0]"),
        (None, [list(row) for row in NAMES], "a codebook_id, whose codes they name"),
    ],
)
def test_wrong_names_are_refused(codebook_id: str | None, names: object, said: str) -> None:
    document = json.loads(manifest_to_json(make_manifest(codebook_id=codebook_id)))
    with pytest.raises(BundleError) as caught:
        manifest_from_json(json.dumps({**document, "latent_action_names": names}))
    assert said in str(caught.value) and "manifest.latent_action_names" in str(caught.value)


def test_newer_minor_version_may_add_fields() -> None:
    document = json.loads(manifest_to_json(make_manifest()))
    document["schema_version"] = [1, 7]
    document["from_the_future"] = 1
    assert manifest_from_json(json.dumps(document)).schema_version == (1, 7)


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_not_a_manifest(text: str) -> None:
    with pytest.raises(BundleError, match="manifest"):
        manifest_from_json(text)
