"""Who is on the road in an episode: vehicles with drivers of their own, routes, and pedestrians.

Every driver is drawn individually (Krauss model: headway, imperfection, speed, patience), so each
vehicle has a SUMO type of its own.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latentvla_training.world.episode import AgentModel, EgoVehicle
from latentvla_training.world.pedestrians import draw_walks
from latentvla_training.world.polyline import polyline_length
from latentvla_training.world.road_map import RoadMap
from latentvla_training.world.street_furniture import StandingVehicle
from latentvla_training.world.vehicle_models import (
    VEHICLE_MODELS,
    Looks,
    VehicleModel,
    draw_looks,
    draw_person_looks,
)

EGO_TYPE = "ego_type"
#: Seen by those who follow it: brakes harder than most, so they keep their distance.
_EGO_DECEL = 7.0
#: Edges a bicycle uses, m/s.
BICYCLE_LIMIT_MPS = 17.0
_WALK_EDGES = 25


@dataclass(frozen=True)
class Density:
    """How full an episode is: vehicles per km of lane, persons per km of sidewalk."""

    vehicles_per_km: float
    persons_per_km: float


def write_demand(
    path: Path,
    road_map: RoadMap,
    seed: int,
    density: Density,
    standing: tuple[StandingVehicle, ...],
    barred_edges: frozenset[str],
) -> dict[str, Looks]:
    """Write SUMO's route file of an episode and return the looks of everybody in it by id.

    Args:
        standing: vehicles that stand on a lane all the time (double-parked, or a closed piece of
            lane as SUMO sees it); they are put in first, so nobody stands in their place.
        barred_edges: edges whose sidewalk is taken by parked cars; nobody walks there.
    """
    rng = np.random.default_rng((seed, 1))
    root = ElementTree.Element("routes")
    for model in VEHICLE_MODELS:  # drivers of the event actors, who are added later
        _add_type(root, model, model.name, None)
    ego = EgoVehicle()
    ElementTree.SubElement(
        root, "vType", id=EGO_TYPE, vClass="passenger", length=str(ego.length_m),
        width=str(ego.width_m), height=str(ego.height_m), accel="2.0", decel=str(_EGO_DECEL),
        emergencyDecel="9.0",
    )  # fmt: skip
    looks: dict[str, Looks] = {}
    for vehicle in standing:
        _add_standing(root, vehicle, road_map)
        if vehicle.looks is not None:
            looks[vehicle.name] = vehicle.looks
    _add_vehicles(root, road_map, rng, density.vehicles_per_km, looks)
    walks_rng = np.random.default_rng((seed, 4))
    walks = draw_walks(road_map, walks_rng, density.persons_per_km, barred_edges)
    for number, walk in enumerate(walks):
        name = f"p{number}"
        looks[name] = draw_person_looks(walks_rng)
        ElementTree.SubElement(
            root, "vType", id=f"t{name}", vClass="pedestrian", speedFactor="1.0",
            desiredMaxSpeed=f"{walks_rng.uniform(0.9, 1.7):.2f}",
        )  # fmt: skip
        person = ElementTree.SubElement(
            root, "person", id=name, type=f"t{name}", depart="0", departPos=f"{walk.depart_m:.2f}"
        )
        ElementTree.SubElement(
            person, "walk", edges=" ".join(walk.edges), arrivalPos=f"{walk.arrival_m:.2f}"
        )
    ElementTree.ElementTree(root).write(path)
    return looks


def following_edges(road_map: RoadMap) -> dict[str, tuple[str, ...]]:
    """Return the edges that a vehicle may take next, by edge; one as often as lanes lead to it."""
    lanes = road_map.lanes
    following: dict[str, list[str]] = {}
    for lane in lanes.values():
        if lane.is_connector:
            continue
        targets = following.setdefault(lane.edge_id, [])
        for first in lane.successors:
            target = lanes.get(first)
            while target is not None and target.is_connector:
                target = lanes.get(target.successors[0]) if target.successors else None
            if target is not None:
                targets.append(target.edge_id)
    return {edge: tuple(sorted(targets)) for edge, targets in following.items()}


def _add_vehicles(
    root: ElementTree.Element,
    road_map: RoadMap,
    rng: np.random.Generator,
    per_km: float,
    looks: dict[str, Looks],
) -> None:
    """Draw every vehicle with a driver and a route long enough not to vanish in view."""
    length: dict[str, float] = {}
    limit: dict[str, float] = {}
    for lane in road_map.lanes.values():
        if not lane.is_connector:
            length[lane.edge_id] = length.get(lane.edge_id, 0.0) + polyline_length(lane.centerline)
            limit[lane.edge_id] = lane.speed_limit_mps
    following = following_edges(road_map)
    names = sorted(length)
    slow = {name for name in names if limit[name] <= BICYCLE_LIMIT_MPS}
    shares = np.array([model.share for model in VEHICLE_MODELS])
    weights = np.array([length[name] for name in names])
    count = round(weights.sum() / 1000.0 * per_km)
    for number in range(count):
        model = VEHICLE_MODELS[int(rng.choice(len(VEHICLE_MODELS), p=shares / shares.sum()))]
        allowed = slow if model.looks is AgentModel.BICYCLE else set(names)
        walk = _walk(names, weights, following, allowed, rng)
        own = np.random.default_rng(rng.integers(2**63))  # one vehicle more changes no other
        if walk is None:
            continue
        name = f"v{number}"
        looks[name] = draw_looks(model, own)
        _add_type(root, model, f"t{name}", own)
        vehicle = ElementTree.SubElement(
            root, "vehicle", id=name, type=f"t{name}", depart="0",
            departLane="first" if model.looks is AgentModel.BICYCLE else "best",
            departPos="random_free", departSpeed="avg",
        )  # fmt: skip
        ElementTree.SubElement(vehicle, "route", edges=" ".join(walk))


def _walk(
    names: list[str],
    weights: NDArray[np.float64],
    following: dict[str, tuple[str, ...]],
    allowed: set[str],
    rng: np.random.Generator,
) -> list[str] | None:
    """Return a random route of edges within ``allowed``; None when there is none that is long."""
    walk = [names[int(rng.choice(len(names), p=weights / weights.sum()))]]
    if walk[0] not in allowed:
        return None
    while len(walk) < _WALK_EDGES:
        options = [edge for edge in following.get(walk[-1], ()) if edge in allowed]
        if not options:
            return walk if len(walk) > _WALK_EDGES // 3 else None
        walk.append(options[int(rng.integers(len(options)))])
    return walk


def _add_type(
    root: ElementTree.Element, model: VehicleModel, name: str, rng: np.random.Generator | None
) -> None:
    """Write one driver of ``model``; the usual one without ``rng``."""
    settings = {
        "vClass": model.vclass, "length": str(model.length), "width": str(model.width),
        "height": str(model.height), "accel": str(model.accel), "decel": str(model.decel),
        "emergencyDecel": "9.0", "sigma": "0.2", "tau": "1.2", "minGap": "2.2",
        "speedFactor": "1.0", "jmTimegapMinor": "1.5",
    }  # fmt: skip
    if model.looks is AgentModel.BICYCLE:
        settings["maxSpeed"] = "5.0" if rng is None else f"{rng.uniform(3.8, 7.0):.2f}"
        settings["minGap"] = "1.0"
    if rng is not None:
        settings |= {
            "accel": f"{model.accel * rng.uniform(0.75, 1.25):.2f}",
            "decel": f"{model.decel * rng.uniform(0.85, 1.15):.2f}",
            "sigma": f"{rng.uniform(0.1, 0.6):.2f}",
            "tau": f"{rng.uniform(0.9, 1.8):.2f}",
            "minGap": f"{rng.uniform(1.6, 3.2):.2f}",
            "speedFactor": f"{np.clip(rng.normal(0.98, 0.1), 0.75, 1.25):.2f}",
            "impatience": f"{rng.uniform(0.0, 0.4):.2f}",
            "jmTimegapMinor": f"{rng.uniform(1.0, 2.2):.2f}",
            "lcSpeedGain": f"{rng.uniform(0.5, 1.5):.2f}",
        }
    ElementTree.SubElement(root, "vType", {"id": name, **settings})


def _add_standing(root: ElementTree.Element, vehicle: StandingVehicle, road_map: RoadMap) -> None:
    """Write a vehicle that never moves; what it covers is as long as it is."""
    lane = road_map.lanes[vehicle.lane_id]
    ElementTree.SubElement(
        root, "vType", id=f"t{vehicle.name}", vClass="passenger", length=f"{vehicle.length_m:.2f}",
        width="1.9", minGap="0.5",
    )  # fmt: skip
    element = ElementTree.SubElement(
        root, "vehicle", id=vehicle.name, type=f"t{vehicle.name}", depart="0",
        departLane=vehicle.lane_id.rsplit("_", 1)[1], departPos=f"{vehicle.front_m:.2f}",
        departSpeed="0",
    )  # fmt: skip
    ElementTree.SubElement(element, "route", edges=lane.edge_id)
    ElementTree.SubElement(
        element, "stop", lane=vehicle.lane_id, endPos=f"{vehicle.front_m:.2f}", duration="36000"
    )
