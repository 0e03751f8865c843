"""``latentvla-train teacher``: train, evaluate, cache, release a teacher; say what it costs."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from latentvla_ros.contract import ContractError
from latentvla_training.engine.run_folder import RUNS, run_folder

if TYPE_CHECKING:
    from latentvla_training.teacher.settings import TeacherRecipe

#: The checkout's folder of teachers' runs.
_RUNS = RUNS / "teacher"


def teacher_place(name_or_path: str) -> str | Path:
    """Return what ``load_teacher`` finds a teacher by: a run's folder, or a released one's name."""
    folder = run_folder(name_or_path, _RUNS)
    return folder if (folder / "recipe.yaml").is_file() else name_or_path


def _place_said(name: str) -> str:
    """Say what a teacher's name stands for, and which finished run is newer than what ships."""
    from latentvla_training.report.shipped import identity_of, newer_run
    from latentvla_training.teacher.release import MANIFEST, read_manifest, released_folder

    place = teacher_place(name)
    if isinstance(place, Path):
        return f"{name}: the run {place}"
    manifest = released_folder() / name / MANIFEST
    if not manifest.is_file() or manifest.parent.parent != released_folder():
        return f"{name}: the folder {place}"
    about = read_manifest(manifest.parent)
    said = f"{name}: what ships, {identity_of(about)}"
    recipes = {name, str(about.get("name"))}
    newer = newer_run(manifest, _RUNS, lambda folder: _finished(folder, recipes))
    return said if newer is None else f"{said}\n{newer} is newer: give {newer.name} for it"


def _finished(folder: Path, recipes: Collection[str]) -> Path | None:
    """Return the checkpoint of a finished run of one of these recipes, None of any other run."""
    from latentvla_training.engine.checkpoint import CHECKPOINT, checkpoint_step
    from latentvla_training.engine.loop import run_recipe
    from latentvla_training.teacher.settings import TeacherRecipe

    try:
        found = run_recipe(TeacherRecipe, folder)
        steps = checkpoint_step(folder)
    except ContractError:  # a vision tower, or of another version
        return None
    done = found is not None and found.name in recipes and steps >= found.run.steps
    return folder / CHECKPOINT if done else None


def _recipe(name: str, model: str | None, seed: int | None) -> TeacherRecipe:
    from latentvla_training.teacher.settings import load_teacher_recipe

    recipe = load_teacher_recipe(name)
    if model is not None:
        recipe = replace(recipe, model=replace(recipe.model, source=model))
    if seed is not None:
        recipe = replace(recipe, run=replace(recipe.run, seed=seed))
    return recipe


@dataclass(frozen=True)
class Train:
    """Train a teacher on codes; the same command again continues an interrupted run.

    A recipe with a vision stage first pre-trains the vision tower on unlabelled frames, once for
    all seeds of the recipe. Several GPUs: --processes, or accelerate launch with
    recipes/accelerate/fsdp2.yaml.
    """

    codes: str
    """Folder with <split>.safetensors of latentvla-train codebook encode."""
    recipe: str = "nano"
    """Name of a shipped recipe, or a YAML file."""
    model: str | None = None
    """Name on the hub, a local folder, or "tiny"; the recipe's own by default."""
    run: str = ""
    """Name below runs/teacher/, or a folder; RECIPE-sSEED by default."""
    vision_run: str = ""
    """Run of the vision stage; RECIPE-vision beside the run by default."""
    start_from: str | None = None
    """A run beside it or a released teacher to go on from; the recipe's own by default."""
    seed: int | None = None
    """Of weights, order and augmentation; the recipe's own by default."""
    processes: int = 1
    """Processes, each with a share of every batch (GPUs, or CPU cores)."""

    def __call__(self) -> int:
        from latentvla_training.engine.checkpoint import checkpoint_step
        from latentvla_training.engine.launch import launch, needs_launch
        from latentvla_training.engine.loop import check_folder
        from latentvla_training.teacher.settings import vision_recipe
        from latentvla_training.teacher.training import open_coded_split, with_codes
        from latentvla_training.teacher.vision_pretraining import is_pretrained

        if self.processes < 1:
            raise ContractError("--processes", self.processes, "at least 1")
        recipe = _recipe(self.recipe, self.model, self.seed)
        if self.start_from is not None:
            recipe = replace(recipe, start_from=self.start_from)
        folder = run_folder(self.run or f"{recipe.name}-s{recipe.run.seed}", _RUNS)
        vision = run_folder(self.vision_run, _RUNS) if self.vision_run else None
        vision = vision or folder.parent / f"{recipe.name}-vision"
        codes = Path(self.codes)
        if needs_launch(self.processes):  # what is wrong is said once, before processes start
            train = open_coded_split(recipe.data.train_split, codes, recipe.data)
            val = open_coded_split(recipe.data.val_split, codes)
            recipe = with_codes(recipe, train, val)
            check_folder(folder, recipe)
            if recipe.vision.enabled and not checkpoint_step(folder):
                is_pretrained(vision_recipe(recipe), vision)
            return launch(sys.argv[1:], self.processes)
        from latentvla_training.teacher.training import train_teacher

        train_teacher(recipe, folder, vision, codes)
        print(f"{folder}: done")
        return 0


