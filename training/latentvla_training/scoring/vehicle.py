"""NAVSIM's ego: the state vector, the Pacifica's dimensions and the corners of its box.

Source: design/metrics.md section 0 (nuPlan ``get_pacifica_parameters``, NAVSIM ``StateIndex``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from latentvla_ros.contract import ContractError


class StateIndex(IntEnum):
    """Columns of a simulated state; the reference point is the rear axle, body-frame vectors."""

    X = 0
    Y = 1
    HEADING = 2
    VX = 3
    VY = 4
    AX = 5
    AY = 6
    STEER = 7
    STEER_RATE = 8
    YAW_RATE = 9
    YAW_ACC = 10


STATE_SIZE = len(StateIndex)
NUM_STEPS = 40
NUM_STATES = NUM_STEPS + 1
STEP_S = 0.1


@dataclass(frozen=True)
class Vehicle:
    """Dimensions in m; the defaults are nuPlan's Pacifica.

    Attributes:
        width, front, rear: box width; rear axle to front and to rear bumper.
        wheelbase: rear axle to front axle.
    """

    width: float = 2.297
    front: float = 4.049
    rear: float = 1.127
    wheelbase: float = 3.089

    def __post_init__(self) -> None:
        for name in ("width", "front", "rear", "wheelbase"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0.0):
                raise ContractError(f"Vehicle.{name}", value, "finite and > 0")

    @property
    def length(self) -> float:
        """Bumper to bumper."""
        return self.front + self.rear

    @property
    def center_offset(self) -> float:
        """Rear axle to the centre of the box, along the heading."""
        return self.length / 2.0 - self.rear


PACIFICA = Vehicle()


def box_center(states: Tensor, vehicle: Vehicle = PACIFICA) -> Tensor:
    """Return the (..., 2) centre of the ego box of states (..., >= 3)."""
    heading = states[..., StateIndex.HEADING]
    direction = torch.stack([torch.cos(heading), torch.sin(heading)], dim=-1)
    return states[..., :2] + vehicle.center_offset * direction


def oriented_box_corners(
    center: Tensor, heading: Tensor, half_length: Tensor | float, half_width: Tensor | float
) -> Tensor:
    """Return (..., 4, 2) corners in the order FL, RL, RR, FR of boxes about ``center`` (..., 2).

    ``heading``, ``half_length`` and ``half_width`` have the shape of ``center`` without its last
    axis (or broadcast to it). The lateral direction is cos/sin(heading + pi/2), as nuPlan computes
    it, so that axis-aligned boxes touch exactly where NAVSIM's do.
    """
    cos, sin = torch.cos(heading), torch.sin(heading)
    cos_left, sin_left = torch.cos(heading + math.pi / 2), torch.sin(heading + math.pi / 2)
    corners = []
    for lon_sign, lat_sign in ((1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0)):
        lon, lat = lon_sign * half_length, lat_sign * half_width
        offset = torch.stack([lat * cos_left + lon * cos, lat * sin_left + lon * sin], dim=-1)
        corners.append(center + offset)
    return torch.stack(corners, dim=-2)


def ego_corners(states: Tensor, vehicle: Vehicle = PACIFICA) -> Tensor:
    """Return (..., 4, 2) corners (FL, RL, RR, FR) of the ego box of states (..., >= 3)."""
    return oriented_box_corners(
        box_center(states, vehicle),
        states[..., StateIndex.HEADING],
        vehicle.length / 2.0,
        vehicle.width / 2.0,
    )
