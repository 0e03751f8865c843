"""``latentvla-train codebook``: train a codebook, release it, encode Scenes, report on it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from latentvla_ros.contract import ContractError
from latentvla_training.engine.run_folder import RUNS, run_folder

if TYPE_CHECKING:
    from latentvla_training.latent_action.codebook import Codebook as LoadedCodebook

#: The checkout's folder of codebook runs.
_RUNS = RUNS / "codebook"
_DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "latent_actions.md"


def _said_of_released(name: str, codebook: LoadedCodebook) -> str:
    """Say which codebook a name or folder stands for, and which run is newer than what ships."""
    from latentvla_training.latent_action.codebook import MANIFEST, codebook_folder, released_folder
    from latentvla_training.report.shipped import newer_run

    folder = codebook_folder(name)
    if folder.parent != released_folder():
        return f"codebook {codebook.codebook_id}, of {folder}"
    said = f"codebook {codebook.codebook_id}, that ships as {folder.name}"
    newer = newer_run(folder / MANIFEST, _RUNS, lambda run: _finished(run, codebook.recipe.name))
    if newer is None:
        return said
    return (
        f"{said}\n{newer} is newer: codebook release --run {newer.name} --out FOLDER, then "
        "--codebook FOLDER"
    )


def _finished(folder: Path, recipe: str) -> Path | None:
    """Return the last checkpoint of a finished run of a recipe, None of any other run."""
    from latentvla_training.engine.checkpoint import CHECKPOINT, checkpoint_step
    from latentvla_training.latent_action.codebook import run_recipe
    from latentvla_training.latent_action.dynamics import EGO

    try:
        found = run_recipe(folder)
        steps = checkpoint_step(folder / EGO)
    except ContractError:  # of another version, or damaged: its own commands say so
        return None
    done = found.name == recipe and steps >= found.stage(EGO).run.steps
    return folder / EGO / CHECKPOINT if done else None


@dataclass(frozen=True)
class Train:
    """Train all stages of a codebook; the same command again continues an interrupted run.

    Stage 0 (frames) is self-supervised on unlabelled front frames, stage 1 (environment) and stage
    2 (ego) on frame pairs and odometry. No language, map or box label is read.
    """

    recipe: str = "nano"
    """Name of a shipped recipe, or a YAML file."""
    run: str = ""
    """Name below runs/codebook/, or a folder; RECIPE-sSEED by default."""
    seed: int | None = None
    """Of all stages; the recipe's own by default."""
    processes: int = 1
    """Processes, each with a share of every batch (GPUs, or CPU cores)."""
    controls: bool = False
    """Also train the controls of the report: codes in one stage, and a continuous bottleneck."""
    stages_of: str = ""
    """Another run (name or folder) whose finished stages are taken where they are the same."""

    def __call__(self) -> int:
        from latentvla_training.data.shards import split_shards
        from latentvla_training.engine.launch import launch, needs_launch
        from latentvla_training.engine.loop import check_folder
        from latentvla_training.latent_action.settings import load_codebook_recipe

        if self.processes < 1:
            raise ContractError("--processes", self.processes, "at least 1")
        recipe = load_codebook_recipe(self.recipe)
        if self.seed is not None:
            recipe = replace(recipe, seed=self.seed)
        for split in (recipe.data.train_split, recipe.data.val_split):
            split_shards(split)  # what is wrong is said once, before processes start
        folder = run_folder(self.run or f"{recipe.name}-s{recipe.seed}", _RUNS)
        check_folder(folder, recipe)
        if needs_launch(self.processes):
            return launch(sys.argv[1:], self.processes)
        from latentvla_training.latent_action.training import CodebookTraining

        stages_of = run_folder(self.stages_of, _RUNS) if self.stages_of else None
        if stages_of is not None and not stages_of.is_dir():
            raise FileNotFoundError(f"--stages-of: no run in {stages_of}")
        CodebookTraining(recipe, folder, stages_of=stages_of).run(self.controls)
        print(f"{folder}: done")
        return 0


@dataclass(frozen=True)
class Release:
    """Write the codebook of a finished run in half precision, with names of its codes.

    Codes are named by how the ego moves on the splits test and val, which are encoded for it.
    """

    run: str = "nano-s0"
    """Name below runs/codebook/, or a folder."""
    out: Path | None = None
    """Folder of the codebook; by default it goes among those that ship, under its recipe's name."""
    replace: bool = False
    """Take the place of a codebook that ships."""

    def __call__(self) -> int:
        from latentvla_training.latent_action.codebook import released_folder, run_recipe
        from latentvla_training.latent_action.release import release_run
        from latentvla_training.report.shipped import check_replaced

        run = run_folder(self.run, _RUNS)
        folder = self.out or released_folder() / run_recipe(run).name
        check_replaced(folder, self.replace)
        codebook = release_run(run, folder)
        print(codebook.codebook_id)
        return 0


@dataclass(frozen=True)
class Name:
    """Name the codes of a released codebook, by how the ego moves on unseen networks.

    The names go into its manifest, in the place of older ones; weights and id stay.
    """

    codebook: str = "nano"
    """Name of a released codebook, or a folder."""

    def __call__(self) -> int:
        from latentvla_training.data.shards import split_shards
        from latentvla_training.latent_action.release import NAMED_SPLITS, name_released

        for split in NAMED_SPLITS:
            split_shards(split)
        names = name_released(self.codebook)
        for code, row in enumerate(zip(*names.names, strict=True)):
            print(f"{code:2d}  {' / '.join(row)}")
        return 0


