"""Sums by network give the means, intervals and paired differences of the scenes themselves."""

from __future__ import annotations

import json

import numpy as np
import pytest
from latentvla_training.planner.open_loop import interval, network_draws
from latentvla_training.report.network_sums import (
    ALL,
    NetworkSums,
    pooled,
    seed_spread,
    sums_from_json,
    sums_of,
)

from latentvla_ros.contract import ContractError

NETWORKS = np.repeat(["a", "b", "c", "d"], [10, 20, 30, 40])


def made(offset: float = 0.0) -> NetworkSums:
    values = np.random.default_rng(1).uniform(0.0, 1.0, 100)
    rows = {
        "first": {"score": values + 0.1 + offset, "part": values},
        "second": {"score": values, "part": np.where(NETWORKS == "a", np.nan, values)},
    }
    groups = {"ab": np.isin(NETWORKS, ["a", "b"]), "none": np.zeros(100, np.bool_)}
    return sums_of(NETWORKS, rows, groups, {"": ("score",)})


def test_means_and_intervals_are_those_of_a_bootstrap_over_networks() -> None:
    values = np.random.default_rng(1).uniform(0.0, 1.0, 100)
    mean = made().mean("second", "score")
    assert mean.value == pytest.approx(values.mean())
    low, high = interval(values, network_draws(NETWORKS))
    assert (mean.low, mean.high) == pytest.approx((low, high), abs=0.003)  # other draws


def test_a_constant_gain_has_no_width_however_wide_the_rows_are() -> None:
    gain = made().difference("first", "second", "score")
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.1, 0.1, 0.1))
    assert gain.above_zero and not gain.below_zero
    assert made().difference("second", "first", "score").below_zero
    ratio = made().ratio("first", "second", "score")
    assert ratio.low < ratio.value < ratio.high


def test_a_scene_unknown_in_one_row_is_left_out_of_all() -> None:
    assert made().scenes("part") == 90
    assert made().difference("first", "second", "part").value == pytest.approx(0.0)


def test_groups_keep_their_figures_and_what_is_absent_is_unknown() -> None:
    sums = made()
    assert sums.figures("ab") == ("score",)
    assert "none" not in sums.groups
    assert sums.scenes("score", "ab") == 30
    for unknown in (
        sums.mean("first", "other"),
        sums.mean("third", "score"),
        sums.mean("first", "part", "ab"),
        sums.difference("first", "third", "score"),
    ):
        assert np.isnan(unknown.value)


def test_json_round_trip() -> None:
    sums = made()
    again = sums_from_json(json.loads(json.dumps(sums.to_json())))
    assert again.networks == sums.networks and set(again.groups) == set(sums.groups)
    assert again.mean("first", "score").value == pytest.approx(
        sums.mean("first", "score").value, abs=1e-4
    )
    assert again.groups["ab"]["score"].count.tolist() == [10, 20, 0, 0]


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d["groups"].pop(ALL),
        lambda d: d["groups"][ALL]["score"].pop("count"),
        lambda d: d["groups"][ALL]["score"]["first"].pop(),
        lambda d: d["groups"][ALL]["score"].update(first=[float("nan")] * 4),
        lambda d: d["groups"][ALL]["score"].update(network=[0, 1, 2, 9]),
        lambda d: d.pop("networks"),
        lambda d: d.update(networks=[]),
        lambda d: d.update(groups=[]),
    ],
)
def test_damaged_sums_are_refused(damage: object) -> None:
    document = made().to_json()
    damage(document)  # type: ignore[operator]
    with pytest.raises(ContractError, match="sums"):
        sums_from_json(document)


def test_seeds_are_averaged_and_their_spread_is_told() -> None:
    parts = [made(offset) for offset in (0.0, 0.1, 0.2)]
    together = pooled(parts)
    assert together.difference("first", "second", "score").value == pytest.approx(0.2)
    assert seed_spread(parts, "first", "score") == pytest.approx(0.1)
    assert seed_spread(parts, "second", "score") == pytest.approx(0.0)
    assert seed_spread(parts[:1], "first", "score") is None
    values = {"first": {"score": np.ones(99)}, "second": {"score": np.ones(99)}}
    with pytest.raises(ContractError, match="same scenes"):
        pooled([parts[0], sums_of(NETWORKS[1:], values, {}, {})])
