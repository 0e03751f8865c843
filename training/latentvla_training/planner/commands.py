"""``latentvla-train pretrain-trunk``, ``pseudo-odometry``, ``oracle-codes`` and ``describe``.

Nothing heavy is imported before it runs.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from latentvla_ros.contract import ContractError
from latentvla_training.engine.run_folder import run_folder

if TYPE_CHECKING:
    from latentvla_training.planner.hosts import Host


def load_host(bundle: str, run: str) -> Host:
    """Return the planner that comparisons go on from: of a bundle, or of a run where one is named.

    Args:
        bundle: name or path. run: name below runs/, or a folder; "" for the bundle.

    Raises:
        BundleError, ContractError, FileNotFoundError: see ``bundle_host`` and ``run_host``.
    """
    from latentvla_training.planner.hosts import bundle_host, run_host
    from latentvla_training.planner.release import views_shown

    if not run:
        return bundle_host(bundle)
    host = run_host(run_folder(run))
    return replace(host, views=views_shown(host.data.train_split))


@dataclass(frozen=True)
class OracleCodes:
    """Gate of a codebook: do its true codes, fused into a trained planner, improve its score?

    Four contenders go on from one host and are scored on unseen networks. The same command again
    goes on from where it was interrupted. Exit status 0: the gate is passed.
    """

    codes: str
    """Folder with <split>.safetensors of latentvla-train codebook, or "kinematic" for codes made of
    the driven future itself: what codes can do at best."""
    bundle: str = "nano"
    """The host: name or path of a bundle."""
    host_run: str = ""
    """The host: a run below runs/, or a folder, instead of a bundle."""
    recipe: str = "nano"
    """Name of a shipped recipe of this gate, or a YAML file."""
    seeds: tuple[int, ...] = (0,)
    """Of weights, order and augmentation; the result is pooled over them."""
    splits: tuple[Literal["val", "test", "longtail", "ood"], ...] = ("test", "longtail")
    """Where to score."""
    run: str = ""
    """Name below runs/, or a folder, for the contenders' runs; oracle_RECIPE by default."""
    json: Path | None = None
    """Write the result here, for latentvla-train report."""

    def __call__(self) -> int:
        from latentvla_training.data.shards import split_shards
        from latentvla_training.engine.launch import launch, needs_launch
        from latentvla_training.engine.recipe import load_record
        from latentvla_training.planner.contenders import KINEMATIC
        from latentvla_training.planner.oracle_codes import OracleRecipe

        recipe = load_record(OracleRecipe, self.recipe, "oracle_codes")
        # What is wrong is said before another process starts.
        host = load_host(self.bundle, self.host_run)
        for split in (recipe.data.train_split, recipe.data.val_split, *self.splits):
            split_shards(split)
        if self.codes != KINEMATIC and not Path(self.codes).is_dir():
            raise FileNotFoundError(f"no folder {self.codes} with codes; or --codes {KINEMATIC}")
        if needs_launch(1):
            return launch(sys.argv[1:], 1)
        from latentvla_training.planner.oracle_evaluation import run_gate

        folder = run_folder(self.run or f"oracle_{recipe.name}")
        result = run_gate(host, recipe, self.codes, folder, self.seeds, self.splits, self.json)
        print_gate(result)
        return 0 if result["verdict"]["passed"] else 1


