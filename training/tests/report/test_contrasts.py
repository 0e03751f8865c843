"""Weighted sums of rows, pooled and by seed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from latentvla_training.report.contrasts import contrast, contrasts_by_seed, figure_and_group
from latentvla_training.report.network_sums import NetworkSums, sums_of


def made(seed: int, networks: int = 6) -> NetworkSums:
    rng = np.random.default_rng(seed)
    names = np.repeat([f"n{index}" for index in range(networks)], 10)
    rows = {row: {"pdms": rng.normal(size=len(names))} for row in ("a", "b", "c")}
    return sums_of(names, rows, {"decision": names != "n0"}, {"": ("pdms",)})


def test_a_difference_is_the_contrast_of_one_and_minus_one() -> None:
    sums = made(0)
    for group in ("all", "decision"):
        found = contrast(sums, {"a": 1.0, "b": -1.0}, "pdms", group)
        assert found == sums.difference("a", "b", "pdms", group)


def test_no_draw_is_left_out_where_the_gain_may_be_none() -> None:
    """Of a ratio draws with no gain are; here the ends are those of the combination."""
    sums = made(1)
    weights = {"a": 1.0, "b": -0.6, "c": -0.4}
    found = contrast(sums, weights, "pdms")
    wanted = sum(weight * sums.mean(row, "pdms").value for row, weight in weights.items())
    assert found.value == pytest.approx(wanted) and found.low < wanted < found.high
    mirrored = contrast(sums, {row: -weight for row, weight in weights.items()}, "pdms")
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


def test_rows_figures_and_groups_that_are_not_there_are_unknown() -> None:
    sums = made(0)
    for weights, figure, group in (
        ({"a": 1.0, "x": 1.0}, "pdms", "all"),
        ({"a": 1.0}, "ade", "all"),
        ({"a": 1.0}, "pdms", "tag: fog"),
    ):
        assert math.isnan(contrast(sums, weights, figure, group).value)
        values, spread = contrasts_by_seed([sums, sums], weights, figure, group)
        assert all(math.isnan(value) for value in values) and spread is None


def test_every_seed_and_their_spread() -> None:
    parts = [made(seed) for seed in range(3)]
    values, spread = contrasts_by_seed(parts, {"a": 1.0, "b": -1.0}, "pdms")
    assert values == [part.difference("a", "b", "pdms").value for part in parts]
    assert spread == pytest.approx(np.std(values, ddof=1))
    assert contrasts_by_seed(parts[:1], {"a": 1.0}, "pdms")[1] is None


def test_entries_of_results_name_figure_and_group() -> None:
    assert figure_and_group("epdms_unfiltered") == ("epdms_unfiltered", "all")
    assert figure_and_group("pdms_decision") == ("pdms", "decision")
    assert figure_and_group("epdms_unfiltered_known") == ("epdms_unfiltered", "known")
