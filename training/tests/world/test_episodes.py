"""Episodes: the same for a name, on the road, within the rules; and their files."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import shapely
from latentvla_training.world.episode import AgentModel, EgoVehicle, Episode
from latentvla_training.world.episode_file import load_episode, save_episode
from latentvla_training.world.networks import build_road_map
from latentvla_training.world.road_map import Layer
from latentvla_training.world.simulation import (
    LOG_RADIUS_M,
    NUM_STEPS,
    ROUTE_AHEAD_M,
    simulate_episode,
)

from latentvla_ros.contract import Command, ContractError
from latentvla_ros.geometry import se2

NAMES = ("val-0000-00", "val-0000-01")


@pytest.fixture(scope="module")
def episodes(data_root: Path) -> list[Episode]:
    return [simulate_episode(name) for name in NAMES]


def digest(episode: Episode) -> str:
    """One hash over every field, arrays with their types and shapes."""
    state = hashlib.sha256()
    for field in fields(episode):
        value = getattr(episode, field.name)
        if isinstance(value, np.ndarray):
            state.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
        else:
            state.update(repr(value).encode())
    return state.hexdigest()


def boxes(x: np.ndarray, y: np.ndarray, yaw: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Corners (N, 4, 2) of boxes with ``size`` (N, 2) about their centres."""
    corners = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)]) * size[:, None] / 2
    return se2.transform_points(np.stack([x, y, yaw], axis=1), corners)


def ego_boxes(episode: Episode) -> np.ndarray:
    vehicle, (x, y, yaw) = EgoVehicle(), episode.ego[:, :3].T
    center = vehicle.rear_axle_to_center_m
    size = np.tile([vehicle.length_m, vehicle.width_m], (len(x), 1))
    return boxes(x + center * np.cos(yaw), y + center * np.sin(yaw), yaw, size)


def test_shapes(episodes: list[Episode]) -> None:
    for episode in episodes:
        agents, signals = len(episode.agent_type), len(build_road_map(episode.network).signals)
        assert episode.ego.shape == (NUM_STEPS, 7)
        assert episode.agent_state.shape == (NUM_STEPS, agents, 5)
        assert episode.agent_valid.shape == episode.agent_braking.shape == (NUM_STEPS, agents)
        assert episode.agent_size.shape == episode.agent_color.shape == (agents, 3)
        assert episode.signal_state.shape == (NUM_STEPS, signals)
        assert episode.command.shape == (NUM_STEPS,)
        assert episode.agent_valid.any(axis=0).all()
        assert not episode.agent_state[~episode.agent_valid].any()


def test_same_name_same_arrays_here_and_in_a_fresh_process(
    episodes: list[Episode], data_root: Path
) -> None:
    assert digest(simulate_episode(NAMES[0])) == digest(episodes[0])
    script = f"import sys, test_episodes as t\nprint(t.digest(t.simulate_episode({NAMES[1]!r})))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    path = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == digest(episodes[1])


def test_episodes_differ(episodes: list[Episode]) -> None:
    assert digest(episodes[0]) != digest(episodes[1])
    assert episodes[0].seed != episodes[1].seed


@pytest.mark.parametrize("name", ["", "val-0002", "val-0002-1", "val-9999-00", "road-0002-00"])
def test_unknown_episode_is_named(name: str) -> None:
    with pytest.raises(ContractError, match=r"episode|network"):
        simulate_episode(name)


def test_ego_moves_as_its_states_say(episodes: list[Episode]) -> None:
    for episode in episodes:
        speed, yaw_rate = episode.ego[:, 3], episode.ego[:, 6]
        step = np.linalg.norm(np.diff(episode.ego[:, :2], axis=0), axis=1)
        np.testing.assert_allclose(step, (speed[1:] + speed[:-1]) / 20, atol=0.01)
        turn = se2.wrap_angle(np.diff(episode.ego[:, 2]))
        np.testing.assert_allclose(turn, (yaw_rate[1:] + yaw_rate[:-1]) / 20, atol=0.01)


