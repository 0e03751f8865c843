"""``latentvla-train teacher`` from end to end with the real classes; mistakes end in one line."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from latentvla_training import cli
from latentvla_training.report import shipped
from latentvla_training.report.places import Places
from latentvla_training.teacher import commands, release
from latentvla_training.teacher.settings import TeacherRecipe
from latentvla_training.teacher.training import train_teacher

from .conftest import CODEBOOK, Place


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setenv("LATENTVLA_LAUNCHED", "1")  # in this process

    def outcome(arguments: str) -> object:
        monkeypatch.setattr(sys, "argv", ["latentvla-train", "teacher", *arguments.split()])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return caught.value.code

    return outcome


def test_smoke_from_end_to_end(
    place: Place, run: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(run)
    folder, codes = place.root / "runs" / "smoke-s0", place.codes
    assert run(f"train --recipe smoke --codes {codes} --run {folder}") == 0
    assert (folder.parent / "smoke-vision" / "checkpoint.pt").is_file()
    assert run(f"train --recipe smoke --codes {codes} --run {folder}") == 0  # nothing left to do
    result, table = place.root / "result.json", place.root / "table.md"
    told = run(f"evaluate --codes {codes} --runs {folder} --json {result} --markdown {table}")
    assert told == 1  # six steps do not beat the nets
    assert table.read_text().startswith("# Teacher smoke on test")
    printed = capsys.readouterr().out
    assert f"{folder}: the run {folder}\n" in printed and f"{folder}: teacher smoke-" in printed
    released = place.root / "released"
    assert run(f"release --run {folder} --out {released} --result {result}") == 0
    assert run(f"cache --teacher {released} --split test --out {place.root / 'cache'}") == 0
    printed = capsys.readouterr().out
    assert "test: 12 Scenes" in printed and f"{released}: the folder {released}\n" in printed
    assert f" of codebook {CODEBOOK}\n" in printed
    assert run(f"cache --teacher {released} --split test --out {place.root / 'cache'}") == 0
    few = f"cache --teacher {released} --out {place.root / 'cache'} --split train test"
    assert run(f"{few} --train-shards 1") == 0
    said = capsys.readouterr().out
    assert "train: 6 Scenes" in said and "test: 12 Scenes" in said
    assert run("describe --recipe smoke --measure --batch-size 2") == 0
    told = capsys.readouterr().out
    assert "GFLOP a Scene" in told and "2 Scenes at once" in told


def test_what_ships_is_named_and_replaced_only_when_asked(
    place: Place,
    recipe: TeacherRecipe,
    run: object,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert callable(run)
    ships = place.root / "ships"
    monkeypatch.setattr(commands, "_RUNS", place.root / "runs")
    monkeypatch.setattr(release, "released_folder", lambda: ships)
    monkeypatch.setattr(shipped, "Places", lambda: Places(released=ships))
    folder, codes = place.root / "runs" / "smoke-s0", place.codes
    train_teacher(recipe, folder, place.root / "vision", codes)
    os.utime(folder / "checkpoint.pt", (1000, 1000))
    shutil.copytree(folder, folder.parent / "smoke-s1")
    assert run("release --run smoke-s0") == 0  # nothing is there yet
    said = run("release --run smoke-s0")
    assert isinstance(said, str) and "--replace" in said and "teacher smoke (seed 0" in said
    assert run("release --run smoke-s0 --replace") == 0

    cache = f"cache --teacher smoke --split test --out {place.root / 'cache'}"
    capsys.readouterr()
    assert run(cache) == 0
    printed = capsys.readouterr().out
    assert "smoke: what ships, teacher smoke (seed 0" in printed and "is newer" not in printed
    os.utime(place.root / "runs" / "smoke-s1" / "checkpoint.pt")
    os.utime(ships / "smoke" / "manifest.json", (2000, 2000))
    assert run(cache) == 0
    assert "smoke-s1 is newer: give smoke-s1 for it\n" in capsys.readouterr().out
    assert run(cache.replace("smoke", "smoke-s0", 1)) == 0
    assert f"smoke-s0: the run {folder}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("train --recipe none --codes x", "expected a YAML file or one of"),
        ("train --recipe bad.yaml --codes x", "surprise"),
        ("train --recipe smoke --codes x --processes 0", "--processes"),
        ("train --recipe smoke --codes x", "no codes at x/train.safetensors"),
        ("train --recipe smoke --codes CODES --model ./none --run ./r", "model.source"),
        ("evaluate --codes CODES --runs nowhere", "no teacher nowhere"),
        ("evaluate --codes CODES --runs a --blind b c", "--blind"),
        ("cache --teacher nowhere --split test", "no teacher nowhere"),
        ("cache --teacher nowhere --split test --train-shards -1", "--train-shards"),
        ("cache --teacher nowhere --split ood", "world make --split ood"),
        ("release --run ./none", "holds no teacher"),
        ("pretrain-vision --recipe base", "vision.enabled"),
        ("describe --recipe base --model ./none", "model.source"),
    ],
)
def test_mistakes_end_in_one_line(
    place: Place,
    run: object,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: str,
    said: str,
) -> None:
    assert callable(run)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text("name: x\nsurprise: 1\n")
    code = run(arguments.replace("CODES", str(place.codes)))
    assert isinstance(code, str)
    assert code.startswith("latentvla-train: ") and "\n" not in code
    assert said in code
