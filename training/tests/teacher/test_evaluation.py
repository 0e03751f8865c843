"""Counts by hand, nets that learn what is to be learned, pooled tables, calibration by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from latentvla_training.latent_action.codes import load_codes, save_codes
from latentvla_training.report.network_sums import sums_from_json, sums_of
from latentvla_training.teacher.baselines import (
    mean_nll,
    previous_token,
    train_baseline,
    unigram,
)
from latentvla_training.teacher.calibration import calibrate, pooled_calibration
from latentvla_training.teacher.evaluation import (
    BLIND,
    MLP,
    MLP_PREVIOUS,
    PREVIOUS,
    TEACHER,
    UNIGRAM,
    check_unseen,
    code_figures,
    evaluate_seeds,
    write_document,
)
from latentvla_training.teacher.evaluation_table import beats_all, passed, token_table
from latentvla_training.teacher.settings import BaselineSettings, TeacherRecipe
from latentvla_training.teacher.training import open_coded_split, train_teacher

from latentvla_ros.contract import ContractError

from .conftest import Place


def test_unigram_and_previous_token_are_frequencies() -> None:
    train = np.zeros((99, 12), np.int8)
    train[:, 1] = np.arange(99) % 2
    train[:, 2] = 3 - train[:, 1]
    train[:30, 5] = -1
    asked = np.zeros((2, 12), np.int8)
    asked[:, 1], asked[:, 2] = [0, 1], [3, 2]
    alone = np.exp(unigram(train, asked))
    np.testing.assert_allclose(alone.sum(axis=-1), 1.0, rtol=1e-5)
    assert alone[0, 0, 0] == pytest.approx(99.5 / 107)
    assert alone[0, 1, 1] == pytest.approx(49.5 / 107)
    assert alone[0, 5, 0] == pytest.approx(69.5 / 77)
    after = np.exp(previous_token(train, asked))
    np.testing.assert_allclose(after.sum(axis=-1), 1.0, rtol=1e-5)
    assert after[0, 2, 3] == pytest.approx(50.5 / 58) and after[1, 2, 2] == pytest.approx(49.5 / 57)


def test_previous_token_never_looks_ahead() -> None:
    rng = np.random.default_rng(0)
    train, asked = rng.integers(0, 16, (2, 50, 12)).astype(np.int8)
    before = previous_token(train, asked)
    asked[:, 7:] = (asked[:, 7:] + 1) % 16
    after = previous_token(train, asked)
    assert np.array_equal(before[:, :8], after[:, :8]) and not np.array_equal(before, after)


@pytest.mark.parametrize("given_previous", [False, True])
def test_nets_learn_codes_that_follow_from_speed(place: Place, given_previous: bool) -> None:
    train, val = (open_coded_split(split, place.codes) for split in ("train", "val"))
    settings = BaselineSettings(width=32, layers=1, steps=150, batch_size=16, learning_rate=2e-2)
    found = train_baseline(
        (train.reader, train.codes), (val.reader, val.codes), settings, given_previous
    )
    chances = found.net.log_probabilities(val.reader, val.codes)
    assert mean_nll(chances, val.codes.sequence) == min(found.val_nll.values()) < 0.3
    assert set(found.val_nll) == {0.0, 0.5}
    changed = val.codes.ego.copy()
    changed[:, 1:2] = (changed[:, 1:2] + 1) % 16
    other = found.net.log_probabilities(val.reader, replace(val.codes, ego=changed))
    assert np.array_equal(chances[:, :5], other[:, :5])  # code k sees those before k alone
    assert np.array_equal(chances, other) != given_previous


def test_figures_of_scenes_leave_out_what_is_missing() -> None:
    sequence = np.array([[0] * 8 + [-1] * 4, [-1] * 12], np.int8)
    chances = np.log(np.full((2, 12, 16), 0.2 / 15, np.float32))
    chances[..., 0] = np.log(0.8)
    figures = code_figures(chances, sequence)
    assert figures["nll"][0] == pytest.approx(-np.log(0.8)) and np.isnan(figures["nll"][1])
    assert figures["accuracy"][0] == 1.0
    assert np.isnan(figures["nll_9"]).all() and figures["nll_8"][0] == pytest.approx(-np.log(0.8))


def test_calibration_by_hand() -> None:
    chances = np.full((4, 12, 16), 0.4 / 15, np.float32)
    chances[..., 3] = 0.6
    codes = np.full((4, 12), 3, np.int8)
    codes[:2] = 5  # right in half of the Scenes
    codes[3, 6:] = -1
    networks = np.array(["a", "a", "b", "b"])
    found = calibrate(networks, np.log(chances), codes)
    assert found.count.sum() == 42 and found.right.sum() == 18
    assert found.error.value == pytest.approx(abs(18 / 42 - 0.6), abs=1e-6)
    assert found.error.low <= found.error.value < found.error.high
    [(low, high, count, confidence, accuracy)] = found.reliability()
    assert low <= 0.6 < high and count == 42
    assert confidence == pytest.approx(0.6) and accuracy == pytest.approx(18 / 42)
    both = pooled_calibration([found, found])
    assert both.error.value == pytest.approx(found.error.value) and both.count.sum() == 84


@pytest.mark.parametrize(
    ("worse", "wanted"),
    [({}, True), ({"own": 0.05}, False), ({MLP: 0.05}, False), ({UNIGRAM: 0.05}, False),
     ({MLP_PREVIOUS: -0.2}, True)],
)  # fmt: skip
def test_what_a_teacher_must_beat(worse: dict[str, float], wanted: bool) -> None:
    ahead = {UNIGRAM: 0.5, PREVIOUS: 0.4, MLP: 0.3, MLP_PREVIOUS: 0.2} | worse
    networks = np.repeat(["a", "b", "c"], 4)
    parts = {TEACHER: {"nll": np.full(12, 1.0), "own_nll": np.full(12, 1.5)}}
    for row, gain in ahead.items():
        if row != "own":
            parts[row] = {"nll": np.full(12, 1.0 + gain)}
    parts[MLP]["own_nll"] = np.full(12, 1.5 + worse.get("own", 0.3))
    assert beats_all(sums_of(networks, parts, {}, {})) is wanted


def test_seeds_are_pooled_into_a_table(place: Place, recipe: TeacherRecipe) -> None:
    plain = replace(recipe, vision=replace(recipe.vision, enabled=False))
    places = {}
    for seed in (0, 1):
        seeded = replace(plain, run=replace(plain.run, seed=seed))
        places[f"s{seed}"] = place.root / f"s{seed}"
        train_teacher(seeded, places[f"s{seed}"], place.root, place.codes, progress=False)
    blind = place.root / "blind"
    train_teacher(
        replace(plain, name="blind", blank_images=True), blind, blind, place.codes, progress=False
    )
    results = evaluate_seeds(places, [blind, blind], place.codes, "test", progress=False)
    table = token_table(results, "test")
    assert "2 seed(s) (s0, s1), 12 Scenes of 2 networks" in table
    for words in ("unigram", "true codes before (MLP)", "black pictures", "pictures of another"):
        assert words in table
    assert not passed(results) and "**no**" in table  # six steps have taught nothing
    path = place.root / "result.json"
    write_document(results, "test", path)
    document = json.loads(path.read_text())
    first = document["seeds"]["s0"]
    sums = sums_from_json(first["sums"])
    assert sums.scenes("nll") == 12
    assert sums.mean(BLIND, "nll").value != sums.mean(TEACHER, "nll").value
    assert sums.mean(MLP, "nll").value > 0 and sums.mean(MLP_PREVIOUS, "nll").value > 0
    assert first["identity"]["codebook_id"] == "test-0123456789abcdef"
    assert first["identity"]["passes"] == 24 and first["identity"]["seed"] == 0
    teachers = {seed["identity"]["teacher_id"] for seed in document["seeds"].values()}
    assert len(teachers) == 2
    assert set(first["costs"]) == {"codes"} and first["costs"]["codes"]["peak_gib"] > 0
    assert "| codes | " in table and "| vision tower" not in table  # there was none

    with pytest.raises(ContractError, match="blank_images: true"):
        evaluate_seeds({"s0": places["s0"]}, [places["s1"]], place.codes, "test", progress=False)
    codes = load_codes(place.codes / "test.safetensors")
    save_codes(place.codes / "test.safetensors", replace(codes, codebook_id="other-1"))
    with pytest.raises(ContractError, match=r"found 'test-0123456789abcdef', expected other-1"):
        evaluate_seeds(places, [], place.codes, "test", progress=False)


def test_networks_of_the_training_are_refused(place: Place) -> None:
    train = open_coded_split("train", place.codes)
    with pytest.raises(ContractError, match="train-0000"):
        check_unseen(train, train)