@dataclass(frozen=True)
class Encode:
    """Write the latent codes of splits and their names, for the teacher and later work."""

    codebook: str = "nano"
    """Name of a released codebook, or a folder."""
    split: tuple[str, ...] = ("train", "val", "test", "longtail", "ood")
    """Which splits; those that are not there are an error."""
    run: str = ""
    """Instead of a codebook a run, by name below runs/codebook/ or folder: an ablation, of another
    vocabulary perhaps, for oracle-codes and students that no teacher teaches."""
    one_stage: bool = False
    """Of the run the control whose codes come from one stage."""

    def __call__(self) -> int:
        from latentvla_training.data.shards import split_shards
        from latentvla_training.engine.launch import launch, needs_launch
        from latentvla_training.latent_action.codebook import (
            load_codebook,
            load_one_stage,
            load_run,
        )
        from latentvla_training.latent_action.encoding import encode_split, vocabulary_of
        from latentvla_training.latent_action.release import names_beside_codes

        if self.one_stage and not self.run:
            raise ContractError("--one-stage", True, "--run, a run that was trained with controls")
        if self.run:
            load = load_one_stage if self.one_stage else load_run
            codebook = load(run_folder(self.run, _RUNS))
        else:
            codebook = load_codebook(self.codebook)
        vocabulary_of(codebook)  # what no later work is made for is said before all else
        for split in self.split:
            split_shards(split)
        if needs_launch(1):
            return launch(sys.argv[1:], 1)
        if self.run:
            print(f"codebook {codebook.codebook_id}, of the run {run_folder(self.run, _RUNS)}")
        else:
            print(_said_of_released(self.codebook, codebook))
        for split in self.split:
            path, made = encode_split(codebook, split)
            print(f"{path}: {'made' if made else 'was there'}")
        if self.run:
            return 0  # of what is never released nobody publishes names
        names = names_beside_codes(codebook, self.split)
        print(f"{names}: made" if names else "no names: see latentvla-train codebook name")
        return 0


@dataclass(frozen=True)
class Report:
    """Judge runs of one recipe on unseen networks and write docs/latent_actions.md.

    Exit status 0: every run passes the gates of its codes.
    """

    runs: tuple[str, ...] = ("nano-s0",)
    """Names below runs/codebook/, or folders: seeds of one recipe. The first is explained."""
    json: Path | None = None
    """Write the figures here; by default beside the Markdown file."""
    out: Path | None = _DOCUMENT
    """The Markdown file; the page of pictures goes beside it."""
    splits: tuple[Literal["val", "test", "longtail", "ood"], ...] = ("test", "val")
    """Networks to judge on; val alone while a recipe is being chosen."""
    ablations: tuple[str, ...] = ()
    """Runs of other recipes, to be compared in a table."""
    train_shards: int = 80
    """Training shards that probes are fitted on, at most."""

    def __call__(self) -> int:
        from latentvla_training.engine.launch import launch, needs_launch
        from latentvla_training.latent_action.codebook import run_recipe
        from latentvla_training.latent_action.report import make_report

        if self.train_shards < 1:
            raise ContractError("--train-shards", self.train_shards, "at least 1")
        folders = [run_folder(name, _RUNS) for name in self.runs]
        ablations = [run_folder(name, _RUNS) for name in self.ablations]
        for folder in (*folders, *ablations):
            run_recipe(folder)
        if needs_launch(1):
            return launch(sys.argv[1:], 1)
        json = self.json or (self.out.with_suffix(".json") if self.out else None)
        result = make_report(
            folders, self.train_shards, json, self.out, ablations=ablations, splits=self.splits
        )
        for figures, passed in zip(result["runs"], result["gates"], strict=True):
            for name, done in passed.items():
                print(f"seed {figures['seed']}: {name}: {'passed' if done else 'NOT passed'}")
        return 0 if all(all(passed.values()) for passed in result["gates"]) else 1


@dataclass(frozen=True)
class Describe:
    """Print parameters, floating-point operations and memory of a recipe; no Scene is needed."""

    recipe: str = "base"
    """Name of a shipped recipe, or a YAML file."""
    dry_run: bool = False
    """Also make one optimiser step of every stage at full shape: on a GPU where there is one,
    otherwise on the meta device."""
    processes: int = 1
    """That share every batch of the dry run."""

    def __call__(self) -> int:
        from latentvla_training.latent_action.cost import describe, dry_run
        from latentvla_training.latent_action.settings import load_codebook_recipe

        if self.processes < 1:
            raise ContractError("--processes", self.processes, "at least 1")
        recipe = load_codebook_recipe(self.recipe)
        print(describe(recipe))
        for step in dry_run(recipe, self.processes) if self.dry_run else ():
            print(step.lines())
        return 0


Codebook = Annotated[
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Release, tyro.conf.subcommand("release")]
    | Annotated[Name, tyro.conf.subcommand("name")]
    | Annotated[Encode, tyro.conf.subcommand("encode")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Describe, tyro.conf.subcommand("describe")],
    tyro.conf.subcommand(
        "codebook",
        description="Latent actions: train, release, name a codebook; encode splits, judge codes.",
    ),
]
