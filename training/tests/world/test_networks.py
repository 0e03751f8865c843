"""Networks: named, disjoint by split, the same bytes for a name, mapped to NAVSIM's layers."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import shapely
from latentvla_training.world import networks
from latentvla_training.world.networks import (
    SPLIT_SIZES,
    build_road_map,
    network_files,
    network_seed,
    split_networks,
)
from latentvla_training.world.road_map import Layer, MarkingKind, RoadMap
from latentvla_training.world.sumo_network import NetworkBuildError

from latentvla_ros.contract import ContractError

NAME = "val-0000"
#: The front camera of ``nano``: 60 degrees over 256 px, 128 px high, 1.6 m above the ground.
FOCAL_PX, HALF_HEIGHT_PX, CAMERA_Z, CAMERA_BEHIND_STOP_M = 128 / math.tan(math.pi / 6), 64, 1.6, 3.2


@pytest.fixture(scope="module")
def road_map(data_root: Path) -> RoadMap:
    return build_road_map(NAME)


def drivable(road_map: RoadMap) -> shapely.Geometry:
    rings = [p.ring for p in road_map.polygons if p.layer in (Layer.ROADBLOCK, Layer.INTERSECTION)]
    return shapely.union_all([shapely.Polygon(ring) for ring in rings])


def test_splits_share_no_seed() -> None:
    seeds = [
        network_seed(name) + 1000 * attempt
        for split in SPLIT_SIZES
        for name in split_networks(split)
        for attempt in range(networks._ATTEMPTS)
    ]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("split", ["", "Train", "testing"])
def test_unknown_split_is_named(split: str) -> None:
    with pytest.raises(ContractError, match="split"):
        split_networks(split)


@pytest.mark.parametrize("name", ["", "train", "train-1", "train-0040", "demo-0000", "val-0006"])
def test_unknown_network_is_named(name: str) -> None:
    with pytest.raises(ContractError, match="network"):
        build_road_map(name)


def test_same_bytes_in_another_process(data_root: Path, tmp_path: Path) -> None:
    script = f"from latentvla_training.world.networks import *; network_files({NAME!r})"
    subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        env={**os.environ, "LATENTVLA_DATA": str(tmp_path)},
    )
    files = network_files(NAME)
    for path in (files.net, files.signal_programs):
        other = tmp_path / path.relative_to(data_root)
        assert other.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("damage", ["truncated", "missing", "index"])
def test_damaged_cache_is_built_again(data_root: Path, damage: str) -> None:
    files = network_files(NAME)
    whole = files.net.read_bytes()
    if damage == "truncated":
        files.net.write_bytes(whole[: len(whole) // 2])
    elif damage == "missing":
        files.signal_programs.unlink()
    else:
        (files.net.parent / "index.json").write_text("{")
    again = network_files(NAME)
    assert again.net.read_bytes() == whole
    assert again.signal_programs.exists()


def test_network_that_cannot_be_built_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(kind: str, seed: int, folder: Path) -> None:
        raise NetworkBuildError("netconvert failed: no roads")

    monkeypatch.setenv("LATENTVLA_DATA", str(tmp_path))
    monkeypatch.setattr(networks, "draw_network", fail)
    with pytest.raises(NetworkBuildError, match=r"test-0003.*no roads"):
        network_files("test-0003")
    folder = tmp_path / "world" / "networks"
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_a_full_disk_is_named_and_no_other_seed_is_tried(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """netconvert cuts its file short then, and reports success."""
    seeds: list[int] = []

    def cut_short(kind: str, seed: int, folder: Path) -> tuple[Path, Path]:
        seeds.append(seed)
        for name in ("net.net.xml", "tls.add.xml"):
            (folder / name).write_text('<net version="1.28">')
        return folder / "net.net.xml", folder / "tls.add.xml"

    monkeypatch.setenv("LATENTVLA_DATA", str(tmp_path))
    monkeypatch.setattr(networks, "draw_network", cut_short)
    monkeypatch.setattr(networks.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(OSError, match=r"no space left to draw network: 'test-0003'"):
        network_files("test-0003")
    assert len(seeds) == 1


def test_a_failing_seed_is_skipped(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []
    draw = networks.draw_network

    def fail_once(kind: str, seed: int, folder: Path) -> tuple[Path, Path]:
        seeds.append(seed)
        if len(seeds) == 1:
            raise NetworkBuildError("no luck")
        return draw(kind, seed, folder)

    monkeypatch.setenv("LATENTVLA_DATA", str(tmp_path))
    monkeypatch.setattr(networks, "draw_network", fail_once)
    assert network_files(NAME).net.exists()
    assert seeds[:2] == [network_seed(NAME), network_seed(NAME) + 1000]


def test_every_layer_is_there_and_rings_are_simple(road_map: RoadMap) -> None:
    assert {p.layer for p in road_map.polygons} == set(Layer) - {Layer.CARPARK_AREA}
    for polygon in road_map.polygons:
        shape = shapely.Polygon(polygon.ring)
        assert shape.is_valid, polygon.source_id
        assert shape.exterior.is_ccw
        assert not np.array_equal(polygon.ring[0], polygon.ring[-1])


def test_seams_are_closed(road_map: RoadMap) -> None:
    """A car's width along every lane and connector lies on the drivable area."""
    area = drivable(road_map)
    shapely.prepare(area)
    for lane in road_map.lanes.values():
        band = shapely.LineString(lane.centerline).buffer(1.4, cap_style="flat")
        assert area.covers(band), lane.lane_id


