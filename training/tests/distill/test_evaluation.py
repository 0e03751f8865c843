"""Figures of a comparison: pairs, retention and goals, from plans that are made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from latentvla_training.distill.evaluation import check_family, check_seeds, goals, retention
from latentvla_training.distill.settings import load_distill_recipe
from latentvla_training.report.network_sums import NetworkSums, sums_of

from latentvla_ros.contract import ContractError


def sums(gain: float, kept: float, noise: float) -> NetworkSums:
    """Return PDMS of 40 Scenes of 20 networks, where the teacher adds ``gain``."""
    host = np.random.default_rng(0).uniform(0.4, 0.8, 40)
    teacher = host + gain + noise * np.repeat([1.0, -1.0] * 10, 2)
    rows = {"host": host, "teacher": teacher, "student": host + kept * gain}
    networks = np.repeat([f"n{index}" for index in range(20)], 2)
    return sums_of(networks, {row: {"pdms": value} for row, value in rows.items()}, {}, {})


def test_retention_is_the_share_of_the_gain_that_is_kept() -> None:
    value, low, high = retention(sums(0.05, 0.6, 0.01), "student")["pdms"]
    assert low < value < high and value == pytest.approx(0.6, abs=0.05)


@pytest.mark.parametrize("gain", [0.0, -0.05, 0.002])
def test_there_is_none_of_a_gain_that_may_be_nothing(gain: float) -> None:
    assert retention(sums(gain, 0.6, 0.05), "student") == {}


def figures(**low: float) -> dict[str, Any]:
    pairs = ("teacher-host", "student-host", "student-free_queries")
    found = {pair: {"pdms": [0.02, low.get(pair.replace("-", "_"), 0.01), 0.03]} for pair in pairs}
    return {"differences": found, "retention": {"student": {"pdms": [0.7, 0.4, 0.9]}}}


def test_goals_count_where_the_whole_interval_is_above_zero() -> None:
    found = goals(figures())
    assert found["teacher_gains"] and found["student_gains"] and found["keeps_enough"]
    found = goals(figures(student_free_queries=-0.001))
    assert not found["student_beats_free_queries"] and found["student_gains"]
    none = {**figures(teacher_host=-0.01), "retention": {"student": {}}}
    found = goals(none)
    assert not found["teacher_gains"] and found["retention"] is None and not found["keeps_enough"]


def test_recipes_of_another_family_are_not_compared() -> None:
    nano, other = load_distill_recipe("nano"), load_distill_recipe("nano_no_kl")
    check_family(nano, [other])
    for wrong, said in (
        ([other, other], "all different"),
        ([replace(other, base="smoke")], "base of nano_no_kl"),
        ([replace(other, pooling=replace(other.pooling, width=8))], "other heads or pooling"),
    ):
        with pytest.raises(ContractError, match=said):
            check_family(nano, wrong)
    for seeds in ((), (1, 1)):
        with pytest.raises(ContractError, match="seeds"):
            check_seeds(seeds)
