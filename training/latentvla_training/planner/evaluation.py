"""The table of results: a bundle against what needs no cameras, on networks it has never seen.

``latentvla-train evaluate --bundle nano --split test --json F``. Ours is the exported bundle
through the onboard runtime, not the training code's copy of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from latentvla_ros.contract import ContractError, Observation, Plan
from latentvla_ros.runtime.backend import Backend, create_backend
from latentvla_ros.runtime.bundle import Bundle, load_bundle
from latentvla_training.data.image_encoding import decode_views
from latentvla_training.data.make import ensure_split
from latentvla_training.data.shards import ShardReader
from latentvla_training.planner import open_loop
from latentvla_training.planner.baselines import constant_velocity_plans, ego_status_plans
from latentvla_training.planner.released import BlankPlanner, load_baselines

ROWS = ("constant_velocity", "ego_status_mlp", "blank_images", "ours", "ours_wrong_images")

_INPUTS = tuple(name for name in Observation.INPUTS if name != "images")


def network_inputs(reader: ShardReader, index: int) -> dict[str, NDArray[Any]]:
    """Return the inputs of Scene ``index`` but its images, with a batch dimension of 1."""
    return {name: reader.columns[name][index : index + 1] for name in _INPUTS}


def bundle_outputs(
    bundle: Bundle, backend: Backend, reader: ShardReader, pictures: NDArray[np.int64]
) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the outputs (``Plan.OUTPUTS``, batch 1) of every Scene, seen through ``pictures[i]``.

    Raises:
        ContractError: the Scenes' views are not as many as the bundle's.
    """
    manifest = bundle.manifest
    views = reader.columns["view_mask"].shape[1]
    if views != len(manifest.views):
        raise ContractError("scene.views", views, f"{len(manifest.views)}, as bundle {bundle.path}")
    for index, picture in enumerate(pictures):
        jpegs = reader.jpegs(int(picture))
        images = decode_views(jpegs, manifest.image_width, manifest.image_height)
        yield backend.infer({"images": images[None], **network_inputs(reader, index)})


def bundle_plans(
    bundle: Bundle,
    backend: Backend,
    reader: ShardReader,
    pictures: NDArray[np.int64],
    title: str,
) -> NDArray[np.float32]:
    """Return the selected plans (N, 8, 3) of every Scene."""
    from tqdm import tqdm

    outputs = tqdm(
        bundle_outputs(bundle, backend, reader, pictures),
        total=len(reader),
        desc=title,
        unit="scene",
        leave=False,
    )
    return np.stack(
        [
            Plan.from_outputs(*(output[name][0] for name in Plan.OUTPUTS), stamp_ns=0).poses
            for output in outputs
        ]
    )


def blank_plans(planner: BlankPlanner, reader: ShardReader) -> NDArray[np.float32]:
    """Return the plans (N, 8, 3) of the planner that was trained on blank images."""
    plans = []
    for start in range(0, len(reader), 32):
        part = slice(start, start + 32)
        inputs = {name: torch.from_numpy(reader.columns[name][part]) for name in _INPUTS}
        plans.append(planner.plan(inputs).numpy())
    return np.concatenate(plans)


