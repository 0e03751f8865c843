"""Runs: how far, of which recipe, on which host."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
import yaml
from latentvla_training.distill.runs import ContestRecords
from latentvla_training.distill.settings import load_distill_recipe
from latentvla_training.distill.settings import of_seed as of_distill_seed
from latentvla_training.engine.recipe import load_recipe, load_record
from latentvla_training.latent_action.codes import (
    Vocabulary,
)
from latentvla_training.latent_action.settings import load_codebook_recipe
from latentvla_training.latent_action.stages import DynamicsRun
from latentvla_training.planner.contenders import ContenderRun
from latentvla_training.planner.motion_net import load_pseudo_recipe
from latentvla_training.planner.oracle_codes import OracleRecipe, of_seed
from latentvla_training.planner.trunk_pretraining import load_trunk_recipe
from latentvla_training.report.places import Places, split_on_disk
from latentvla_training.teacher.settings import load_teacher_recipe, vision_recipe

from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.runtime.bundle import load_bundle

from .inventory_places import entry, kept, runs_of, section, write_run, write_split


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
