"""Random traffic in SUMO, what stands beside it, and what of all that the ego's surroundings show.

libsumo holds one simulation per process; ``TrafficSession`` starts it and always closes it.
"""

from __future__ import annotations

import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentvla_training.world.demand import EGO_TYPE, Density, write_demand
from latentvla_training.world.episode import STEP_S, AgentModel, EgoVehicle
from latentvla_training.world.networks import network_files
from latentvla_training.world.road_map import RoadMap, SignalState
from latentvla_training.world.street_furniture import StandingAgent, draw_street_furniture
from latentvla_training.world.vehicle_models import Looks

Array = NDArray[np.float64]

EGO_ID = "ego"
EGO_FRONT_M = EgoVehicle().rear_axle_to_center_m + EgoVehicle().length_m / 2
#: Agents farther than this from the ego are not in its snapshots.
RANGE_M = 150.0
#: Bicycles ride this far right of their lane's middle; SUMO keeps them in it.
BICYCLE_OFFSET_M = 0.9
_BRAKE_LIGHT_BIT = 1 << 3


@dataclass(frozen=True)
class Snapshot:
    """Traffic at one moment, the ego left out; A agents, SUMO's vehicles and persons first.

    Attributes:
        ids: of the agents; SUMO's own for vehicles and persons.
        center, yaw, speed: (A, 2), (A,), (A,) of the boxes.
        size: (A, 3) length, width, height.
        model: (A,) uint8 ``AgentModel``; ``AgentModel.agent_type`` is the class.
        lane_ids, lane_position: of a vehicle, lane and arc length of the **front bumper** on it; of
            a pedestrian, lane 0 of the sidewalk, crossing or walking area (``:n3_c0_0``); "" and 0
            for what SUMO does not know (parked cars, cones, barriers, actors of events).
        braking: (A,) bool.
        signals: (S,) uint8 ``SignalState`` of the map's heads.
    """

    ids: tuple[str, ...]
    center: Array
    yaw: Array
    speed: Array
    size: Array
    model: NDArray[np.uint8]
    lane_ids: tuple[str, ...]
    lane_position: Array
    braking: NDArray[np.bool_]
    signals: NDArray[np.uint8]


@dataclass
class Puppet:
    """An actor of an event that SUMO does not know; whoever put it there moves it.

    Attributes:
        center: (2,). yaw, speed: of the box.
    """

    center: Array
    yaw: float
    speed: float