def test_ego_stays_on_the_road_and_hits_nobody(episodes: list[Episode]) -> None:
    for episode in episodes:
        road_map = build_road_map(episode.network)
        layers = (Layer.ROADBLOCK, Layer.INTERSECTION)
        rings = [polygon.ring for polygon in road_map.polygons if polygon.layer in layers]
        area = shapely.union_all([shapely.Polygon(ring) for ring in rings])
        shapely.prepare(area)
        corners = ego_boxes(episode)
        assert shapely.contains_xy(area, corners[..., 0], corners[..., 1]).all()
        for step in np.flatnonzero(episode.ego[:, 3] > 0.05):
            valid = episode.agent_valid[step]
            x, y, yaw = episode.agent_state[step, valid, :3].T
            others = shapely.polygons(boxes(x, y, yaw, episode.agent_size[valid, :2]))
            assert not shapely.intersects(shapely.Polygon(corners[step]), others).any()


def test_agents_are_near_and_sized(episodes: list[Episode]) -> None:
    for episode in episodes:
        distance = np.linalg.norm(episode.agent_state[..., :2] - episode.ego[:, None, :2], axis=2)
        assert distance[episode.agent_valid].max() <= LOG_RADIUS_M + 0.01
        assert (episode.agent_size > 0.3).all()
        assert (episode.agent_size < 13.0).all()
        types = [AgentModel(model).agent_type for model in episode.agent_model]
        assert (episode.agent_type == types).all()
        assert AgentModel.CAR in episode.agent_model
        assert AgentModel.PEDESTRIAN in episode.agent_model


def test_agents_move_as_their_velocities_say(episodes: list[Episode]) -> None:
    """Box centres, not bumpers: a centre moves along with the velocity, turns included."""
    for episode in episodes:
        both = episode.agent_valid[1:] & episode.agent_valid[:-1]
        moved = np.diff(episode.agent_state[..., :2], axis=0)[both] / 0.1
        stated = episode.agent_state[1:, :, 3:][both]
        error = np.linalg.norm(moved - stated, axis=1)
        assert np.median(error) < 0.3
        assert np.percentile(error, 99) < 2.5


def test_route_reaches_past_the_drive_and_commands_follow_it(episodes: list[Episode]) -> None:
    for episode in episodes:
        line = shapely.LineString(episode.route_centerline)
        along = line.project(shapely.points(episode.ego[:, :2]))
        assert line.length - along[-1] >= ROUTE_AHEAD_M - 5.0
        assert line.distance(shapely.points(episode.ego[:, :2])).max() < 1.0
        assert len(episode.route_speed_limit) == len(episode.route_centerline)
        assert (episode.ego[:, 3] < episode.route_speed_limit.max() + 0.3).all()
        assert set(episode.command) <= {Command.LEFT, Command.STRAIGHT, Command.RIGHT}


def test_file_gives_back_what_was_saved(episodes: list[Episode], tmp_path: Path) -> None:
    path = tmp_path / "new" / "episode.npz"
    for episode in episodes:
        save_episode(episode, path)
        assert path.stat().st_size < 200_000
        assert digest(load_episode(path)) == digest(episode)
    assert [item.name for item in path.parent.iterdir()] == ["episode.npz"]


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.999])
def test_truncated_file_is_named(episodes: list[Episode], tmp_path: Path, share: float) -> None:
    path = tmp_path / "cut.npz"
    save_episode(episodes[0], path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ContractError, match=r"cut\.npz"):
        load_episode(path)


def test_flipped_bytes_are_found(episodes: list[Episode], tmp_path: Path) -> None:
    path = tmp_path / "flipped.npz"
    save_episode(episodes[0], path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(ContractError, match=r"flipped\.npz"):
        load_episode(path)


def test_other_npz_and_missing_files_are_told_apart(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", ego=np.zeros(3))
    with pytest.raises(ContractError, match=r"other\.npz"):
        load_episode(tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError):
        load_episode(tmp_path / "none.npz")
