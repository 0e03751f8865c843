"""What a run has noted is read off its log, whatever became of the last line."""

from __future__ import annotations

from pathlib import Path

from latentvla_training.engine.run_log import log_entries, run_cost


def test_last_validation_counts(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "val/loss": 2.0, "cost/cpu_s": 3.0, "cost/peak_gib": 0.5}\n'
        '{"step": 2, "val/loss": 1.0, "cost/cpu_s": 9.0, "cost/peak_gib": 0.75}\n'
        '{"step": 3, "loss/total": 1.0}\n'
        '{"step": 4, "cost/cpu_s": 12.0, "cost/pea'
    )
    assert run_cost(tmp_path) == {"cpu_s": 9.0, "peak_gib": 0.75}
    assert [entry["step"] for entry in log_entries(tmp_path)] == [1, 2, 3]
    assert [entry["step"] for entry in log_entries(tmp_path, 100)] == [3]


def test_nothing_is_known_of_what_noted_nothing(tmp_path: Path) -> None:
    assert run_cost(tmp_path) == {}
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss/total": 1.0}\n')
    assert run_cost(tmp_path) == {}
