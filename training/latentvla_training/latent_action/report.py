"""``docs/latent_actions.md``: what the codes of some runs mean and what they do not, by command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from latentvla_ros.contract import ContractError
from latentvla_training.data.whole_file import write_whole
from latentvla_training.engine.recipe import different_settings
from latentvla_training.latent_action.codebook import load_codebook, released_folder, run_recipe
from latentvla_training.latent_action.encoding import pair_codes
from latentvla_training.latent_action.evidence import Evidence, RunEvidence, gates
from latentvla_training.latent_action.meaning import (
    Motion,
    code_meanings,
    draw_page,
    one_second,
)
from latentvla_training.latent_action.naming import name_codes
from latentvla_training.latent_action.release import NAMED_SPLITS
from latentvla_training.latent_action.report_page import document
from latentvla_training.report.identity import commit


def make_report(
    runs: Sequence[Path],
    train_shards: int,
    json_path: Path | None = None,
    out: Path | None = None,
    progress: bool = True,
    ablations: Sequence[Path] = (),
    splits: Sequence[str] = NAMED_SPLITS,
) -> dict[str, Any]:
    """Judge finished runs, which differ by seed, and write what is found.

    Args:
        runs: folders. train_shards: that probes are fitted on, at most. json_path: of the figures.
        out: Markdown file; the page of pictures, of the first run, goes beside it.
        ablations: folders of runs of other recipes, to be compared. splits: to judge on.

    Raises:
        FileNotFoundError: a run is not finished. ContractError: they are of several recipes.
    """
    evidence = Evidence.open(train_shards, splits)
    found: list[dict[str, Any]] = []
    meanings: list[dict[str, Any]] = []
    for index, run in enumerate(runs):
        one = RunEvidence(evidence, run, progress)
        found.append(one.figures())
        if index == 0:
            meanings = _meanings(one, None if out is None else _picture(out))
    recipes = sorted({figures["recipe"] for figures in found})
    if len(recipes) != 1:
        raise ContractError("--runs", recipes, "runs of one recipe, of different seeds")
    result = {
        "commit": commit(),
        "train_shards": train_shards,
        "splits": list(splits),
        "ships": shipped(runs[0]),
        "runs": found,
        "pooled": pool(found),
        "gates": [gates(figures) for figures in found],
        "meanings": meanings,
        "ablations": [RunEvidence(evidence, run, progress).summary() for run in ablations],
    }
    if json_path is not None:
        write_whole(json_path, (json.dumps(result, indent=1) + "\n").encode())
    if out is not None:
        write_whole(out, document(result, _picture(out).name).encode())
    return result


def shipped(run: Path) -> dict[str, Any]:
    """Return which codebook of the run's recipe ships, and which settings of it are others.

    Returns:
        ``codebook_id`` and ``other_settings``; {} where none of that name ships.
    """
    recipe = run_recipe(run)
    if not (released_folder() / recipe.name).is_dir():
        return {}
    released = load_codebook(recipe.name)
    return {
        "codebook_id": released.codebook_id,
        "other_settings": different_settings(
            released.recipe, replace(recipe, seed=released.recipe.seed)
        ),
    }


def _picture(out: Path) -> Path:
    return out.with_suffix(".jpg")


def _meanings(one: RunEvidence, picture: Path | None) -> list[dict[str, Any]]:
    """Return what the ego codes of a run mean on unseen networks, and draw the page."""
    scenes, data = one.evidence.scenes["judged"], one.data["judged"]
    codes = pair_codes(one.codebook.ego, data, one.progress)
    chosen = one_second(data.pairs)
    pairs = data.pairs.chosen(chosen)
    motion = Motion.of(scenes, pairs)
    recipe = one.codebook.recipe
    entries = recipe.model.codebook_size
    if picture is not None:
        size = (recipe.frames.source_width, recipe.frames.source_height)
        draw_page(picture, scenes, pairs, codes[chosen], motion, entries, size)
    meanings = code_meanings(codes[chosen], motion, entries)
    networks = scenes.column("network")[data.pairs.earlier]
    names = name_codes(codes, Motion.of(scenes, data.pairs), data.pairs.interval, networks, entries)
    for meaning in meanings:
        for place, row in zip(meaning["at"], names, strict=True):
            place["name"] = row[meaning["code"]]
    return meanings


def pool(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return mean and spread (standard deviation; None of one run) of every figure over runs."""
    pooled: dict[str, Any] = {}
    for name in dict.fromkeys(name for figures in found for name in figures):
        values = [figures[name] for figures in found if figures.get(name) is not None]
        first = next(iter(values), None)
        if isinstance(first, dict):
            pooled[name] = pool(values)
        elif isinstance(first, list) and not isinstance(first[0], list):
            pooled[name] = [
                _mean([entry[place] for entry in values]) for place in range(len(first))
            ]
        elif isinstance(first, float):
            pooled[name] = _mean(values)
    return pooled


def _mean(values: Sequence[float]) -> dict[str, Any]:
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "spread": spread, "runs": len(values)}