def test_lanes_join_up(road_map: RoadMap) -> None:
    for lane in road_map.lanes.values():
        assert lane.is_connector == lane.lane_id.startswith(":")
        if lane.is_connector:
            assert lane.successors, lane.lane_id
        for name in lane.successors:
            gap = np.linalg.norm(road_map.lanes[name].centerline[0] - lane.centerline[-1])
            assert gap < 0.3, (lane.lane_id, name)
        if lane.left_neighbor:
            assert road_map.lanes[lane.left_neighbor].right_neighbor == lane.lane_id
        if lane.is_connector:
            assert lane.turn in {"l", "s", "r", "t"}
        else:
            assert 8.0 < lane.speed_limit_mps < 17.0
            assert lane.width_m == pytest.approx(3.5)


def test_every_road_leads_on(road_map: RoadMap) -> None:
    """A lane may end at a junction (its traffic merges), a whole road may not."""
    edges = {lane.edge_id for lane in road_map.lanes.values()}
    assert edges == {lane.edge_id for lane in road_map.lanes.values() if lane.successors}


def test_roads_bend(road_map: RoadMap) -> None:
    ratios = []
    for lane in road_map.lanes.values():
        if not lane.is_connector:
            length = np.linalg.norm(np.diff(lane.centerline, axis=0), axis=1).sum()
            chord = shapely.LineString(lane.centerline[[0, -1]])
            ratios.append(shapely.hausdorff_distance(chord, shapely.LineString(lane.centerline)))
            assert length >= 25.0
    assert np.mean(np.array(ratios) > 2.0) > 0.6


def test_each_approach_lane_shows_one_colour(road_map: RoadMap) -> None:
    import xml.etree.ElementTree as ElementTree

    programs = ElementTree.parse(network_files(NAME).signal_programs).getroot()
    phases = {
        program.get("id"): [phase.get("state", "") for phase in program] for program in programs
    }
    for signal in road_map.signals:
        for state in phases[signal.tls_id]:
            assert len({state[index].upper() for index in signal.link_indices}) == 1
    controlled = {lane.signal for lane in road_map.lanes.values() if lane.signal >= 0}
    assert controlled == set(range(len(road_map.signals)))


@pytest.mark.parametrize("name", [NAME, "val-0004"])
def test_signals_are_seen_from_the_stop_line_and_from_afar(data_root: Path, name: str) -> None:
    for signal in build_road_map(name).signals:
        line_center = signal.stop_line.mean(axis=0)
        away = signal.lamp_centers[:, :2] - line_center
        facing = np.array([math.cos(signal.facing_yaw), math.sin(signal.facing_yaw)])
        depth = -(away @ facing) + CAMERA_BEHIND_STOP_M
        row = FOCAL_PX * (signal.lamp_centers[:, 2] + 0.45 - CAMERA_Z) / depth
        assert (row < HALF_HEIGHT_PX - 1).all(), signal.approach_lane
        assert np.abs(away @ [-facing[1], facing[0]]).max() < 1e-6
        assert FOCAL_PX * 0.9 / 45.0 >= 3.0


def test_signalised_approaches_have_stop_lines_and_crossings(road_map: RoadMap) -> None:
    approaches = {road_map.lanes[s.approach_lane].edge_id for s in road_map.signals}
    kinds = [marking.kind for marking in road_map.markings]
    assert sum(crosswalk.signalled for crosswalk in road_map.crosswalks) == len(approaches)
    assert kinds.count(MarkingKind.CROSSING) == len(road_map.crosswalks) > len(approaches)
    assert kinds.count(MarkingKind.STOP_LINE) >= len(approaches)
    assert {MarkingKind.SOLID, MarkingKind.CENTRE} <= set(kinds)
