"""Long-tail events: where they belong, triggered by any driver, avoidable, logged."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from latentvla_training.world.episode import STEP_S, AgentModel, EgoVehicle, Episode, EventName
from latentvla_training.world.episode_file import load_episode, save_episode
from latentvla_training.world.events import EVENTS, TRAIN_SHARE, kinds_for
from latentvla_training.world.events.base import REACTION_S, stopping_distance
from latentvla_training.world.expert import EgoState, step_bicycle
from latentvla_training.world.session import EpisodeSession
from latentvla_training.world.sight import Occluders
from latentvla_training.world.simulation import simulate_episode

NETWORK = 0  # a grid


def longtail(name: EventName, network: int = NETWORK) -> str:
    """An episode of the ``longtail`` network whose first choice is this event."""
    wanted = list(EventName).index(name)
    return f"longtail-{network:04d}-{(wanted - 3 * network) % len(EventName):02d}"


@pytest.fixture(scope="module")
def episodes(data_root: Path) -> dict[EventName, Episode]:
    kinds = (
        EventName.LEAD_HARD_BRAKES,
        EventName.OCCLUDED_PEDESTRIAN,
        EventName.WRONG_WAY_CYCLIST,
        EventName.BLOCKED_LANE,
    )
    return {name: simulate_episode(longtail(name)) for name in kinds}


def test_every_name_has_its_event() -> None:
    assert set(EVENTS) == set(EventName)
    assert all(kind.name is name for name, kind in EVENTS.items())


def test_longtail_cycles_through_all_kinds_on_every_network() -> None:
    for network in range(12):
        first = []
        for episode in range(8):
            kinds = list(kinds_for("longtail", network, episode, np.random.default_rng(episode)))
            assert len(set(kinds)) == len(EventName)
            first.append(kinds[0].name)
        assert set(first) == set(EventName)


def test_other_splits_have_none_but_a_share_of_train() -> None:
    for split in ("val", "test", "ood"):
        assert not any(
            list(kinds_for(split, 0, n, np.random.default_rng(n))) for n in range(50)
        )  # fmt: skip
    drawn = [list(kinds_for("train", 0, 0, np.random.default_rng((n, 5)))) for n in range(2000)]
    assert np.mean([len(kinds) > 0 for kinds in drawn]) == pytest.approx(TRAIN_SHARE, abs=0.03)
    first = Counter(kinds[0].name for kinds in drawn if kinds)
    assert min(first[name] for name in EventName) > 20


def test_events_are_logged_with_their_steps_and_parameters(
    episodes: dict[EventName, Episode], tmp_path: Path
) -> None:
    for name, episode in episodes.items():
        assert [event.name for event in episode.events] == [name]
        (event,) = episode.events
        assert 0 <= event.start_step < event.end_step <= episode.num_steps
        assert event.parameters
        assert all(np.isfinite(value) for value in event.parameters.values())
        save_episode(episode, tmp_path / "episode.npz")
        assert load_episode(tmp_path / "episode.npz").events == episode.events


def test_the_leader_brakes_as_hard_as_drawn_with_its_lights_on(
    episodes: dict[EventName, Episode],
) -> None:
    episode = episodes[EventName.LEAD_HARD_BRAKES]
    (event,) = episode.events
    steps = slice(event.start_step + 1, event.start_step + 9)
    speed = np.linalg.norm(episode.agent_state[steps, :, 3:], axis=2)
    braking = -np.gradient(speed, STEP_S, axis=0).mean(axis=0)
    leader = int(np.argmax(np.where(episode.agent_valid[steps].all(axis=0), braking, 0.0)))
    assert braking[leader] == pytest.approx(event.parameters["deceleration"], abs=0.6)
    assert episode.agent_braking[steps, leader].all()


def test_the_pedestrian_comes_into_view_in_time(episodes: dict[EventName, Episode]) -> None:
    """Hidden by the parked car, then seen 2 s and a stop's way before the ego could be there."""
    episode = episodes[EventName.OCCLUDED_PEDESTRIAN]
    (event,) = episode.events
    start = event.start_step
    people = np.flatnonzero(episode.agent_model == AgentModel.PEDESTRIAN)
    parked = (episode.agent_model <= AgentModel.TRUCK) & (
        np.abs(episode.agent_state[..., 3:]).sum(axis=(0, 2)) == 0.0
    )
    occluders = Occluders(
        episode.agent_state[start, parked, :2],
        episode.agent_state[start, parked, 2],
        episode.agent_size[parked, :2],
    )
    walked = np.linalg.norm(np.ptp(episode.agent_state[start : start + 20, people, :2], 0), axis=1)
    pose = episode.ego[start, :3]
    offset = episode.agent_state[start, people, :2] - pose[:2]
    ahead = offset @ [np.cos(pose[2]), np.sin(pose[2])]
    hidden = [not occluders.clear(pose[:2], pose[:2] + one) for one in offset]
    stood = np.abs(episode.agent_state[max(start - 1, 0), people, 3:]).sum(axis=1) == 0.0
    (who,) = np.flatnonzero(hidden & stood & (walked > 1.0) & (ahead > 5.0) & (ahead < 60.0))
    for step in range(start, event.end_step):
        ego = episode.ego[step]
        here = episode.agent_state[step, people[who], :2]
        if occluders.clear(ego[:2], here):
            way = float(np.linalg.norm(here - ego[:2]))
            way -= EgoVehicle().rear_axle_to_center_m + EgoVehicle().length_m / 2
            assert way > stopping_distance(float(ego[3]))
            assert way / max(float(ego[3]), 0.1) >= 2.0 or ego[3] < episode.ego[start, 3] - 0.5
            return
    raise AssertionError("the pedestrian never came into view")


