"""Kinds of vehicles and people: sizes, usual drivers, and the looks drawn for each one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentvla_training.world.episode import AgentModel

_PEOPLE_COLORS = np.array(
    [(52, 64, 92), (150, 40, 44), (40, 44, 48), (186, 160, 60), (220, 216, 208), (70, 104, 76),
     (118, 84, 60), (206, 110, 40)],
    np.uint8,
)  # fmt: skip
_COLORS = np.array(
    [
        (225, 225, 225), (190, 192, 196), (120, 122, 126), (38, 38, 42), (20, 20, 22),
        (150, 24, 24), (28, 60, 130), (60, 90, 60), (170, 140, 90), (205, 180, 40),
    ],
    np.uint8,
)  # fmt: skip


@dataclass(frozen=True)
class VehicleModel:
    """A kind of vehicle: size in m, SUMO class, share of the traffic, driver's usual limits."""

    name: str
    length: float
    width: float
    height: float
    vclass: str
    looks: AgentModel
    share: float
    accel: float
    decel: float


VEHICLE_MODELS = (
    VehicleModel("hatchback", 4.1, 1.75, 1.50, "passenger", AgentModel.CAR, 0.26, 2.6, 4.5),
    VehicleModel("saloon", 4.7, 1.85, 1.46, "passenger", AgentModel.CAR, 0.25, 2.6, 4.5),
    VehicleModel("suv", 4.8, 1.95, 1.75, "passenger", AgentModel.CAR, 0.15, 2.4, 4.5),
    VehicleModel("van", 5.6, 2.05, 2.50, "delivery", AgentModel.VAN, 0.10, 2.0, 4.2),
    VehicleModel("truck", 8.6, 2.45, 3.40, "truck", AgentModel.TRUCK, 0.07, 1.3, 4.0),
    VehicleModel("bus", 11.5, 2.50, 3.10, "bus", AgentModel.BUS, 0.04, 1.2, 4.0),
    VehicleModel(
        "motorcycle", 2.2, 0.80, 1.55, "motorcycle", AgentModel.MOTORCYCLE, 0.06, 3.2, 5.0
    ),
    VehicleModel("bicycle", 1.8, 0.65, 1.70, "bicycle", AgentModel.BICYCLE, 0.07, 1.2, 3.0),
)
MODEL_BY_NAME = {model.name: model for model in VEHICLE_MODELS}


@dataclass(frozen=True)
class Looks:
    """What an agent looks like: model, (length, width, height) in m, (3,) uint8 RGB."""

    model: AgentModel
    size: tuple[float, float, float]
    color: NDArray[np.uint8]


def draw_looks(model: VehicleModel, rng: np.random.Generator) -> Looks:
    """Return the looks of one vehicle of ``model``."""
    height = round(model.height * (1.0 + float(rng.uniform(-0.05, 0.05))), 2)
    color = _COLORS[int(rng.integers(len(_COLORS)))]
    return Looks(model.looks, (model.length, model.width, height), color)


def draw_person_looks(rng: np.random.Generator) -> Looks:
    """Return the looks of one pedestrian."""
    height = round(float(rng.uniform(1.5, 1.92)), 2)
    color = _PEOPLE_COLORS[int(rng.integers(len(_PEOPLE_COLORS)))]
    return Looks(AgentModel.PEDESTRIAN, (0.6, 0.6, height), color)
