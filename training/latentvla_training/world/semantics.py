"""Classes of what a pixel shows, and colours to look at them."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from latentvla_training.world.episode import AgentModel


class SemanticClass(IntEnum):
    """What a pixel of ``Renderer.render_semantic`` shows."""

    SKY = 0
    TERRAIN = 1
    ROAD = 2
    SIDEWALK = 3
    MARKING = 4
    BUILDING = 5
    VEGETATION = 6
    POLE = 7
    SIGNAL = 8
    VEHICLE = 9
    PEDESTRIAN = 10
    TWO_WHEELER = 11
    """A bicycle or motorcycle with its rider."""
    CONE = 12
    BARRIER = 13


#: RGB of every class, for pictures.
SEMANTIC_COLORS: NDArray[np.uint8] = np.array(
    [
        (126, 178, 220), (136, 168, 104), (96, 84, 110), (212, 150, 206), (245, 245, 240),
        (110, 104, 104), (86, 130, 52), (150, 150, 150), (246, 176, 40), (32, 72, 190),
        (220, 32, 66), (150, 24, 50), (250, 110, 30), (240, 90, 130),
    ],
    np.uint8,
)  # fmt: skip

_OF_MODEL = {
    AgentModel.MOTORCYCLE: SemanticClass.TWO_WHEELER,
    AgentModel.BICYCLE: SemanticClass.TWO_WHEELER,
    AgentModel.PEDESTRIAN: SemanticClass.PEDESTRIAN,
    AgentModel.CONE: SemanticClass.CONE,
    AgentModel.BARRIER: SemanticClass.BARRIER,
}
#: Class of every ``AgentModel``, by its value.
CLASS_OF_MODEL: NDArray[np.uint8] = np.array(
    [_OF_MODEL.get(model, SemanticClass.VEHICLE) for model in AgentModel], np.uint8
)
