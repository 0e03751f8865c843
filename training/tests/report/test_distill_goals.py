"""Goals of a comparison: met or missed by intervals, and no claim of few seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from latentvla_training.distill.evaluation import retention
from latentvla_training.report.distill_goals import goal_lines
from latentvla_training.report.network_sums import pooled, sums_from_json
from latentvla_training.report.present import Present

from .distill_documents import (
    distill_document,
    told,
)

pytestmark = pytest.mark.usefixtures("no_scenes")


@pytest.mark.usefixtures("undrawn")
def test_goals_that_are_missed_are_said_to_be(results: Path, now: Present) -> None:
    (results / "distill_nano.json").write_text(json.dumps(distill_document(scale=-0.2)))
    lines = [line for line in told(results, now).splitlines() if line.startswith("- The ")]
    assert "interval and all on longtail, not less on test: **missed** (longtail" in lines[0]
    assert "gain, longtail: **not measured** (the teacher's gain, longtail" in lines[2]
    assert "12 free queries, interval and all, test: **missed**" in lines[3]
    assert "No share of the teacher's gain is reported" in told(results, now)
    only = distill_document()
    del only["splits"]["test"]
    (results / "distill_nano.json").write_text(json.dumps(only))
    first = next(line for line in told(results, now).splitlines() if "online adds" in line)
    assert "**not measured** (longtail +6." in first  # half a goal is none


def swayed(share: float, by: float = 0.0) -> dict[str, Any]:
    """Return a result whose student keeps a share of the gain, ``by`` more or less by network."""
    document = distill_document()
    for found in document["splits"].values():
        for part in found["sums"]:
            sums = part["groups"]["all"]["pdms"]
            gains = np.subtract(sums["teacher"], sums["host"])
            kept = share + by * np.resize([1.0, -1.0], len(gains))
            sums["student"] = (np.array(sums["host"]) + kept * gains).tolist()
        sums = pooled([sums_from_json(part) for part in found["sums"]])
        found["retention"] = {"student": retention(sums, "student")}
    return document


@pytest.mark.parametrize(
    ("share", "by", "kept", "stretch"),
    [
        (0.95, 0.0, "met", "met"),
        (0.7, 0.02, "met", "missed"),
        (0.7, 0.6, "point estimate above 60 %, not shown", "missed"),
        (1.0, 0.6, "point estimate above 60 %, not shown", "point estimate above 90 %, not shown"),
        (0.5, 0.0, "missed", "missed"),
    ],
)
def test_a_share_is_kept_where_the_whole_interval_says_so(
    share: float, by: float, kept: str, stretch: str
) -> None:
    lines = [line for line in goal_lines(swayed(share, by)) if "keeps at least" in line]
    assert len(lines) == 2
    for line in lines:
        assert f": **{kept}** ({100 * share:.0f} %; the student's gain" in line
        assert line.endswith(f", {stretch}; the paper kept 57 %).")


@pytest.mark.parametrize(("seeds", "said"), [((0,), "one seed"), ((0, 1), "two seeds")])
def test_nothing_is_claimed_of_fewer_than_three_seeds(seeds: Sequence[int], said: str) -> None:
    lines = goal_lines(distill_document(seeds=seeds))
    for line in lines[:-1]:
        assert f": **{said}: no claim** (" in line
        assert "**met**" not in line and "missed" not in line
    assert "**met** (86.2 counted" in lines[-1]  # of which seeds say nothing


@pytest.mark.usefixtures("undrawn")
def test_the_goal_is_answered_by_regime_from_fresh_results_alone(
    results: Path, now: Present
) -> None:
    def answers() -> list[str]:
        return [line for line in told(results, now).splitlines() if line.startswith("- `")][:3]

    full, maps, odometry = answers()
    assert full.startswith("- `full` (labels and odometry of all drives): **yes**; ")
    assert "`distill_nano.json` met (longtail +6." in full
    assert maps == "- `scarce_maps` (labels of few drives): **no result**."
    scarce = distill_document(scale=-0.2)
    scarce["regime"]["labelled_share"] = 0.1
    (results / "distill_maps.json").write_text(json.dumps(scarce))
    scarce["regime"]["odometry_share"] = 0.1
    scarce["identity"]["distill"] = "0lder"
    (results / "distill_odometry.json").write_text(json.dumps(scarce))
    worse = distill_document(scale=-0.2)
    (results / "distill_worse.json").write_text(json.dumps(worse))
    (results / "distill_alone.json").write_text(json.dumps(distill_document(seeds=(0,))))
    choice = distill_document()
    choice["splits"] = {"val": choice["splits"].pop("test")}
    choice["goals"] = {"val": choice["goals"]["test"]}
    (results / "distill_val.json").write_text(json.dumps(choice))
    full, maps, odometry = answers()
    assert "distill_val.json" not in full
    assert "**in 1 of 2 comparisons**" in full and "`distill_worse.json` missed (" in full
    assert "`distill_alone.json` one seed: no claim (longtail" in full
    assert "**no**; `distill_maps.json` missed (longtail -1." in maps
    assert odometry.endswith("**no fresh result**; stale and not counted: `distill_odometry.json`.")
