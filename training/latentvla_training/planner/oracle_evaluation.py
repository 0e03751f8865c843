"""Scores of the oracle-codes gate: contenders of several seeds on unseen networks, and the verdict.

``latentvla-train oracle-codes --codes FOLDER --bundle nano --recipe nano --json F``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentvla_ros.contract import ContractError
from latentvla_training.planner.contender_scores import GIVEN, Plans, score_contenders
from latentvla_training.planner.contenders import (
    FREE,
    HOST,
    CodedSplit,
    open_splits,
    opened_gate,
    plan_quality,
)
from latentvla_training.planner.evaluation import EXPERT, write_result
from latentvla_training.planner.head_training import (
    NoStates,
    PlannerOnFeatures,
    plans_on_features,
)
from latentvla_training.planner.hosts import Host
from latentvla_training.planner.losses import LossSettings
from latentvla_training.planner.oracle_codes import (
    CONTENDERS,
    CONTROLS,
    ORACLE,
    SHUFFLED,
    OracleRecipe,
    of_seed,
    told,
    train_contender,
)
from latentvla_training.report.identity import comparison_identity

ROWS = (GIVEN, *CONTENDERS, EXPERT)
#: What tells most is trained first.
_ORDER = (HOST, ORACLE, FREE, SHUFFLED)
#: By which the gate is judged.
GATE_FIGURE = "pdms"


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
        name: {GIVEN: plans_on_features(given, told(split, HOST, 0))}
        for name, split in scored.items()
    }
    quality = plan_quality(recipe, splits[recipe.data.train_split].reader, progress)
    opened: dict[str, list[float]] = {}
    for seed in seeds:
        own = of_seed(recipe, seed)
        for contender in _ORDER:
            where = folder / f"seed{seed}"
            module = train_contender(
                contender, host, own, splits, where, quality, progress=progress
            )
            opened.setdefault(contender, []).append(opened_gate(module.planner))
            for name, split in scored.items():
                features = told(split, contender, seed)
                plans[name][f"{contender}/{seed}"] = plans_on_features(module, features)
    figures = {
        name: split_figures(split, plans[name], seeds, progress) for name, split in scored.items()
    }
    result = {
        "codebook": next(iter(splits.values())).codes.codebook_id,
        "recipe": recipe.name,
        "passes": recipe.run.steps * recipe.run.batch_size,
        "seeds": list(seeds),
        "identity": comparison_identity(
            host, {recipe.name: recipe}, {name: split.reader for name, split in splits.items()}
        ),
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
    known = split.codes.mask.all(axis=1)
    scored = score_contenders(split.reader, known, plans, CONTENDERS, seeds, progress)
    pairs = [(ORACLE, other) for other in (*CONTROLS, GIVEN)]
    return scored.document(ROWS, pairs, split.reader)


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
