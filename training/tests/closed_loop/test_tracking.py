"""The ego follows plans exactly as the scores' simulation does, and stops when they end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from latentvla_training.closed_loop.tracking import BRAKING, TrackedVehicle, braking_plan
from latentvla_training.scoring.bicycle import simulate
from latentvla_training.scoring.reference_trajectory import reference_poses
from latentvla_training.world.expert import EgoState

from latentvla_ros.geometry.trajectory import constant_turn_rate

START = EgoState(x=10.0, y=-4.0, yaw=0.7, speed=8.0, acceleration=0.4, wheel_angle=0.05)


def test_one_plan_is_followed_as_the_scores_simulate_it() -> None:
    vehicle = TrackedVehicle(START)
    initial = torch.from_numpy(vehicle.state.copy())[None]
    plan = constant_turn_rate(7.0, 0.2)
    poses = reference_poses(initial, torch.from_numpy(plan)[None, None], np.zeros(1))
    expected = simulate(initial, poses)[0, 0].numpy()
    vehicle.follow(plan)
    for step in range(1, 41):
        vehicle.step()
        np.testing.assert_array_equal(vehicle.state, expected[step])


def test_a_newer_plan_starts_from_where_the_vehicle_is() -> None:
    vehicle = TrackedVehicle(START)
    for _ in range(60):
        vehicle.follow(constant_turn_rate(8.0, 0.0))
        vehicle.step()
    assert vehicle.ego.speed == pytest.approx(8.0, abs=0.1)
    assert abs(vehicle.ego.wheel_angle) < 1e-3
    assert vehicle.plan_age_steps == 1


def test_past_the_last_plan_it_brakes_to_a_stand_and_stays() -> None:
    vehicle = TrackedVehicle(START)
    vehicle.follow(constant_turn_rate(8.0, 0.0))
    for _ in range(40):
        vehicle.step()
    assert vehicle.ego.speed == pytest.approx(8.0, abs=0.2)
    for _ in range(80):
        vehicle.step()
    assert abs(vehicle.ego.speed) < 0.2
    place = vehicle.state[:2].copy()
    for _ in range(50):
        vehicle.step()
    assert np.hypot(*(vehicle.state[:2] - place)) < 0.2


def test_without_any_plan_it_brakes_at_once() -> None:
    vehicle = TrackedVehicle(START)
    for _ in range(60):
        vehicle.step()
    assert abs(vehicle.ego.speed) < 0.2 and vehicle.plan_age_steps is None


@pytest.mark.parametrize("curvature", [0.0, 0.1, -0.05])
def test_the_braking_plan_is_as_long_as_physics_says(curvature: float) -> None:
    poses = np.concatenate([np.zeros((1, 3)), braking_plan(9.0, curvature)])
    chord = np.hypot(*np.diff(poses[:, :2], axis=0).T)
    half = np.abs(np.diff(poses[:, 2])) / 2
    arc = np.where(half > 1e-9, chord * half / np.sin(np.maximum(half, 1e-9)), chord)
    assert arc.sum() == pytest.approx(9.0**2 / (2 * BRAKING))
    assert poses[-1, 2] == pytest.approx(curvature * arc.sum())
