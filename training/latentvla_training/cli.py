"""``latentvla-train``: make the world's data, train, evaluate, export."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from latentvla_ros.contract import ContractError
from latentvla_training.closed_loop.commands import Drive
from latentvla_training.data.commands import Bag, World
from latentvla_training.distill.commands import Distill
from latentvla_training.engine.launch import leave_group
from latentvla_training.engine.run_folder import run_folder
from latentvla_training.latent_action.commands import Codebook
from latentvla_training.pipeline.commands import All
from latentvla_training.planner.commands import (
    Describe,
    OracleCodes,
    PretrainTrunk,
    PseudoOdometry,
)
from latentvla_training.report.commands import Report, Status
from latentvla_training.report.scoring_commands import BenchScoring, ScoreVectors
from latentvla_training.teacher.commands import Teacher


@dataclass(frozen=True)
class Train:
    """Train a recipe; the same command again continues an interrupted run."""

    recipe: str = "nano"
    """Name of a shipped recipe, or a YAML file."""
    run: str = ""
    """Name of the run below runs/, or a folder; the recipe's name by default."""
    processes: int = 1
    """Processes, each with a share of every batch (GPUs, or CPU cores)."""
    seed: int | None = None
    """Of weights, order and augmentation; the recipe's own by default."""
    start_from: str | None = None
    """Name of a run beside this one to begin with; the recipe's own by default, "" for none."""

    def __call__(self) -> int:
        from latentvla_training.data.shards import split_shards
        from latentvla_training.engine.launch import launch, needs_launch
        from latentvla_training.engine.loop import check_folder
        from latentvla_training.engine.recipe import load_recipe

        if self.processes < 1:
            raise ContractError("--processes", self.processes, "at least 1")
        recipe = load_recipe(self.recipe)
        if self.seed is not None:
            recipe = replace(recipe, run=replace(recipe.run, seed=self.seed))
        if self.start_from is not None:
            recipe = replace(recipe, start_from=self.start_from)
        for split in (recipe.data.train_split, recipe.data.val_split):
            split_shards(split)  # what is wrong is said once, before processes start
        folder = run_folder(self.run or recipe.name)
        check_folder(folder, recipe)
        if needs_launch(self.processes):
            return launch(sys.argv[1:], self.processes)
        from latentvla_training.planner.training import train_planner

        train_planner(recipe, folder)
        return 0


@dataclass(frozen=True)
class Evaluate:
    """Compare a bundle with the baselines on held-out networks; absent scenes are made."""

    bundle: str = "nano"
    """Name or path."""
    split: Literal["train", "val", "test", "longtail", "ood"] = "test"
    """Which networks."""
    json: Path | None = None
    """Write the result here, as sums by network for latentvla-train report."""
    baselines: Path | None = None
    """Folder that release-baselines wrote; those that ship by default."""
    backend: Literal["onnxruntime", "torch"] = "onnxruntime"
    """Of the onboard runtime."""
    workers: int | None = None
    """Processes that make absent scenes; one per core by default."""
    record: bool = False
    """Also put the figures into the bundle's manifest."""

    def __call__(self) -> int:
        from latentvla_training.planner.evaluation import evaluate
        from latentvla_training.planner.release import record_metrics

        result = evaluate(
            self.bundle, self.split, self.json, self.backend, self.workers, self.baselines
        )
        if self.record:
            record_metrics(self.bundle, self.split, result)
        return 0


@dataclass(frozen=True)
class Export:
    """Write the bundle of a run, or one of random weights, after a parity check."""

    run: str = "nano"
    """Name of the run below runs/, or a folder."""
    name: str = "nano"
    """Of the bundle."""
    revision: int = 1
    """Of the bundle: its id is NAME-REVISION."""
    out: Path | None = None
    """Folder of the bundle; by default it goes among those that ship."""
    replace: bool = False
    """Take the place of a bundle that ships."""
    random: bool = False
    """Random weights instead of a run; needs --out."""
    cameras: int = 3
    """With --random: cameras around the vehicle."""
    width: int = 256
    """With --random: of the network's input, pixels."""
    height: int = 128
    """With --random: of the network's input, pixels."""
    past: bool = True
    """With --random: also the first camera's view 0.5 s ago."""

    def __call__(self) -> int:
        if self.random:
            from latentvla_ros.contract import View
            from latentvla_training.export.random_bundle import ring_slots, write_random_bundle

            if self.out is None:
                raise ContractError("--out", None, "a folder for the random bundle")
            slots = ring_slots(self.cameras)
            views = tuple(View(slot.name) for slot in slots)
            views += (View("front", -0.5),) if self.past else ()
            print(write_random_bundle(self.out, slots, views, self.width, self.height))
            return 0
        from latentvla_training.planner.release import export_run, shipped
        from latentvla_training.report.shipped import check_replaced

        folder = self.out or shipped(self.name)
        check_replaced(folder, self.replace)
        print(export_run(run_folder(self.run), self.name, folder, revision=self.revision))
        return 0


