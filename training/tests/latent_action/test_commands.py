"""``latentvla-train codebook`` from end to end with the recipe ``smoke``, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from latentvla_training import cli
from latentvla_training.latent_action import codebook, commands
from latentvla_training.latent_action.meaning import Motion, code_meanings, typical_pairs
from latentvla_training.latent_action.report import pool
from latentvla_training.report import shipped
from latentvla_training.report.places import Places


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LATENTVLA_LAUNCHED", "1")  # train here, not in a process of its own
    monkeypatch.chdir(tmp_path)


def outcome(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    monkeypatch.setattr(sys, "argv", ["latentvla-train", "codebook", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code


def test_smoke(
    splits: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Train with controls, release, encode, report."""
    monkeypatch.setattr(commands, "_RUNS", splits / "runs")
    for seed in ("0", "1"):
        arguments = ("train", "--recipe", "smoke", "--seed", seed, "--controls")
        assert outcome(monkeypatch, *arguments) == 0
    run = str(splits / "runs" / "smoke-s0")
    assert outcome(monkeypatch, "release", "--run", run, "--out", str(splits / "book")) == 0
    codebook_id = capsys.readouterr().out.split()[-1]
    arguments = ("encode", "--codebook", str(splits / "book"), "--split", "train", "test")
    assert outcome(monkeypatch, *arguments) == 0
    printed, beside = capsys.readouterr().out, splits / "data" / "codes" / codebook_id
    assert f"codebook {codebook_id}, of {splits / 'book'}\n" in printed
    assert f"{beside / 'test.safetensors'}: was there" in printed  # release has named its codes
    assert f"{beside / 'train.safetensors'}: made" in printed
    assert f"{beside / 'names.json'}: made" in printed
    assert outcome(monkeypatch, "name", "--codebook", str(splits / "book")) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 16 and printed[3].startswith(" 3  ") and printed[3].count(" / ") == 3
    figures, page = splits / "codebook.json", splits / "docs" / "latent_actions.md"
    code = outcome(
        monkeypatch,
        *("report", "--runs", "smoke-s0", "smoke-s1", "--ablations", "smoke-s1"),
        *("--json", str(figures), "--out", str(page)),
    )
    assert code in (0, 1)  # whether so small a codebook passes is not asked
    result = json.loads(figures.read_text())
    assert [one["seed"] for one in result["runs"]] == [0, 1]
    assert set(result["runs"][0]["ego_probe"]) == {
        "ego", "environment", "one_stage", "shuffled", "continuous", "speed_at_t0",
    }  # fmt: skip
    assert set(result["runs"][0]["ahead"]["agent_probe"]) == {"nothing", "ego", "shuffled"}
    assert result["runs"][0]["codebook_id"].startswith("smoke-")
    assert len(result["meanings"]) == 16
    assert {place["name"] for one in result["meanings"] for place in one["at"]} <= {
        "hold", "unclear", "slow", "speed up", "brake", "accelerate",
    }  # fmt: skip
    assert [one["recipe"] for one in result["ablations"]] == ["smoke"]
    text = page.read_text()
    for heading in ("The codebook", "Ablations", "Swapping", "Gates", "What they do not say"):
        assert heading in text
    stages = {"frames", "environment", "ego", "one_stage", "continuous"}
    assert set(result["runs"][0]["costs"]) == stages
    assert result["pooled"]["costs"]["ego"]["cpu_s"]["mean"] > 0
    command = "codebook report --runs smoke-s0 smoke-s1 --train-shards 80 --splits test val"
    assert f"{command} --ablations smoke-s1" in text and result["runs"][0]["codebook_id"] in text
    assert "What a stage costs" in text and "| 2: ego |" in text
    assert "](latent_actions.jpg)" in text and (page.with_suffix(".jpg")).stat().st_size > 10_000
    passed = [all(one.values()) for one in result["gates"]]
    assert (code == 0) == all(passed)


