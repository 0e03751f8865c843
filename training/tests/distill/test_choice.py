"""Which student ships: the best on validation. Whether it plans better than its host is said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from latentvla_training.distill.choice import best, seed_scores, verdict
from latentvla_training.report.network_sums import sums_of

from latentvla_ros.contract import ContractError

NETWORKS = np.repeat(["a", "b", "c"], 4)


def val_result(scores: Sequence[tuple[float, float]], **more: Any) -> dict[str, Any]:
    """Return a result of ``distill evaluate`` on val with (student, host) scores of each seed."""
    sums = []
    for student, host in scores:
        rows = {
            row: {
                "ade": np.full(len(NETWORKS), 1.0),
                "pdms": np.full(len(NETWORKS), value + 0.02),
                "epdms": np.full(len(NETWORKS), value - 0.02),
            }
            for row, value in {"student": student, "host": host}.items()
        }
        decision = np.arange(len(NETWORKS)) % 2 == 0
        sums.append(sums_of(NETWORKS, rows, {"decision": decision}, {"": ("pdms",)}).to_json())
    split = {"scenes": len(NETWORKS), "decision_scenes": 6, "sums": sums}
    return {"seeds": list(range(len(scores))), "splits": {"val": split}, **more}


def test_the_best_student_is_chosen_and_compared_with_its_own_host() -> None:
    seeds = seed_scores(val_result([(0.6, 0.5), (0.8, 0.75), (0.7, 0.5)]))
    assert best(seeds).seed == 1 and best(seeds).gain == pytest.approx(0.05)
    assert verdict(seeds).startswith("On val the student of seed 1 is best: +5.00 to its host")
    line = seeds[2].line()
    assert line.startswith("seed 2: student PDMS 72.0 (+20.00 to its host [+20.00, +20.00]), EPDMS")
    assert best(seed_scores(val_result([(0.6, 0.5), (0.6, 0.1)]))).seed == 0


def test_no_better_planner_is_said_plainly() -> None:
    seeds = seed_scores(val_result([(0.5, 0.6), (0.7, 0.71)]))
    said = verdict(seeds)
    assert best(seeds).seed == 1 and "NO student is above its host there: -1.00" in said
    assert said.endswith("The host plans better.")
    said = verdict(seed_scores(val_result([(0.5, 0.4), (0.7, 0.71)])))
    assert "seed 1 is best, but not the better planner: -1.00" in said
    assert said.endswith("Above their hosts: seed 0.")


def test_without_a_score_the_first_is_taken_and_it_is_said() -> None:
    nan = float("nan")
    seeds = seed_scores(val_result([(nan, nan), (nan, nan)]))
    assert best(seeds).seed == 0 and "no student has a score" in verdict(seeds)
    with pytest.raises(ContractError, match="--splits val"):
        seed_scores({"seeds": [0], "splits": {"test": {}}})


def test_figures_are_those_of_a_manifest() -> None:
    """As ``evaluate --record`` keeps them: the bundle's own row first, values with intervals."""
    figures = seed_scores(val_result([(0.6, 0.5)]))[0].figures(12, 6)
    assert (figures["scenes"], figures["networks"], figures["decision_scenes"]) == (12, 3, 6)
    assert figures["rows"]["ours"]["epdms"] == 0.58 and figures["rows"]["host"]["epdms"] == 0.48
    assert figures["rows"]["ours"]["pdms_ci_decision"] == [0.62, 0.62]
    gain = figures["differences"]["ours-host"]["pdms"]
    assert gain == {"difference": 0.1, "ci": [0.1, 0.1]}