@dataclass(frozen=True)
class Describe:
    """Count a planner's parameters and operations, and how many times as many the teacher's are.

    Both at the pinned shapes: three views of 256x512; three pictures of 252x504 and 60 tokens.
    """

    recipe: str = "base"
    """Name of a shipped recipe, or a YAML file."""
    host: Literal["ipad", "transfuser"] | None = None
    """The recipe's own by default."""
    json: tuple[Path, ...] | None = None
    """Write the figures into this file; without a name, print them as JSON."""
    dry_run: bool = False
    """Also make one training step on random Scenes at full shape: on a GPU where there is one,
    otherwise on the meta device. Where recipes/distill has a recipe of this name, also of its
    contender with the teacher online and of both phases of its student."""

    def __call__(self) -> int:
        from latentvla_training.data.whole_file import write_whole
        from latentvla_training.engine.recipe import load_recipe
        from latentvla_training.planner.describe import as_json, describe

        files = self.json or ()
        if len(files) > 1:
            raise ContractError("--json", [str(file) for file in files], "at most one file")
        recipe = load_recipe(self.recipe)
        if self.host is not None:
            recipe = replace(recipe, model=replace(recipe.model, host=self.host))
        found = describe(recipe)
        for file in files:
            write_whole(file, as_json(found).encode())
        print(as_json(found) if self.json == () else found.lines())
        if self.dry_run:
            from latentvla_training.distill.dry_run import distill_dry_runs
            from latentvla_training.planner.dry_run import dry_run

            out = sys.stderr if self.json == () else sys.stdout
            print(dry_run(recipe).lines(), file=out)
            for found in distill_dry_runs(recipe):
                print(found.lines(), file=out, flush=True)
        return 0


@dataclass(frozen=True)
class PretrainTrunk:
    """Pre-train a planner's image trunk on unlabelled pictures; the same command again goes on."""

    recipe: str = "nano"
    """Name of a shipped recipe, or a YAML file."""
    run: str = ""
    """Name of the run below runs/, or a folder; trunk_RECIPE by default."""
    processes: int = 1
    """Processes, each with a share of every batch (GPUs, or CPU cores)."""

    def __call__(self) -> int:
        from latentvla_training.data.shards import split_shards
        from latentvla_training.engine.launch import launch, needs_launch
        from latentvla_training.planner.trunk_pretraining import load_trunk_recipe, pretrain_trunk

        if self.processes < 1:
            raise ContractError("--processes", self.processes, "at least 1")
        recipe = load_trunk_recipe(self.recipe)
        for split in (recipe.data.train_split, recipe.data.val_split):
            split_shards(split)
        if needs_launch(self.processes):
            return launch(sys.argv[1:], self.processes)
        folder = run_folder(self.run or f"trunk_{recipe.name}")
        pretrain_trunk(recipe, folder)
        print(f"{folder}: done")
        return 0


@dataclass(frozen=True)
class PseudoOdometry:
    """Read how the ego moved off pictures, for drives without odometry: train, then say it of all.

    A net learns which motion lies between two front frames on drives with odometry; what it says of
    all others is a contender's to imitate (distill). The same command again goes on.
    """

    recipe: str = "nano"
    """Name of a shipped recipe, or a YAML file."""
    run: str = ""
    """Name of the run below runs/, or a folder; pseudo_odometry_RECIPE by default."""

    def __call__(self) -> int:
        from latentvla_training.data.shards import split_shards
        from latentvla_training.engine.launch import launch, needs_launch
        from latentvla_training.planner.motion_net import load_pseudo_recipe, train_motion_net
        from latentvla_training.planner.pseudo_odometry import say_motion_of_all

        recipe = load_pseudo_recipe(self.recipe)
        for split in (recipe.data.train_split, recipe.data.val_split):
            split_shards(split)
        if needs_launch(1):
            return launch(sys.argv[1:], 1)
        net = train_motion_net(recipe, run_folder(self.run or f"pseudo_odometry_{recipe.name}"))
        print(say_motion_of_all(net, recipe))
        return 0


def print_gate(result: dict[str, Any]) -> None:
    """Print the tables of a gate and its verdict."""
    from rich.console import Console
    from rich.table import Table

    from latentvla_training.report import oracle_tables

    console = Console()
    console.width = max(console.width, 150)  # also where the output is a file
    for split, found in result["splits"].items():
        title = f"{split}: {found['scenes']} scenes of {found['networks']} networks"
        table = Table(*oracle_tables.HEADERS, title=title, title_justify="left")
        for row in oracle_tables.score_rows(found):
            table.add_row(*row)
        table.add_section()
        for row in oracle_tables.difference_rows(found):
            table.add_row(*row)
        console.print(table)
    opened = {name: gates for name, gates in result["gate_opened"].items() if any(gates)}
    console.print(f"Codes of {result['codebook']}; gates stand at {opened}")
    console.print(oracle_tables.verdict_line(result))
