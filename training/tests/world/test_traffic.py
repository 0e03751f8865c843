"""Who is on the road and what stands beside it."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import shapely
from latentvla_training.world.demand import Density, write_demand
from latentvla_training.world.episode import AgentModel, AgentType, Weather
from latentvla_training.world.networks import build_road_map
from latentvla_training.world.pedestrians import draw_walks, read_sidewalks
from latentvla_training.world.polyline import polyline_length
from latentvla_training.world.road_map import Layer, RoadMap
from latentvla_training.world.session import EpisodeSession
from latentvla_training.world.street_furniture import draw_street_furniture, has_left_neighbor
from latentvla_training.world.traffic import RANGE_M, Snapshot
from latentvla_training.world.weather import draw_weather

CITY = "val-0000"


@pytest.fixture(scope="module")
def city(data_root: Path) -> RoadMap:
    return build_road_map(CITY)


@pytest.fixture(scope="module")
def snapshots(city: RoadMap) -> list[Snapshot]:
    """Three seconds of a drive through the city, and what the session says of their agents."""
    with EpisodeSession(f"{CITY}-01") as session:
        state, seen = session.state, []
        for _ in range(30):
            seen.append(session.observe(state))
            state = session.expert.drive(state, seen[-1])
        ego = np.array([state.x, state.y])
        assert all(name in session.traffic.looks for one in seen for name in one.ids)
    assert np.linalg.norm(seen[-1].center - ego, axis=1).max() < RANGE_M + 10.0
    return seen


def test_weather_shares_and_rain_in_ood_alone() -> None:
    drawn = Counter(draw_weather("test", np.random.default_rng((seed, 2))) for seed in range(4000))
    assert drawn[Weather.CLEAR] / 4000 == pytest.approx(0.55, abs=0.03)
    assert drawn[Weather.FOG] / 4000 == pytest.approx(0.15, abs=0.03)
    assert drawn[Weather.NIGHT] / 4000 == pytest.approx(0.30, abs=0.03)
    assert Weather.RAIN not in drawn
    assert {draw_weather("ood", np.random.default_rng(seed)) for seed in range(50)} == {
        Weather.RAIN
    }


@pytest.mark.parametrize("split", ["train", "ood"])
def test_weather_takes_one_number_in_every_split(split: str) -> None:
    rng, other = np.random.default_rng(5), np.random.default_rng(5)
    draw_weather(split, rng)
    other.random()
    assert rng.random() == other.random()


def test_every_driver_is_drawn(city: RoadMap, tmp_path: Path) -> None:
    path = tmp_path / "demand.rou.xml"
    looks = write_demand(path, city, 11, Density(15.0, 20.0), (), frozenset())
    root = ElementTree.parse(path).getroot()
    types = {item.get("id"): item for item in root.iter("vType")}
    drivers = [types[vehicle.get("type")] for vehicle in root.iter("vehicle")]
    assert len(drivers) > 100
    for name in ("tau", "sigma", "minGap", "speedFactor", "accel", "decel", "impatience"):
        assert len({driver.get(name) for driver in drivers}) > 10, name
    kinds = Counter(one.model for one in looks.values())
    assert set(AgentModel) - set(kinds) == {AgentModel.CONE, AgentModel.BARRIER}
    assert kinds[AgentModel.CAR] > 3 * kinds[AgentModel.BUS]
    assert {item.get("vClass") for item in drivers} >= {"bicycle", "motorcycle", "bus", "truck"}


def test_same_seed_same_demand_and_other_seed_another(city: RoadMap, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.xml" for number in range(3)]
    for path, seed in zip(paths, (3, 3, 4), strict=True):
        write_demand(path, city, seed, Density(5.0, 5.0), (), frozenset())
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].read_bytes() != paths[2].read_bytes()


def test_walks_follow_joined_sidewalks_and_avoid_parked_cars(city: RoadMap) -> None:
    graph = read_sidewalks(city.name)
    barred = frozenset(sorted(graph.length)[::3])
    walks = draw_walks(city, np.random.default_rng(0), 30.0, barred)
    assert len(walks) > 50
    for walk in walks:
        assert not barred & set(walk.edges)
        assert 0.0 < walk.depart_m < graph.length[walk.edges[0]]
        for first, second in zip(walk.edges, walk.edges[1:], strict=False):
            assert second in graph.joined[first]


def test_nobody_walks_where_there_is_no_sidewalk(data_root: Path) -> None:
    motorway = build_road_map("val-0002")
    assert not motorway.crosswalks
    assert draw_walks(motorway, np.random.default_rng(0), 50.0, frozenset()) == []


def test_furniture_leaves_lanes_junctions_and_crossings_free(city: RoadMap) -> None:
    rings = [p.ring for p in city.polygons if p.layer is Layer.INTERSECTION]
    junctions = shapely.union_all([shapely.make_valid(shapely.Polygon(r)) for r in rings])
    crossings = shapely.union_all([shapely.Polygon(c.ring) for c in city.crosswalks])
    lanes = [
        shapely.LineString(lane.centerline).buffer(lane.width_m / 2 - 0.25, cap_style="flat")
        for lane in city.lanes.values()
    ]
    tree = shapely.STRtree(lanes)
    parked = works = 0
    for seed in range(12):
        for agent in draw_street_furniture(city, seed).agents:
            length, width, _ = agent.looks.size
            box = shapely.affinity.translate(
                shapely.affinity.rotate(
                    shapely.box(-length / 2, -width / 2, length / 2, width / 2),
                    agent.yaw, (0.0, 0.0), use_radians=True,
                ),
                *agent.center,
            )  # fmt: skip
            assert not crossings.intersects(box)
            if agent.looks.model.agent_type is not AgentType.VEHICLE:
                works += 1
                continue
            parked += 1
            assert junctions.intersection(box).area < 0.6
            assert len(tree.query(box, "intersects")) == 0
    assert parked > 100
    assert works > 20


def test_lanes_are_blocked_only_where_traffic_can_go_round(city: RoadMap) -> None:
    blocked = [v for seed in range(12) for v in draw_street_furniture(city, seed).vehicles]
    assert len(blocked) > 2
    for vehicle in blocked:
        lane = city.lanes[vehicle.lane_id]
        assert has_left_neighbor(city, lane)
        assert vehicle.length_m < vehicle.front_m < polyline_length(lane.centerline) - 15.0


def test_snapshots_tell_who_is_where(snapshots: list[Snapshot]) -> None:
    people = 0
    for one in snapshots:
        count = len(one.ids)
        assert len(set(one.ids)) == count
        assert one.center.shape == (count, 2)
        assert one.size.shape == (count, 3)
        assert {len(one.yaw), len(one.speed), len(one.model), len(one.lane_ids)} == {count}
        assert {len(one.lane_position), len(one.braking)} == {count}
        for model, lane, size, speed in zip(
            one.model, one.lane_ids, one.size, one.speed, strict=True
        ):
            still = model in (AgentModel.CONE, AgentModel.BARRIER)
            assert (lane == "") <= (speed == 0.0)
            if model == AgentModel.PEDESTRIAN:
                people += 1
                assert lane.endswith("_0")
                assert size[0] == size[1] == 0.6
            assert not still or lane == ""
    assert people > 0


def test_pedestrians_walk_on_foot_and_ahead(snapshots: list[Snapshot]) -> None:
    for first, last in ((snapshots[0], snapshots[10]), (snapshots[10], snapshots[20])):
        for index, name in enumerate(first.ids):
            if first.model[index] == AgentModel.PEDESTRIAN and name in last.ids:
                moved = last.center[last.ids.index(name)] - first.center[index]
                assert np.linalg.norm(moved) < 2.5