class TrafficSession:
    """One running SUMO simulation; use it in a ``with`` block.

    Attributes:
        looks: of everybody who has been in the traffic, by id.
        puppets: actors unknown to SUMO, by id. hidden: SUMO vehicles nobody sees.
        brake_lights: ids whose brake lights are on whatever SUMO says.
    """

    def __init__(self, road_map: RoadMap, seed: int, density: Density) -> None:
        self._road_map = road_map
        self._seed = seed
        self._density = density
        self._sumo: Any = None
        self._tls = sorted({signal.tls_id for signal in road_map.signals})
        self._following_ego = False
        furniture = draw_street_furniture(road_map, seed)
        self._furniture = furniture
        self.hidden = {vehicle.name for vehicle in furniture.vehicles if vehicle.looks is None}
        self.looks: dict[str, Looks] = {}
        self.puppets: dict[str, Puppet] = {}
        self.brake_lights: set[str] = set()
        self._standing = _Standing(furniture.agents)

    def __enter__(self) -> TrafficSession:
        self._sumo = libsumo = _import_libsumo()
        files = network_files(self._road_map.name)
        with tempfile.TemporaryDirectory(prefix="latentvla-") as folder:
            demand = Path(folder) / "demand.rou.xml"
            furniture = self._furniture
            self.looks |= write_demand(
                demand, self._road_map, self._seed, self._density, furniture.vehicles,
                furniture.taken_edges,
            )  # fmt: skip
            self.looks |= {agent.name: agent.looks for agent in furniture.agents}
            libsumo.start(
                [
                    "sumo", "--net-file", str(files.net), "--route-files", str(demand),
                    "--additional-files", str(files.signal_programs),
                    "--seed", str(self._seed % 2**31),
                    "--step-length", str(STEP_S), "--lanechange.duration", "3.0",
                    "--time-to-teleport", "-1", "--time-to-impatience", "40",
                    "--collision.action", "none", "--ignore-route-errors", "true",
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

    @property
    def sumo(self) -> Any:
        """The running simulation, for the events that act on its vehicles."""
        return self._sumo

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

    def add_standing(self, agent: StandingAgent) -> None:
        """Put one more thing that never moves beside the road."""
        self.looks[agent.name] = agent.looks
        self._standing = _Standing((*self._standing.agents, agent))

    def clear_standing(self, places: Array, radius_m: float) -> None:
        """Take away what stands beside the road near ``places`` (N, 2): an event needs the room."""
        kept = [
            agent
            for agent in self._standing.agents
            if np.linalg.norm(agent.center - places, axis=1).min() > radius_m
        ]
        self._standing = _Standing(tuple(kept))

    def add_puppet(self, name: str, looks: Looks, puppet: Puppet) -> None:
        """Put an actor into the world that only the ego's surroundings know."""
        self.looks[name] = looks
        self.puppets[name] = puppet

    def add_vehicle(
        self, name: str, kind: str, looks: Looks, edges: tuple[str, ...], lane_index: int,
        front_m: float, speed: float,
    ) -> bool:  # fmt: skip
        """Put a vehicle of the ``VEHICLE_MODELS`` kind on the first of ``edges``, at the next step.

        Returns:
            Whether it is there now; not if SUMO does not know the route.
        """
        try:
            self._sumo.route.add(f"{name}_route", list(edges))
            self._sumo.vehicle.add(
                name, f"{name}_route", typeID=kind, departLane=str(lane_index),
                departPos=f"{front_m:.2f}", departSpeed=f"{speed:.2f}",
            )  # fmt: skip
            # else SUMO waits for a gap that it finds safe for everybody behind
            self._sumo.vehicle.moveTo(name, f"{edges[0]}_{lane_index}", front_m)
            self._sumo.vehicle.setPreviousSpeed(name, speed)
        except self._sumo.TraCIException:
            return False
        self.looks[name] = looks
        return True

    def signals(self) -> NDArray[np.uint8]:
        """Return the states (S,) of the map's heads."""
        states = {name: self._sumo.trafficlight.getRedYellowGreenState(name) for name in self._tls}
        return np.array(
            [
                _signal_state(states[signal.tls_id][signal.link_indices[0]])
                for signal in self._road_map.signals
            ],
            np.uint8,
        )

    def snapshot(self) -> Snapshot:
        """Read the traffic as it is now, within ``RANGE_M`` of the ego once there is one."""
        around, ego_xy = self._around()
        ids = sorted(name for name in around if name in self.looks)
        rows = [around[name] for name in ids]
        front = np.array([row[0] for row in rows]).reshape(-1, 2)
        yaw = np.radians(90.0 - np.array([row[1] for row in rows]))
        looks = [self.looks[name] for name in ids]
        size = np.array([one.size for one in looks]).reshape(-1, 3)
        model = np.array([one.model for one in looks], np.uint8)
        heading = np.stack([np.cos(yaw), np.sin(yaw)], axis=1)
        right = np.stack([heading[:, 1], -heading[:, 0]], axis=1)
        back = np.where(model == AgentModel.PEDESTRIAN, 0.0, size[:, 0] / 2)[:, None]
        aside = np.where(model == AgentModel.BICYCLE, BICYCLE_OFFSET_M, 0.0)[:, None]
        center = front - heading * back + right * aside
        puppets = [
            (name, puppet)
            for name, puppet in self.puppets.items()
            if ego_xy is None or np.linalg.norm(puppet.center - ego_xy) < RANGE_M
        ]
        still = self._standing.near(ego_xy)
        extra = [name for name, _ in puppets] + [self._standing.names[i] for i in still]
        extra_looks = [self.looks[name] for name in extra]
        zeros = np.zeros(len(still))
        return Snapshot(
            ids=(*ids, *extra),
            center=np.concatenate(
                [
                    center,
                    np.array([puppet.center for _, puppet in puppets]).reshape(-1, 2),
                    self._standing.center[still],
                ]
            ),
            yaw=np.concatenate([yaw, [p.yaw for _, p in puppets], self._standing.yaw[still]]),
            speed=np.concatenate(
                [[row[2] for row in rows], [p.speed for _, p in puppets], zeros]
            ).astype(float),
            size=np.concatenate([size, np.array([o.size for o in extra_looks]).reshape(-1, 3)]),
            model=np.concatenate([model, np.array([o.model for o in extra_looks], np.uint8)]),
            lane_ids=(*(row[3] for row in rows), *("" for _ in extra)),
            lane_position=np.concatenate([[row[4] for row in rows], np.zeros(len(extra))]),
            braking=np.array(
                [
                    bool(row[5] & _BRAKE_LIGHT_BIT) or name in self.brake_lights
                    for name, row in zip(ids, rows, strict=True)
                ]
                + [False] * len(extra),
                bool,
            ),
            signals=self.signals(),
        )

    def _around(self) -> tuple[dict[str, tuple[Any, ...]], Array | None]:
        """Position, SUMO angle, speed, lane, position on it, signals by id; the ego's place."""
        sumo = self._sumo
        if not self._following_ego:
            seen = self._everywhere()
            ego_xy = seen.pop(EGO_ID, (None,))[0]
            if ego_xy is None:
                return seen, None
            self._follow_ego()
            return seen, np.array(ego_xy)
        found = sumo.vehicle.getContextSubscriptionResults(EGO_ID)
        ego_xy = np.array(found[EGO_ID][sumo.VAR_POSITION])
        seen = {}
        for name, values in found.items():
            if name == EGO_ID or name in self.hidden:
                continue
            lane = values.get(sumo.VAR_LANE_ID)
            seen[name] = (
                values[sumo.VAR_POSITION],
                values[sumo.VAR_ANGLE],
                values[sumo.VAR_SPEED],
                f"{values[sumo.VAR_ROAD_ID]}_0" if lane is None else lane,
                values[sumo.VAR_LANEPOSITION],
                values.get(sumo.VAR_SIGNALS, 0),
            )
        return seen, ego_xy

    def _everywhere(self) -> dict[str, tuple[Any, ...]]:
        """The same of all vehicles and persons, asked one by one."""
        vehicle, person = self._sumo.vehicle, self._sumo.person
        seen: dict[str, tuple[Any, ...]] = {
            name: (
                vehicle.getPosition(name), vehicle.getAngle(name), vehicle.getSpeed(name),
                vehicle.getLaneID(name), vehicle.getLanePosition(name), vehicle.getSignals(name),
            )
            for name in vehicle.getIDList()
            if name not in self.hidden
        }  # fmt: skip
        for name in person.getIDList():
            seen[name] = (
                person.getPosition(name), person.getAngle(name), person.getSpeed(name),
                f"{person.getRoadID(name)}_0", person.getLanePosition(name), 0,
            )  # fmt: skip
        return seen

    def _follow_ego(self) -> None:
        """Let SUMO collect what is around the ego at every step, far cheaper than asking each."""
        sumo = self._sumo
        both = [sumo.VAR_POSITION, sumo.VAR_ANGLE, sumo.VAR_SPEED, sumo.VAR_LANEPOSITION]
        for domain, more in (
            (sumo.CMD_GET_VEHICLE_VARIABLE, [sumo.VAR_LANE_ID, sumo.VAR_SIGNALS]),
            (sumo.CMD_GET_PERSON_VARIABLE, [sumo.VAR_ROAD_ID]),
        ):
            sumo.vehicle.subscribeContext(EGO_ID, domain, RANGE_M, both + more)
        self._following_ego = True


class _Standing:
    """Things that never move, as arrays."""

    def __init__(self, agents: tuple[StandingAgent, ...]) -> None:
        self.agents = agents
        self.names = [agent.name for agent in agents]
        self.center = np.array([agent.center for agent in agents]).reshape(-1, 2)
        self.yaw = np.array([agent.yaw for agent in agents], float)

    def near(self, xy: Array | None) -> NDArray[np.intp]:
        """Indices of those within ``RANGE_M`` of ``xy``, all without it."""
        if xy is None:
            return np.arange(len(self.names))
        return np.flatnonzero(np.hypot(*(self.center - xy).T) < RANGE_M)


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
