"""Every kind of network: what it promises of lanes, speeds, right of way, people and kerbs."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import shapely
import torch
from latentvla_training.scoring.bicycle import simulate
from latentvla_training.scoring.reference_trajectory import reference_poses
from latentvla_training.scoring.vehicle import StateIndex, ego_corners
from latentvla_training.world.drivable_area import drivable_area
from latentvla_training.world.episode import EgoVehicle
from latentvla_training.world.networks import (
    KINDS,
    SPLIT_SIZES,
    build_road_map,
    network_files,
    network_kind,
    read_net,
    right_of_way,
    split_networks,
)
from latentvla_training.world.polyline import polyline_length
from latentvla_training.world.road_map import RoadMap
from latentvla_training.world.route import DRIVE_S, Route, draw_route

from latentvla_ros.contract import ContractError
from latentvla_ros.geometry import se2

#: One network of every kind.
NAMES = {
    "grid": "val-0000",
    "random": "val-0001",
    "merge": "val-0002",
    "rural": "val-0003",
    "spider": "val-0004",
    "split": "val-0005",
    "roundabout": "ood-0000",
}
WALKED = ("grid", "random", "spider", "roundabout")


@pytest.fixture(scope="module")
def road_maps(data_root: Path) -> dict[str, RoadMap]:
    return {kind: build_road_map(name) for kind, name in NAMES.items()}


@pytest.fixture(params=NAMES)
def road_map(request: pytest.FixtureRequest, road_maps: dict[str, RoadMap]) -> RoadMap:
    return road_maps[request.param]


def draw_routes(road_map: RoadMap, count: int) -> list[Route]:
    rng = np.random.default_rng(3)
    routes: list[Route] = []
    for _ in range(20 * count):
        route = draw_route(road_map, right_of_way(road_map.name), rng, 760.0)
        routes += [route] if route is not None else []
        if len(routes) == count:
            return routes
    raise AssertionError(f"{road_map.name}: only {len(routes)} routes")


def predecessor(road_map: RoadMap, connector: str) -> str:
    return next(lane.edge_id for lane in road_map.lanes.values() if connector in lane.successors)


def test_a_split_has_all_its_kinds_and_one_is_held_out() -> None:
    assert set(NAMES) == set(KINDS)
    for split in SPLIT_SIZES:
        kinds = Counter(network_kind(name) for name in split_networks(split))
        assert set(kinds) == ({"roundabout"} if split == "ood" else set(KINDS) - {"roundabout"})
        if split != "ood":
            assert sum(kinds[kind] for kind in ("grid", "spider", "random")) >= len(kinds) // 2
    with pytest.raises(ContractError, match="network"):
        network_kind("test-0012")


def test_routes_are_long_enough_and_know_their_crosswalks(road_map: RoadMap) -> None:
    for route in draw_routes(road_map, 4):
        assert route.s[-1] >= 760.0
        assert np.sum(np.diff(route.s) / route.speed_limit[1:]) >= 0.97 * DRIVE_S
        assert len(route.crossings) >= 2
        assert (route.target_speed <= route.speed_limit + 1e-9).all()
        for enter, leave, index in route.zebras:
            assert 1.0 < leave - enter < 12.0
            middle = [np.interp((enter + leave) / 2, route.s, route.xy[:, i]) for i in (0, 1)]
            ring = shapely.Polygon(road_map.crosswalks[index].ring)
            assert ring.distance(shapely.Point(middle)) < 0.3
        entered = [enter for enter, _, _ in route.zebras]
        assert entered == sorted(entered)
        if road_map.kind == "roundabout":
            assert route.zebras


def test_lanes_and_limits_of_the_kinds(road_maps: dict[str, RoadMap]) -> None:
    lanes, limits = {}, {}
    for kind in NAMES:
        found = [lane for lane in road_maps[kind].lanes.values() if not lane.is_connector]
        lanes[kind] = set(Counter(lane.edge_id for lane in found).values())
        limits[kind] = {round(lane.speed_limit_mps * 3.6) for lane in found}
        assert road_maps[kind].kind == kind
    assert lanes["grid"] >= {1, 2} and lanes["rural"] == {1}
    assert max(lanes["merge"]) >= 2 and len(lanes["split"]) > 1
    assert max(limits["grid"] | limits["spider"] | limits["random"]) <= 60
    assert min(limits["rural"]) >= 70 and max(limits["rural"]) <= 100
    assert {80, 90, 100} & limits["merge"] and {80, 90, 100} & limits["split"]


def test_a_ramp_yields_and_the_carriageway_does_not(road_maps: dict[str, RoadMap]) -> None:
    road_map, rules = road_maps["merge"], right_of_way(NAMES["merge"])
    yielding = {
        predecessor(road_map, name): {predecessor(road_map, other) for other in others}
        for name, others in rules.yields_to.items()
        if others
    }
    assert len(yielding) == 3
    for source, others in yielding.items():
        assert source.startswith("ramp")
        assert all(other.startswith("main") for other in others)


def test_who_enters_a_roundabout_yields(road_maps: dict[str, RoadMap]) -> None:
    road_map, rules = road_maps["roundabout"], right_of_way(NAMES["roundabout"])
    net = read_net(road_map.name)
    ring = {edge.getID() for edge in net.getEdges() if edge.getPriority() == 9}
    nodes = {net.getEdge(name).getFromNode() for name in ring}
    edges = net.getEdges(withInternal=False)
    entries = {edge.getID() for edge in edges if edge.getToNode() in nodes} - ring
    assert len(entries) >= 12
    seen = set()
    for name, others in rules.yields_to.items():
        source = predecessor(road_map, name)
        if others:
            assert source in entries
            assert {predecessor(road_map, other) for other in others} <= ring
            seen.add(source)
    assert seen == entries


def test_a_second_lane_of_a_roundabout_leads_on(road_maps: dict[str, RoadMap]) -> None:
    """The outer lane leaves at every exit and begins again at every entry."""
    road_map = road_maps["roundabout"]
    lanes = [lane for lane in road_map.lanes.values() if not lane.is_connector]
    wide = [lane for lane in lanes if lane.left_neighbor is not None]
    assert wide
    assert all(lane.successors for lane in lanes)


@pytest.mark.parametrize("kind", WALKED)
def test_people_have_places_of_their_own(road_maps: dict[str, RoadMap], kind: str) -> None:
    road_map = road_maps[kind]
    area = drivable_area(road_map.polygons)
    pavements = shapely.union_all([shapely.Polygon(ring) for ring in road_map.sidewalks])
    assert pavements.area > 2000.0
    assert pavements.intersection(area).area < 1e-3 * pavements.area
    assert len(road_map.crosswalks) >= 10
    for crosswalk in road_map.crosswalks:
        ring = shapely.Polygon(crosswalk.ring)
        assert ring.is_valid and ring.area > 15.0
        assert area.buffer(0.05).covers(ring)
        assert ring.buffer(2.0).intersects(pavements)
    net = read_net(road_map.name)
    for name, lane in road_map.lanes.items():
        edge, index = name.rsplit("_", 1)
        assert lane.edge_id == edge
        assert net.getEdge(edge).getLane(int(index)).allows("passenger")
    assert any(
        lane.right_neighbor is None and lane.lane_id.endswith("_2")
        for lane in road_map.lanes.values()
    )


def test_stop_lines_lie_before_crosswalks(road_maps: dict[str, RoadMap]) -> None:
    for kind in ("grid", "spider"):
        rings = shapely.union_all([shapely.Polygon(c.ring) for c in road_maps[kind].crosswalks])
        assert road_maps[kind].signals
        for signal in road_maps[kind].signals:
            line = shapely.LineString(signal.stop_line)
            # A road that still bends where it ends meets its crosswalk at an angle.
            assert not line.intersects(rings.buffer(-0.7)), signal.approach_lane
            assert line.distance(rings) < 1.5


@pytest.mark.parametrize("kind", ["grid", "spider"])
def test_walk_lights(road_maps: dict[str, RoadMap], kind: str) -> None:
    """People walk while the vehicles that cross their way stand, or turn and let them."""
    net = read_net(NAMES[kind])
    programs = ElementTree.parse(network_files(NAMES[kind]).signal_programs).getroot()
    assert len(programs)
    for program in programs:
        links = [
            (in_lane.getConnection(out_lane), index)
            for in_lane, out_lane, index in net.getTLS(program.get("id")).getConnections()
        ]
        walks = [(c, i) for c, i in links if c.getTo().getFunction() == "crossing"]
        assert walks
        phases = [phase.get("state", "") for phase in program]
        for walk, index in walks:
            assert any(state[index] == "G" for state in phases), "some phase lets them walk"
            crossed = walk.getTo().getCrossingEdges()
            for state in phases:
                if state[index] == "r":
                    continue
                for link, other in links:
                    if link.getFrom() in crossed:
                        assert state[other] == "r"
                    elif link.getTo() in crossed and state[other] != "r":
                        assert state[other] == "g" and link.getDirection() in "lrLR"
        for before, after in pairwise(phases):
            for _, index in walks:  # nobody is sent off together with the yellow of the cars
                assert not (before[index] == "r" and "y" in after and after[index] == "G")


def test_a_tracked_car_stays_on_the_road(road_map: RoadMap) -> None:
    """Plans along routes, tracked by NAVSIM's LQR and bicycle: gate of experiments.md section 1."""
    area = drivable_area(road_map.polygons)
    shapely.prepare(area)
    inside, count = 0, 0
    for route in draw_routes(road_map, 4):
        along, speeds = [5.0], [float(route.target_speed[5])]
        while along[-1] < route.s[-1] - 30.0:
            wanted = float(np.interp(along[-1] + 0.3 * speeds[-1], route.s, route.target_speed))
            speeds.append(float(np.clip(wanted, speeds[-1] - 0.25, speeds[-1] + 0.15)))
            along.append(along[-1] + 0.1 * speeds[-1])
        s = np.array(along)
        pose = np.stack(
            [np.interp(s, route.s, column) for column in (*route.xy.T, route.yaw)], axis=1
        )
        start = np.arange(0, len(s) - 41, 5)
        ego = np.zeros((len(start), 11))
        ego[:, StateIndex.X : StateIndex.HEADING + 1] = pose[start]
        ego[:, StateIndex.VX] = np.array(speeds)[start]
        curvature = np.interp(s[start], route.s, route.curvature)
        ego[:, StateIndex.STEER] = np.arctan(EgoVehicle().wheelbase_m * curvature)
        ahead = [se2.compose(se2.inverse(pose[t]), pose[t + 5 : t + 41 : 5]) for t in start]
        initial, plans = torch.tensor(ego), torch.tensor(np.stack(ahead))[:, None]
        reference = reference_poses(initial, plans, np.full(len(start), 1e3))
        corners = ego_corners(simulate(initial, reference)[:, 0]).numpy()
        on_road = shapely.contains_xy(area, corners[..., 0], corners[..., 1]).all(axis=(1, 2))
        inside, count = inside + int(on_road.sum()), count + len(start)
    assert inside >= 0.99 * count, f"{inside} of {count}"


def test_no_lane_is_too_short_to_be_one(road_map: RoadMap) -> None:
    for lane in road_map.lanes.values():
        if not lane.is_connector:
            least = 2.0 if road_map.kind == "roundabout" else 20.0
            assert polyline_length(lane.centerline) >= least, lane.lane_id
