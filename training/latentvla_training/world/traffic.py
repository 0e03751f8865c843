"""Random traffic in SUMO: who drives where, and what of it the ego's surroundings show.

libsumo holds one simulation per process; ``TrafficSession`` starts it and always closes it.
"""

from __future__ import annotations

import math
import os
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentvla_training.world.episode import STEP_S, EgoVehicle
from latentvla_training.world.networks import network_files
from latentvla_training.world.road_map import RoadMap, SignalState

Array = NDArray[np.float64]

EGO_ID = "ego"
EGO_TYPE = "ego_type"
EGO_FRONT_M = EgoVehicle().rear_axle_to_center_m + EgoVehicle().length_m / 2
_BRAKE_LIGHT_BIT = 1 << 3
_COLORS = np.array(
    [
        (225, 225, 225), (190, 192, 196), (120, 122, 126), (38, 38, 42), (20, 20, 22),
        (150, 24, 24), (28, 60, 130), (60, 90, 60), (170, 140, 90), (205, 180, 40),
    ],
    np.uint8,
)  # fmt: skip


@dataclass(frozen=True)
class VehicleModel:
    """A kind of vehicle: size in m, SUMO class, share of the traffic, driver."""

    name: str
    length: float
    width: float
    height: float
    vclass: str
    share: float
    accel: float
    decel: float


VEHICLE_MODELS = (
    VehicleModel("hatchback", 4.1, 1.75, 1.50, "passenger", 0.30, 2.6, 4.5),
    VehicleModel("saloon", 4.7, 1.85, 1.46, "passenger", 0.30, 2.6, 4.5),
    VehicleModel("suv", 4.8, 1.95, 1.75, "passenger", 0.18, 2.4, 4.5),
    VehicleModel("van", 5.6, 2.05, 2.50, "delivery", 0.13, 2.0, 4.2),
    VehicleModel("truck", 8.6, 2.45, 3.40, "truck", 0.09, 1.3, 4.0),
)


@dataclass(frozen=True)
class Snapshot:
    """Traffic at one moment, the ego left out; A agents in SUMO's order.

    Attributes:
        ids: SUMO vehicle ids.
        center, yaw, speed: (A, 2), (A,), (A,) of the boxes.
        size: (A, 3) length, width, height.
        lane_ids, lane_position: lane and arc length of the **front bumper** on it.
        braking: (A,) bool.
        signals: (S,) uint8 ``SignalState`` of the map's heads.
    """

    ids: tuple[str, ...]
    center: Array
    yaw: Array
    speed: Array
    size: Array
    lane_ids: tuple[str, ...]
    lane_position: Array
    braking: NDArray[np.bool_]
    signals: NDArray[np.uint8]


