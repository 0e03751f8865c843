"""Figures of a comparison: pairs, retention and goals, from plans that are made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from latentvla_training.data.shards import load_split, split_folder, write_shard
from latentvla_training.distill.costs import parts_that_run
from latentvla_training.distill.evaluation import (
    check_seeds,
    gate_at_end,
    goals,
    retention,
)
from latentvla_training.distill.examples import event_groups, shown_scenes, telling_scenes
from latentvla_training.distill.measuring import in_turn
from latentvla_training.distill.settings import (
    PoolingSettings,
    StudentSettings,
    load_distill_recipe,
)
from latentvla_training.distill.student import StudentOnFeatures, make_source
from latentvla_training.distill.tables import GATE_BEGINS, gates_line
from latentvla_training.distill.variants import Variant, check_family
from latentvla_training.latent_action.encoding import codes_folder
from latentvla_training.planner.head_training import FreeQueries, NoStates, PlannerOnFeatures
from latentvla_training.planner.losses import LossSettings
from latentvla_training.report.network_sums import NetworkSums, sums_of
from latentvla_training.world.episode import EventName
from torch import Tensor

from latentvla_ros.contract import ContractError
from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.model.planner import StudentPlanner

from .conftest import SHARD_RECIPE, Place, make_scene


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
    check_family(nano, [Variant(other)])
    for wrong, said in (
        ([other, other], "all different"),
        ([replace(other, base="smoke")], "base of nano_no_kl"),
        ([replace(other, pooling=replace(other.pooling, width=8))], "other heads or pooling"),
    ):
        with pytest.raises(ContractError, match=said):
            check_family(nano, [Variant(entry) for entry in wrong])
    for seeds in ((), (1, 1)):
        with pytest.raises(ContractError, match="seeds"):
            check_seeds(seeds)


def test_other_codes_are_for_students_of_codes_alone(place: Place) -> None:
    found = Variant.parse(f"nano_codes_only@{place.codes}")
    assert found.codes == str(place.codes) and Variant.parse("nano_no_kl").codes == ""
    assert Variant.parse("nano_codes_only@it-0123").codes.endswith("data/codes/it-0123")
    (codes_folder("it-0123")).mkdir(parents=True)
    assert Variant.parse("nano_codes_only@it").codes == str(codes_folder("it-0123"))
    nano = load_distill_recipe("nano")
    check_family(nano, [found, Variant(found.recipe)])  # beside the same student of all's codes
    for name in ("nano_no_kl", "nano_untaught"):
        with pytest.raises(ContractError, match="learns of codes alone"):
            Variant.parse(f"{name}@{place.codes}")


def test_a_gate_is_told_from_where_it_began_and_only_where_states_go_through_it(
    tiny: PlannerConfig,
) -> None:
    none, gates = LossSettings(auxiliary=0.0), {}
    for row, settings in (
        ("student", StudentSettings()),
        ("student:no_fusion", StudentSettings(fusion=False, end_to_end=True)),
    ):
        planner = StudentPlanner(tiny)
        source = make_source(planner, settings, PoolingSettings())
        gates[row] = [gate_at_end(StudentOnFeatures(planner, source, none))]
    gates["host"] = [gate_at_end(PlannerOnFeatures(StudentPlanner(tiny), NoStates(), none))]
    assert gates["student"][0] == pytest.approx(GATE_BEGINS, abs=1e-6)  # it has not learned yet
    line = gates_line({**gates, "free_queries": [0.18, 0.1]})
    assert "began at +0.76" in line and "end, by seed: host + distilled student +0.76," in line
    assert "+0.18 +0.10" in line and "no_fusion" not in line and "host, trained on" not in line


EVENT = np.array([True, True, True, False])


def test_scenes_that_tell_are_chosen_by_the_teachers_gain_one_an_event() -> None:
    host, teacher = np.array([0.2, 0.5, 0.5, 0.0]), np.array([0.7, 0.9, 0.5, 1.0])
    groups = {"cut_in": EVENT, "blocked_lane": ~EVENT, "red_light_runner": EVENT[[3, 0, 1, 2]]}
    found = telling_scenes(groups, host, teacher)
    assert found == [("blocked_lane", 3), ("cut_in", 0)]  # 3 is the runner's best too: once
    assert telling_scenes(groups, host, teacher, count=1) == [("blocked_lane", 3)]
    assert telling_scenes({"cut_in": EVENT}, teacher, host) == []  # no gain, nothing to show


def test_what_is_shown_is_enough_to_draw_and_names_its_scene(place: Place) -> None:
    folder = split_folder("longtail")
    scenes = [make_scene(index, "longtail-0000") for index in range(4)]
    scenes = [
        replace(scene, labels=replace(scene.labels, tags=f"night,{EventName.CUT_IN.value}"))
        for scene in scenes
    ]
    info = write_shard(folder / "longtail-0000-00.parquet", scenes, SHARD_RECIPE)
    reader = load_split("longtail")
    scores = {"host/1": 0.5, "teacher/1": 0.5, "student/1": 0.4}
    values = {row: {"pdms": np.full(4, value)} for row, value in scores.items()}
    values["teacher/1"]["pdms"][2] = 1.0
    plans = {row: np.full((4, 8, 3), 7.0, np.float32) for row in scores}
    assert list(event_groups(reader)) == ["cut_in"]  # the weather is no event
    (found,) = shown_scenes("longtail", reader, values, plans, 1)
    assert (found["token"], found["tag"]) == ("longtail-0000-00/2", "cut_in")
    assert found["shard_sha256"] == info.content_sha256
    assert found["pdms"] == {"host": 0.5, "teacher": 1.0, "student": 0.4}
    assert found["plans"]["student"] == [[7.0, 7.0, 7.0]] * 8
    np.testing.assert_allclose(found["driven"], reader.columns["future_2hz"][2], atol=1e-3)
    assert shown_scenes("longtail", reader, {row: {} for row in scores}, plans, 1) == []


def test_costs_count_what_runs_and_measure_in_turn(tiny: PlannerConfig) -> None:
    planner, none = StudentPlanner(tiny), LossSettings(auxiliary=0.0)
    count = {
        type(source).__name__: sum(
            value.numel()
            for part in parts_that_run(PlannerOnFeatures(planner, source, none))
            for value in ([part] if isinstance(part, Tensor) else part.parameters())
        )
        for source in (
            NoStates(),
            FreeQueries(tiny.width),
            make_source(planner, StudentSettings(), PoolingSettings()),
        )
    }
    whole = sum(value.numel() for value in planner.parameters())
    fusion = sum(value.numel() for value in planner.head.fusion.parameters())
    reasoner = sum(value.numel() for value in planner.reasoner.parameters())
    assert count["ReasonerStates"] == whole  # without the readout, which ends with training
    assert count["NoStates"] == whole - fusion - reasoner
    assert count["FreeQueries"] == whole - reasoner + 12 * tiny.width
    order: list[str] = []
    works = {name: lambda name=name: order.append(name) for name in "ab"}
    assert {len(values) for values in in_turn(works, 20).values()} == {20}
    again, order[:] = list(order), []
    in_turn(works, 20)
    assert order == again and len(order) == 80
    assert order[::2] == order[1::2]  # each was called just before, untimed
    turns = {"".join(order[start : start + 4 : 2]) for start in range(0, 80, 4)}
    assert turns == {"ab", "ba"}  # no row always follows the same one
