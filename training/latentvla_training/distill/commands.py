"""``latentvla-train distill``: train contenders with a teacher, compare and drive them, export."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from latentvla_ros.contract import ContractError
from latentvla_training.engine.run_folder import RUNS, run_folder
from latentvla_training.planner.commands import load_host

#: The checkout's folder of comparisons.
_FOLDER = RUNS / "distill"

Name = Literal["host", "free_queries", "teacher", "student", "pseudo_trajectories"]


def _as_given(name_or_path: str) -> str:
    """Return a name or a path for a result, which says nothing of where its machine keeps files."""
    path = Path(name_or_path)
    return path.name if path.is_absolute() else name_or_path


def _asked(bundle: str, host_run: str, run: str) -> dict[str, str]:
    """Return by which options a result's host and runs were named."""
    return {
        "bundle": "" if host_run else _as_given(bundle),
        "host_run": _as_given(host_run),
        "run": _as_given(run),
    }


@dataclass(frozen=True)
class DistillTrain:
    """Train contenders from one host on its frozen trunk; the same command again goes on.

    A student learns from the teacher's cached states, codes and, through its pooling, from the
    contender with the teacher online, which is trained first where it is absent. Several GPUs:
    --processes, or accelerate launch.
    """

    codes: str
    """Folder with <split>.safetensors of latentvla-train codebook encode."""
    recipe: str = "nano"
    """Name of a shipped recipe, or a YAML file."""
    teacher: str = "nano"
    """A released teacher, a run below runs/teacher/, or a folder; "" for none."""
    bundle: str = "nano"
    """The host: name or path of a bundle."""
    host_run: str = ""
    """The host: a run below runs/, or a folder, instead of a bundle."""
    contenders: tuple[Name, ...] = ()
    """Which to train; those of the recipe by default."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of weights, order and augmentation."""
    run: str = ""
    """Name below runs/distill/, or a folder, for the runs; the recipe's family by default."""
    cache: Path | None = None
    """Folder of all teachers' caches; data/cache/teacher by default."""
    processes: int = 1
    """Processes, each with a share of every batch (GPUs, or CPU cores)."""

    def __call__(self) -> int:
        from latentvla_training.data.shards import split_shards
        from latentvla_training.distill.settings import load_distill_recipe
        from latentvla_training.engine.launch import launch, needs_launch

        if self.processes < 1:
            raise ContractError("--processes", self.processes, "at least 1")
        recipe = load_distill_recipe(self.recipe)
        # What is wrong is said before another process starts.
        host = load_host(self.bundle, self.host_run)
        for split in (recipe.heads.data.train_split, recipe.heads.data.val_split):
            split_shards(split)
        if needs_launch(self.processes):
            return launch(sys.argv[1:], self.processes)
        from latentvla_training.distill.evaluation import train_all

        folder = run_folder(self.run or recipe.family, _FOLDER)
        train_all(
            host,
            recipe,
            self.codes,
            self.teacher,
            folder,
            self.contenders or recipe.contenders,
            self.seeds,
            self.cache,
        )
        print(f"{folder}: done")
        return 0


