"""What exists and what is stale, told from files alone, in temporary folders."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from latentvla_training.data.shards import ShardReader, load_split, split_folder, write_shard
from latentvla_training.data.source_hash import code_hash
from latentvla_training.distill.runs import ContestRecords
from latentvla_training.distill.settings import load_distill_recipe
from latentvla_training.distill.settings import of_seed as of_distill_seed
from latentvla_training.engine.recipe import load_recipe, load_record
from latentvla_training.latent_action.codes import (
    LatentCodes,
    Vocabulary,
    save_codes,
    scenes_identity,
)
from latentvla_training.latent_action.settings import load_codebook_recipe
from latentvla_training.latent_action.stages import DynamicsRun
from latentvla_training.planner.cached_encodings import ensure_encodings
from latentvla_training.planner.cached_features import ensure_features
from latentvla_training.planner.contenders import ContenderRun
from latentvla_training.planner.motion_net import MotionNet, load_pseudo_recipe
from latentvla_training.planner.oracle_codes import OracleRecipe, of_seed
from latentvla_training.planner.pseudo_odometry import pseudo_file, write_motion
from latentvla_training.planner.trunk_pretraining import load_trunk_recipe
from latentvla_training.report import identity, inventory_released
from latentvla_training.report.inventory import inventory
from latentvla_training.report.places import Entry, Places, Section, split_on_disk
from latentvla_training.report.present import Present
from latentvla_training.report.status import print_status
from latentvla_training.teacher.cache import ensure_cache
from latentvla_training.teacher.model import make_teacher
from latentvla_training.teacher.processor import load_processor
from latentvla_training.teacher.release import release
from latentvla_training.teacher.settings import load_teacher_recipe, vision_recipe
from latentvla_training.teacher.training import TeacherRun
from rich.console import Console
from safetensors.numpy import save_file

from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.model.planner import StudentPlanner
from latentvla_ros.runtime.bundle import load_bundle, sha256_of

from ..planner.conftest import SHARD_RECIPE, TINY, make_scene

Document = Callable[..., dict[str, Any]]


@pytest.fixture
def tiny() -> PlannerConfig:
    return TINY


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


def kept(recipe: Any) -> dict[str, Any]:
    """Return a record as it is read again."""
    return yaml.safe_load(yaml.safe_dump(json.loads(json.dumps(asdict(recipe)))))  # type: ignore[no-any-return]


def runs_of(places: Places) -> dict[str, tuple[str, ...]]:
    return {found.cells[0]: found.stale for found in section(places, "Runs").entries}


def test_runs_of_recipes_as_they_are_are_fresh_whatever_their_seed(places: Places) -> None:
    write_split(places, "train")
    scenes = split_on_disk("train", places.data).scenes_id()
    teacher, codebook = load_teacher_recipe("nano"), load_codebook_recipe("nano")
    own = replace(load_recipe("nano"), run=replace(load_recipe("nano").run, seed=3))
    noted = replace(teacher, codebook="mine-0", scenes=str(scenes))
    stage = codebook.stage("environment")
    model, loss = codebook.dynamics("environment")
    gate = load_record(OracleRecipe, "nano", "oracle_codes")
    shared = {"host": "nano-3-0", "codebook": "mine-0"}
    part = split_on_disk("train", places.data).scenes_id(gate.data.max_shards)
    record = ContenderRun(
        contender="oracle_codes", diagnostic="", scenes=str(part),
        settings=of_seed(gate, 1).heads.of("oracle_codes"), **shared,
    )  # fmt: skip
    distill = load_distill_recipe("nano_no_kl")
    records = ContestRecords(
        of_distill_seed(distill, 2), "nano-3-0", PlannerConfig(), str(part), "mine-0",
        Vocabulary(), "t-1",
    )  # fmt: skip
    written = {
        "planner": own,
        "teacher/a": noted,
        "teacher/vision": vision_recipe(noted),
        "trunk": load_trunk_recipe("nano"),
        "pseudo": load_pseudo_recipe("nano"),
        "codebook/a": replace(codebook, seed=1),
        "codebook/a/environment": DynamicsRun(
            "environment", str(scenes), "0", model, loss, stage.optimizer,
            replace(stage.run, seed=1),
        ),
        "oracle_nano/seed1/oracle_codes-mine-0": record,
        "distill/nano/seed2/host": records.plain("host"),
        "distill/nano/seed2/teacher-t-1": records.online(),
        "distill/nano/seed2/reasoner-nano_no_kl-t-1": records.reasoner("0"),
        "distill/nano/seed2/student-nano_no_kl-t-1": records.student("0"),
    }  # fmt: skip
    for name, found in written.items():
        write_run(places, name, kept(found), [])
    assert not any(runs_of(places).values()) and len(runs_of(places)) == len(written) - 1

    # Scenes that are made again, and settings that are no longer those of the recipe.
    write_split(places, "train", hashes={"a": "made again", "b": "train-b"})
    scened = {name for name, why in runs_of(places).items() if any("Scenes" in w for w in why)}
    assert scened == {name for name in runs_of(places) if "scenes" in kept(written[name])}
    write_split(places, "train")
    for name, found in written.items():
        values = kept(found)
        optimizer = values.get("settings", values.get("phase", values)).get("optimizer")
        if optimizer:
            optimizer["clip"] += 1.0
        (places.runs / name / "recipe.yaml").write_text(yaml.safe_dump(values))
    for name, why in runs_of(places).items():
        assert "has changed" in why[0] and "optimizer.clip" in why[0], name


@pytest.mark.parametrize(
    ("beside", "named"),
    [
        ("student-nano_no_kl-t-1", "nano"),
        ("reasoner-nano_scarce_maps-t-1", "nano_scarce_maps"),
        ("teacher-t-1", ""),
    ],
)
def test_a_comparison_that_is_named_otherwise_is_compared_by_its_students_recipe(
    places: Places, beside: str, named: str
) -> None:
    recipe = beside.split("-")[1]
    distill = load_distill_recipe(recipe if named else "nano")
    records = ContestRecords(
        of_distill_seed(distill, 1), "nano_transfuser-step8-0", PlannerConfig(), "", "mine-0",
        Vocabulary(), "t-1",
    )  # fmt: skip
    kinds = {"student": records.student, "reasoner": records.reasoner}
    kind = kinds.get(beside.partition("-")[0], lambda _: records.online())
    family = "distill/nano_transfuser/seed1"
    write_run(places, f"{family}/{beside}", kept(kind("0")), [])
    write_run(places, f"{family}/host", kept(records.plain("host")), [])
    assert not any(runs_of(places).values())
    changed = kept(records.plain("free_queries"))
    changed["settings"]["optimizer"]["clip"] += 1.0
    write_run(places, f"{family}/free_queries", changed, [])
    reasons = runs_of(places)[f"{family}/free_queries"]
    said = f"recipe {named} has changed: settings.optimizer.clip"
    assert (reasons[0].startswith(said) and len(reasons) == 1) if named else not reasons


def test_a_run_on_another_host_than_the_bundles_is_stale(places: Places) -> None:
    shipped = Places().bundles / "nano"
    (places.bundles / "nano").symlink_to(shipped)
    host = load_bundle(shipped).manifest.provenance["start_from"]
    run = {"settings": {"run": {"seed": 0}}, "contender": "x", "scenes": ""}
    for name, own in {"a": host, "b": "nano-1-0123", "c": "mine-1-0123"}.items():
        write_run(places, name, {**run, "host": own}, [])
    found = runs_of(places)
    assert any(why == f"host nano-1-0123, that of the bundle is {host}" for why in found["b"])
    assert not [why for name in ("a", "c") for why in found[name] if why.startswith("host")]


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