@dataclass(frozen=True)
class PretrainVision:
    """Pre-train the vision tower of a recipe on unlabelled frames; needs no codes.

    The same command again continues an interrupted run; teacher train does it where it is absent.
    """

    recipe: str = "nano"
    """Name of a shipped recipe, or a YAML file."""
    run: str = ""
    """Name below runs/teacher/, or a folder; RECIPE-vision by default."""
    processes: int = 1
    """Processes, each with a share of every batch (GPUs, or CPU cores)."""

    def __call__(self) -> int:
        from latentvla_training.data.shards import split_shards
        from latentvla_training.engine.launch import launch, needs_launch
        from latentvla_training.engine.loop import check_folder
        from latentvla_training.teacher.settings import vision_recipe

        recipe = _recipe(self.recipe, None, None)
        if not recipe.vision.enabled:
            raise ContractError("vision.enabled", False, "a recipe with a vision stage")
        stage = vision_recipe(recipe)
        for split in (stage.data.train_split, stage.data.val_split):
            split_shards(split)
        folder = run_folder(self.run or f"{recipe.name}-vision", _RUNS)
        check_folder(folder, stage)
        if needs_launch(self.processes):
            return launch(sys.argv[1:], self.processes)
        from latentvla_training.teacher.vision_pretraining import pretrain_vision

        pretrain_vision(stage, folder)
        print(f"{folder}: done")
        return 0


@dataclass(frozen=True)
class Evaluate:
    """Tell how well teachers know the codes of unseen networks, beside all that knows less.

    Exit status 0: they beat counts and the net of ego state and command by 0.1 nat a code, beyond
    the interval.
    """

    codes: str
    """Folder with <split>.safetensors of latentvla-train codebook encode."""
    runs: tuple[str, ...] = ("nano",)
    """Runs below runs/teacher/, folders, or released teachers: seeds of one recipe."""
    split: str = "test"
    """Which Scenes."""
    blind: tuple[str, ...] = ()
    """For each of them a run of a recipe with blank_images: true (nano_blind); none by default."""
    json: Path | None = None
    """Write the sums by network here."""
    markdown: Path | None = None
    """Write the table here too."""

    def __call__(self) -> int:
        from latentvla_training.data.whole_file import write_whole
        from latentvla_training.engine.cost_meter import CostMeter
        from latentvla_training.teacher.evaluation import evaluate_seeds, write_document
        from latentvla_training.teacher.evaluation_table import passed, token_table

        if self.blind and len(self.blind) != len(self.runs):
            raise ContractError("--blind", len(self.blind), f"{len(self.runs)}, one for each run")
        places = {name: teacher_place(name) for name in self.runs}
        blind = [teacher_place(name) for name in self.blind]
        meter = CostMeter()
        for name in places:
            print(_place_said(name))
        results = evaluate_seeds(places, blind, Path(self.codes), self.split)
        table = token_table(results, self.split)
        print(table)
        for name, result in results.items():
            print(f"{name}: teacher {result.identity['teacher_id']}")
        print(f"{self.split}: {meter}")
        if self.json is not None:
            write_document(results, self.split, self.json)
        if self.markdown is not None:
            write_whole(self.markdown, table.encode())
        return 0 if passed(results) else 1


