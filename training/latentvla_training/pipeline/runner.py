"""Goes through the stages of a whole run: what is finished is left, what is not is done."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from latentvla_ros.contract import ContractError
from latentvla_training.engine.folder_lock import alone
from latentvla_training.pipeline.command_process import run_command
from latentvla_training.pipeline.plan import Gate, Plan, Step
from latentvla_training.pipeline.settings import STAGES, StageName

#: So much of the end of a log is shown when a command fails, bytes.
_TAIL = 3000
#: An estimate is corrected by how long commands took once they took this much, seconds.
_TELLING_S = 60.0


@dataclass(frozen=True)
class Listed:
    """A step and whether it is done already.

    Attributes:
        refused: in words, why its command will refuse what is in its folder; empty if it will not.
    """

    stage: StageName
    step: Step
    done: bool
    refused: str = ""


def chosen_stages(first: str, last: str) -> tuple[StageName, ...]:
    """Return the stages from one to another, both included; "" for the first or last of all.

    Raises:
        ContractError: there is no such stage, or the last comes before the first.
    """
    for option, name in (("--from", first), ("--until", last)):
        if name and name not in STAGES:
            raise ContractError(option, name, f"one of {list(STAGES)}")
    start = STAGES.index(first) if first else 0  # type: ignore[arg-type]
    end = STAGES.index(last) if last else len(STAGES) - 1  # type: ignore[arg-type]
    if end < start:
        raise ContractError("--until", last, f"{first} or a later stage")
    return STAGES[start : end + 1]


def listed(plan: Plan, stages: Sequence[StageName]) -> list[Listed]:
    """Return the steps of stages, each with whether it is done, or refused."""
    return [_looked_at(stage, step) for stage in stages for step in plan.steps(stage)]


def _looked_at(stage: StageName, step: Step) -> Listed:
    try:
        return Listed(stage, step, is_done(step))
    except ContractError as error:
        return Listed(stage, step, False, str(error))


def is_done(step: Step) -> bool:
    """Return whether there is nothing left to do; not where what it is made from is absent.

    Raises:
        ContractError: its folder holds something else; names what differs.
    """
    try:
        return step.done()
    except FileNotFoundError:
        return False


def print_plan(plan: Plan, steps: Sequence[Listed], console: Console) -> None:
    """Print steps, what is done of them, and how long the others will take."""
    table = Table("stage", "command: latentvla-train ...", "done", "time", title_justify="left")
    shown: StageName | None = None
    for entry in steps:
        name = "" if entry.stage == shown else entry.stage
        shown = entry.stage
        state = "yes" if entry.done else "REFUSED" if entry.refused else "no"
        if entry.done and entry.step.gate is not None and not entry.step.gate.holds():
            state = "yes, gate missed"
        table.add_row(name, _as_typed(entry.step), state, duration(entry.step.estimate_s))
    console.print(table)
    _say_refused(steps, console)
    for entry in steps:
        for line in _found(entry.step) if entry.done else ():
            _say(console, f"{entry.stage}: {line}")
    left = sum(entry.step.estimate_s for entry in steps if not entry.done)
    minutes = sum(entry.step.minutes for entry in steps if not entry.done)
    console.print(
        f"To do: about {duration(left)} on this machine, {minutes:.0f} minutes of one CPU core; "
        f"{cores()} cores are here, {plan.processes} of them share what can be shared."
    )


def _as_typed(step: Step) -> str:
    """Return a command as it can be typed here: paths below this folder without it."""
    here = f"{Path.cwd()}{os.sep}"
    shown = [argument.removeprefix(here) for argument in step.arguments]
    pairs = zip(step.arguments, shown, strict=True)
    return " ".join(short if os.sep in short else whole for whole, short in pairs)


def _say_refused(steps: Sequence[Listed], console: Console) -> bool:
    """Say which steps are refused and why; return whether any is."""
    refused = [entry for entry in steps if entry.refused]
    for entry in refused:
        _say(console, f"REFUSED: {entry.stage}: {entry.refused}")
    if refused:
        _say(console, "Move away what is in these folders, or take another --root.")
    return bool(refused)


def _found(step: Step) -> list[str]:
    return [] if step.found is None else step.found()


def run_stages(
    plan: Plan,
    stages: Sequence[StageName],
    past_gates: bool,
    console: Console,
    begin: Callable[[], None] | None = None,
) -> int:
    """Run what is not done of some stages; returns the exit status.

    Args:
        past_gates: go on where a gate is missed.
        begin: called once nothing is refused and no other whole run is under way in that place.

    Returns:
        0: all is done. 1: a folder holds something else, a command failed, or a gate is missed and
        ends the run.

    Raises:
        ContractError: another whole run is under way in the same place.
    """
    entries = listed(plan, stages)
    if _say_refused(entries, console):
        return 1
    left = [entry for entry in entries if not entry.done]
    missed: list[Gate] = []
    with alone(plan.layout.out), _Clock(console, [entry.step for entry in left]) as clock:
        if begin is not None:
            begin()
        for number, stage in enumerate(stages, start=1):
            steps = plan.steps(stage)
            for place, step in enumerate(steps, start=1):
                title = f"[{number}/{len(stages)}] {stage}"
                if len(steps) > 1:
                    title += f" {place}/{len(steps)}"
                now = _looked_at(stage, step)
                if _say_refused([now], console):
                    return 1
                if now.done:
                    _say(console, f"{title}: is there")
                elif not _run(plan, stage, step, title, clock, console):
                    return 1
                for line in _found(step):
                    _say(console, f"  {line}")
                if step.gate is not None and not step.gate.holds():
                    missed.append(step.gate)
                    _say(console, f"GATE MISSED: {step.gate.asks} No: {step.gate.result}")
                    if not past_gates:
                        _say(
                            console,
                            "What comes after builds on it, so this is the end; the same command "
                            "with --past-gates goes on.",
                        )
                        return 1
    for gate in missed:
        _say(console, f"Went past a missed gate: {gate.asks} No: {gate.result}")
    return 0


def _run(
    plan: Plan, stage: StageName, step: Step, title: str, clock: _Clock, console: Console
) -> bool:
    """Run a step; returns whether it did what it is for."""
    log = plan.layout.log(stage)
    clock.begin(step, title, log)
    environment = {"LATENTVLA_DATA": str(plan.layout.data)}
    status = run_command(step.arguments, step.processes, log, environment, clock.beat)
    took = clock.end(step)
    if _looked_at(stage, step).done:
        note = "" if status == 0 or step.gate is not None else f", with notes in {log}"
        _say(console, f"{title}: done in {duration(took)}{note}")
        return True
    _say(console, f"{title}: FAILED with status {status} after {duration(took)}")
    _say(console, _tail(log))
    _say(console, f"The whole of it: {log}. The same command goes on from here.")
    return False


def _say(console: Console, text: str) -> None:
    """Print a line as it is: not broken, no brackets taken for styles."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