def scene_groups(reader: ShardReader, decision: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    """Return which Scenes belong to which group, to say where cameras decide."""
    columns = reader.columns
    speed, future = columns["ego_dynamics"][:, 0], columns["future_2hz"]
    light, distance = columns["own_light"], columns["own_light_distance_m"]
    near = (light >= 0) & (np.nan_to_num(distance, nan=1e9) <= 50.0)
    command = columns["command"].argmax(axis=1)
    travelled = np.hypot(future[:, -1, 0], future[:, -1, 1])
    return {
        "standing still": (speed < 0.5) & (travelled < 1.0),
        "starting off": (speed < 0.5) & (travelled >= 1.0),
        "stopping": (speed >= 3.0) & (np.hypot(*(future[:, -1] - future[:, -2])[:, :2].T) < 0.5),
        "turning": (command == 0) | (command == 2),
        "light within 50 m, unswitched": near & ~columns["own_light_switched"],
        "light within 50 m, will switch": near & columns["own_light_switched"],
        "no light within 50 m": ~near,
        "decision, unswitched or no light": decision & ~(near & columns["own_light_switched"]),
    }


def evaluate(
    bundle_name: str,
    split: str = "test",
    json_path: Path | None = None,
    backend_name: str = "onnxruntime",
    workers: int | None = None,
) -> dict[str, Any]:
    """Evaluate a bundle and the baselines on a split, print the table, write it as JSON.

    Args:
        bundle_name: name or path. split: its Scenes are made when absent.
        json_path: where to write the result; None for nowhere.
        backend_name: of the runtime.
        workers: processes that make absent Scenes; by default one per core.

    Returns:
        ``scenes``, ``rows`` (by ``ROWS``), ``ratios``, ``groups``, and what was evaluated.

    Raises:
        ContractError: the bundle does not fit the Scenes, or a baseline's file is damaged.
    """
    bundle = load_bundle(bundle_name)
    baselines = load_baselines()
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
    reader = ensure_split(split, workers=workers or os.cpu_count() or 1)
    columns = reader.columns
    backend = create_backend(backend_name)
    backend.load(bundle)
    own = np.arange(len(reader))
    speed, command = columns["ego_dynamics"][:, 0], columns["command"].argmax(axis=1)
    other = open_loop.wrong_scene(speed.astype(np.float64), command, columns["network"])
    plans = {
        "constant_velocity": constant_velocity_plans(reader),
        "ego_status_mlp": ego_status_plans(baselines.ego_status, reader),
        "blank_images": blank_plans(baselines.blank, reader),
        "ours": bundle_plans(bundle, backend, reader, own, "ours"),
        "ours_wrong_images": bundle_plans(bundle, backend, reader, other, "wrong images"),
    }
    backend.close()
    errors = {
        name: open_loop.displacement_errors(
            plans[name], columns["future_2hz"], columns["future_mask"]
        )
        for name in ROWS
    }
    result = _report(errors, reader)
    result |= {"bundle": bundle.manifest.bundle_id, "split": split, "backend": backend_name}
    print_table(result)
    if json_path is not None:
        json_path.write_text(json.dumps(result, indent=1) + "\n")
    return result


def _report(errors: dict[str, open_loop.Errors], reader: ShardReader) -> dict[str, Any]:
    weights = open_loop.network_draws(reader.columns["network"])
    decision = errors["constant_velocity"].ade > open_loop.DECISION_ADE_M
    ours = errors["ours"].ade
    ratios = {}
    for name in ("constant_velocity", "ego_status_mlp", "blank_images"):
        for suffix, chosen in (("", np.ones_like(decision)), ("_decision", decision)):
            if chosen.any():
                ratio, low, high = open_loop.ratio_interval(
                    ours[chosen], errors[name].ade[chosen], weights[:, chosen]
                )
                ratios[f"ours/{name}{suffix}"] = {"ratio": ratio, "ci": [low, high]}
    groups = {
        name: {
            "scenes": int(chosen.sum()),
            **{key: float(np.nanmean(errors[key].ade[chosen])) for key in ROWS},
        }
        for name, chosen in scene_groups(reader, decision).items()
        if chosen.any()
    }
    return {
        "scenes": len(reader),
        "networks": len(np.unique(reader.columns["network"])),
        "decision_scenes": int(decision.sum()),
        "rows": {name: open_loop.row(errors[name], decision, weights) for name in ROWS},
        "ratios": ratios,
        "groups": groups,
    }


def print_table(result: dict[str, Any]) -> None:
    """Print a result of ``evaluate`` for people."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.width = max(console.width, 132)  # also where the output is a file
    table = Table(
        title=f"{result['bundle']} on {result['split']}: {result['scenes']} scenes of "
        f"{result['networks']} networks, {result['decision_scenes']} decision scenes; m over 4 s, "
        "95 % intervals by network"
    )
    for name in ("", "ADE", "FDE", "ADE, decision scenes", "FDE, decision scenes"):
        table.add_column(name, justify="right" if name else "left")
    for name, row in result["rows"].items():
        cells = [
            f"{row[f'{key}{suffix}']:.3f} [{row[f'{key}_ci{suffix}'][0]:.3f}, "
            f"{row[f'{key}_ci{suffix}'][1]:.3f}]"
            for suffix in ("", "_decision")
            for key in ("ade", "fde")
        ]
        table.add_row(name, *cells)
    console.print(table)
    for name, ratio in result["ratios"].items():
        console.print(f"{name}: {ratio['ratio']:.3f} [{ratio['ci'][0]:.3f}, {ratio['ci'][1]:.3f}]")
    groups = Table(title="ADE by group of scenes, m")
    for name in ("group", "scenes", *ROWS):
        groups.add_column(name, justify="left" if name == "group" else "right")
    for name, values in result["groups"].items():
        groups.add_row(name, str(values["scenes"]), *(f"{values[key]:.3f}" for key in ROWS))
    console.print(groups)
