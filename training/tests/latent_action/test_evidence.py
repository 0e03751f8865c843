"""Probes answer what they are asked: known things are regressed out, other networks judge."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from latentvla_training.latent_action.evidence import ahead, gates
from latentvla_training.latent_action.motion_probes import (
    agent_question,
    curves_of_known,
    ego_question,
)
from latentvla_training.latent_action.pairs import find_pairs
from latentvla_training.latent_action.probes import ProbeData, ask, one_hot, partial_r2
from latentvla_training.latent_action.scene_set import SceneSet
from latentvla_training.latent_action.settings import DynamicsSettings


def samples(count: int, seed: int) -> tuple[ProbeData, np.ndarray]:
    """Speed is known; the target is speed and a hidden push; return the push too."""
    random = np.random.default_rng(seed)
    speed, push = random.standard_normal((2, count, 1))
    networks = np.array([f"n-{index % 5}" for index in range(count)])
    return ProbeData(speed, 3.0 * speed + push, networks), push


def judged(train_inputs: np.ndarray, test_inputs: np.ndarray) -> float:
    train, test = samples(2000, 0)[0], samples(1000, 1)[0]
    return float(partial_r2(train, test, train_inputs, test_inputs)[0])


def levels(values: np.ndarray) -> np.ndarray:
    return one_hot(np.digitize(values, [-1.5, -0.5, 0.5, 1.5]), 5)


def test_codes_that_say_what_is_known_explain_nothing() -> None:
    speeds = [samples(2000, 0)[0].known, samples(1000, 1)[0].known]
    assert abs(judged(*map(levels, speeds))) < 0.02


def test_codes_that_say_the_rest_explain_it() -> None:
    pushes = [samples(2000, 0)[1], samples(1000, 1)[1]]
    assert judged(*map(levels, pushes)) > 0.8
    assert judged(*pushes) > 0.99


def test_codes_that_mix_both_explain_a_part() -> None:
    """Displacement is speed and push together: what is known is cleared of the codes as well."""
    mixed = [data.known + push for data, push in (samples(2000, 0), samples(1000, 1))]
    assert judged(*mixed) > 0.99


def test_shuffled_codes_explain_nothing() -> None:
    random = np.random.default_rng(0)
    pushes = [random.permutation(samples(2000, 0)[1]), samples(1000, 1)[1]]
    assert judged(*map(levels, pushes)) < 0.02


def test_one_hot() -> None:
    found = one_hot(np.array([[0, 2], [-1, 1]]), 3)
    assert found.tolist() == [[1, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 0]]


def test_questions_about_scenes(reader: object, splits: Path) -> None:
    scenes = SceneSet([reader])  # type: ignore[list-item]
    pairs = find_pairs(scenes, DynamicsSettings())
    question = ego_question(scenes, pairs)
    assert len(question.data) == 8 and question.data.targets.shape == (8, 6)
    assert question.data.known.shape == (8, 5 + 83)
    assert question.data.targets == pytest.approx(0.0, abs=1e-5)  # both drive at a constant speed
    agents = agent_question(scenes, pairs)
    assert len(agents.data) == 20
    speed = scenes.column("ego_dynamics")[pairs.earlier[agents.pairs], 0]
    step = np.array([int(token.split("/")[1]) for token in scenes.column("token")[pairs.earlier]])
    assert agents.data.targets[:, 0] == pytest.approx(speed + step[agents.pairs] % 3, abs=1e-4)
    assert agents.data.targets[:, 1] == pytest.approx(0.0, abs=1e-5)
    assert agents.data.targets[:, 2] == pytest.approx(agents.data.targets[:, 0], abs=1e-5)


def drives(count: int, seed: int, curves: bool) -> tuple[ProbeData, np.ndarray]:
    """Speed decides by a curve, another one in every turn, how it will change; return it too."""
    random = np.random.default_rng(seed)
    speed, turn = random.uniform(0.0, 14.0, count), random.integers(0, 3, count)
    change = np.maximum(0.0, 6.3 - speed) - (turn == 1) * np.maximum(0.0, speed - 4.6)
    known = np.column_stack([speed, np.zeros(count), np.eye(3)[turn]])
    if curves:
        known = np.concatenate([known, curves_of_known(known)], axis=1)
    networks = np.array([f"n-{index % 5}" for index in range(count)])
    targets = change + 0.5 * random.standard_normal(count)
    return ProbeData(known, targets[:, None], networks), speed


def test_the_speed_at_t0_is_no_news_however_motion_hangs_on_it() -> None:
    edges = np.arange(1, 16) * 14.0 / 16

    def read(curves: bool) -> float:
        train, test = drives(3000, 0, curves), drives(2000, 1, curves)
        bins = [one_hot(np.digitize(speed, edges), 16) for _, speed in (train, test)]
        return float(partial_r2(train[0], test[0], *bins)[0])

    assert read(curves=False) > 0.1  # what would be taken for news
    assert abs(read(curves=True)) < 0.02


def test_intervals_are_drawn_by_network_and_paired() -> None:
    train, push = samples(2000, 0)
    test, test_push = samples(1000, 1)
    random = np.random.default_rng(2)
    noise = [random.standard_normal(one.shape) for one in (push, test_push)]
    answers = {"good": ask(train, test, push, test_push), "noise": ask(train, test, *noise)}
    assert answers["good"].missed.shape == (5, 1)
    assert answers["good"].share == pytest.approx(partial_r2(train, test, push, test_push))
    found = ahead(answers, "good", ("noise",))
    assert found["noise"]["low"] > 0.9 and found["nothing"]["high"] <= 1.0
    assert found["noise"]["low"] <= found["noise"]["value"] <= found["noise"]["high"]
    lost = ahead(answers, "noise", ("good",))
    assert lost["good"]["high"] < -0.9 and lost["nothing"]["value"] < 0.02
    assert answers["good"].ahead_of(answers["good"]) == {"value": 0.0, "low": 0.0, "high": 0.0}


def passing() -> dict[str, object]:
    """Figures with which a codebook passes all its gates."""
    stage = {
        "perplexity": 12.0,
        "position_perplexity": [11.0, 9.0],
        "position_perplexity_by_length": [[10.0, 8.0], [7.0, 6.0]],
    }
    won = {"value": 0.1, "low": 0.05, "high": 0.2}
    return {
        "stages": {"ego": deepcopy(stage), "environment": deepcopy(stage)},
        "ahead": {
            "ego_probe": {name: dict(won) for name in ("nothing", "environment", "shuffled")},
            "agent_probe": {name: dict(won) for name in ("nothing", "ego", "shuffled")},
        },
        "swap": {"correlation_x": 0.3, "correlation_yaw": 0.5, "right_way_x": 0.6},
    }


@pytest.mark.parametrize(
    ("path", "value", "missed"),
    [
        ("stages ego perplexity", 7.9, "perplexity of ego codes"),
        ("stages environment position_perplexity 1", 3.9, "perplexity of environment codes"),
        ("stages ego position_perplexity_by_length 1 0", 2.0, "perplexity of ego codes"),
        ("ahead ego_probe nothing low", -0.01, "ego codes win the ego probe"),
        ("ahead ego_probe environment low", -0.01, "ego codes win the ego probe"),
        ("ahead ego_probe shuffled low", -0.01, "ego codes win the ego probe"),
        ("ahead agent_probe nothing value", -0.01, "environment codes win the agent probe"),
        ("ahead agent_probe ego value", -0.01, "environment codes win the agent probe"),
        ("ahead agent_probe shuffled value", -0.01, "environment codes win the agent probe"),
        ("swap correlation_x", -0.1, "swapped ego codes move the motion their way"),
        ("swap correlation_yaw", -0.1, "swapped ego codes move the motion their way"),
        ("swap right_way_x", 0.5, "swapped ego codes move the motion their way"),
        ("swap right_way_x", float("nan"), "swapped ego codes move the motion their way"),
    ],
)
def test_every_gate_can_be_missed(path: str, value: float, missed: str) -> None:
    figures = passing()
    assert all(gates(figures).values())
    *parents, last = (int(part) if part.isdigit() else part for part in path.split())
    place: object = figures
    for part in parents:
        place = place[part]  # type: ignore[index]
    place[last] = value  # type: ignore[index]
    assert [name for name, passed in gates(figures).items() if not passed] == [missed]
