"""Bundles and weights that ship: whole, and of what is here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from latentvla_training.latent_action.settings import load_codebook_recipe
from latentvla_training.report import inventory_released
from latentvla_training.report.places import Places, split_on_disk
from latentvla_training.report.present import Present
from latentvla_training.teacher.model import make_teacher
from latentvla_training.teacher.processor import load_processor
from latentvla_training.teacher.release import release
from latentvla_training.teacher.settings import load_teacher_recipe
from latentvla_training.teacher.training import TeacherRun

from latentvla_ros.runtime.bundle import load_bundle, sha256_of

from .inventory_places import entry, kept, write_split


def test_released_weights_are_checked_against_their_manifests(places: Places) -> None:
    contents = write_split(places, "train")
    (places.released / "net.safetensors").write_bytes(b"weights")
    (places.released / "codebook").mkdir()
    (places.released / "codebook" / "ego.safetensors").write_bytes(b"codes")
    digests = [
        sha256_of(places.released / name)
        for name in ("net.safetensors", "codebook/ego.safetensors")
    ]
    data = {"train": {"content_sha256": contents}}
    flat = {
        "net.safetensors": {"sha256": digests[0], "seed": 3, "provenance": {"data": data}},
        "gone.safetensors": {"sha256": "0" * 64},
    }
    (places.released / "released.json").write_text(json.dumps(flat))
    other = {"train": {"content_sha256": "9" * 64}}
    listed = {
        "codebook_id": "nano-12", "recipe": "nano", "provenance": {"data": other, "passes": 7},
        "files": {"ego.safetensors": digests[1]},
    }  # fmt: skip
    (places.released / "codebook" / "manifest.json").write_text(json.dumps(listed))

    found = entry(places, "Released", "net.safetensors")
    assert (found.cells[1], found.cells[3], found.stale) == (digests[0][:10], "seed 3", ())
    assert entry(places, "Released", "gone.safetensors").stale == ("the file is gone",)
    found = entry(places, "Released", "codebook/ego.safetensors")
    assert (found.cells[1], found.cells[3]) == ("nano-12", "nano, passes 7")
    assert found.stale == (f"trained on other train Scenes ({'9' * 10}, here {contents[:10]})",)
    (places.released / "net.safetensors").write_bytes(b"weighs")
    assert "damaged" in entry(places, "Released", "net.safetensors").stale[0]


def test_a_bundle_that_does_not_verify_is_named(places: Places) -> None:
    (places.bundles / "mine").mkdir()
    (places.bundles / "mine" / "manifest.json").write_text("{}")
    assert "schema_version" in entry(places, "Released", "bundle mine").stale[0]


def test_shipped_codebook_is_listed() -> None:
    entries = inventory_released.released(Places(), [], Present()).entries
    found = next(entry for entry in entries if entry.cells[0].endswith("codebook.safetensors"))
    assert found.cells[1].startswith("nano-") and found.cells[3] == "nano, seed 0"
    assert found.cells[4].startswith("ego gain 0.") and "; environment gain 0." in found.cells[4]
    assert all(why.startswith("recipe nano has changed") for why in found.stale)
    found = next(entry for entry in entries if entry.cells[0].endswith("teacher.safetensors"))
    assert found.cells[4].startswith("test 0.") and "nats a code, ego state and" in found.cells[4]


def test_a_released_codebook_of_other_settings_than_its_recipe_is_stale(places: Places) -> None:
    folder = places.released / "codebook" / "nano"
    folder.mkdir(parents=True)
    (folder / "codebook.safetensors").write_bytes(b"codes")
    digest = sha256_of(folder / "codebook.safetensors")
    recipe = load_codebook_recipe("nano")
    for changed in (recipe, replace(recipe, seed=2)):
        manifest = {"codebook_id": "nano-1", "sha256": digest, "recipe": kept(changed)}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        assert not entry(places, "Released", "codebook/nano/codebook.safetensors").stale
    manifest["recipe"]["loss"]["commitment"] = 9.0
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (why,) = entry(places, "Released", "codebook/nano/codebook.safetensors").stale
    assert why.startswith("recipe nano has changed: loss.commitment: 9.0 there, ")


def release_teacher(places: Places, **noted: Any) -> Path:
    """Put the manifest of a teacher and a file for its weights there; returns the folder."""
    folder = places.released / "teacher" / "mine"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "teacher.safetensors").write_bytes(b"weights")
    recipe = replace(load_teacher_recipe("nano"), **noted)
    manifest = {
        "sha256": {"teacher.safetensors": sha256_of(folder / "teacher.safetensors")},
        "codebook_id": recipe.codebook, "processor": "0", "recipe": kept(recipe), "seed": 0,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def release_codebook(places: Places, codebook_id: str, **noted: Any) -> None:
    """Put the manifest of a codebook and a file for its weights there."""
    folder = places.released / "codebook" / "nano"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "codebook.safetensors").write_bytes(b"codes")
    digest = sha256_of(folder / "codebook.safetensors")
    recipe = kept(load_codebook_recipe("nano"))
    manifest = {"codebook_id": codebook_id, "sha256": digest, "recipe": recipe, **noted}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_teacher_and_a_bundle_of_another_codebook_than_ships_are_stale(places: Places) -> None:
    bundle = places.bundles / "nano"
    bundle.symlink_to(Places().bundles / "nano")
    older = load_bundle(bundle).manifest.codebook_id
    assert older is not None
    named = (f"bundle {bundle.name}", "teacher/mine/teacher.safetensors")
    release_teacher(places, codebook=older)
    release_codebook(places, older)
    assert not any(entry(places, "Released", name).stale for name in named)

    release_codebook(places, "nano-b1")
    why = f"speaks codebook {older}, now nano-b1"
    assert entry(places, "Released", named[0]).stale == (f"{why}; it runs as it is",)
    assert entry(places, "Released", named[1]).stale == (why,)
    assert not entry(places, "Released", "codebook/nano/codebook.safetensors").stale
    release_teacher(places, codebook="nano-b1")
    assert not entry(places, "Released", named[1]).stale


def test_a_codebook_and_a_teacher_of_other_scenes_than_are_here_are_stale(places: Places) -> None:
    places_of = ("codebook/nano/codebook.safetensors", "teacher/mine/teacher.safetensors")
    release_codebook(places, "nano-1", scenes_id="feed")
    release_teacher(places, scenes="feed")
    assert not any(entry(places, "Released", name).stale for name in places_of)  # no Scenes
    write_split(places, "train")
    here = str(split_on_disk("train", places.data).scenes_id())
    for name in places_of:
        assert entry(places, "Released", name).stale == (f"trained on Scenes feed, here {here}",)
    release_codebook(places, "nano-1", scenes_id=here)
    release_teacher(places, scenes=here)
    assert not any(entry(places, "Released", name).stale for name in places_of)
    few = replace(load_teacher_recipe("nano").data, max_shards=1)
    part = str(split_on_disk("train", places.data).scenes_id(1))
    release_teacher(places, scenes=part, data=few)
    (why,) = entry(places, "Released", places_of[1]).stale  # of those shards, which are here
    assert why.startswith("recipe nano has changed: data.max_shards") and part != here


def test_a_released_teacher_is_listed_file_by_file(places: Places) -> None:
    folder = places.released / "teacher" / "mine"
    recipe = load_teacher_recipe("smoke")
    processor = load_processor(recipe.model, recipe.pictures)
    release(TeacherRun(recipe, processor, make_teacher(recipe.model, processor), 7), folder)
    found = entry(places, "Released", "teacher/mine/teacher.safetensors")
    assert found.cells[3] == "smoke, seed 0, steps 7" and not found.stale
    assert not entry(places, "Released", "teacher/mine/processor/tokenizer.json").stale
    (folder / "teacher.safetensors").write_bytes(b"others")
    assert "damaged" in entry(places, "Released", "teacher/mine/teacher.safetensors").stale[0]


def test_shipped_bundle_shows_what_it_scored() -> None:
    found = next(
        found
        for found in inventory_released.released(Places(), [], Present()).entries
        if found.cells[0] == "bundle nano"
    )
    assert "EPDMS" in found.cells[4] and "nano" in found.cells[1]
