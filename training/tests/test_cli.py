"""What a user gets wrong ends in one line that names it, with a status other than 0."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from latentvla_training import cli
from latentvla_training.engine import checkpoint

from latentvla_ros.contract import ContractError


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place to work in, without data, and with a file where a folder is wanted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LATENTVLA_DATA", str(tmp_path / "data"))
    (tmp_path / "file").touch()
    recipes = {
        "unknown": "name: x\nsurprise: 1\n",
        "typed": "name: x\nrun: {passes: many}\n",
        "broken": "name: [\n",
        "list": "- name\n",
    }
    for name, text in recipes.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def outcome(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    """What ``latentvla-train`` exits with: a number, or a line that it prints (and 1)."""
    monkeypatch.setattr(sys, "argv", ["latentvla-train", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("train --recipe none", "expected a YAML file or one of"),
        ("train --recipe unknown.yaml", "surprise"),
        ("train --recipe typed.yaml", "run.passes"),
        ("train --recipe broken.yaml", "valid YAML"),
        ("train --recipe list.yaml", "a mapping"),
        ("train --recipe smoke --run new", "world make --split train"),
        ("train --recipe smoke --processes 0", "--processes"),
        ("train --recipe smoke --processes 2", "world make --split train"),
        ("world make --episodes 0", "max_episodes"),
        ("world make --workers 0", "workers"),
        ("world show none", "episode"),
        ("world show nowhere-0000-00", "network"),
        ("world contact-sheet --episodes 99", "--episodes"),
        ("evaluate --bundle none", "bundle"),
        ("evaluate --baselines none", "release-baselines"),
        ("report --results none", "no folder none"),
        ("probe-lights --bundle ./file", "bundle"),
        ("oracle-codes --codes kinematic --recipe none", "expected a YAML file or one of"),
        ("oracle-codes --codes kinematic --bundle none", "bundle"),
        ("oracle-codes --codes kinematic --host-run ./none", "no run"),
        ("oracle-codes --codes none", "world make --split train"),
        ("export --run ./none", "--replace"),
        ("export --run ./none --out ./none", "no run"),
        ("export --random", "--out"),
        ("release-baselines --blank-run ./none", "--replace"),
        ("release-baselines --blank-run ./none --out ./none", "no run"),
        ("bag export nowhere-0000-00 bag", "network"),
        ("bag import ./none scenes.parquet", "rig.yaml"),
        ("bag import ./none scenes.txt", ".parquet"),
        ("score-vectors ./none", "none"),
        ("score-vectors ./file", "npz"),
        ("bench-scoring --vectors ./none", "none"),
    ],
)
def test_mistakes_end_in_one_line(
    monkeypatch: pytest.MonkeyPatch, arguments: str, said: str
) -> None:
    code = outcome(monkeypatch, *arguments.split())
    assert isinstance(code, str)
    assert code.startswith("latentvla-train: ") and "\n" not in code
    assert said in code


def test_a_file_in_the_place_of_the_data_is_named(
    monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    monkeypatch.setenv("LATENTVLA_DATA", str(place / "file"))
    code = outcome(monkeypatch, "train", "--recipe", "smoke")
    assert isinstance(code, str) and str(place / "file") in code


def test_an_unknown_split_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome(monkeypatch, "world", "make", "--split", "none") == 2
    assert "none" in capsys.readouterr().err


def test_defects_keep_their_traceback() -> None:
    def defect() -> int:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        cli.run(defect)


def test_a_full_disk_says_what_to_do() -> None:
    def full() -> int:
        raise OSError(28, "No space left on device")

    assert str(cli.run(full)).endswith(
        "No space left on device; make room and give the same command again"
    )


def test_interrupting_is_no_defect(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    assert cli.run(interrupted) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_full_disk_keeps_the_checkpoint_before(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save_checkpoint(place, {"step": 1, "weights": torch.ones(3)})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(OSError, match="checkpoint not written: No space left"):
        checkpoint.save_checkpoint(place, {"step": 2})
    state = checkpoint.load_checkpoint(place)
    assert state is not None and state["step"] == 1
    assert not list(place.glob("*.part"))


@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_a_damaged_checkpoint_is_named(place: Path, keep: float) -> None:
    path = checkpoint.save_checkpoint(place, {"step": 1, "weights": torch.ones(1000)})
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(ContractError, match=r"checkpoint\.pt.*remove it"):
        checkpoint.load_checkpoint(place)
