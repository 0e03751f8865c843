"""From a finished run to the codebook that ships, with the figures it has on validation Scenes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from latentvla_training.latent_action.codebook import (
    Codebook,
    load_codebook,
    load_run,
    release,
    released_folder,
)
from latentvla_training.latent_action.dynamics import EGO, ENVIRONMENT
from latentvla_training.report.identity import commit


def release_run(run: Path, folder: Path | None = None) -> Codebook:
    """Write the codebook of a run; returns it as it is loaded again.

    Args:
        folder: where to; by default among those that ship, under the recipe's name.

    Raises:
        FileNotFoundError: the run is not finished.
        ContractError: its codes are not of the shape that later work is made for.
    """
    codebook = load_run(run)
    folder = folder or released_folder() / codebook.recipe.name
    about: dict[str, Any] = {
        "scenes_id": _stage_recipe(run, EGO)["scenes"],
        "commit": commit(),
        "validation": {name: _last_figures(run, name) for name in (ENVIRONMENT, EGO)},
    }
    return load_codebook(release(codebook, folder, about))


def _stage_recipe(run: Path, stage: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((run / stage / "recipe.yaml").read_text())
    return values


def _last_figures(run: Path, stage: str) -> dict[str, float]:
    """Return what a stage was validated at when it ended."""
    lines = (run / stage / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [entry for entry in map(json.loads, lines) if "val/gain" in entry]
    return {
        name.removeprefix("val/"): value
        for name, value in entries[-1].items()
        if name.startswith("val/")
    }
