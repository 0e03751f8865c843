"""What exists and what is stale, told from files alone: temporary folders, and no torch."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from latentvla_training.closed_loop import benchmark
from latentvla_training.data.source_hash import code_hash
from latentvla_training.report import identity, inventory_released
from latentvla_training.report.inventory import inventory
from latentvla_training.report.places import Entry, Places, Section
from latentvla_training.report.status import print_status
from rich.console import Console
from safetensors.numpy import save_file

from latentvla_ros.runtime.bundle import sha256_of

Document = Callable[..., dict[str, Any]]


@pytest.fixture
def places(tmp_path: Path) -> Places:
    found = Places(**{entry.name: tmp_path / entry.name for entry in fields(Places)})
    for entry in fields(found):
        getattr(found, entry.name).mkdir()
    return found


def section(places: Places, title: str) -> Section:
    return next(found for found in inventory(places) if found.title == title)


def entry(places: Places, title: str, name: str) -> Entry:
    return next(found for found in section(places, title).entries if found.cells[0] == name)


def write_split(
    places: Places, split: str, names: tuple[str, ...] = ("a", "b"), **changed: Any
) -> str:
    """Put shards and their summary there; return the hash of the contents."""
    folder = places.data / "scenes" / split
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.parquet").write_bytes(b"x" * 1000)
    hashes = {name: f"{split}-{name}" for name in names}
    summary = {"scenes": 96, "hashes": hashes, "code": code_hash(), "failed": {"c": "no"}}
    (folder / "summary.json").write_text(json.dumps({**summary, **changed}))
    return identity.joined_hash(hashes)


def write_run(places: Places, name: str, recipe: dict[str, Any], log: list[Any]) -> Path:
    folder = places.runs / name
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    return folder


def test_nothing_at_all_says_how_to_begin(tmp_path: Path) -> None:
    nowhere = Places(**{found.name: tmp_path / "none" for found in fields(Places)})
    sections = inventory(nowhere)
    assert [found.title for found in sections] == [
        "Scenes", "Runs", "Released", "Caches", "Results",
    ]  # fmt: skip
    assert not any(found.entries for found in sections)
    text = printed(sections)
    assert "Scenes: none yet. latentvla-train world make --split train" in text
    assert "Nothing is stale." in text


def test_scenes_say_their_size_and_the_code_that_made_them(places: Places) -> None:
    contents = write_split(places, "val")
    found = entry(places, "Scenes", "val")
    assert found.cells[1:] == ("96", "2", "0.0 MB", contents[:12], code_hash(), "1")
    assert not found.stale
    write_split(places, "test", code="0ld")
    assert entry(places, "Scenes", "test").stale == (f"made by code 0ld, now {code_hash()}",)
    write_split(places, "ood", other_code=3)
    assert entry(places, "Scenes", "ood").stale == ("3 shards made by other code",)


def test_scenes_that_are_being_made_are_not_taken_for_whole(places: Places) -> None:
    write_split(places, "train")
    folder = places.data / "scenes" / "train"
    (folder / "c.parquet").write_bytes(b"")
    (folder / ".d.parquet.1.part").write_bytes(b"")
    found = entry(places, "Scenes", "train")
    assert found.cells[2] == "3" and found.cells[4] == "?"
    assert found.stale == ("3 shards, its summary knows 2",)
    (folder / "summary.json").write_text("{")
    assert entry(places, "Scenes", "train").stale == ("no summary: being made, or interrupted",)


def test_runs_say_how_far_they_are(places: Places) -> None:
    log = [{"step": 1, "loss/plan": 2.0}, {"step": 4, "val/ade": 0.71239}, {"step": 6, "loss": 1}]
    run = {"passes": 80, "batch_size": 8, "seed": 2}
    folder = write_run(places, "nano", {"name": "nano", "run": run}, log)
    found = entry(places, "Runs", "nano")
    assert found.cells == ("nano", "nano, seed 2", "6 of 10", "step 4: ade 0.7124", "", "none")
    assert found.stale == ("no checkpoint yet: a kill now starts it anew",)
    (folder / "checkpoint.pt").touch()
    assert entry(places, "Runs", "nano").cells[5] == "just now"
    with (folder / "metrics.jsonl").open("a") as file:
        costs = {"cost/cpu_s": 61.4, "cost/peak_gib": 1.256}
        file.write(json.dumps({"step": 10, "val/ade": 0.5, "val/gate": -0.25, **costs}) + "\n")
        file.write('{"step": 1')  # being written
    found = entry(places, "Runs", "nano")
    assert found.cells[2:4] == ("10 of 10, done", "step 10: ade 0.5  gate -0.25")
    assert found.cells[4] == "61 CPU s  1.26 GiB"
    assert not found.stale
    os.utime(folder / "checkpoint.pt", (0, 0))
    assert entry(places, "Runs", "nano").cells[5].endswith(" d ago")


def test_runs_below_runs_and_other_recipes_are_found(places: Places) -> None:
    nested = {"contender": "oracle_codes", "settings": {"run": {"passes": 16, "batch_size": 8}}}
    write_run(places, "gate/seed0/oracle", nested, [])
    run = {"passes": 64, "batch_size": 8}
    write_run(places, "codebook", {"name": "nano", "ego": {"run": run}}, [])  # of all its stages
    write_run(places, "codebook/ego", {"stage": "ego", "run": run}, [{"step": 3}])
    write_run(places, "codebook/frames", {"frames": {}, "run": run}, [])
    names = [found.cells[:3] for found in section(places, "Runs").entries]
    assert names == [
        ("codebook/ego", "ego", "3 of 8"),
        ("codebook/frames", "frames", "0 of 8"),
        ("gate/seed0/oracle", "oracle_codes", "0 of 2"),
    ]
    (places.runs / "codebook/ego/recipe.yaml").write_text("[")
    assert entry(places, "Runs", "codebook/ego").stale == ("recipe.yaml cannot be read",)


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
    entries = inventory_released.released(Places(), []).entries
    found = next(entry for entry in entries if entry.cells[0].endswith("codebook.safetensors"))
    assert found.cells[1].startswith("nano-") and found.cells[3] == "nano, seed 0"
    assert not found.stale


def test_shipped_bundle_shows_what_it_scored() -> None:
    found = next(
        found
        for found in inventory_released.released(Places(), []).entries
        if found.cells[0] == "bundle nano"
    )
    assert "EPDMS" in found.cells[4] and "nano" in found.cells[1]


def test_caches_of_scenes_that_are_gone_are_stale(places: Places) -> None:
    write_split(places, "val")
    folder = places.data / "cache" / "features" / "0123" / "val"
    folder.mkdir(parents=True)
    for name, contents in (("a", "val-a"), ("b", "val-b"), ("c", "of another world")):
        array = {"x": np.zeros(2, np.float16)}
        save_file(array, folder / f"{name}.safetensors", {"scenes_sha256": contents})
    (folder / ".a.safetensors.1.part").write_bytes(b"")
    found = entry(places, "Caches", "features/0123/val")
    assert found.cells[1] == "3" and not found.stale
    write_split(places, "val", ("a", "b"), hashes={"a": "val-a", "b": "made again"})
    found = entry(places, "Caches", "features/0123/val")
    assert found.stale == ("1 files are of Scenes that are no longer here: b.safetensors",)
    (folder / "b.safetensors").write_bytes(b"\xff" * 40)  # damaged: its owner makes it again
    assert not entry(places, "Caches", "features/0123/val").stale


def test_results_are_compared_with_what_is_here(places: Places, open_loop: Document) -> None:
    contents = write_split(places, "test")
    document = open_loop("test", 0)
    document["identity"]["data"]["content_sha256"] = contents
    document["identity"] |= {"world": code_hash(), "scoring": "0ld"}
    (places.results / "open.json").write_text(json.dumps(document))
    (places.results / "strange.json").write_text("{}")
    found = entry(places, "Results", "open.json")
    assert found.cells[1:3] == ("evaluate", "test") and found.cells[3].startswith(
        "EPDMS ours 66.8, blank"
    )
    assert len(found.stale) == 1 and found.stale[0].startswith("scoring 0ld, now ")
    assert entry(places, "Results", "strange.json").cells[1] == "refused"
    write_split(places, "test", hashes={"a": "test-a", "b": "made again"})
    assert any("scenes" in why for why in entry(places, "Results", "open.json").stale)


def test_what_drives_hang_on_is_the_same_as_in_the_report() -> None:
    own = inventory_released._present(Places(), [])
    drive = benchmark.identity("expert", "", "")
    assert own.drive_code == {name: drive[name] for name in ("world", "scoring", "closed_loop")}


def printed(sections: list[Section], stale_only: bool = False) -> str:
    console = Console(file=io.StringIO(), width=140)
    print_status(sections, stale_only, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_table_names_what_is_stale_and_why() -> None:
    sections = [
        Section(
            "Scenes",
            ("split", "scenes"),
            (Entry(("val", "8 [12]")), Entry(("test", "9"), ("of other code",))),
            "",
        )
    ]
    text = printed(sections)
    assert "8 [12]" in text and "test †" in text and "† test: of other code" in text
    assert "1 stale or unfinished." in text
    text = printed(sections, stale_only=True)
    assert "val" not in text and "test †" in text


def test_it_needs_no_torch() -> None:
    code = (
        "import sys; from latentvla_training.report.inventory import inventory; inventory(); "
        "from latentvla_training.report.status import print_status; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
