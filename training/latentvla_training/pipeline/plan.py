"""A whole run: what it is made of and where, and what a command of it and a gate are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentvla_training.engine.checkpoint import CHECKPOINT
from latentvla_training.pipeline import artefacts
from latentvla_training.pipeline.layout import Layout
from latentvla_training.pipeline.settings import StageName, WholeRecipe
from latentvla_training.report.places import json_object

if TYPE_CHECKING:
    from latentvla_training.distill.choice import SeedScores
    from latentvla_training.planner.hosts import Host

#: Stands in a command for the identity of what is not made yet.
UNKNOWN = "<not made yet>"


@dataclass(frozen=True)
class Gate:
    """A verdict that what follows hangs on.

    Attributes:
        asks: what is asked. result: file that holds the answer. passed: reads it.
    """

    asks: str
    result: Path
    passed: Callable[[Mapping[str, Any]], bool]

    def holds(self) -> bool:
        """Return whether the gate is passed; its result is there."""
        return self.passed(json_object(self.result))


@dataclass(frozen=True)
class Step:
    """One command of a stage.

    Attributes:
        arguments: of ``latentvla-train``. done: whether there is nothing left to do for it.
        minutes: of one CPU core, as measured. processes: that share them.
        gate: that it answers; its exit status then says nothing else.
        found: what it found, in lines for people; it is done.
    """

    arguments: tuple[str, ...]
    done: Callable[[], bool]
    minutes: float
    processes: int = 1
    gate: Gate | None = None
    found: Callable[[], list[str]] | None = None

    @property
    def estimate_s(self) -> float:
        """Seconds that it is expected to take."""
        return 60.0 * self.minutes / self.processes


@dataclass(frozen=True)
class Plan:
    """A whole run.

    Attributes:
        recipe, layout: what is made, and where.
        processes: of the commands that share their work among several.
        bundle: a host to go on from instead of training one; "" for none.
    """

    recipe: WholeRecipe
    layout: Layout
    processes: int = 1
    bundle: str = ""

    def steps(self, stage: StageName) -> list[Step]:
        """Return the commands of a stage, as far as what is before it is known."""
        from latentvla_training.pipeline.stages import STEPS

        return STEPS[stage](self)

    @property
    def host_run(self) -> Path:
        """Folder of the run that the host is made of."""
        planner = self.recipe.planner
        name = f"{planner.recipe}_s{planner.seed}" if planner.fine else planner.recipe
        return self.layout.planners / name

    @property
    def host(self) -> str:
        """Name or folder of the bundle that codes and teachers are put into."""
        return self.bundle or str(self.layout.bundle(f"{self.recipe.name}_host"))

    @property
    def codebook_id(self) -> str:
        """Identity of the released codebook."""
        manifest = json_object(self.layout.codebook / artefacts.MANIFEST)
        return str(manifest.get("codebook_id", UNKNOWN))

    @property
    def codes(self) -> str:
        """Folder of the codes that all that follows learns from."""
        return str(self.layout.codes(self.codebook_id))

    @property
    def codebook_runs(self) -> list[Path]:
        """Folders of the codebook's runs."""
        stage = self.recipe.codebook
        return [self.layout.codebook_run(stage.recipe, seed) for seed in stage.seeds]

    @property
    def teacher_runs(self) -> list[Path]:
        """Folders of the teachers' runs."""
        stage = self.recipe.teacher
        return [self.layout.teacher_run(stage.recipe, seed) for seed in stage.seeds]

    def teacher_id(self) -> str:
        """Return the identity of the teacher that is cached and distilled."""
        from latentvla_training.teacher.cache import teacher_id
        from latentvla_training.teacher.training import load_teacher_run

        folder = self.teacher_runs[0]
        if not (folder / CHECKPOINT).is_file():
            return UNKNOWN
        run = load_teacher_run(folder)
        return teacher_id(run.recipe, run.teacher)

    def load_host(self) -> Host:
        """Load the host.

        Raises:
            FileNotFoundError: it is not made yet.
        """
        from latentvla_training.planner.hosts import bundle_host

        if not self.bundle and not (Path(self.host) / artefacts.MANIFEST).is_file():
            raise FileNotFoundError(f"no bundle in {self.host}")
        return bundle_host(self.host)

    @property
    def contest(self) -> Path:
        """Folder of the contenders' runs."""
        from latentvla_training.distill.settings import load_distill_recipe

        return self.layout.contest(load_distill_recipe(self.recipe.distill.recipe).family)

    @property
    def val_result(self) -> Path:
        """File of what the students of all seeds score on validation networks."""
        return self.layout.evidence / "distill_val.json"

    def seeds_on_val(self) -> list[SeedScores]:
        """Return what the student of each seed scores on validation networks; none if not known."""
        from latentvla_training.distill.choice import seed_scores

        result = json_object(self.val_result)
        known = result.get("seeds") == list(self.recipe.distill.seeds)
        return seed_scores(result) if known else []

    def verdict(self) -> list[str]:
        """Return in words what was found of the students on validation networks."""
        from latentvla_training.distill.choice import verdict

        seeds = self.seeds_on_val()
        return [*(seed.line() for seed in seeds), verdict(seeds)] if seeds else []

    def chosen_seed(self) -> int | None:
        """Return the seed whose student becomes the bundle; None where that is not known yet."""
        from latentvla_training.distill.choice import best

        seeds = self.seeds_on_val()
        return best(seeds).seed if seeds else None

    def student_run(self, seed: int, teacher: str) -> Path:
        """Return the folder of the second phase of a student."""
        from latentvla_training.distill.evaluation import seed_folder
        from latentvla_training.distill.runs import student_folders
        from latentvla_training.distill.settings import load_distill_recipe

        recipe = load_distill_recipe(self.recipe.distill.recipe)
        return student_folders(seed_folder(self.contest, seed), recipe, teacher, self.codebook_id)[
            1
        ]

    @property
    def final(self) -> Path:
        """Folder of the bundle that all of this is for."""
        return self.layout.bundle(self.recipe.name)