@dataclass(frozen=True)
class DistillEvaluate:
    """Score finished contenders on unseen networks: host, free queries, teacher, student."""

    codes: str
    """Folder with <split>.safetensors of latentvla-train codebook encode."""
    recipe: str = "nano"
    """Name of a shipped recipe, or a YAML file."""
    variants: tuple[str, ...] = ()
    """Recipes that go on from it: their students are scored beside. RECIPE@CODES: one that has
    learned other codes without a teacher; CODES is a folder, or a codebook's id."""
    teacher: str = "nano"
    """A released teacher, a run below runs/teacher/, or a folder."""
    bundle: str = "nano"
    """The host: name or path of a bundle."""
    host_run: str = ""
    """The host: a run below runs/, or a folder, instead of a bundle."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """The result is pooled over them."""
    splits: tuple[Literal["val", "test", "longtail", "ood"], ...] = ("test", "longtail", "ood")
    """Where to score."""
    run: str = ""
    """Name below runs/distill/, or a folder, of the runs; the recipe's family by default."""
    cache: Path | None = None
    """Folder of all teachers' caches; data/cache/teacher by default."""
    json: Path | None = None
    """Write the result here; until costs are measured too, scores are kept beside it in a file
    .scored, from which the same command goes on."""

    def __call__(self) -> int:
        from latentvla_training.data.shards import split_shards
        from latentvla_training.distill.evaluation import evaluate
        from latentvla_training.distill.settings import load_distill_recipe
        from latentvla_training.distill.variants import Variant

        recipe = load_distill_recipe(self.recipe)
        variants = [Variant.parse(text) for text in self.variants]
        for split in self.splits:
            split_shards(split)
        result = evaluate(
            load_host(self.bundle, self.host_run),
            recipe,
            self.codes,
            self.teacher,
            run_folder(self.run or recipe.family, _FOLDER),
            variants,
            self.seeds,
            self.splits,
            self.json,
            self.cache,
            asked=_asked(self.bundle, self.host_run, self.run),
        )
        print_result(result)
        return 0


@dataclass(frozen=True)
class DistillDrive:
    """Drive finished contenders in the closed loop, as latentvla-train drive drives a bundle.

    Plans are made from live frames at 10 Hz; the teacher online answers to each of them, which
    takes several times the student's time. Every contender and seed writes a result of its own.
    """

    codes: str
    """Folder with train.safetensors of latentvla-train codebook encode: by it runs are known, no
    code is told to who drives."""
    recipe: str = "nano"
    """Name of a shipped recipe, or a YAML file."""
    teacher: str = "nano"
    """A released teacher, a run below runs/teacher/, or a folder; "" for none."""
    bundle: str = "nano"
    """The host: name or path of a bundle."""
    host_run: str = ""
    """The host: a run below runs/, or a folder, instead of a bundle."""
    contenders: tuple[Name, ...] = ("host", "free_queries", "teacher", "student")
    """Who drives, one after the other."""
    seeds: tuple[int, ...] = (0,)
    """Of the runs; all drive the same routes."""
    run: str = ""
    """Name below runs/distill/, or a folder, of the runs; the recipe's family by default."""
    split: Literal["val", "test", "longtail", "ood"] = "test"
    """Which networks."""
    routes: int = 20
    """How many, one of every network before the second of any."""
    workers: int | None = None
    """Processes; one per core by default."""
    json: Path | None = None
    """Write the result here, whole or not at all. {contender} and {seed} in the name stand for who
    drives; where several do, they must tell the files apart."""
    video: Path | None = None
    """Write one film a route into this folder, below <contender>-s<seed>/."""

    def __call__(self) -> int:
        import os

        from latentvla_training.closed_loop.benchmark import route_names, write_result
        from latentvla_training.closed_loop.report import print_table
        from latentvla_training.closed_loop.routes import RouteSettings
        from latentvla_training.distill.driving import (
            document_of,
            drive_finished,
            load_finished,
        )
        from latentvla_training.distill.evaluation import check_seeds
        from latentvla_training.distill.settings import load_distill_recipe

        workers = os.cpu_count() or 1 if self.workers is None else self.workers
        if workers < 1:
            raise ContractError("--workers", workers, "at least 1")
        names = route_names(self.split, self.routes)
        check_seeds(self.seeds)
        places = self._places()
        recipe, settings = load_distill_recipe(self.recipe), RouteSettings()
        host = load_host(self.bundle, self.host_run)
        folder = run_folder(self.run or recipe.family, _FOLDER)
        drivers = {  # what is wrong with one is said before any drives
            seed: load_finished(
                self.contenders, host, recipe, self.codes, self.teacher, folder, seed
            )
            for seed in self.seeds
        }
        driven = True
        for seed, found in drivers.items():
            for finished in found:
                who = f"{finished.contender}-s{seed}"
                films = None if self.video is None else self.video / who
                result = drive_finished(finished, names, workers, settings, films)
                print_table(result, f"{who} of {recipe.name} on {self.split}")
                place = places[finished.contender, seed]
                if place is not None:
                    about = document_of(finished, self.split, settings, self.teacher)
                    asked = _asked(self.bundle, self.host_run, self.run)
                    write_result(place, result, about | {"asked": asked})
                driven &= bool(result.rows)
        return 0 if driven else 1

    def _places(self) -> dict[tuple[str, int], Path | None]:
        """Return where results go, each of its own; a place that cannot be written is found out."""
        from latentvla_training.data.whole_file import check_writable

        wanted = [(contender, seed) for contender in self.contenders for seed in self.seeds]
        if self.json is None:
            return dict.fromkeys(wanted)
        text = str(self.json)
        places: dict[tuple[str, int], Path | None] = {
            (contender, seed): Path(
                text.replace("{contender}", contender).replace("{seed}", str(seed))
            )
            for contender, seed in wanted
        }
        if len(set(places.values())) != len(wanted):
            expected = "a name with {contender} and {seed}, wherever there are several"
            raise ContractError("--json", text, expected)
        for place in places.values():
            assert place is not None
            check_writable(place)
        return places