@dataclass(frozen=True)
class ReleaseBaselines:
    """Train the ego-status net and write it, with the planner of a blank run, for release."""

    blank_run: str = "nano_blank"
    """Name of the run below runs/, or a folder."""
    out: Path | None = None
    """Folder of the two; by default they go where those that ship are."""
    replace: bool = False
    """Take the place of those that ship."""
    seed: int | None = None
    """Of the ego-status net; that of the run by default."""

    def __call__(self) -> int:
        from latentvla_training.planner.release import release_baselines
        from latentvla_training.planner.released import released_folder
        from latentvla_training.report.shipped import check_replaced

        folder = self.out or released_folder()
        check_replaced(folder, self.replace)
        print(release_baselines(run_folder(self.blank_run), folder, self.seed))
        return 0


@dataclass(frozen=True)
class ProbeLights:
    """Fit a linear probe of the own light's state on a bundle's frozen image trunk."""

    bundle: str = "nano"
    """Name or path."""
    json: Path | None = None
    """Write the result here."""
    max_shards: int = 0
    """At most so many training shards; 0 for all."""

    def __call__(self) -> int:
        import json

        from latentvla_ros.runtime.bundle import load_bundle
        from latentvla_training.planner.light_probe import probe_bundle
        from latentvla_training.report.identity import bundle_identity, code_identity, commit

        result = probe_bundle(self.bundle, self.max_shards)
        about = {"world": code_identity()["world"], "commit": commit()}
        result["identity"] = {**bundle_identity(load_bundle(self.bundle)), **about}
        text = json.dumps(result, indent=1)
        print(text)
        if self.json is not None:
            self.json.write_text(text + "\n")
        return 0 if result["passed"] else 1


Commands = (
    Annotated[All, tyro.conf.subcommand("all")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[ReleaseBaselines, tyro.conf.subcommand("release-baselines")]
    | Annotated[ProbeLights, tyro.conf.subcommand("probe-lights")]
    | Annotated[OracleCodes, tyro.conf.subcommand("oracle-codes")]
    | Annotated[PretrainTrunk, tyro.conf.subcommand("pretrain-trunk")]
    | Annotated[PseudoOdometry, tyro.conf.subcommand("pseudo-odometry")]
    | Annotated[Describe, tyro.conf.subcommand("describe")]
    | Codebook
    | Teacher
    | Distill
    | Annotated[World, tyro.conf.subcommand("world")]
    | Annotated[Bag, tyro.conf.subcommand("bag")]
    | Annotated[Drive, tyro.conf.subcommand("drive")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Status, tyro.conf.subcommand("status")]
    | Annotated[ScoreVectors, tyro.conf.subcommand("score-vectors")]
    | Annotated[BenchScoring, tyro.conf.subcommand("bench-scoring")]
)


def main() -> None:
    """Entry point of ``latentvla-train``."""
    command = tyro.cli(
        Commands,
        prog="latentvla-train",
        description=__doc__,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )
    status = run(command)
    leave_group()
    sys.exit(status)


def run(command: Callable[[], int]) -> int | str:
    """Run a subcommand; returns its exit status, or one line that says what is wrong.

    What a user can put right (arguments, files, a full disk) has no traceback; a defect has.
    """
    try:
        return command()
    except KeyboardInterrupt:
        print("latentvla-train: interrupted", file=sys.stderr)
        return 130
    except (ContractError, OSError, FloatingPointError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "; make room and give the same command again" if full else ""
        return "latentvla-train: " + " ".join(str(error).split()) + advice
    except RuntimeError as error:
        from latentvla_training.world.sumo_network import NetworkBuildError

        if isinstance(error, NetworkBuildError):
            return "latentvla-train: " + " ".join(str(error).split())
        raise


if __name__ == "__main__":
    main()