def test_the_cyclist_comes_towards_the_ego(episodes: dict[EventName, Episode]) -> None:
    episode = episodes[EventName.WRONG_WAY_CYCLIST]
    (event,) = episode.events
    steps = range(event.start_step + 10, event.end_step - 10)
    facing = []
    for step in steps:
        near = np.linalg.norm(episode.agent_state[step, :, :2] - episode.ego[step, :2], axis=1) < 60
        chosen = near & (episode.agent_model == AgentModel.BICYCLE) & episode.agent_valid[step]
        relative = episode.agent_state[step, chosen, 2] - episode.ego[step, 2]
        facing.append((np.cos(relative) < -0.7).any())
    assert np.mean(facing) > 0.8


def test_a_vehicle_stands_in_the_lane(episodes: dict[EventName, Episode]) -> None:
    episode = episodes[EventName.BLOCKED_LANE]
    (event,) = episode.events
    line = episode.route_centerline
    standing = np.abs(episode.agent_state[event.start_step, :, 3:]).sum(axis=1) == 0.0
    standing &= episode.agent_valid[event.start_step] & (episode.agent_model <= AgentModel.TRUCK)
    centers = episode.agent_state[event.start_step, standing, :2]
    distance = np.linalg.norm(line[:, None] - centers[None], axis=2).min(axis=0)
    assert distance.min() < 0.6


def test_a_blind_driver_meets_the_same_event(data_root: Path) -> None:
    """The event waits for the ego: one that only keeps its speed still meets the braking leader."""
    name = longtail(EventName.LEAD_HARD_BRAKES)
    with EpisodeSession(name) as session:
        state = session.state
        assert session.events == ()
        assert session.staged_event is EventName.LEAD_HARD_BRAKES
        for _ in range(100):
            snapshot = session.observe(state)
            following = session.expert.drive(state, snapshot)
            push = 0.0 if session.events else following.acceleration
            state = step_bicycle(state, min(push, 1.0), following.wheel_angle)
        happened = session.events
    assert [event.name for event in happened] == [EventName.LEAD_HARD_BRAKES]


def test_planned_stops_are_within_reach() -> None:
    for speed in (5.0, 14.0, 28.0):
        way, t, v = stopping_distance(speed), REACTION_S, speed
        driven = speed * t
        state = EgoState(0.0, 0.0, 0.0, v, 0.0, 0.0)
        while state.speed > 0.0:
            state = step_bicycle(state, -6.0, 0.0)
        assert driven + state.x == pytest.approx(way, abs=0.5)
