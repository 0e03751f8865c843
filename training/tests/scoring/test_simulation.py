"""Reference poses, the tracker's fits and the bicycle against slow, literal formulations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from builders import straight_plan
from latentvla_training.scoring.bicycle import simulate
from latentvla_training.scoring.reference_trajectory import reference_poses, sample_times
from latentvla_training.scoring.tracker import curvature_profile, lateral_gains, velocity_profile
from latentvla_training.scoring.vehicle import StateIndex


def wavy_poses(seed: int, speed: float) -> np.ndarray:
    generator = np.random.default_rng(seed)
    heading = np.cumsum(generator.normal(0.0, 0.02, 41))
    step = speed * 0.1 * (1.0 + 0.3 * generator.normal(size=40))
    xy = np.zeros((41, 2))
    xy[1:, 0] = np.cumsum(step * np.cos(heading[:-1]))
    xy[1:, 1] = np.cumsum(step * np.sin(heading[:-1]))
    return np.concatenate([xy, heading[:, None]], axis=-1)


def literal_velocity(poses: np.ndarray) -> np.ndarray:
    """metrics.md 2.1 as written: stacked x and y rows, pseudo-inverse."""
    heading, delta = poses[:-1, 2], np.diff(poses[:, :2], axis=0)
    chain = np.zeros((40, 40))
    chain[:, 0] = 0.1
    for i in range(40):
        chain[i, 1 : i + 1] = 0.01
    model = np.concatenate([np.cos(heading)[:, None] * chain, np.sin(heading)[:, None] * chain])
    target = np.concatenate([delta[:, 0], delta[:, 1]])
    penalty = np.zeros((38, 40))
    penalty[:, 1:39] = -np.eye(38)
    penalty[-1, 39] = 1.0
    solution = np.linalg.pinv(model.T @ model + 1e-4 * penalty.T @ penalty) @ model.T @ target
    return solution[0] + 0.1 * np.concatenate([[0.0], np.cumsum(solution[1:])])


def literal_curvature(poses: np.ndarray, velocity: np.ndarray) -> np.ndarray:
    turn = (np.diff(poses[:, 2]) + np.pi) % (2 * np.pi) - np.pi
    model = np.zeros((40, 40))
    model[:, 0] = velocity * 0.1
    for i in range(40):
        model[i, 1 : i + 1] = velocity[i] * 0.01
    weights = np.diag(np.concatenate([[1e-10], np.full(39, 1e-2)]))
    solution = np.linalg.pinv(model.T @ model + weights) @ model.T @ turn
    return solution[0] + 0.1 * np.concatenate([[0.0], np.cumsum(solution[1:])])


@pytest.mark.parametrize("speed", [0.0, 0.3, 8.0, 30.0])
def test_profiles_are_the_regularised_least_squares(speed: float) -> None:
    poses = wavy_poses(3, speed)
    velocity = velocity_profile(torch.from_numpy(poses)).numpy()
    np.testing.assert_allclose(velocity, literal_velocity(poses), atol=1e-9)
    curvature = curvature_profile(torch.from_numpy(poses), torch.from_numpy(velocity)).numpy()
    np.testing.assert_allclose(curvature, literal_curvature(poses, velocity), atol=1e-7)


def test_lateral_gains_are_the_ten_step_recursion() -> None:
    generator = np.random.default_rng(0)
    curvature = generator.normal(0.0, 0.05, 40)
    speed, acceleration = generator.uniform(0.0, 15.0, 40), generator.normal(0.0, 1.0, 40)
    gains = lateral_gains(
        *(torch.from_numpy(v) for v in (speed, acceleration)),
        torch.zeros(40, dtype=torch.bool),
        torch.from_numpy(curvature),
    )
    for k in (0, 17, 31, 39):
        state = np.array([0.4, -0.1, 0.05])
        a, b, g = np.eye(3), np.zeros(3), np.zeros(3)
        for j in range(10):
            u = speed[k] + j * 0.1 * acceleration[k]
            kappa = curvature[min(k + j, 39)]
            f = np.eye(3)
            f[0, 1], f[1, 2] = u * 0.1, u * 0.1 / 3.089
            a, b = f @ a, f @ b + np.array([0.0, 0.0, 0.1])
            g = f @ g + np.array([0.0, -u * kappa * 0.1, 0.0])
        error, cost = a @ state + g, np.diag([1.0, 10.0, 0.0])
        expected = -(b @ cost @ error) / (b @ cost @ b + 1.0)
        lateral = (
            state[0]
            + float(gains.distance[k]) * state[1]
            + float(gains.steer_to_lateral[k]) * state[2]
            + float(gains.drift_lateral[k])
        )
        heading = (
            state[1] + float(gains.steer_to_heading[k]) * state[2] + float(gains.drift_heading[k])
        )
        found = float(gains.gain_lateral[k]) * lateral + float(gains.gain_heading[k]) * heading
        assert found == pytest.approx(expected, abs=1e-12)


def test_constant_speed_straight_ahead_stays_so() -> None:
    initial = torch.zeros(1, 11, dtype=torch.float64)
    initial[0, StateIndex.VX] = 10.0
    poses = reference_poses(initial, torch.from_numpy(straight_plan(10.0))[None, None], np.zeros(1))
    states = simulate(initial, poses)[0, 0]
    np.testing.assert_allclose(states[:, StateIndex.X], np.arange(41), atol=1e-6)
    np.testing.assert_allclose(states[:, StateIndex.VX], 10.0, atol=1e-6)
    assert float(states[:, [1, 2, 4, 6, 7, 8, 9, 10]].abs().max()) < 1e-9


def test_bicycle_first_steps_by_hand() -> None:
    # Standing still with a plan at 10 m/s: position answers one step late.
    initial = torch.zeros(1, 11, dtype=torch.float64)
    initial[0, StateIndex.AX] = 0.6
    poses = reference_poses(initial, torch.from_numpy(straight_plan(10.0))[None, None], np.zeros(1))
    reference = float(velocity_profile(poses)[0, 0, 10])
    states = simulate(initial, poses)[0, 0]
    acceleration = 0.6 + (10.0 / 11.0 * reference - 0.6) / 3.0
    assert float(states[1, StateIndex.AX]) == pytest.approx(acceleration, abs=1e-12)
    assert float(states[1, StateIndex.VX]) == pytest.approx(0.1 * acceleration, abs=1e-12)
    assert float(states[1, StateIndex.X]) == 0.0
    assert float(states[2, StateIndex.X]) == pytest.approx(0.01 * acceleration, abs=1e-12)


def test_stopping_controller_is_used_below_its_speed() -> None:
    initial = torch.zeros(1, 11, dtype=torch.float64)
    initial[0, StateIndex.VX] = 0.2
    poses = initial[:, None, None, :3].expand(1, 1, 41, 3)
    states = simulate(initial, poses)[0, 0]
    assert float(states[1, StateIndex.AX]) == pytest.approx(-0.1 / 3.0)  # -0.5 * 0.2, a third of it
    assert float(states[:, StateIndex.STEER_RATE].abs().max()) == 0.0


def test_a_bad_plan_touches_no_other() -> None:
    initial = torch.zeros(2, 11, dtype=torch.float64)
    initial[:, StateIndex.VX] = 8.0
    poses = torch.from_numpy(np.stack([wavy_poses(i, 8.0) for i in range(6)])).reshape(2, 3, 41, 3)
    alone = simulate(initial, poses)
    poses[0, 1, 20, 0] = math.nan
    together = simulate(initial, poses)
    assert not torch.isfinite(together[0, 1]).all()
    together[0, 1] = alone[0, 1]
    assert torch.equal(together, alone)


def test_sampling_truncates_to_microseconds() -> None:
    index, fraction = sample_times(np.array([0.0, 10.0, 1.6e9 + 0.123456]))
    assert index.shape == (3, 41)
    assert index[0, 0] == 0 and fraction[0, 0] == 0.0
    assert index[0, -1] == 7 and fraction[0, -1] == 1.0
    offset = (index + fraction) * 0.5 - np.arange(41) * 0.1
    assert np.abs(offset).max() <= 2.1e-6
    assert np.abs(offset[0]).max() < 1e-9


def test_headings_interpolate_across_pi() -> None:
    initial = torch.zeros(1, 11, dtype=torch.float64)
    initial[0, StateIndex.HEADING] = math.pi - 0.05
    plan = torch.zeros(1, 1, 8, 3, dtype=torch.float64)
    plan[..., 2] = 0.1  # absolute heading -pi + 0.05
    heading = reference_poses(initial, plan, np.zeros(1))[0, 0, :, 2]
    assert float(heading[1]) == pytest.approx(math.pi - 0.03)
    assert float(heading[5]) == pytest.approx(-math.pi + 0.05)
    assert float(heading.abs().min()) > 3.0
