"""Files of score-vectors and bench-scoring say by which code, and are whole or as they were."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from latentvla_training.report import scoring_commands
from latentvla_training.report.identity import code_identity
from latentvla_training.report.scoring_commands import BenchScoring, ScoreVectors
from latentvla_training.scoring import benchmark

VECTORS = Path(__file__).parents[1] / "scoring" / "vectors"


def test_the_comparison_says_by_which_scores(tmp_path: Path) -> None:
    out = tmp_path / "new" / "vectors.json"
    command = ScoreVectors(VECTORS / "scenes.npz", VECTORS / "comfort.npz", json=out)
    assert command() == 0
    found = json.loads(out.read_text())
    assert (found["cases"], found["discrete_mismatches"]) == (8 * 8 + 16, 0)
    assert found["identity"]["scoring"] == code_identity()["scoring"]
    assert found["identity"]["commit"]


def test_the_times_say_of_which_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "_measure", lambda *_: dict.fromkeys(_FIGURES, 1.0))
    out = tmp_path / "bench.json"
    assert BenchScoring(VECTORS / "scenes.npz", out)() == 0
    found = json.loads(out.read_text())
    assert found["v1_ms_256"] == 1.0
    assert found["identity"]["scoring"] == code_identity()["scoring"]


_FIGURES = (
    "v1_ms_256", "v2_ms_256", "v1_speedup", "v2_speedup", "batch_64x64_ms",
    "batch_64x64_float32_ms",
)  # fmt: skip


def test_a_full_disk_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "vectors.json"
    out.write_text("before")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(OSError, match=r"vectors\.json not written: No space left"),
        scoring_commands._with_identity(out) as aside,
    ):
        assert aside is not None
        aside.write_text("{}")
    assert out.read_text() == "before" and list(tmp_path.iterdir()) == [out]
