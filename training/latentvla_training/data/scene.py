"""A Scene: one planning moment with everything that training and scoring need.

The network's inputs are those of ``latentvla_ros.contract.Observation`` and are made by the same
sensing functions as on the car; images are kept as the JPEG bytes a camera would have sent.
Ego frame = rear axle on the ground at t0 unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

#: Raised whenever Scenes of the same episode come out different; shards of another one are remade.
SCENE_VERSION = 2

#: Tag of a Scene that starts beside the driven path (experiments.md section 4).
RECOVERY = "recovery"


@dataclass(frozen=True)
class SceneLabels:
    """What is known from the recording or the world, never an input.

    Attributes:
        future_2hz: (8, 3) x, y, yaw at 0.5 ... 4 s, ego frame; 0 where masked.
        future_10hz: (41, 3) at 0 ... 4 s, ego frame; row 0 is the ego itself; NaN where unknown.
        future_mask: (8,) bool, False past the end of a recording.
        past_states: (4, 11) NAVSIM state columns at -1.5 ... 0 s, **map** frame (x, y, heading,
            vx, vy, ax, ay, steer, steer_rate, yaw_rate, yaw_acc).
        agent_type: (A,) uint8. agent_size: (A, 2) length, width. agent_height: (A,).
        agent_state: (A, 51, 5) centre x, y, heading, global vx, vy at 0 ... 5 s, **map** frame.
        agent_valid: (A, 51) bool. agent_braking: (A,) bool at t0.
        polygon_xy: (sum V, 2) open rings, **map** frame; polygon_offset: (P + 1,) into it.
        polygon_layer: (P,) uint8 ``Layer``; polygon_on_route: (P,) bool (lanes and connectors).
        light_polygon: (L,) index of the controlled connector among the polygons.
        light_red: (L, 41) bool, one column per 10 Hz frame.
        centerline: (N, 3) route x, y, heading in the **map** frame, -20 ... 120 m.
        own_light: int8 state of the light that the ego's lane obeys: -1 none, else ``SignalState``;
            own_light_distance_m: along the route to its stop line, NaN when none.
        own_light_switched: whether that light changes state within the 4 s future.
        pdm_reference_10hz: (41, 3) **map** frame, of ``scoring.pdm_closed``; NaN without a map.
        speed_limit_mps: (N,) at the points of the centreline.
        tags: joined by ",": the weather, long-tail events (from 2 s before they begin), "recovery".
        expert_pdms, expert_epdms: scores of the driven future against that reference (EPDMS without
            human filter and extended comfort); NaN without a map.
    """

    future_2hz: F32
    future_10hz: F32
    future_mask: Bool
    past_states: F64
    agent_type: NDArray[np.uint8]
    agent_size: F32
    agent_height: F32
    agent_state: F64
    agent_valid: Bool
    agent_braking: Bool
    polygon_xy: F64
    polygon_offset: NDArray[np.int64]
    polygon_layer: NDArray[np.uint8]
    polygon_on_route: Bool
    light_polygon: NDArray[np.int64]
    light_red: Bool
    centerline: F64
    own_light: int
    own_light_distance_m: float
    own_light_switched: bool
    pdm_reference_10hz: F64
    speed_limit_mps: F64 = field(default_factory=lambda: np.zeros(0))
    tags: str = ""
    expert_pdms: float = float("nan")
    expert_epdms: float = float("nan")


@dataclass(frozen=True)
class Scene:
    """One planning moment.

    Attributes:
        token: unique, ``<episode>/<step>`` for the world, with an "r" behind for a recovery start.
        network: road network or log it came from: the unit of bootstrapping.
        stamp_ns: t0. ego_pose: (3,) x, y, yaw in the **map** frame.
        view_jpegs: V encoded images of the network's size, ``b""`` where a view is missing: the
            JPEG as published where preprocessing leaves it untouched (the world's cameras),
            otherwise the preprocessed view without loss (PNG).
        view_mask, intrinsics, ego_from_camera, ego_history, ego_history_mask, ego_dynamics,
            ego_dynamics_mask, command: as ``Observation`` (intrinsics after preprocessing).
        labels: futures, agents, map, lights.
    """

    token: str
    network: str
    stamp_ns: int
    ego_pose: F64
    view_jpegs: tuple[bytes, ...]
    view_mask: Bool
    intrinsics: F32
    ego_from_camera: F32
    ego_history: F32
    ego_history_mask: Bool
    ego_dynamics: F32
    ego_dynamics_mask: Bool
    command: F32
    labels: SceneLabels
