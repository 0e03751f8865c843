"""Stages are left where they are done, gone on with where not; gates and failures end a run."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from latentvla_training.engine.folder_lock import alone
from latentvla_training.pipeline import runner
from latentvla_training.pipeline.layout import Layout
from latentvla_training.pipeline.plan import Gate, Plan, Step
from latentvla_training.pipeline.settings import STAGES, load_whole_recipe
from rich.console import Console

from latentvla_ros.contract import ContractError

CHOSEN = ("world", "planner", "host")


@dataclass(frozen=True)
class ThreeStages(Plan):
    """A plan of three commands, each of which makes a file; the second answers a gate."""

    answer: bool = True

    def steps(self, stage: str) -> list[Step]:
        path = self.layout.out / f"{stage}.json"
        gate = Gate("Is it so?", path, lambda found: bool(found["answer"]))
        return [Step((stage,), path.is_file, 2.0, gate=gate if stage == "planner" else None)]


@dataclass
class Commands:
    """Stands for the processes: makes what commands make, unless told that they fail."""

    answer: bool = True
    fail: str = ""
    ran: list[str] = field(default_factory=list)

    def __call__(
        self,
        arguments: tuple[str, ...],
        processes: int,
        log: Path,
        environment: dict[str, str],
        beat: Callable[[], None],
    ) -> int:
        name = arguments[0]
        self.ran.append(name)
        beat()
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"0 of 9\r{name} says why\n")
        if name == self.fail:
            return 1
        (log.parents[1] / f"{name}.json").write_text(json.dumps({"answer": self.answer}))
        return 0 if self.answer else 1


@pytest.fixture
def plan(tmp_path: Path) -> ThreeStages:
    layout = Layout(tmp_path / "data", tmp_path / "runs", tmp_path / "out")
    return ThreeStages(load_whole_recipe("smoke"), layout)


def go(
    plan: Plan, past_gates: bool = False, begin: Callable[[], None] | None = None
) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=200)
    status = runner.run_stages(plan, CHOSEN, past_gates, console, begin)
    assert isinstance(console.file, io.StringIO)
    return status, console.file.getvalue()


def test_what_is_done_is_left(plan: ThreeStages, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = Commands()
    monkeypatch.setattr(runner, "run_command", commands)
    assert go(plan)[0] == 0 and commands.ran == list(CHOSEN)
    assert go(plan)[0] == 0 and commands.ran == list(CHOSEN)
    (plan.layout.out / "host.json").unlink()
    status, said = go(plan)
    assert status == 0 and commands.ran[3:] == ["host"]
    assert "planner: is there" in said and "all that is left about 2 min" in said


def test_a_failure_ends_the_run_and_is_shown(
    plan: ThreeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = Commands(fail="planner")
    monkeypatch.setattr(runner, "run_command", commands)
    status, said = go(plan)
    assert status == 1 and commands.ran == ["world", "planner"]
    assert "planner says why" in said and str(plan.layout.log("planner")) in said
    commands.fail = ""
    assert go(plan)[0] == 0 and commands.ran[2:] == ["planner", "host"]


def test_a_missed_gate_ends_the_run_unless_told(
    plan: ThreeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = Commands(answer=False)
    monkeypatch.setattr(runner, "run_command", commands)
    status, said = go(plan)
    assert status == 1 and commands.ran == ["world", "planner"]
    assert "GATE MISSED: Is it so? No" in said and "--past-gates" in said
    assert go(plan)[0] == 1 and len(commands.ran) == 2  # known by its result, not asked again
    status, said = go(plan, past_gates=True)
    assert status == 0 and commands.ran[2:] == ["host"]
    assert "Went past a missed gate" in said


def test_one_run_at_a_time(plan: ThreeStages) -> None:
    begun: list[bool] = []
    with (
        alone(plan.layout.out),
        pytest.raises(ContractError, match="under way, process"),
    ):
        go(plan, begin=lambda: begun.append(True))
    assert not begun  # what the other one has noted of itself stays


def test_the_plan_says_what_is_left(plan: ThreeStages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "run_command", Commands(answer=False))
    go(plan)
    console = Console(file=io.StringIO(), width=200)
    runner.print_plan(plan, runner.listed(plan, CHOSEN), console)
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert "yes, gate missed" in said and "about 2 min" in said and "cores are here" in said


def test_what_a_folder_holds_instead_is_named_before_anything_is_begun(
    plan: ThreeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = Commands()
    monkeypatch.setattr(runner, "run_command", commands)

    def refuse() -> bool:
        raise ContractError("run folder X", ["host: 'old' there"], "a run of the same recipe")

    own = ThreeStages.steps
    monkeypatch.setattr(
        ThreeStages,
        "steps",
        lambda self, stage: (
            [replace(step, done=refuse) for step in own(self, stage)]
            if stage == "host"
            else own(self, stage)
        ),
    )
    status, said = go(plan)
    assert status == 1 and commands.ran == []
    assert "REFUSED: host: run folder X" in said and "host: 'old' there" in said
    console = Console(file=io.StringIO(), width=200)
    entries = runner.listed(plan, CHOSEN)
    assert [bool(entry.refused) for entry in entries] == [False, False, True]
    runner.print_plan(plan, entries, console)
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert "REFUSED: host: run folder X" in said and "To do: about 6 min" in said


def test_what_a_step_found_is_said(plan: ThreeStages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "run_command", Commands())
    own = ThreeStages.steps
    monkeypatch.setattr(
        ThreeStages,
        "steps",
        lambda self, stage: [
            replace(step, found=lambda: [f"{stage} says [this]"]) for step in own(self, stage)
        ],
    )
    assert "  planner says [this]" in go(plan)[1]
    console = Console(file=io.StringIO(), width=200)
    runner.print_plan(plan, runner.listed(plan, CHOSEN), console)
    assert isinstance(console.file, io.StringIO)
    assert "planner: planner says [this]" in console.file.getvalue()


def test_commands_are_shown_as_they_can_be_typed_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = (str(tmp_path / "a" / "b"), str(tmp_path / "name"), "/elsewhere/c")
    step = Step(("train", *paths), lambda: False, 1.0)
    assert runner._as_typed(step) == f"train a/b {tmp_path / 'name'} /elsewhere/c"


def test_stages_are_chosen_by_name() -> None:
    assert runner.chosen_stages("", "") == STAGES
    assert runner.chosen_stages("codes", "codes") == ("codes",)
    for first, last, said in (("none", "", "--from"), ("", "none", "--until")):
        with pytest.raises(ContractError, match=said):
            runner.chosen_stages(first, last)
    with pytest.raises(ContractError, match="codes or a later stage"):
        runner.chosen_stages("codes", "world")


def test_what_is_left_follows_the_pace(plan: ThreeStages, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [step for stage in CHOSEN for step in plan.steps(stage)]
    now = [0.0]
    monkeypatch.setattr(runner.time, "monotonic", lambda: now[0])
    clock = runner._Clock(Console(file=io.StringIO()), steps)
    assert clock.remaining_s() == 360.0
    clock.begin(steps[0], "", Path())
    now[0] = 30.0
    assert clock.remaining_s() == 330.0
    now[0] = 240.0  # twice as long as expected
    assert clock.remaining_s() == 240.0
    clock.end(steps[0])
    assert clock.remaining_s() == 480.0


def test_a_log_ends_with_what_is_to_be_seen(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert runner.last_line(log) == ""
    log.write_text("began\n 10%\r 20%\r")
    assert runner.last_line(log) == "20%"