@dataclass(frozen=True)
class Cache:
    """Compute a teacher's states of splits and keep them; an interrupted call is simply repeated.

    Only what is known at t0 is read: no codes, no later frame.
    """

    teacher: str = "nano"
    """A run below runs/teacher/, a folder, or a released teacher."""
    split: tuple[str, ...] = ("train", "val", "test", "longtail", "ood")
    """Which splits; those that are not there are an error."""
    train_shards: int = 0
    """At most so many shards of the training split: those that a comparison reads
    (heads.data.max_shards of its recipe, 120 of nano). 0: all."""
    out: Path | None = None
    """Folder of all caches; data/cache/teacher by default."""

    def __call__(self) -> int:
        from latentvla_training.data.shards import split_shards
        from latentvla_training.engine.cost_meter import CostMeter
        from latentvla_training.teacher.cache import (
            describe_cache,
            ensure_cache,
            scenes_as_shown,
            teacher_id,
        )
        from latentvla_training.teacher.release import load_teacher

        if self.train_shards < 0:
            raise ContractError("--train-shards", self.train_shards, "at least 0")
        for split in self.split:
            split_shards(split)
        run = load_teacher(teacher_place(self.teacher))
        print(_place_said(self.teacher))
        print(f"teacher {teacher_id(run.recipe, run.teacher)} of codebook {run.recipe.codebook}")
        for split in self.split:
            meter = CostMeter()
            reader = scenes_as_shown(run, split, self.train_shards)
            cached = ensure_cache(run, reader, split, self.out)
            print(f"{split}: {describe_cache(cached)}; {meter}")
        return 0


@dataclass(frozen=True)
class Release:
    """Write the teacher of a run in half precision, with its processor and a manifest of hashes."""

    run: str = "nano-s0"
    """Name below runs/teacher/, or a folder."""
    out: Path | None = None
    """Folder of the teacher; by default it goes among those that ship, under its recipe's name."""
    replace: bool = False
    """Take the place of a teacher that ships."""
    result: Path | None = None
    """JSON of teacher evaluate, whose figures go into the manifest."""

    def __call__(self) -> int:
        from latentvla_training.engine.loop import run_recipe
        from latentvla_training.report.shipped import check_replaced
        from latentvla_training.teacher.release import release_run, released_folder
        from latentvla_training.teacher.settings import TeacherRecipe

        run = run_folder(self.run, _RUNS)
        recipe = run_recipe(TeacherRecipe, run)
        if recipe is None:
            raise FileNotFoundError(f"{run} holds no teacher; train it first")
        folder = self.out or released_folder() / recipe.name
        check_replaced(folder, self.replace)
        print(release_run(run, folder, self.result))
        return 0


@dataclass(frozen=True)
class Describe:
    """Print parameters, floating-point operations and memory of a recipe.

    With --measure also one optimiser step of random weights at full shape, where memory allows, and
    the time of all that is done with a Scene.
    """

    recipe: str = "base"
    """Name of a shipped recipe, or a YAML file."""
    model: str | None = None
    """Name on the hub, a local folder, or "tiny"; the recipe's own by default."""
    measure: bool = False
    """Measure on this machine."""
    batch_size: int = 0
    """Scenes at once when measuring; that of the recipe by default."""

    def __call__(self) -> int:
        from latentvla_training.engine.launch import launch, needs_launch
        from latentvla_training.teacher.cost import describe

        recipe = _recipe(self.recipe, self.model, None)
        if self.batch_size < 0:
            raise ContractError("--batch-size", self.batch_size, "at least 1, or 0")
        if self.measure and needs_launch(1):  # as training is started
            return launch(sys.argv[1:], 1)
        print(describe(recipe))
        if self.measure:
            from latentvla_training.teacher.speed import measure

            print(measure(recipe, self.batch_size or recipe.run.batch_size))
        return 0


Teacher = Annotated[
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[PretrainVision, tyro.conf.subcommand("pretrain-vision")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Cache, tyro.conf.subcommand("cache")]
    | Annotated[Release, tyro.conf.subcommand("release")]
    | Annotated[Describe, tyro.conf.subcommand("describe")],
    tyro.conf.subcommand(
        "teacher",
        description="The vision-language teacher: train it on codes, evaluate and cache it.",
    ),
]
