"""How fast the cameras render: frames per CPU second on the junction and on a test network."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from latentvla_training.world.cameras import Renderer
from latentvla_training.world.crossroads import crossroads_episode, crossroads_map
from latentvla_training.world.episode import AgentModel, Episode, Weather
from latentvla_training.world.rig import default_rig
from latentvla_training.world.still_life import MODEL_SIZES


def render_benchmark(renderer: Renderer, episode: Episode, frames: int = 120) -> float:
    """Return frames per CPU second of this process; a frame is all cameras of the default rig."""
    rig = default_rig()
    steps = np.linspace(0, episode.num_steps - 1, frames).astype(int)
    began = 0.0
    for index, step in enumerate([0, *steps]):
        if index == 1:  # the first frame compiles
            began = time.process_time()
        for camera in rig.cameras:
            assert camera.model is not None
            model = camera.model
            renderer.render(
                episode, int(step), model.matrix, model.width, model.height, camera.ego_from_camera
            )
    return frames / (time.process_time() - began)


def crowded(episode: Episode, agents: int = 40, seed: int = 0) -> Episode:
    """Return ``episode`` with ``agents`` all around the ego at every step, 8 to 60 m from it."""
    rng = np.random.default_rng(seed)
    models = rng.choice(
        [*AgentModel], agents, p=[0.42, 0.08, 0.07, 0.05, 0.05, 0.08, 0.15, 0.05, 0.05]
    ).astype(np.uint8)
    sizes = np.array([MODEL_SIZES[AgentModel(model)] for model in models])
    bearing, reach = rng.uniform(-np.pi, np.pi, agents), rng.uniform(8.0, 60.0, agents)
    state = np.zeros((episode.num_steps, agents, 5))
    state[:, :, 0] = episode.ego[:, :1] + reach * np.cos(bearing)
    state[:, :, 1] = episode.ego[:, 1:2] + reach * np.sin(bearing)
    state[:, :, 2] = rng.uniform(-np.pi, np.pi, agents)
    state[:, :, 3] = 1.0
    valid: NDArray[np.bool_] = np.ones((episode.num_steps, agents), np.bool_)
    return replace(
        episode,
        agent_type=np.array([AgentModel(model).agent_type for model in models], np.uint8),
        agent_model=models,
        agent_size=sizes,
        agent_color=rng.integers(20, 240, (agents, 3)).astype(np.uint8),
        agent_state=state,
        agent_valid=valid,
        agent_braking=~valid,
    )


def main(network: str = "test-0000") -> None:
    """Print the rates of the default rig."""
    from latentvla_training.world.networks import build_road_map
    from latentvla_training.world.simulation import simulate_episode

    junction = Renderer(crossroads_map()), crossroads_episode()
    city = Renderer(build_road_map(network)), simulate_episode(f"{network}-00")
    for place, (renderer, episode) in {"the junction": junction, network: city}.items():
        for weather in Weather:
            scene = crowded(replace(episode, weather=weather))
            rate = render_benchmark(renderer, scene)
            print(f"{rate:4.0f} frames/s by CPU time on {place}, 40 actors, {weather.value}")
        rate = render_benchmark(renderer, replace(episode, weather=Weather.CLEAR))
        print(f"{rate:4.0f} frames/s by CPU time on {place}, its own traffic, clear")
    print("A frame is 3 cameras of 256x128.")


if __name__ == "__main__":
    main()