class TrafficSession:
    """One running SUMO simulation; use it in a ``with`` block."""

    def __init__(self, road_map: RoadMap, seed: int, vehicles_per_km: float) -> None:
        self._road_map = road_map
        self._seed = seed
        self._rng = np.random.default_rng((seed, 1))
        self._vehicles_per_km = vehicles_per_km
        self._sumo: Any = None
        self._tls = sorted({signal.tls_id for signal in road_map.signals})
        self.sizes: dict[str, tuple[float, float, float]] = {}
        self.colors: dict[str, NDArray[np.uint8]] = {}

    def __enter__(self) -> TrafficSession:
        self._sumo = libsumo = _import_libsumo()
        files = network_files(self._road_map.name)
        with tempfile.TemporaryDirectory(prefix="latentvla-") as folder:
            demand = Path(folder) / "demand.rou.xml"
            self._write_demand(demand)
            libsumo.start(
                [
                    "sumo", "--net-file", str(files.net), "--route-files", str(demand),
                    "--additional-files", str(files.signal_programs), "--seed", str(self._seed),
                    "--step-length", str(STEP_S), "--lanechange.duration", "3.0",
                    "--time-to-teleport", "-1", "--time-to-impatience", "40",
                    "--collision.action", "none",
                    "--no-step-log", "true", "--no-warnings", "true",
                    "--duration-log.disable", "true", "--max-depart-delay", "1",
                ]
            )  # fmt: skip
            libsumo.simulationStep()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._sumo.close()

    def step(self) -> None:
        """Advance by ``STEP_S``."""
        self._sumo.simulationStep()

    def add_ego(self, edges: tuple[str, ...], lane_index: int, position_m: float) -> None:
        """Put the ego into the traffic; ``position_m`` of its front bumper on the first edge."""
        self._sumo.route.add("ego_route", list(edges))
        self._sumo.vehicle.add(
            EGO_ID, "ego_route", typeID=EGO_TYPE, departLane=str(lane_index),
            departPos=f"{position_m:.2f}", departSpeed="0",
        )  # fmt: skip

    def move_ego(self, rear_axle: Array, edge_id: str, lane_index: int) -> None:
        """Set the ego's pose (x, y, yaw of the rear axle) of the coming step, seen by everybody."""
        x, y, yaw = (float(value) for value in rear_axle[:3])
        self._sumo.vehicle.moveToXY(
            EGO_ID, edge_id, lane_index,
            x + EGO_FRONT_M * math.cos(yaw), y + EGO_FRONT_M * math.sin(yaw),
            angle=(90.0 - math.degrees(yaw)) % 360.0, keepRoute=1,
        )  # fmt: skip

    def snapshot(self) -> Snapshot:
        """Read the traffic as it is now."""
        vehicle = self._sumo.vehicle
        ids = tuple(sorted(name for name in vehicle.getIDList() if name != EGO_ID))
        front = np.array([vehicle.getPosition(name) for name in ids]).reshape(-1, 2)
        yaw = np.radians(90.0 - np.array([vehicle.getAngle(name) for name in ids]))
        size = np.array([self.sizes[name] for name in ids]).reshape(-1, 3)
        heading = np.stack([np.cos(yaw), np.sin(yaw)], axis=1)
        states = {name: self._sumo.trafficlight.getRedYellowGreenState(name) for name in self._tls}
        return Snapshot(
            ids=ids,
            center=front - heading * size[:, :1] / 2,
            yaw=yaw,
            speed=np.array([vehicle.getSpeed(name) for name in ids]),
            size=size,
            lane_ids=tuple(vehicle.getLaneID(name) for name in ids),
            lane_position=np.array([vehicle.getLanePosition(name) for name in ids]),
            braking=np.array(
                [bool(vehicle.getSignals(name) & _BRAKE_LIGHT_BIT) for name in ids], bool
            ),
            signals=np.array(
                [
                    _signal_state(states[signal.tls_id][signal.link_indices[0]])
                    for signal in self._road_map.signals
                ],
                np.uint8,
            ),
        )

    def _write_demand(self, path: Path) -> None:
        """Draw every vehicle with a route long enough not to vanish in view."""
        rng, lanes = self._rng, self._road_map.lanes
        root = ElementTree.Element("routes")
        for model in VEHICLE_MODELS:
            ElementTree.SubElement(
                root, "vType", id=model.name, vClass=model.vclass,
                length=str(model.length), width=str(model.width), height=str(model.height),
                accel=str(model.accel), decel=str(model.decel), sigma="0.4", minGap="2.2",
                tau="1.2", speedFactor="normc(0.98,0.1,0.75,1.25)", jmTimegapMinor="1.5",
            )  # fmt: skip
        ego = EgoVehicle()
        ElementTree.SubElement(
            root, "vType", id=EGO_TYPE, vClass="passenger", length=str(ego.length_m),
            width=str(ego.width_m), height=str(ego.height_m), accel="2.0", decel="4.5",
        )  # fmt: skip
        edges: dict[str, float] = {}
        following: dict[str, set[str]] = {}
        for lane in lanes.values():
            if lane.is_connector:
                continue
            length = float(np.linalg.norm(np.diff(lane.centerline, axis=0), axis=1).sum())
            edges[lane.edge_id] = edges.get(lane.edge_id, 0.0) + length
            for first in lane.successors:
                target = first
                while lanes[target].is_connector:
                    target = lanes[target].successors[0]
                following.setdefault(lane.edge_id, set()).add(lanes[target].edge_id)
        names = sorted(edges)
        weights = np.array([edges[name] for name in names])
        count = round(weights.sum() / 1000.0 * self._vehicles_per_km)
        shares = [model.share for model in VEHICLE_MODELS]
        for number in range(count):
            model = VEHICLE_MODELS[int(rng.choice(len(VEHICLE_MODELS), p=shares))]
            walk = [names[int(rng.choice(len(names), p=weights / weights.sum()))]]
            for _ in range(24):
                options = sorted(following[walk[-1]])
                walk.append(options[int(rng.integers(len(options)))])
            name = f"v{number}"
            scale = 1.0 + rng.uniform(-0.05, 0.05)
            self.sizes[name] = (model.length, model.width, round(model.height * scale, 2))
            self.colors[name] = _COLORS[int(rng.integers(len(_COLORS)))]
            vehicle = ElementTree.SubElement(
                root, "vehicle", id=name, type=model.name, depart="0", departLane="best",
                departPos="random_free", departSpeed="avg",
            )  # fmt: skip
            ElementTree.SubElement(vehicle, "route", edges=" ".join(walk))
        ElementTree.ElementTree(root).write(path)


def _import_libsumo() -> Any:
    """Import libsumo without its warning that pyarrow is of another version than its own Arrow.

    libsumo uses Arrow for its Parquet output alone, which nothing here asks for.
    """
    os.environ.setdefault("LIBSUMO_AS_TRACI", "quiet")
    import libsumo

    return libsumo


def _signal_state(letter: str) -> SignalState:
    if letter in "Gg":
        return SignalState.GREEN
    return SignalState.YELLOW if letter in "yYu" else SignalState.RED