@dataclass(frozen=True)
class DistillExport:
    """Write the bundle of a distilled student, after a parity check."""

    run: str
    """A student's folder, the folder of a seed with one student, or its name below runs/distill/
    (nano/seed0)."""
    name: str = "nano"
    """Of the bundle."""
    revision: int = 1
    """Of the bundle: its id is NAME-REVISION."""
    out: Path | None = None
    """Folder of the bundle; by default it goes among those that ship."""
    replace: bool = False
    """Take the place of a bundle that ships."""
    codes: Path | None = None
    """Folder with names.json of latentvla-train codebook encode; by default the codebook's own, or
    the names in a codebook that ships."""
    result: Path | None = None
    """A result of distill evaluate (--splits val) of this student's seed among others: its figures
    beside its host's go into the bundle's manifest."""

    def __call__(self) -> int:
        from latentvla_training.distill.export import export_student
        from latentvla_training.planner.release import shipped
        from latentvla_training.report.shipped import check_replaced

        place = Path(self.run)
        place = place if place.is_dir() else _FOLDER / self.run
        name, revision, out = self.name, self.revision, self.out or shipped(self.name)
        check_replaced(out, self.replace)
        print(export_student(place, name, revision, out, codes=self.codes, result=self.result))
        return 0


Distill = Annotated[
    Annotated[DistillTrain, tyro.conf.subcommand("train")]
    | Annotated[DistillEvaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[DistillDrive, tyro.conf.subcommand("drive")]
    | Annotated[DistillExport, tyro.conf.subcommand("export")],
    tyro.conf.subcommand(
        "distill", description="Put a teacher into a planner that a car can run, and compare."
    ),
]


def print_result(result: dict[str, Any]) -> None:
    """Print the tables of a comparison."""
    from rich.console import Console
    from rich.table import Table

    from latentvla_training.distill import choice, tables

    console = Console()
    console.width = max(console.width, 170)  # also where the output is a file
    for split, found in result["splits"].items():
        head = f"{split}: {found['scenes']} scenes of {found['networks']} networks"
        table = Table(*tables.HEADERS, title=head, title_justify="left")
        for rows in (tables.score_rows, tables.difference_rows, tables.retention_rows):
            for row in rows(found):
                table.add_row(*row)
            table.add_section()
        console.print(table)
        table = Table(*tables.TOKEN_HEADERS)
        for row in tables.token_rows(found):
            table.add_row(*row)
        console.print(table)
        console.print({name: value for name, value in result["goals"][split].items()})
        if split == choice.SPLIT:
            seeds = choice.seed_scores(result)
            for line in (*(seed.line() for seed in seeds), choice.verdict(seeds)):
                console.print(line, markup=False, highlight=False)
    console.print(f"Teacher {result['teacher']}, codes of {result['codebook']}.")
    console.print(tables.gates_line(result["gates"]))
