"""Scores of the oracle-codes gate: contenders of several seeds on unseen networks, and the verdict.

``latentvla-train oracle-codes --codes FOLDER --bundle nano --recipe nano --json F``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from latentvla_ros.contract import ContractError
from latentvla_training.planner.evaluation import EXPERT, expert_plans, write_result
from latentvla_training.planner.head_training import (
    NoStates,
    PlannerOnFeatures,
    plans_on_features,
)
from latentvla_training.planner.hosts import Host
from latentvla_training.planner.losses import LossSettings
from latentvla_training.planner.open_loop import DECISION_ADE_M, displacement_errors
from latentvla_training.planner.oracle_codes import (
    CONTENDERS,
    CONTROLS,
    FREE,
    HOST,
    ORACLE,
    SHUFFLED,
    CodedSplit,
    OracleRecipe,
    of_seed,
    open_splits,
    plan_quality,
    train_contender,
)
from latentvla_training.planner.scene_groups import DECISION
from latentvla_training.planner.scene_scores import SCORES, score_rows
from latentvla_training.report.identity import code_identity, commit
from latentvla_training.report.identity import scenes_identity as scenes_hash
from latentvla_training.report.network_sums import ALL, Estimate, NetworkSums, pooled, sums_of

#: The host before any contender went on from it.
GIVEN = "host_as_given"
ROWS = (GIVEN, *CONTENDERS, EXPERT)
FIGURES = ("ade", *SCORES)
#: Scenes with all twelve codes: where a recording ends too early some are missing.
KNOWN = "known"
_SUFFIXES = {ALL: "", DECISION: f"_{DECISION}", KNOWN: f"_{KNOWN}"}
#: What tells most is trained first.
_ORDER = (HOST, ORACLE, FREE, SHUFFLED)
#: By which the gate is judged.
GATE_FIGURE = "pdms"

Plans = NDArray[np.float32]


def run_gate(
    host: Host,
    recipe: OracleRecipe,
    codes: str,
    folder: Path,
    seeds: Sequence[int] = (0,),
    split_names: tuple[str, ...] = ("test", "longtail"),
    json_path: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Train what is not trained yet, score everybody, return (and write) the result.

    Args:
        codes: see ``open_splits``. folder: of the runs, ``seed<N>/<contender>`` in it.
        split_names: to be scored. json_path: where to write the result; None for nowhere.

    Raises:
        ContractError: codes, Scenes, host and runs do not belong together.
        FileNotFoundError: Scenes or codes are absent.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise ContractError("seeds", list(seeds), "one or more, all different")
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
    splits = open_splits(host, recipe, codes, split_names, progress)
    scored = {name: splits[name] for name in split_names}
    given = PlannerOnFeatures(host.planner, NoStates(), LossSettings())
    plans = {
        name: {GIVEN: plans_on_features(given, split.told(HOST, 0))}
        for name, split in scored.items()
    }
    quality = plan_quality(recipe, splits, progress)
    opened: dict[str, list[float]] = {}
    for seed in seeds:
        own = of_seed(recipe, seed)
        for contender in _ORDER:
            where = folder / f"seed{seed}"
            module = train_contender(
                contender, host, own, splits, where, quality, progress=progress
            )
            fusion = module.planner.head.fusion
            gate = 0.0 if fusion is None else float(torch.tanh(fusion.gate.detach()))
            opened.setdefault(contender, []).append(round(gate, 6))
            for name, split in scored.items():
                told = split.told(contender, seed)
                plans[name][f"{contender}/{seed}"] = plans_on_features(module, told)
    figures = {
        name: split_figures(split, plans[name], seeds, progress) for name, split in scored.items()
    }
    result = {
        "codebook": next(iter(splits.values())).codes.codebook_id,
        "recipe": recipe.name,
        "passes": recipe.run.steps * recipe.run.batch_size,
        "seeds": list(seeds),
        "identity": {
            "host": host.identity,
            **code_identity(),
            "commit": commit(),
            "data": {name: scenes_hash(split.reader.paths) for name, split in splits.items()},
        },
        "gate_opened": opened,
        "verdict": verdict(figures),
        "splits": figures,
    }
    if json_path is not None:
        write_result(json_path, result)
    return result


def split_figures(
    split: CodedSplit, plans: Mapping[str, Plans], seeds: Sequence[int], progress: bool = True
) -> dict[str, Any]:
    """Return means and paired differences, oracle minus each, with 95 % intervals by network.

    Args:
        plans: (N, 8, 3) by ``GIVEN`` and ``<contender>/<seed>``.
    """
    reader = split.reader
    columns = reader.columns
    plans = {**plans, EXPERT: expert_plans(reader)}
    scores = score_rows(reader, plans, progress)
    future, mask = columns["future_2hz"], columns["future_mask"]
    values: dict[str, dict[str, NDArray[np.float64]]] = {}
    for name, poses in plans.items():
        found = {key: scores.rows[name][key] for key in SCORES if name in scores.rows}
        if name != EXPERT:  # of the expert from itself it says nothing
            found["ade"] = displacement_errors(poses, future, mask).ade
        values[name] = found
    decision = _decision(split)
    parts = []
    for seed in seeds:
        rows = {row: values[f"{row}/{seed}"] for row in CONTENDERS}
        rows = {GIVEN: values[GIVEN], **rows, EXPERT: values[EXPERT]}
        groups = {DECISION: decision, KNOWN: split.codes.mask.all(axis=1)}
        parts.append(sums_of(columns["network"], rows, groups, {"": FIGURES}))
    sums = pooled(parts)
    return {
        "scenes": len(reader),
        "networks": len(sums.networks),
        "decision_scenes": int(decision.sum()),
        "known_scenes": int(split.codes.mask.all(axis=1).sum()),
        "rows": {row: _means(sums, row) for row in ROWS},
        "differences": {
            f"{ORACLE}-{other}": _differences(sums, other) for other in (*CONTROLS, GIVEN)
        },
        "unscored": dict(scores.scenes_unscored),
        "sums": [part.to_json() for part in parts],
    }


def _decision(split: CodedSplit) -> NDArray[np.bool_]:
    from latentvla_training.planner.baselines import constant_velocity_plans

    columns = split.reader.columns
    errors = displacement_errors(
        constant_velocity_plans(split.reader), columns["future_2hz"], columns["future_mask"]
    )
    return np.asarray(errors.ade > DECISION_ADE_M)


def _means(sums: NetworkSums, row: str) -> dict[str, list[float]]:
    found = {
        f"{figure}{suffix}": sums.mean(row, figure, group)
        for group, suffix in _SUFFIXES.items()
        for figure in sums.figures(group)
    }
    return _lists(found)


def _differences(sums: NetworkSums, other: str) -> dict[str, list[float]]:
    found = {
        f"{figure}{suffix}": sums.difference(ORACLE, other, figure, group)
        for group, suffix in _SUFFIXES.items()
        for figure in sums.figures(group)
    }
    return _lists(found)


def _lists(found: Mapping[str, Estimate]) -> dict[str, list[float]]:
    """Return value, low and high of what is known."""
    return {
        name: [round(value, 6) for value in (estimate.value, estimate.low, estimate.high)]
        for name, estimate in found.items()
        if np.isfinite(estimate.value)
    }


def verdict(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Judge the gate: on some split the oracle's PDMS is above every control's, interval and all.

    The host alone would not do: a fusion with free queries has the same new capacity, and one with
    codes of other Scenes the same parameters.

    Returns:
        ``passed``, and by split which controls are beaten.
    """
    beaten = {
        split: [
            other
            for other in CONTROLS
            if found["differences"][f"{ORACLE}-{other}"].get(GATE_FIGURE, [0.0, 0.0, 0.0])[1] > 0.0
        ]
        for split, found in figures.items()
    }
    passed = any(len(others) == len(CONTROLS) for others in beaten.values())
    return {"passed": passed, "figure": GATE_FIGURE, "beaten": beaten}
