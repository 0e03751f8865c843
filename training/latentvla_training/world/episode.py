"""A driven episode as a compact state log; images are rendered from it, identically for a seed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Columns of ``Episode.ego``: rear axle pose in the map frame, body-frame motion.
EGO_COLUMNS = ("x", "y", "yaw", "speed", "acceleration", "wheel_angle", "yaw_rate")

#: Columns of ``Episode.agent_state``: box centre in the map frame, global velocity.
AGENT_COLUMNS = ("x", "y", "yaw", "vx", "vy")

STEP_S = 0.1


class AgentType(IntEnum):
    """Agent classes; the values are those of the scoring vectors' ``ag_type``.

    As in nuPlan a motorcycle is of class BICYCLE. Cones and barriers are static.
    """

    VEHICLE = 0
    PEDESTRIAN = 1
    BICYCLE = 2
    CONE = 3
    BARRIER = 4


class AgentModel(IntEnum):
    """What an agent looks like."""

    CAR = 0
    VAN = 1
    TRUCK = 2
    BUS = 3
    MOTORCYCLE = 4
    BICYCLE = 5
    PEDESTRIAN = 6
    CONE = 7
    BARRIER = 8

    @property
    def agent_type(self) -> AgentType:
        """The class that scoring sees."""
        if self <= AgentModel.BUS:
            return AgentType.VEHICLE
        return {
            AgentModel.MOTORCYCLE: AgentType.BICYCLE,
            AgentModel.BICYCLE: AgentType.BICYCLE,
            AgentModel.PEDESTRIAN: AgentType.PEDESTRIAN,
            AgentModel.CONE: AgentType.CONE,
            AgentModel.BARRIER: AgentType.BARRIER,
        }[self]


class Weather(str, Enum):
    """What the sky does in an episode; RAIN is in the ``ood`` split alone."""

    CLEAR = "clear"
    FOG = "fog"
    NIGHT = "night"
    RAIN = "rain"


class EventName(str, Enum):
    """The long-tail events by name, each injected by ``world.events``."""

    LEAD_HARD_BRAKES = "lead_hard_brakes"
    CUT_IN = "cut_in"
    OCCLUDED_PEDESTRIAN = "occluded_pedestrian"
    RED_LIGHT_RUNNER = "red_light_runner"
    WRONG_WAY_CYCLIST = "wrong_way_cyclist"
    BLOCKED_LANE = "blocked_lane"
    TRAFFIC_BEHIND_CURVE = "traffic_behind_curve"
    STOP_IN_JUNCTION = "stop_in_junction"


@dataclass(frozen=True)
class Event:
    """One injected long-tail event.

    Attributes:
        name: which. start_step, end_step: steps of the episode (half open) in which it matters to
            the ego; Scenes in them carry the name as a tag.
        parameters: what was drawn, by name, SI units.
    """

    name: EventName
    start_step: int
    end_step: int
    parameters: dict[str, float]


@dataclass(frozen=True)
class EgoVehicle:
    """Dimensions of the ego (NAVSIM's Pacifica), m."""

    length_m: float = 5.176
    width_m: float = 2.297
    height_m: float = 1.777
    wheelbase_m: float = 3.089
    rear_axle_to_center_m: float = 1.461


@dataclass(frozen=True)
class Episode:
    """T steps at 10 Hz, A agents, S signals of the network ``network``.

    Attributes:
        name: unique, e.g. ``train-0007-02``.
        network: ``RoadMap.name``; ``split`` and the network's seed follow from it.
        seed: of everything drawn in this episode (traffic, colours, light).
        ego: (T, 7) ``EGO_COLUMNS``.
        agent_type: (A,) uint8 ``AgentType``. agent_model: (A,) uint8 ``AgentModel``.
        agent_size: (A, 3) length, width, height.
        agent_color: (A, 3) uint8 RGB.
        agent_state: (T, A, 5) ``AGENT_COLUMNS``, 0 where invalid.
        agent_valid: (T, A) bool.
        agent_braking: (T, A) bool, brake lights.
        signal_state: (T, S) uint8 ``SignalState``.
        route_lanes: lane ids (connectors included) that the ego's route follows, in order.
        route_centerline: (N, 2) about 1 m spacing, the route's centreline, from behind the start to
            at least 100 m past the end.
        route_speed_limit: (N,) m/s.
        command: (T,) uint8 ``Command``, from the route alone.
        weather: light and sky.
        events: long-tail events injected into the traffic, by start.
    """

    name: str
    network: str
    seed: int
    ego: Array
    agent_type: NDArray[np.uint8]
    agent_model: NDArray[np.uint8]
    agent_size: Array
    agent_color: NDArray[np.uint8]
    agent_state: Array
    agent_valid: NDArray[np.bool_]
    agent_braking: NDArray[np.bool_]
    signal_state: NDArray[np.uint8]
    route_lanes: tuple[str, ...]
    route_centerline: Array
    route_speed_limit: Array
    command: NDArray[np.uint8]
    weather: Weather = Weather.CLEAR
    events: tuple[Event, ...] = ()

    @property
    def num_steps(self) -> int:
        """Number of 10 Hz steps T."""
        return len(self.ego)