def test_what_ships_is_named_and_replaced_only_when_asked(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ships = finished / "ships"
    monkeypatch.setattr(commands, "_RUNS", finished / "runs")
    monkeypatch.setattr(codebook, "released_folder", lambda: ships)
    monkeypatch.setattr(shipped, "Places", lambda: Places(released=finished))
    run = shutil.copytree(finished / "run", finished / "runs" / "smoke-s0")
    shutil.copytree(run, finished / "runs" / "smoke-s1")
    checkpoints = [path / "ego" / "checkpoint.pt" for path in sorted(run.parent.iterdir())]
    for checkpoint in checkpoints:
        os.utime(checkpoint, (1000, 1000))
    release = ("release", "--run", str(run))
    assert outcome(monkeypatch, *release) == 0  # nothing is there yet
    codebook_id = capsys.readouterr().out.split()[-1]
    said = outcome(monkeypatch, *release)
    assert isinstance(said, str) and "--replace" in said and f"codebook {codebook_id}" in said
    assert outcome(monkeypatch, *release, "--replace") == 0

    encode = ("encode", "--codebook", "smoke", "--split", "test")
    assert outcome(monkeypatch, *encode) == 0
    printed = capsys.readouterr().out
    assert f"codebook {codebook_id}, that ships as smoke\n" in printed
    assert "is newer" not in printed
    os.utime(checkpoints[1])
    os.utime(ships / "smoke" / "manifest.json", (2000, 2000))
    assert outcome(monkeypatch, *encode) == 0
    hint = "smoke-s1 is newer: codebook release --run smoke-s1 --out FOLDER, then --codebook FOLDER"
    assert hint in capsys.readouterr().out
    path = run.parent / "smoke-s1" / "recipe.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "name": "other"}))
    assert outcome(monkeypatch, *encode) == 0
    assert "is newer" not in capsys.readouterr().out  # of another recipe

    assert outcome(monkeypatch, "encode", "--run", "smoke-s0", "--split", "test") == 0
    assert f", of the run {run}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("train --recipe none", "expected a YAML file or one of"),
        ("train --recipe unknown.yaml", "surprise"),
        ("train --recipe smoke --processes 0", "--processes"),
        ("train --recipe smoke --seed -1", "seed"),
        ("release --run ./none", "codebook train"),
        ("encode --codebook ./none", "codebook release"),
        ("report --runs ./none --out none.md", "codebook train"),
        ("report --train-shards 0", "--train-shards"),
        ("describe --processes 0", "--processes"),
    ],
)
def test_mistakes_end_in_one_line(
    splits: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, said: str
) -> None:
    Path("unknown.yaml").write_text("name: x\nsurprise: 1\n")
    code = outcome(monkeypatch, *arguments.split())
    assert isinstance(code, str)
    assert code.startswith("latentvla-train: ") and "\n" not in code
    assert said in code


def test_no_scenes_says_how_to_make_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LATENTVLA_DATA", str(tmp_path / "empty"))
    code = outcome(monkeypatch, "train", "--recipe", "smoke", "--run", "./run")
    assert isinstance(code, str) and "world make --split train" in code


def test_pooling_over_seeds() -> None:
    found = [{"a": 1.0, "b": {"c": [1.0, 2.0]}, "n": 3}, {"a": 3.0, "b": {"c": [2.0, 2.0]}, "n": 3}]
    pooled = pool(found)
    assert pooled["a"] == {"mean": 2.0, "spread": pytest.approx(2**0.5), "runs": 2}
    assert pooled["b"]["c"][0]["mean"] == 1.5 and pooled["b"]["c"][1]["spread"] == 0.0
    assert "n" not in pooled
    assert pool(found[:1])["a"]["spread"] is None


def test_meanings_are_means() -> None:
    codes = np.array([[0, 1], [0, 2], [1, 1]])
    motion = Motion(
        np.array([1.0, 3.0, -2.0]), np.array([0.0, 10.0, 0.0]), np.array([5.0, 7.0, 1.0])
    )
    meanings = code_meanings(codes, motion, 3)
    assert meanings[0]["at"][0]["delta_v"] == 2.0 and meanings[0]["at"][0]["delta_yaw"] == 5.0
    assert meanings[1]["at"][1]["driven"] == 3.0
    assert meanings[2]["at"][0] == {"share": 0.0}
    assert meanings[1]["share"] == pytest.approx(3 / 6)
    episodes = np.array(["a", "a", "b"])
    assert typical_pairs(codes, motion, 0, episodes, 3) in ([0], [1])  # one an episode