class _Clock:
    """The time that is left, shown while commands run."""

    def __init__(self, console: Console, steps: Sequence[Step]) -> None:
        self.console = console
        self.left_s = sum(step.estimate_s for step in steps)
        self.total_s = max(self.left_s, 1.0)
        self.expected_s = self.spent_s = 0.0  # of commands that have ended
        self.began, self.step, self.log = 0.0, None, Path()
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(20),
            TextColumn("{task.fields[left]} left"),
            TextColumn("{task.fields[line]}", style="dim", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task: TaskID | None = None

    def __enter__(self) -> _Clock:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    @property
    def pace(self) -> float:
        """Seconds that commands took for each that was expected."""
        telling = self.expected_s > 0.0 and self.spent_s > _TELLING_S
        return self.spent_s / self.expected_s if telling else 1.0

    def remaining_s(self) -> float:
        """Return the seconds that are left, the command at hand included."""
        if self.step is None:
            return self.pace * self.left_s
        own = self.pace * self.step.estimate_s
        here = max(0.0, own - (time.monotonic() - self.began))
        return here + self.pace * max(0.0, self.left_s - self.step.estimate_s)

    def begin(self, step: Step, title: str, log: Path) -> None:
        """Start the clock of a command."""
        self.began, self.step, self.log = time.monotonic(), step, log
        about, all_of_it = duration(self.pace * step.estimate_s), duration(self.remaining_s())
        command = f"latentvla-train {' '.join(step.arguments)}"
        head = f"{title}: about {about}, all that is left about {all_of_it}"
        _say(self.console, f"{head}\n  {command}")
        self.task = self.progress.add_task(title, total=self.total_s, left="", line="")
        self.beat()

    def beat(self) -> None:
        """Show how far the command is."""
        if self.task is not None and self.console.is_terminal:
            self.progress.update(
                self.task,
                completed=self.total_s - min(self.total_s, self.remaining_s()),
                left=duration(self.remaining_s()),
                line=last_line(self.log),
            )

    def end(self, step: Step) -> float:
        """Stop the clock of a command; returns the seconds it took."""
        took = time.monotonic() - self.began
        self.left_s = max(0.0, self.left_s - step.estimate_s)
        self.expected_s += step.estimate_s
        self.spent_s += took
        self.step = None
        if self.task is not None:
            self.progress.remove_task(self.task)
            self.task = None
        return took


def cores() -> int:
    """Return the CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def duration(seconds: float) -> str:
    """Return a length of time for people."""
    if seconds < 90.0:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60.0)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def last_line(log: Path, most: int = 60) -> str:
    """Return the last line of a log; what a progress bar has overwritten does not count."""
    lines = [line.strip() for line in _tail(log).replace("\r", "\n").splitlines()]
    return next((line[:most] for line in reversed(lines) if line), "")


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
