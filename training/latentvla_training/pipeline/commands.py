"""``latentvla-train all``; nothing heavy is imported before it runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from latentvla_ros.contract import ContractError


@dataclass(frozen=True)
class All:
    """Make everything from nothing to the bundle of a distilled student.

    Every stage is a command of its own, which is shown; what is finished is known by what it made,
    so that the same command goes on wherever it was ended, by kill -9 too. A missed gate ends the
    run, because all that follows builds on it: --past-gates goes on. Nothing that ships is
    replaced. Exit status 0: everything is there.
    """

    recipe: str = "nano"
    """Name of a shipped recipe of a whole run, or a YAML file."""
    root: Path | None = None
    """Folder that everything goes below. By default Scenes and the runs of planner and codebook are
    those of the checkout and the rest is in out/all/RECIPE; a recipe that stands apart (smoke) has
    all of it there."""
    start: Annotated[str, tyro.conf.arg(name="from")] = ""
    """Stage to begin with; what is before it must be there."""
    until: str = ""
    """Stage to end with."""
    bundle: str = ""
    """Name or path of a bundle to be the host, instead of training one."""
    past_gates: bool = False
    """Go on where a gate is missed."""
    processes: int = 0
    """Of what several can share (Scenes, the host's training); one per core by default."""
    dry_run: bool = False
    """Show the commands, what is done of them already and how long the rest will take; end."""

    def __call__(self) -> int:
        import os

        from rich.console import Console

        from latentvla_training.pipeline.layout import find_layout
        from latentvla_training.pipeline.overview import note_command
        from latentvla_training.pipeline.plan import Plan
        from latentvla_training.pipeline.runner import (
            chosen_stages,
            cores,
            listed,
            print_plan,
            run_stages,
        )
        from latentvla_training.pipeline.settings import load_whole_recipe

        if self.processes < 0:
            raise ContractError("--processes", self.processes, "at least 1, or 0")
        recipe = load_whole_recipe(self.recipe)
        stages = chosen_stages(self.start, self.until)
        layout = find_layout(recipe, self.root)
        os.environ["LATENTVLA_DATA"] = str(layout.data)
        plan = Plan(recipe, layout, self.processes or cores(), self.bundle)
        console = Console()
        if self.dry_run:
            console.width = max(console.width, 160)  # also where the output is a file
            print_plan(plan, listed(plan, stages), console)
            return 0
        note = partial(note_command, layout, self.recipe, self.bundle)
        status = run_stages(plan, stages, self.past_gates or recipe.past_gates, console, note)
        if status == 0 and stages[-1] in ("bundle", "report"):
            console.print(f"The bundle: {plan.final}", soft_wrap=True)
            for line in plan.verdict()[-1:]:
                console.print(line, soft_wrap=True, markup=False, highlight=False)
        return status
