"""``latentvla-train distill`` from end to end with the real classes; mistakes end in one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from latentvla_training import cli
from latentvla_training.data.shards import ShardReader, split_folder, write_shard
from latentvla_training.distill import commands, evaluation, tables
from latentvla_training.distill import costs as costs_module
from latentvla_training.distill.export import load_student
from latentvla_training.distill.settings import CONTENDERS, load_distill_recipe
from latentvla_training.engine.checkpoint import load_checkpoint, save_checkpoint
from latentvla_training.engine.recipe import load_recipe
from latentvla_training.latent_action.codes import Vocabulary, load_codes, save_codes
from latentvla_training.planner.contenders import open_splits
from latentvla_training.planner.hosts import Host, bundle_planner

from latentvla_ros.contract import ContractError
from latentvla_ros.runtime.bundle import load_bundle

from .conftest import CODEBOOK, SHARD_RECIPE, Place

ALONE = "name: smoke_alone\nbase: smoke\nstudent: {kl: 0.0, features: 0.0}\n"
VARIANT = "name: smoke_causal\nbase: smoke\nstudent: {autoregressive: true}\n"


def ended(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def other_codes(place: Place, folder: Path) -> Path:
    """Write codes of a codebook of 8 entries for all splits."""
    for path in place.codes.glob("*.safetensors"):
        codes = load_codes(path)
        few = np.where(codes.ego < 0, codes.ego, codes.ego % 8).astype(np.int8)
        vocabulary = Vocabulary(8)
        save_codes(
            folder / path.name,
            replace(codes, codebook_id="eight-0", vocabulary=vocabulary, ego=few, environment=few),
        )
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, host: Host) -> Callable[[str], object]:
    monkeypatch.setenv("LATENTVLA_LAUNCHED", "1")  # in this process
    monkeypatch.setattr(commands, "load_host", lambda *_: host)

    def outcome(arguments: str) -> object:
        words = ["" if word == "NONE" else word for word in arguments.split()]
        monkeypatch.setattr(sys, "argv", ["latentvla-train", "distill", *words])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return caught.value.code

    return outcome


def test_from_training_to_the_bundle(
    place: Place,
    run: Callable[[str], object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pinned = {"ratio": 86.0}  # of the paper's size: counted in test_describe, and not at once
    monkeypatch.setattr("latentvla_training.distill.evaluation.pinned_costs", lambda: pinned)
    variant = tmp_path / "smoke_causal.yaml"
    variant.write_text(VARIANT)
    runs, result = tmp_path / "runs", tmp_path / "results" / "distill.json"
    known = f"--codes {place.codes} --teacher {place.teacher} --run {runs}"
    assert run(f"train --recipe smoke {known} --seeds 0") == 0
    assert run(f"train --recipe {variant} {known} --seeds 0 --contenders student") == 0
    alone, eight = tmp_path / "smoke_alone.yaml", other_codes(place, tmp_path / "eight")
    alone.write_text(ALONE)
    other = f"--codes {eight} --run {runs} --teacher"
    assert run(f"train --recipe {alone} {other} NONE --seeds 0 --contenders student") == 0
    both = f"{variant} {alone}@{eight}"
    told = f"evaluate --recipe smoke --variants {both} {known} --seeds 0 --splits test"
    monkeypatch.setattr(evaluation, "plan_costs", ended)
    assert run(f"{told} --json {result}") == 130
    kept = json.loads((result.parent / "distill.json.scored").read_text())
    assert not result.exists() and "costs" not in kept
    monkeypatch.setattr(evaluation, "plan_costs", partial(costs_module.plan_costs, calls=3))
    with monkeypatch.context() as patched:  # what is kept is not scored again
        patched.setattr(evaluation, "scored_split", ended)
        assert run(f"{told} --json {result}") == 0
    assert [path.name for path in result.parent.iterdir()] == ["distill.json"]
    assert {name: json.loads(result.read_text())[name] for name in kept} == kept
    printed = capsys.readouterr().out
    assert "host + distilled" in printed and "nats from the teacher" in printed
    titles = [
        cells[0]
        for cells in tables.difference_rows(json.loads(result.read_text())["splits"]["test"])
    ]
    assert "host + distilled student, smoke_alone@eight minus host, trained on" in titles
    document = json.loads(result.read_text())
    assert (document["teacher"], document["codebook"]) == (place.teacher_id, CODEBOOK)
    rows = [*CONTENDERS, "student:smoke_causal", "student:smoke_alone@eight"]
    assert document["codebooks"] == {rows[-1]: "eight-0"}
    assert document["contenders"] == rows
    found = document["splits"]["test"]
    assert found["scenes"] == 8 and set(found["rows"]) == {"host_as_given", *rows, "expert"}
    value = found["differences"]["student-host"]["pdms"][0]
    means = [found["rows"][row]["pdms"][0] for row in ("student", "host")]
    assert value == pytest.approx(means[0] - means[1], abs=2e-6)
    assert set(found["tokens"]["student"]) == {"nll", "accuracy", "kl", "agreement"}
    for other_row in ("teacher", rows[-1]):  # no teacher says those codes
        assert set(found["tokens"][other_row]) == {"nll", "accuracy"}
    assert document["gates"]["host"] == [0.0] and document["gates"]["student"] != [0.0]
    assert document["identity"]["recipes"].keys() == {"smoke", "smoke_causal", "smoke_alone"}
    asked = (document["bundle"], document["host_run"], document["run"])
    assert asked == ("nano", "", runs.name)  # no path of this machine
    costs = document["costs"]
    assert costs["calls"] == costs["rows"]["host"]["calls"] == 3
    assert set(costs["rows"]) == {*rows, "teacher_answer"} and costs["pinned"] == pinned
    host, student, online, answer = (
        costs["rows"][row] for row in ("host", "student", "teacher", "teacher_answer")
    )
    for name in ("parameters", "flops", "peak_mib"):
        assert 0 < host[name] < student[name] < online[name] and answer[name] < online[name]
    assert host["cpu_ms"] > 0.0 and host["to_host"] == 1.0 < online["to_host"]
    assert costs["teacher_by_student"]["cpu"] > 0.0
    assert document["examples"]["scenes"] == []  # longtail is not scored here

    seed, out = runs / "seed0", tmp_path / "bundle"
    (student,) = seed.glob("student-smoke-*")
    assert run(f"export --run {student} --name nano --revision 4 --out {out}") == 0
    manifest = load_bundle(str(out)).manifest
    assert (manifest.bundle_id, manifest.codebook_id) == ("nano-4", CODEBOOK)
    assert manifest.provenance["teacher_id"] == place.teacher_id
    assert manifest.provenance["start_from"] == "tiny-1-0123456789abcdef"
    _, planner, _ = load_student(student)
    shipped = bundle_planner(load_bundle(str(out)))
    for name, weight in planner.state_dict().items():
        np.testing.assert_allclose(shipped.state_dict()[name], weight, 2e-3, 2e-3, err_msg=name)
    assert float(torch.tanh(shipped.head.fusion.gate)) != 0.0  # type: ignore[union-attr]
    code = run(f"export --run {seed} --out {out}")
    assert isinstance(code, str) and "name one" in code
    (causal,) = seed.glob("student-smoke_causal-*")
    code = run(f"export --run {causal} --out {out}")
    assert isinstance(code, str) and "parallel" in code
    code = run(f"export --run {seed / 'host'} --out {out}")
    assert isinstance(code, str) and "the second phase of a student" in code


SHARED = """
name: shared
base: smoke
heads: {proposals_only: true, encodings: 2}
student: {features: 0.0, reasoner_width: 48}
"""


def write_host_run(folder: Path, host: Host) -> None:
    """Write the host as a planner's run, which another process can load."""
    smoke = load_recipe("smoke")
    recipe = replace(smoke, model=host.planner.config)
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(asdict(recipe)))))
    weights = {f"planner.{name}": value for name, value in host.planner.state_dict().items()}
    save_checkpoint(folder, {"averaged": weights, "step": recipe.run.steps})


