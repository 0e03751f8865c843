"""Figures of the table of results on cases worked by hand; baselines that drive straight on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from latentvla_training.data.shards import ShardReader
from latentvla_training.planner import open_loop
from latentvla_training.planner.baselines import (
    EgoStatusNet,
    EgoStatusSettings,
    constant_velocity_plans,
    ego_status_plans,
    train_ego_status,
)
from latentvla_training.planner.evaluation import blank_plans
from latentvla_training.planner.released import load_baselines, save_blank, save_ego_status

from latentvla_ros.contract import ContractError
from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.model.planner import StudentPlanner


def test_displacement_errors() -> None:
    future = np.zeros((2, 8, 3), np.float32)
    plans = future.copy()
    plans[0, :, 0] = np.arange(1, 9)
    mask = np.ones((2, 8), np.bool_)
    mask[0, 4:] = False
    errors = open_loop.displacement_errors(plans, future, mask)
    np.testing.assert_allclose(errors.ade, [2.5, 0.0])
    assert np.isnan(errors.fde[0]) and errors.fde[1] == 0.0


def test_interval_is_wide_between_networks_and_nothing_within() -> None:
    networks = np.repeat(["a", "b", "c", "d"], 50)
    weights = open_loop.network_draws(networks)
    assert (weights.sum(axis=1) == 200).all()
    same = np.tile([0.0, 1.0], 100)
    assert open_loop.interval(same, weights) == (0.5, 0.5)
    low, high = open_loop.interval((networks == "a").astype(float), weights)
    assert low == 0.0 and high >= 0.5


def test_wrong_scene_is_another_network_of_like_speed() -> None:
    rng = np.random.default_rng(0)
    networks = np.repeat([f"n{i}" for i in range(8)], 25)
    speed, command = rng.uniform(0, 14, 200), rng.integers(0, 3, 200)
    other = open_loop.wrong_scene(speed, command, networks)
    assert sorted(other) == list(range(200))
    np.testing.assert_array_equal(command[other], command)
    usual = speed < 12.0  # what is faster is one bin without an upper edge
    assert np.abs(speed[other] - speed)[usual].max() <= 3.0
    assert (speed[other][~usual] >= 12.0).all()
    assert (networks[other] != networks).all()


def test_constant_velocity_is_right_where_nothing_changes(reader: ShardReader) -> None:
    plans = constant_velocity_plans(reader)
    np.testing.assert_allclose(plans, reader.columns["future_2hz"], atol=1e-5)


def test_ego_status_net_starts_as_constant_velocity_and_learns(reader: ShardReader) -> None:
    torch.manual_seed(0)
    net = EgoStatusNet(16, 2)
    np.testing.assert_allclose(
        ego_status_plans(net, reader), constant_velocity_plans(reader), atol=1e-3
    )
    reader.columns["future_2hz"] = reader.columns["future_2hz"] * np.float32(0.5)
    settings = EgoStatusSettings(width=16, layers=2, steps=150, batch_size=16, learning_rate=0.01)
    best = train_ego_status(reader, reader, settings)
    assert set(best.val_ade) == {0.0, 0.5}
    assert best.val_ade[best.drop_ego_state] == min(best.val_ade.values()) < 0.5


def test_released_baselines_round_trip(
    reader: ShardReader, tiny: PlannerConfig, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    planner = StudentPlanner(tiny).eval()
    net = EgoStatusNet(16, 2)
    folder = tmp_path / "released"
    planner.image_encoder.eval()
    with torch.inference_mode():
        blank = torch.zeros(1, 1, 32, 64, 3, dtype=torch.uint8)
        features = planner.encode_images(blank)[0, 0]
    save_blank(planner, features, {"provenance": {"seed": 0}}, folder)
    save_ego_status(net, {"width": 16, "layers": 2}, {}, folder)
    loaded = load_baselines(folder)
    np.testing.assert_allclose(
        ego_status_plans(loaded.ego_status, reader), ego_status_plans(net, reader), atol=1e-2
    )
    columns = reader.columns
    inputs = [torch.from_numpy(columns[name]) for name in (
        "view_mask", "intrinsics", "ego_from_camera", "ego_history", "ego_history_mask",
        "ego_dynamics", "ego_dynamics_mask", "command")]  # fmt: skip
    with torch.inference_mode():
        candidates, scores, _ = planner(torch.zeros(12, 4, 32, 64, 3, dtype=torch.uint8), *inputs)
    expected = candidates[torch.arange(12), scores.argmax(dim=1)].numpy()
    np.testing.assert_allclose(blank_plans(loaded.blank, reader), expected, atol=0.1)
    (folder / "ego_status.safetensors").write_bytes(b"damaged")
    with pytest.raises(ContractError, match=r"ego_status.safetensors.sha256"):
        load_baselines(folder)
