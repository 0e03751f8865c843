"""Small scenes built by hand for the tests of the scores."""

from __future__ import annotations

import numpy as np
from latentvla_training.scoring.scene_batch import SceneArrays
from latentvla_training.world.road_map import Layer
from numpy.typing import NDArray

Array = NDArray[np.float64]


def rectangle(x0: float, y0: float, x1: float, y1: float) -> Array:
    """Axis-aligned open ring, counter-clockwise."""
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64)


def straight_plan(speed: float) -> Array:
    """Eight poses straight ahead at a constant speed."""
    time = np.arange(1, 9) * 0.5
    return np.stack([speed * time, np.zeros(8), np.zeros(8)], axis=-1)


def agent(
    x: float, y: float, speed: float = 0.0, kind: int = 0, heading: float = 0.0
) -> dict[str, Array]:
    """A 4 x 2 m agent that moves along its heading, present in all frames."""
    time = np.arange(51) * 0.1
    velocity = speed * np.array([np.cos(heading), np.sin(heading)])
    state = np.zeros((51, 5))
    state[:, 0], state[:, 1] = x + velocity[0] * time, y + velocity[1] * time
    state[:, 2], state[:, 3:5] = heading, velocity
    return {"type": np.array(kind), "size": np.array([4.0, 2.0]), "state": state}


def straight_road(
    speed: float = 10.0,
    agents: list[dict[str, Array]] | None = None,
    human: Array | None = None,
    light_red: bool | None = None,
    reference_speed: float | None = None,
) -> SceneArrays:
    """A road along +x with one lane on the route (|y| < 2) and an oncoming one (2 < y < 6).

    The ego starts at the origin. With ``light_red`` a connector at 30 < x < 40 has that light.
    """
    agents = agents or []
    time = np.arange(41) * 0.1
    reference = np.zeros((41, 3))
    reference[:, 0] = (speed if reference_speed is None else reference_speed) * time
    ego = np.zeros(11)
    ego[3] = speed
    history = np.tile(ego, (4, 1))
    history[:, 0] = speed * np.array([-1.5, -1.0, -0.5, 0.0])
    polygons = [
        rectangle(-50, -2, 150, 6),
        rectangle(-50, -2, 150, 2),
        rectangle(-50, 2, 150, 6),
    ]
    layer = [Layer.ROADBLOCK, Layer.LANE, Layer.LANE]
    on_route = [False, True, False]
    if light_red is not None:
        polygons.append(rectangle(30, -2, 40, 2))
        layer.append(Layer.LANE_CONNECTOR)
        on_route.append(True)
    lights = 0 if light_red is None else 1
    return SceneArrays(
        ego=ego,
        history=history,
        start_time_s=0.0,
        reference=reference,
        human=human,
        agent_type=np.array([int(a["type"]) for a in agents], np.int64),
        agent_size=np.array([a["size"] for a in agents]).reshape(len(agents), 2),
        agent_state=np.array([a["state"] for a in agents]).reshape(len(agents), 51, 5),
        agent_valid=np.ones((len(agents), 51), np.bool_),
        polygons=polygons,
        polygon_layer=np.array(layer, np.int64),
        polygon_on_route=np.array(on_route),
        light_polygon=np.full(lights, 3, np.int64),
        light_red=np.full((lights, 41), bool(light_red)),
        centerline=np.stack([np.linspace(-20, 120, 141), np.zeros(141)], axis=-1),
    )
