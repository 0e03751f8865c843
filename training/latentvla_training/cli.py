"""``latentvla-train``: make the world's data, train, evaluate, export."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from latentvla_ros.contract import ContractError
from latentvla_training.scoring.commands import BenchScoring, ScoreVectors


def runs_folder() -> Path:
    """Return ``<repo>/runs``, where runs go by name."""
    return Path(__file__).resolve().parents[2] / "runs"


@dataclass(frozen=True)
class Train:
    """Train a recipe; the same command again continues an interrupted run."""

    recipe: str = "nano"
    """Name of a shipped recipe, or a YAML file."""
    run: str = ""
    """Name of the run below runs/, or a folder; the recipe's name by default."""
    processes: int = 1
    """Processes, each with a share of every batch (GPUs, or CPU cores)."""

    def __call__(self) -> int:
        from latentvla_training.engine.launch import launch, needs_launch

        if needs_launch(self.processes):
            return launch(sys.argv[1:], self.processes)
        from latentvla_training.engine.recipe import load_recipe
        from latentvla_training.planner.training import train_planner

        recipe = load_recipe(self.recipe)
        train_planner(recipe, run_folder(self.run or recipe.name))
        return 0


def run_folder(name_or_path: str) -> Path:
    """Return the folder of a run given by name or path."""
    path = Path(name_or_path)
    return path if path.name != name_or_path else runs_folder() / name_or_path


@dataclass(frozen=True)
class WorldMake:
    """Make the scenes of a split of the built-in world that are not there yet."""

    split: Literal["train", "val", "test"] = "train"
    """Which networks."""
    workers: int = 1
    """Processes."""
    episodes: int | None = None
    """At most so many episodes; the split's own number by default."""

    def __call__(self) -> int:
        from latentvla_training.data.make import make_split

        summary = make_split(self.split, workers=self.workers, max_episodes=self.episodes)
        print(f"{summary.split}: {summary.scenes} scenes in {summary.shards} shards")
        return 1 if summary.failed else 0


Commands = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[WorldMake, tyro.conf.subcommand("world-make")]
    | Annotated[ScoreVectors, tyro.conf.subcommand("score-vectors")]
    | Annotated[BenchScoring, tyro.conf.subcommand("bench-scoring")]
)


def main() -> None:
    """Entry point of ``latentvla-train``."""
    command = tyro.cli(Commands, prog="latentvla-train", description=__doc__)
    try:
        sys.exit(command())
    except (ContractError, FileNotFoundError) as error:
        sys.exit(f"latentvla-train: {error}")


if __name__ == "__main__":
    main()
