"""What exists and what is stale, told from files alone, in temporary folders."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from latentvla_training.data.shards import ShardReader, load_split, split_folder, write_shard
from latentvla_training.data.source_hash import code_hash
from latentvla_training.latent_action.codes import (
    LatentCodes,
    save_codes,
    scenes_identity,
)
from latentvla_training.planner.cached_encodings import ensure_encodings
from latentvla_training.planner.cached_features import ensure_features
from latentvla_training.planner.motion_net import MotionNet, load_pseudo_recipe
from latentvla_training.planner.pseudo_odometry import pseudo_file, write_motion
from latentvla_training.report import identity
from latentvla_training.report.inventory import inventory
from latentvla_training.report.places import Entry, Places, Section
from latentvla_training.report.status import print_status
from latentvla_training.teacher.cache import ensure_cache
from latentvla_training.teacher.model import make_teacher
from latentvla_training.teacher.processor import load_processor
from latentvla_training.teacher.settings import load_teacher_recipe
from latentvla_training.teacher.training import TeacherRun
from rich.console import Console
from safetensors.numpy import save_file

from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.model.planner import StudentPlanner

from ..planner.conftest import SHARD_RECIPE, make_scene
from .inventory_places import entry, section, write_run, write_split

Document = Callable[..., dict[str, Any]]


def test_nothing_at_all_says_how_to_begin(tmp_path: Path) -> None:
    nowhere = Places(**{found.name: tmp_path / "none" for found in fields(Places)})
    sections = inventory(nowhere)
    assert [found.title for found in sections] == [
        "Scenes", "Runs", "Released", "Codes and motions", "Caches", "Results",
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


def test_caches_of_scenes_that_are_gone_are_stale(
    places: Places, tiny: PlannerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As their own commands write them: features, encodings of a host, a teacher's states."""
    monkeypatch.setenv("LATENTVLA_DATA", str(places.data))
    scenes = [make_scene(index, "val-0000") for index in range(2)]
    path = split_folder("val") / "a.parquet"
    contents = write_shard(path, scenes, SHARD_RECIPE).content_sha256
    write_split(places, "val", (), hashes={"a": contents})
    reader, planner = load_split("val"), StudentPlanner(tiny)
    features = ensure_features(planner, reader, "val", progress=False)
    ensure_encodings(planner, reader, features, "val", progress=False)
    recipe = load_teacher_recipe("smoke")
    recipe = replace(recipe, pictures=replace(recipe.pictures, width=64, height=32))
    processor = load_processor(recipe.model, recipe.pictures)
    run = TeacherRun(recipe, processor, make_teacher(recipe.model, processor).eval(), 0)
    ensure_cache(run, reader, "val", progress=False)
    motion = write_split_codes(places, reader)
    listed = [*section(places, "Caches").entries, *section(places, "Codes and motions").entries]
    kinds = sorted(found.cells[0].partition("/")[0] for found in listed)
    assert kinds == ["codes", "encodings", "features", "pseudo_odometry", "teacher"]
    assert not any(found.stale for found in listed)

    write_split(places, "val", (), hashes={"a": "made again"})
    for found in section(places, "Caches").entries:
        assert found.stale == ("1 files are of Scenes that are no longer here: a.safetensors",)
    codes, said = section(places, "Codes and motions").entries
    assert codes.stale[0].startswith(
        f"val.safetensors is of Scenes {scenes_identity(reader)}, here"
    )
    assert said.stale == ("val.safetensors is of Scenes that are no longer here: a, ...",)
    motion.write_bytes(b"\xff" * 40)  # damaged: its owner makes it again
    assert not section(places, "Codes and motions").entries[1].stale


def write_split_codes(places: Places, reader: ShardReader) -> Path:
    """Keep codes of an unknown codebook, and motions; returns the file of the latter."""
    codes = np.zeros((len(reader), 3, 4), np.int8)
    tokens = reader.columns["token"].astype(str)
    own = LatentCodes("val", "mine-0123", scenes_identity(reader), tokens, codes, codes)
    save_codes(places.data / "codes" / "mine-0123" / "val.safetensors", own)
    recipe = load_pseudo_recipe("smoke")
    path = pseudo_file("smoke", "val")
    write_motion(path, MotionNet(recipe), recipe, reader, np.zeros((len(reader), 3), np.float32))
    return path


def test_codes_of_another_codebook_than_ships_are_stale(places: Places) -> None:
    folder = places.data / "codes" / "nano-0123"
    folder.mkdir(parents=True)
    save_file({"x": np.zeros(2, np.float16)}, folder / "val.safetensors", {"scenes_id": "0"})
    assert not entry(places, "Codes and motions", "codes/nano-0123").stale
    (places.released / "codebook" / "nano").mkdir(parents=True)
    manifest = places.released / "codebook" / "nano" / "manifest.json"
    manifest.write_text(json.dumps({"codebook_id": "nano-9"}))
    (why,) = entry(places, "Codes and motions", "codes/nano-0123").stale
    assert why == "codebook nano-0123, now nano-9"
    write_run(places, "teacher/x", {"name": "x", "codebook": "nano-0123", "run": {"seed": 0}}, [])
    assert entry(places, "Runs", "teacher/x").stale == (why,)


def test_results_are_compared_with_what_is_here(places: Places, open_loop: Document) -> None:
    contents = write_split(places, "test")
    document = open_loop("test", 0)
    document["identity"]["data"]["content_sha256"] = contents
    document["identity"] |= {**identity.code_identity(), "scoring": "0ld"}
    (places.results / "open.json").write_text(json.dumps(document))
    (places.results / "strange.json").write_text("{}")
    found = entry(places, "Results", "open.json")
    assert found.cells[1:3] == ("evaluate", "test") and found.cells[3].startswith(
        "EPDMS ours 66.8, blank"
    )
    assert len(found.stale) == 1 and found.stale[0].startswith("scoring 0ld, now ")
    assert entry(places, "Results", "strange.json").cells[1] == "refused"
    write_split(places, "test", hashes={"a": "test-a", "b": "made again"})
    assert any("Scenes" in why for why in entry(places, "Results", "open.json").stale)


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
