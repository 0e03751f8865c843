"""Probes answer what they are asked: known things are regressed out, other networks judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from latentvla_training.latent_action.motion_probes import agent_question, ego_question
from latentvla_training.latent_action.pairs import find_pairs
from latentvla_training.latent_action.probes import ProbeData, one_hot, partial_r2
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
    assert question.data.known.shape == (8, 5)
    assert question.data.targets == pytest.approx(0.0, abs=1e-5)  # both drive at a constant speed
    agents = agent_question(scenes, pairs)
    assert len(agents.data) == 20
    speed = scenes.column("ego_dynamics")[pairs.earlier[agents.pairs], 0]
    step = np.array([int(token.split("/")[1]) for token in scenes.column("token")[pairs.earlier]])
    assert agents.data.targets[:, 0] == pytest.approx(speed + step[agents.pairs] % 3, abs=1e-4)
    assert agents.data.targets[:, 1] == pytest.approx(0.0, abs=1e-5)
    assert agents.data.targets[:, 2] == pytest.approx(agents.data.targets[:, 0], abs=1e-5)
