"""The law that nothing a planner is given depends on what comes after its moment.

An episode is changed wildly after a step (or cut off); what the planner gets at that step, byte for
byte, must not notice. The route stays: it is known before the drive.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from latentvla_training.data.episode_signals import episode_odometry, step_stamp_ns
from latentvla_training.data.labels import AGENT_STEPS, RoadIndex
from latentvla_training.data.scene import Scene
from latentvla_training.data.world_adapter import OdometryPlayer, episode_scenes
from latentvla_training.world import simulation
from latentvla_training.world.cameras import Renderer
from latentvla_training.world.episode import Episode
from latentvla_training.world.networks import build_road_map

from latentvla_ros.contract import Observation

NAME = "val-0002-00"
STEPS = (15, 115, 240)

#: What a Scene holds beside its inputs: names, the place on the map, the labels.
NO_INPUTS = {"token", "network", "ego_pose", "labels"}


@pytest.fixture(scope="module")
def episode(data_root: Path) -> Episode:
    return simulation.simulate_episode(NAME)


@pytest.fixture(scope="module")
def world(episode: Episode) -> tuple[RoadIndex, Renderer]:
    road_map = build_road_map(episode.network)
    return RoadIndex(road_map), Renderer(road_map)


def head(episode: Episode, steps: int) -> Episode:
    """The first ``steps`` steps of an episode."""
    per_step = {
        field.name: getattr(episode, field.name)[:steps]
        for field in fields(episode)
        if isinstance(getattr(episode, field.name), np.ndarray)
        and field.name not in {"agent_type", "agent_model", "agent_size", "agent_color"}
        and not field.name.startswith("route_")
    }
    return replace(episode, **per_step)


def scrambled(episode: Episode, step: int) -> Episode:
    """The same until ``step``, another world from the next step on."""
    rng = np.random.default_rng(step)
    late = slice(step + 1, None)
    names = ("ego", "agent_state", "agent_valid", "agent_braking", "signal_state", "command")
    changed = {name: getattr(episode, name).copy() for name in names}
    for name, scale in (("ego", 5.0), ("agent_state", 30.0)):
        changed[name][late] += scale * rng.standard_normal(changed[name][late].shape)
    for name in ("agent_valid", "agent_braking"):
        changed[name][late] ^= rng.random(changed[name][late].shape) < 0.5
    changed["signal_state"][late] = (changed["signal_state"][late] + 1) % 3
    changed["command"][late] = (changed["command"][late] + 1) % 4
    return replace(episode, **changed)


def scenes_until(
    episode: Episode, world: tuple[RoadIndex, Renderer], step: int, stride_s: float
) -> dict[str, Scene]:
    found = {}
    for scene in episode_scenes(episode, world[0], stride_s, renderer=world[1]):
        if scene.stamp_ns > step_stamp_ns(step):
            break
        found[scene.token] = scene
    return found


def input_bytes(scene: Scene) -> dict[str, bytes]:
    """Every field of a Scene that a network reads."""
    names = [field.name for field in fields(scene) if field.name not in NO_INPUTS]
    assert set(Observation.INPUTS) - {"images"} <= set(names)
    return {
        name: b"|".join(value) if isinstance(value, tuple) else np.asarray(value).tobytes()
        for name in names
        for value in (getattr(scene, name),)
    }


@pytest.mark.parametrize("step", STEPS)
def test_inputs_do_not_depend_on_what_comes_after(
    episode: Episode, world: tuple[RoadIndex, Renderer], step: int
) -> None:
    stride_s = 2.5  # from step 15 on: 15, 40, ..., 115, ..., 240
    truth = scenes_until(episode, world, step, stride_s)
    other = scenes_until(scrambled(episode, step), world, step, stride_s)
    short = scenes_until(head(episode, step + AGENT_STEPS + 1), world, step, stride_s)
    last = f"{NAME}/{step:05d}"
    assert last in truth and truth.keys() == other.keys() == short.keys()
    for token, scene in truth.items():
        assert input_bytes(other[token]) == input_bytes(scene) == input_bytes(short[token])
    # The scramble is no mere intention: the labels of the very same moment are others.
    assert not np.array_equal(other[last].labels.future_2hz, truth[last].labels.future_2hz)


def test_the_scramble_shows_one_stride_later(
    episode: Episode, world: tuple[RoadIndex, Renderer]
) -> None:
    truth = scenes_until(episode, world, 20, 0.5)
    other = scenes_until(scrambled(episode, 15), world, 20, 0.5)
    before, after = input_bytes(truth[f"{NAME}/00020"]), input_bytes(other[f"{NAME}/00020"])
    same = {name for name in before if before[name] == after[name]}
    assert same <= {"stamp_ns", "view_mask", "intrinsics", "ego_history_mask", "ego_dynamics_mask"}


@pytest.mark.parametrize("step", STEPS)
def test_odometry_until_now_is_enough(episode: Episode, step: int) -> None:
    t0_ns = step_stamp_ns(step)
    motions = [
        OdometryPlayer(episode_odometry(drive)).play_until(t0_ns).at(t0_ns)
        for drive in (episode, head(episode, step + 1))
    ]
    for name in ("history", "history_mask", "dynamics", "dynamics_mask"):
        first, second = (getattr(motion, name) for motion in motions)
        np.testing.assert_allclose(first, second, rtol=0.0, atol=1e-9)  # a cubic at its two ends


@pytest.mark.parametrize("step", STEPS)
def test_commands_come_from_the_route_and_the_present_place(episode: Episode, step: int) -> None:
    ego = scrambled(episode, step).ego
    commands = simulation._commands(ego, episode.route_centerline, episode.route_speed_limit)
    np.testing.assert_array_equal(commands[: step + 1], episode.command[: step + 1])


def test_the_drive_does_not_know_how_long_it_lasts(
    episode: Episode, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 120
    monkeypatch.setattr(simulation, "NUM_STEPS", steps)
    short = simulation.simulate_episode(NAME)
    agents = len(short.agent_type)
    np.testing.assert_array_equal(short.ego, episode.ego[:steps])
    np.testing.assert_array_equal(short.command, episode.command[:steps])
    np.testing.assert_array_equal(short.signal_state, episode.signal_state[:steps])
    np.testing.assert_array_equal(short.agent_state, episode.agent_state[:steps, :agents])
    np.testing.assert_array_equal(short.agent_valid, episode.agent_valid[:steps, :agents])
    assert not episode.agent_valid[:steps, agents:].any()
