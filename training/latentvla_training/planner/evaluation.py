"""The table of results: a bundle against what needs no cameras, on networks it has never seen.

``latentvla-train evaluate --bundle nano --split test --json F``. Ours is the exported bundle
through the onboard runtime, not the training code's copy of it. The JSON keeps every figure as sums
by network, which is what ``latentvla-train report`` pools over seeds.
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
from latentvla_training.data.make import ensure_split
from latentvla_training.data.shard_footer import read_shard_info
from latentvla_training.data.shards import ShardReader
from latentvla_training.planner import open_loop
from latentvla_training.planner.augmentation import hide_ego_state
from latentvla_training.planner.baselines import constant_velocity_plans, ego_status_plans
from latentvla_training.planner.evaluation_table import print_table
from latentvla_training.planner.released import Baselines, BlankPlanner, load_baselines
from latentvla_training.planner.scene_groups import DECISION, scene_groups, tag_groups
from latentvla_training.planner.scene_scores import SCORES, score_rows
from latentvla_training.report.identity import (
    bundle_identity,
    code_identity,
    commit,
    scenes_identity,
)
from latentvla_training.report.network_sums import Estimate, NetworkSums, sums_of

#: What the first line of a result file says; the number is raised when the contents change.
SCHEMA = "latentvla open loop 1"

OURS, EXPERT = "ours", "expert"
#: Diagnostics of ours: what it owes to its images, and what to how it has been driven so far.
WRONG_IMAGES, HIDDEN_STATE = "ours_wrong_images", "ours_hidden_state"
BASELINES = ("constant_velocity", "ego_status_mlp", "blank_images")
ROWS = (*BASELINES, OURS, WRONG_IMAGES, HIDDEN_STATE, EXPERT)

#: Figures and rows that groups of Scenes have besides the whole split: result files stay small.
GROUP_FIGURES = {"": ("ade", "epdms"), DECISION: ("ade", "fde", "pdms", "epdms")}
GROUP_ROWS = (*BASELINES, OURS, EXPERT)

_INPUTS = tuple(name for name in Observation.INPUTS if name != "images")


def network_inputs(
    reader: ShardReader, index: int, hide_state: bool = False
) -> dict[str, NDArray[Any]]:
    """Return the inputs of Scene ``index`` but its images, with a batch dimension of 1.

    Args:
        hide_state: without past poses, acceleration and wheel angle, as half of training sees it.
    """
    inputs = {name: reader.columns[name][index : index + 1].copy() for name in _INPUTS}
    if hide_state:
        hide_ego_state(
            inputs["ego_history"],
            inputs["ego_history_mask"],
            inputs["ego_dynamics"],
            inputs["ego_dynamics_mask"],
        )
    return inputs


def check_views(bundle: Bundle, reader: ShardReader) -> None:
    """Check that a bundle was made for the views and pictures of a split.

    Raises:
        ContractError: it was not; both are named.
    """
    manifest = bundle.manifest
    wanted = [f"{view.slot}@{view.time_offset_s:g}" for view in manifest.views]
    info = read_shard_info(reader.paths[0])
    recipe = info.recipe if info is not None else {}
    if "views" in recipe:
        found = [f"{view['slot']}@{view['time_offset_s']:g}" for view in recipe["views"]]
        if found != wanted:
            raise ContractError(
                "scene.views", ", ".join(found), f"{', '.join(wanted)}, as bundle {bundle.path}"
            )
    views = reader.columns["view_mask"].shape[1]
    if views != len(wanted):
        raise ContractError("scene.views", views, f"{len(wanted)}, as bundle {bundle.path}")
    size = (manifest.image_width, manifest.image_height)
    pictures = (recipe.get("image_width", size[0]), recipe.get("image_height", size[1]))
    if pictures != size:
        raise ContractError(
            "scene.image_size", "{}x{}".format(*pictures), "{}x{}".format(*size)
            + f", as bundle {bundle.path}",
        )  # fmt: skip


def bundle_outputs(
    bundle: Bundle,
    backend: Backend,
    reader: ShardReader,
    pictures: NDArray[np.int64],
    hide_state: bool = False,
) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the outputs (``Plan.OUTPUTS``, batch 1) of every Scene, seen through ``pictures[i]``.

    ``hide_state``: see ``network_inputs``.

    Raises:
        ContractError: the Scenes' views are not the bundle's.
    """
    check_views(bundle, reader)
    manifest = bundle.manifest
    for index, picture in enumerate(pictures):
        images = reader.views(int(picture), manifest.image_width, manifest.image_height)
        yield backend.infer({"images": images[None], **network_inputs(reader, index, hide_state)})


