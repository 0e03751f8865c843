"""From finished runs to what ships: the bundle of one run, the baselines of others."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from latentvla_ros.contract import ContractError, LatentActionNames, Observation, View
from latentvla_ros.data import data_path
from latentvla_ros.model.planner import StudentPlanner
from latentvla_ros.runtime.bundle import load_bundle, write_manifest
from latentvla_training.data.shard_footer import shard_info
from latentvla_training.data.shards import ShardReader, load_split, split_shards
from latentvla_training.data.usable_shards import usable_shards
from latentvla_training.engine.checkpoint import load_checkpoint, weights_below
from latentvla_training.engine.recipe import SHARES, DataSettings, LoopSettings, Recipe, build
from latentvla_training.export.bundle_writer import make_manifest, write_bundle
from latentvla_training.export.parity import Parity
from latentvla_training.planner.baselines import EgoStatusSettings, train_ego_status
from latentvla_training.planner.released import released_folder, save_blank, save_ego_status
from latentvla_training.report.identity import commit, joined_hash
from latentvla_training.world.rig import default_slots

PARITY_SCENES = 50

#: What a bundle's manifest keeps of a result.
_RECORDED = ("scenes", "networks", "decision_scenes", "rows", "ratios", "differences")

#: Views of the built-in world's cameras, by the recipe's time offsets (world_adapter.NANO_VIEWS).
VIEWS = (View("front"), View("left"), View("right"), View("front", -0.5))


def load_run(folder: Path) -> tuple[Recipe, StudentPlanner, int]:
    """Return the recipe of a run, its averaged planner and the step of its checkpoint.

    Raises:
        FileNotFoundError: the folder holds no run, or one without a checkpoint.
        ContractError: the run is a diagnostic, whose planner was told what no car can know.
    """
    path = folder / "recipe.yaml"
    state = load_checkpoint(folder)
    if not path.is_file() or state is None:
        raise FileNotFoundError(f"{folder} holds no run with a checkpoint")
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    if isinstance(values, dict) and "diagnostic" in values:
        raise ContractError(f"run {folder}", values["diagnostic"], "a planner's run")
    recipe = build(Recipe, values, str(path))
    planner = StudentPlanner(recipe.model)  # beside it are the auxiliary heads, which end here
    planner.load_state_dict(weights_below(state["averaged"], "planner."))
    return recipe, planner.eval(), int(state["step"])


def views_shown(split: str) -> tuple[View, ...]:
    """Return the cameras and times, in order, that Scenes of a split here are recorded with.

    Empty where there are none, or they do not say. A run looks at those of its training split: it
    notes none itself.

    Raises:
        ContractError: Scenes are there and none can be used.
    """
    try:
        paths = usable_shards(split, split_shards(split))
    except FileNotFoundError:
        return ()
    return tuple(View(**view) for view in shard_info(paths[0]).recipe.get("views") or ())


def scene_inputs(
    reader: ShardReader, index: int, planner: StudentPlanner
) -> dict[str, NDArray[Any]]:
    """Return the network inputs of one Scene with a batch dimension of 1."""
    config = planner.config
    images = reader.views(index, config.image_width, config.image_height)
    inputs = {name: reader.columns[name][index : index + 1] for name in Observation.INPUTS[1:]}
    return {"images": images[None], **inputs}


def export_run(
    run: Path, name: str, folder: Path | None = None, split: str = "val", revision: int = 1
) -> Parity:
    """Write the bundle of a run, checked on 50 Scenes of ``split``.

    Args:
        name, revision: of the bundle. folder: where to; by default among the shipped bundles.

    Raises:
        ContractError: torch and ONNX Runtime disagree, or the run cannot see.
    """
    recipe, planner, step = load_run(run)
    if recipe.blank_images:
        raise ContractError("run", recipe.name, "a run with images; see release-baselines")
    return export_planner(
        planner, f"{name}-{revision}", _provenance(recipe, step), folder or shipped(name), split
    )


def shipped(name: str) -> Path:
    """Return the folder of a bundle among those that ship."""
    return data_path() / "bundles" / name


def export_planner(
    planner: StudentPlanner,
    bundle_id: str,
    provenance: dict[str, Any],
    folder: Path,
    split: str = "val",
    codebook_id: str | None = None,
    latent_action_names: LatentActionNames | None = None,
) -> Parity:
    """Write the bundle of a planner, checked on 50 Scenes of ``split``.

    Args:
        codebook_id: of its latent actions; None while they have no meaning.
        latent_action_names: (4, 16) what their codes mean; None where that was not measured.

    Raises:
        ContractError: torch and ONNX Runtime disagree.
    """
    reader = load_split(split)
    chosen = np.linspace(0, len(reader) - 1, min(PARITY_SCENES, len(reader))).astype(int)
    manifest = make_manifest(
        bundle_id, planner.config, default_slots(), VIEWS, provenance=provenance
    )
    inputs = [scene_inputs(reader, int(index), planner) for index in chosen]
    manifest = replace(manifest, codebook_id=codebook_id, latent_action_names=latent_action_names)
    return write_bundle(planner, manifest, folder, inputs)


def record_metrics(bundle_name: str, split: str, result: dict[str, Any]) -> None:
    """Put the figures that a bundle was measured at into its manifest (which no hash covers)."""
    bundle = load_bundle(bundle_name)
    kept = {key: result[key] for key in _RECORDED}
    manifest = bundle.manifest
    write_manifest(replace(manifest, metrics={**manifest.metrics, split: kept}), bundle.path)


def release_baselines(
    blank_run: Path, folder: Path | None = None, seed: int | None = None
) -> dict[str, Any]:
    """Train the ego-status net, take the blank planner of a run, and write both for release.

    The net learns on the drives that the run may read, by the data settings of its recipe: a
    baseline of a regime knows no more than the planners that it stands beside.

    Args:
        blank_run: folder of a run on blank images.
        folder: where to; by default that of the baselines that ship.
        seed: of the ego-status net; by default that of the run.

    Returns:
        the manifest's text about the two.

    Raises:
        ContractError: the run was trained with images.
    """
    recipe, planner, step = load_run(blank_run)
    if not recipe.blank_images:
        raise ContractError("blank_run", recipe.name, "a run with blank_images: true")
    folder = folder or released_folder()
    state = load_checkpoint(blank_run)
    assert state is not None  # load_run read it
    features = state["averaged"]["blank_map"]
    save_blank(planner, features, {"provenance": _provenance(recipe, step)}, folder)
    settings = EgoStatusSettings(seed=recipe.run.seed if seed is None else seed)
    data = recipe.data
    train = load_split(data.train_split).part(
        data.max_shards, data.labelled_share, data.odometry_share
    )
    best = train_ego_status(train, load_split(data.val_split), settings)
    about = {
        **_hidden(data),
        "val_ade_by_drop_ego_state": {str(key): value for key, value in best.val_ade.items()},
        "drop_ego_state": best.drop_ego_state,
        "steps": settings.steps,
        "batch_size": settings.batch_size,
        "seed": settings.seed,
    }
    save_ego_status(best.net, {"width": settings.width, "layers": settings.layers}, about, folder)
    return about


def _provenance(recipe: Recipe, step: int) -> dict[str, Any]:
    """Return what a result was made from: recipe, seed, passes, data, versions, commit."""
    return {
        "recipe": recipe.name,
        "start_from": recipe.start_from,  # passes of that run come on top
        "prior_steps": recipe.run.prior_steps,
        **run_provenance(recipe.data, recipe.run, step),
    }


def run_provenance(data: DataSettings, run: LoopSettings, step: int) -> dict[str, Any]:
    """Return what every run is made from: seed, passes, data, versions, commit."""
    hashes = {}
    for split in (data.train_split, data.val_split):
        reader = load_split(split)
        summary = reader.paths[0].parent / "summary.json"
        hashes[split] = {"scenes": len(reader), "shards": len(reader.paths)}
        if summary.is_file():
            content = json.loads(summary.read_text())
            hashes[split]["content_sha256"] = joined_hash(content.get("hashes", {}))
    return {
        "seed": run.seed,
        "steps": step,
        "passes": step * run.batch_size,
        "data": hashes,
        **_hidden(data),
        "torch": version("torch"),
        "timm": version("timm"),
        "commit": commit(),
    }


def _hidden(data: DataSettings) -> dict[str, float]:
    """Return of which part of the drives something may be read, where it is not all."""
    return {name: share for name in SHARES if (share := getattr(data, name)) < 1.0}
