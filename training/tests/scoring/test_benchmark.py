"""The benchmark writes its figures and times distinct plans."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from latentvla_training.scoring import benchmark
from latentvla_training.scoring.vectors import load_vectors


def test_bench_scoring_writes_its_figures(
    vectors_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "BENCHED_SCENES", 1)
    monkeypatch.setattr(benchmark, "PLANS_ON_ONE_SCENE", 16)
    monkeypatch.setattr(benchmark, "BATCH_SCENES", 9)
    monkeypatch.setattr(benchmark, "BATCH_PLANS", 4)
    lines: list[str] = []
    out = tmp_path / "bench.json"
    benchmark.bench_scoring(vectors_folder / "scenes.npz", out, 1, lines.append)
    figures = json.loads(out.read_text())
    assert {"v1_ms_256", "v2_ms_256", "batch_64x64_ms"} <= set(figures)
    assert all(value > 0.0 for value in figures.values())
    assert len(lines) == 1


def test_benchmark_plans_are_distinct(vectors_folder: Path) -> None:
    data = load_vectors(vectors_folder / "scenes.npz")
    plans = benchmark.varied_plans(data, [0, 2], 20)
    assert plans.shape == (2, 20, 8, 3)
    flat = plans.flatten(2)
    distance = torch.cdist(flat, flat) + torch.eye(20)
    assert float(distance.min()) > 0.0