def bundle_plans(
    bundle: Bundle,
    backend: Backend,
    reader: ShardReader,
    pictures: NDArray[np.int64],
    title: str,
    hide_state: bool = False,
) -> NDArray[np.float32]:
    """Return the selected plans (N, 8, 3) of every Scene; see ``bundle_outputs``."""
    from tqdm import tqdm

    outputs = tqdm(
        bundle_outputs(bundle, backend, reader, pictures, hide_state),
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


def expert_plans(reader: ShardReader) -> NDArray[np.float32]:
    """Return what the expert drove (N, 8, 3); NaN where a recording ends before 4 s."""
    whole = reader.columns["future_mask"].all(axis=1)
    return np.where(whole[:, None, None], reader.columns["future_2hz"], np.float32(np.nan))


def row_plans(
    bundle: Bundle, backend: Backend, baselines: Baselines, reader: ShardReader
) -> dict[str, NDArray[np.float32]]:
    """Return the plans (N, 8, 3) of every row of ``ROWS``.

    Raises:
        ContractError: the bundle, or the blank planner, was made for other views.
    """
    own = np.arange(len(reader))
    columns = reader.columns
    speed, command = columns["ego_dynamics"][:, 0], columns["command"].argmax(axis=1)
    other = open_loop.wrong_scene(speed.astype(np.float64), command, columns["network"])
    views = len(baselines.blank.planner.config.view_time_offsets_s)
    if views != columns["view_mask"].shape[1]:
        raise ContractError(
            "baselines.blank.views", views, f"{columns['view_mask'].shape[1]}, as the scenes"
        )
    return {
        "constant_velocity": constant_velocity_plans(reader),
        "ego_status_mlp": ego_status_plans(baselines.ego_status, reader),
        "blank_images": blank_plans(baselines.blank, reader),
        OURS: bundle_plans(bundle, backend, reader, own, "ours"),
        WRONG_IMAGES: bundle_plans(bundle, backend, reader, other, "wrong images"),
        HIDDEN_STATE: bundle_plans(bundle, backend, reader, own, "hidden state", hide_state=True),
        EXPERT: expert_plans(reader),
    }


def evaluate(
    bundle_name: str,
    split: str = "test",
    json_path: Path | None = None,
    backend_name: str = "onnxruntime",
    workers: int | None = None,
    baselines_folder: Path | None = None,
) -> dict[str, Any]:
    """Evaluate a bundle and the baselines on a split, print the table, write it as JSON.

    Args:
        bundle_name: name or path. split: its Scenes are made when absent.
        json_path: where to write the result; None for nowhere.
        backend_name: of the runtime.
        workers: processes that make absent Scenes; by default one per core.
        baselines_folder: of ``release-baselines``; by default those that ship.

    Returns:
        ``schema``, ``identity``, ``rows`` (by ``ROWS``), ``ratios``, ``differences``, ``unscored``
        and ``sums`` (``NetworkSums``).

    Raises:
        ContractError: the bundle does not fit the Scenes, or a baseline's file is damaged.
        FileNotFoundError: there are no baselines.
    """
    bundle = load_bundle(bundle_name)
    baselines = load_baselines(baselines_folder)
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
    reader = ensure_split(split, workers=workers or os.cpu_count() or 1)
    check_views(bundle, reader)
    backend = create_backend(backend_name)
    backend.load(bundle)
    plans = row_plans(bundle, backend, baselines, reader)
    backend.close()
    result = {
        "schema": SCHEMA,
        "bundle": bundle.manifest.bundle_id,
        "split": split,
        "backend": backend_name,
        "identity": {
            **bundle_identity(bundle),
            **code_identity(),
            "commit": commit(),
            "data": scenes_identity(reader.paths),
            "baselines": baselines.identity(),
        },
        **evaluation_result(plans, reader),
    }
    print_table(result)
    if json_path is not None:
        write_result(json_path, result)
    return result


def evaluation_result(plans: dict[str, NDArray[np.float32]], reader: ShardReader) -> dict[str, Any]:
    """Return the figures of every row's plans (N, 8, 3), as they go into the JSON."""
    columns = reader.columns
    errors = {
        name: open_loop.displacement_errors(poses, columns["future_2hz"], columns["future_mask"])
        for name, poses in plans.items()
    }
    scores = score_rows(reader, plans)
    values = {
        name: {"ade": found.ade, "fde": found.fde, **scores.rows.get(name, {})}
        for name, found in errors.items()
    }
    for figure in ("ade", "fde"):  # of the expert from itself it says nothing
        del values[EXPERT][figure]
    decision = errors["constant_velocity"].ade > open_loop.DECISION_ADE_M
    groups = {**scene_groups(reader, decision), **tag_groups(reader)}
    sums = sums_of(columns["network"], values, groups, GROUP_FIGURES, GROUP_ROWS)
    return {
        "scenes": len(reader),
        "networks": len(sums.networks),
        "decision_scenes": int(decision.sum()),
        **derived_figures(sums),
        "unscored": {
            "scenes": dict(scores.scenes_unscored),
            "plans": {name: dict(found) for name, found in scores.plans_unscored.items() if found},
        },
        "sums": sums.to_json(),
    }


def derived_figures(sums: NetworkSums) -> dict[str, Any]:
    """Return means, ratios of ADE and paired differences with 95 % intervals by network."""
    rows: dict[str, dict[str, Any]] = {name: {} for name in ROWS}
    for group, suffix in (("all", ""), (DECISION, f"_{DECISION}")):
        for figure in sums.figures(group):
            for name in ROWS:
                mean = sums.mean(name, figure, group)
                if np.isfinite(mean.value):
                    rows[name][f"{figure}{suffix}"] = _rounded(mean.value)
                    if figure in ("ade", "fde", *SCORES):
                        rows[name][f"{figure}_ci{suffix}"] = _interval(mean)
    ratios, differences = {}, {}
    for other in BASELINES:
        for group, suffix in (("all", ""), (DECISION, f"_{DECISION}")):
            ratio = sums.ratio(OURS, other, "ade", group)
            if np.isfinite(ratio.value):
                ratios[f"{OURS}/{other}{suffix}"] = {
                    "ratio": _rounded(ratio.value),
                    "ci": _interval(ratio),
                }
        differences[f"{OURS}-{other}"] = {
            figure: {"difference": _rounded(found.value), "ci": _interval(found)}
            for figure in ("ade", *SCORES)
            if np.isfinite((found := sums.difference(OURS, other, figure)).value)
        }
    return {"rows": rows, "ratios": ratios, "differences": differences}


def _rounded(value: float) -> float:
    return round(value, 6)


def _interval(found: Estimate) -> list[float]:
    return [_rounded(found.low), _rounded(found.high)]


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write a result with one entry a line, in one rename.

    Raises:
        OSError: it cannot be written; the file of before is as it was.
    """
    lines = [f" {json.dumps(key)}: {_one_line(value)}" for key, value in result.items()]
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _one_line(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