def test_two_processes_share_a_comparison_and_its_caches(
    place: Place, host: Host, tmp_path: Path
) -> None:
    """Of a student's reasoner, what maps to the host's width learns nothing in its first phase."""
    recipe, runs = tmp_path / "shared.yaml", tmp_path / "runs"
    recipe.write_text(SHARED)
    write_host_run(tmp_path / "host", host)
    command = [sys.executable, "-m", "latentvla_training.cli", "distill", "train", "--recipe"]
    command += [str(recipe), "--codes", str(place.codes), "--teacher", str(place.teacher)]
    command += ["--host-run", str(tmp_path / "host"), "--run", str(runs), "--seeds", "0"]
    done = subprocess.run(
        [*command, "--processes", "2"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for split in ("train", "val"):
        made = done.stderr.count(f"encodings of {split}:   0%")
        assert made == 1, f"encodings of {split} made {made} times"
    found = {path.parent.name.partition("-")[0]: path for path in runs.glob("seed0/*/recipe.yaml")}
    assert set(found) == {*CONTENDERS, "reasoner"}
    for path in found.values():
        state = load_checkpoint(path.parent)
        assert state is not None and state["step"] == 2
        assert all(torch.isfinite(value).all() for value in state["averaged"].values())


def test_a_run_looks_at_the_cameras_of_its_scenes_and_at_no_others(
    place: Place, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_host_run(tmp_path / "host", host)
    found = commands.load_host("nano", str(tmp_path / "host"))
    assert [view.slot for view in found.views] == ["front", "left", "right", "front"]
    heads = load_distill_recipe("smoke").heads
    open_splits(found, heads, str(place.codes), ("test",), progress=False)
    root = tmp_path / "data"
    shutil.copytree(place.root / "data" / "scenes", root / "scenes")
    monkeypatch.setenv("LATENTVLA_DATA", str(root))
    swapped = [SHARD_RECIPE["views"][index] for index in (1, 0, 2, 3)]
    for path in split_folder("test").glob("*.parquet"):
        write_shard(path, list(ShardReader([path])), {**SHARD_RECIPE, "views": swapped})
    found = commands.load_host("nano", str(tmp_path / "host"))
    with pytest.raises(ContractError, match=r"left@0, front@0.*front@0, left@0.*rig of the host"):
        open_splits(found, heads, str(place.codes), ("test",), progress=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("train --recipe smoke --codes CODES --processes 0", "--processes"),
        ("train --recipe none --codes CODES", "expected a YAML file or one of"),
        ("train --recipe smoke --codes CODES --teacher nowhere", "no teacher nowhere"),
        ("train --recipe smoke --codes x --teacher TEACHER", "no codes at x/train.safetensors"),
        ("train --recipe smoke --codes CODES --teacher TEACHER --seeds 0 0", "seeds"),
        ("evaluate --recipe smoke --codes CODES --splits ood", "world make --split ood"),
        (
            "evaluate --recipe smoke --variants nano_no_kl --codes CODES --splits test",
            "base of nano_no_kl",
        ),
        ("export --run nowhere", "--replace"),
        ("export --run nowhere --out nowhere", "no students of distill"),
    ],
)
def test_mistakes_end_in_one_line(
    place: Place, run: Callable[[str], object], tmp_path: Path, arguments: str, said: str
) -> None:
    arguments = arguments.replace("CODES", str(place.codes)).replace("TEACHER", str(place.teacher))
    code = run(arguments + ("" if "export" in arguments else f" --run {tmp_path / 'runs'}"))
    assert isinstance(code, str)
    assert code.startswith("latentvla-train: ") and "\n" not in code
    assert said in code
