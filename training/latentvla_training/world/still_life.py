"""One moment at the hand-made junction with chosen agents: to look at models and weathers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from latentvla_training.world.crossroads import crossroads_episode
from latentvla_training.world.episode import AgentModel, Episode, Weather
from latentvla_training.world.road_map import SignalState

#: Length, width, height of a typical agent of every model, m.
MODEL_SIZES: dict[AgentModel, tuple[float, float, float]] = {
    AgentModel.CAR: (4.6, 1.85, 1.5),
    AgentModel.VAN: (5.6, 2.05, 2.5),
    AgentModel.TRUCK: (8.6, 2.45, 3.4),
    AgentModel.BUS: (12.0, 2.55, 3.2),
    AgentModel.MOTORCYCLE: (2.2, 0.8, 1.5),
    AgentModel.BICYCLE: (1.8, 0.6, 1.75),
    AgentModel.PEDESTRIAN: (0.5, 0.5, 1.75),
    AgentModel.CONE: (0.4, 0.4, 0.75),
    AgentModel.BARRIER: (0.5, 2.0, 1.0),
}


@dataclass(frozen=True)
class StillAgent:
    """An agent that stands still: model, x, y, yaw of its centre in the map frame, looks."""

    model: AgentModel
    pose: tuple[float, float, float]
    color: tuple[int, int, int] = (40, 90, 160)
    size: tuple[float, float, float] | None = None
    braking: bool = False


def still_life(
    agents: Sequence[StillAgent] = (),
    weather: Weather = Weather.CLEAR,
    signals: SignalState = SignalState.RED,
    seed: int = 3,
) -> Episode:
    """Return an episode of one step on ``crossroads_map`` with these agents and lights."""
    template = crossroads_episode(seed, num_steps=1)
    count = len(agents)
    state = np.zeros((1, count, 5))
    state[0, :, :3] = np.array([agent.pose for agent in agents]).reshape(-1, 3)
    sizes = [agent.size or MODEL_SIZES[agent.model] for agent in agents]
    return replace(
        template,
        agent_type=np.array([agent.model.agent_type for agent in agents], np.uint8),
        agent_model=np.array([agent.model for agent in agents], np.uint8),
        agent_size=np.array(sizes, np.float64).reshape(-1, 3),
        agent_color=np.array([agent.color for agent in agents], np.uint8).reshape(-1, 3),
        agent_state=state,
        agent_valid=np.ones((1, count), np.bool_),
        agent_braking=np.array([[agent.braking for agent in agents]], np.bool_).reshape(1, count),
        signal_state=np.full_like(template.signal_state, signals),
        weather=weather,
    )
