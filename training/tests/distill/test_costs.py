"""What plans cost: turns within their time, on a machine that is named; scores kept meanwhile."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from latentvla_training.data.shards import load_split
from latentvla_training.distill import measuring
from latentvla_training.distill.costs import ANSWER, plan_costs
from latentvla_training.distill.kept_scores import forget_scores, keep_scores, kept_scores
from latentvla_training.distill.measuring import LEAST_CALLS, in_turn, machine_name
from latentvla_training.distill.pooling import TeacherStates
from latentvla_training.distill.settings import PoolingSettings, StudentSettings
from latentvla_training.distill.student import make_source
from latentvla_training.planner.head_training import NoStates, PlannerOnFeatures, Source
from latentvla_training.planner.losses import LossSettings

from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.model.planner import StudentPlanner

from .conftest import Place

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Clock:
    """Seconds that pass when somebody works."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    process_time = perf_counter = monotonic

    def work(self) -> None:
        self.seconds += 2.0


@pytest.mark.parametrize(("budget_s", "calls"), [(0.0, LEAST_CALLS), (21.0, 6), (1e9, 9)])
def test_no_turn_begins_after_its_time_but_the_least(
    budget_s: float, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(measuring, "time", clock)
    taken = in_turn({"only": clock.work}, 9, budget_s=budget_s)  # a turn takes 4 s
    assert taken["only"].tolist() == [2000.0] * calls


def test_a_gpu_is_waited_for_before_and_after_every_timed_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: done.append(device.type))
    in_turn({"only": lambda: done.append("work")}, 1, device=CUDA)
    assert done == ["work", "cuda", "work", "cuda"]
    done.clear()
    in_turn({"only": lambda: done.append("work")}, 1, device=CPU)
    assert done == ["work", "work"]


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("processor\t: 0\nmodel name\t: EPYC 7: the first\n", "EPYC 7: the first"),
        ("processor\t: 0\nBogoMIPS\t: 2.0\n", "arch"),
    ],
)
def test_a_machine_is_known_by_the_model_of_its_cpu(
    cpuinfo: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: cpuinfo)
    monkeypatch.setattr(measuring.platform, "processor", lambda: "arch")
    assert machine_name(CPU) == name


def rows(place: Place, tiny: PlannerConfig, device: torch.device) -> dict[str, PlannerOnFeatures]:
    """Return contenders that have learned nothing."""
    pooling, none = PoolingSettings(24), LossSettings(auxiliary=0.0)
    width = place.run.teacher.vlm.config.text_config.hidden_size
    found = {}
    for name in ("host", "teacher", "student"):
        planner = StudentPlanner(tiny)
        source: Source = NoStates()
        if name == "teacher":
            source = TeacherStates(width, tiny.width, pooling)
        elif name == "student":
            source = make_source(planner, StudentSettings(), pooling)
        found[name] = PlannerOnFeatures(planner, source, none).to(device)
    return found


@pytest.mark.parametrize("kind", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_result_says_how_often_each_row_was_called_and_where(
    kind: str, place: Place, tiny: PlannerConfig
) -> None:
    if kind == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    made = rows(place, tiny, torch.device(kind))
    costs = plan_costs(made, "host", "student", place.run, load_split("test"), budget_s=0.0)
    assert set(costs["rows"]) == {"host", "teacher", "student", ANSWER}
    assert {cost["calls"] for cost in costs["rows"].values()} == {LEAST_CALLS} == {costs["calls"]}
    assert (costs["machine"], costs["budget_s"]) == (machine_name(CPU), 0.0)
    assert ("gpu" in costs) == (kind == "cuda")
    if "gpu" in costs:
        gpu = costs["gpu"]
        assert gpu["machine"] == torch.cuda.get_device_name()
        assert set(gpu["rows"]) == set(costs["rows"]) and gpu["teacher_by_student"] > 0.0
        for name, cost in gpu["rows"].items():
            assert cost["ms"] > 0.0 and cost["calls"] == LEAST_CALLS, name
            assert cost["peak_mib"] > 0.0
        assert gpu["rows"]["host"]["to_host"] == 1.0


SCORED: dict[str, Any] = {
    "distilled": "nano", "seeds": [0, 1], "identity": {"host": "a", "commit": "c"},
    "gates": {"host": [0.0, 0.0], "student": [0.2, 0.3]}, "splits": {"test": {"rows": {}}},
}  # fmt: skip
ABOUT = {name: SCORED[name] for name in ("distilled", "seeds", "identity")}
GATES = {"host": 0.0, "student": 0.2}


def test_scores_are_kept_until_they_are_forgotten(tmp_path: Path) -> None:
    result = tmp_path / "distill.json"
    assert kept_scores(result, ABOUT, ("test",), GATES) is None
    keep_scores(result, SCORED)
    assert not result.exists()  # a result without costs is none
    later = {**ABOUT, "identity": {"host": "a", "commit": "another"}}
    assert kept_scores(result, later, ("test",), GATES) == SCORED
    forget_scores(result)
    assert kept_scores(result, ABOUT, ("test",), GATES) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("about", "splits", "gates", "named"),
    [
        ({"identity": {"host": "b", "commit": "c"}}, ("test",), GATES, "identity"),
        ({"seeds": [0]}, ("test",), GATES, "seeds"),
        ({}, ("test", "ood"), GATES, "splits"),
        ({}, ("test",), {**GATES, "student": 0.21}, "gates"),
    ],
)
def test_scores_of_another_comparison_are_not_taken_and_it_is_said_why(
    about: dict[str, Any],
    splits: tuple[str, ...],
    gates: dict[str, float],
    named: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    result = tmp_path / "distill.json"
    keep_scores(result, SCORED)
    with caplog.at_level(logging.WARNING):
        assert kept_scores(result, {**ABOUT, **about}, splits, gates) is None
    assert f"({named}): scored anew" in caplog.text
    (tmp_path / "distill.json.scored").write_text(json.dumps([]))
    assert kept_scores(result, ABOUT, ("test",), GATES) is None
