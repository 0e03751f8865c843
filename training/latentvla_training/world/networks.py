"""The road networks of each split by name: drawn once, cached on disk, never shared by two splits.

A cached network is a folder with SUMO's two files, the mapped layers and an index of their sha256;
a folder that does not match its index (a truncated copy, an older version) is built again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from errno import ENOSPC
from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError
from xml.sax import SAXParseException

import numpy as np

from latentvla_ros.contract import ContractError
from latentvla_training.world.drivable_area import KERB_RADIUS_M, build_polygons, drivable_area
from latentvla_training.world.layers import (
    RightOfWay,
    build_lanes,
    build_right_of_way,
    build_signals,
    is_road,
    vehicle_lanes,
)
from latentvla_training.world.markings import build_markings
from latentvla_training.world.pavements import build_crosswalks, build_sidewalks
from latentvla_training.world.road_map import Layer, RoadMap
from latentvla_training.world.scenery import place_props
from latentvla_training.world.sumo_network import NetworkBuildError, draw_network

#: Number of networks in each split; their seeds lie in disjoint ranges.
SPLIT_SIZES = {"train": 40, "val": 6, "test": 12, "longtail": 12, "ood": 8}
_SPLIT_SEEDS = {
    "train": 1_000_000,
    "val": 2_000_000,
    "test": 3_000_000,
    "longtail": 4_000_000,
    "ood": 5_000_000,
}
#: Generators by the index of a network, over and over; the first six are all there are of them.
_KINDS = (
    "grid", "random", "merge", "rural", "spider", "split",
    "grid", "random", "rural", "spider", "random", "grid",
)  # fmt: skip
#: The generator that only ``ood`` has.
_HELD_OUT_KIND = "roundabout"
KINDS = (*sorted(set(_KINDS)), _HELD_OUT_KIND)
_ATTEMPTS = 60
#: SUMO's tools cut their files short on a full disk and report success, bytes.
_LEAST_SPACE = 4 << 20
_VERSION = "v4"


@dataclass(frozen=True)
class NetworkFiles:
    """What SUMO reads: the network and the signal programs."""

    net: Path
    signal_programs: Path


def data_root() -> Path:
    """Return the folder of generated data: ``$LATENTVLA_DATA``, else ``data`` in the repository."""
    configured = os.environ.get("LATENTVLA_DATA")
    return Path(configured) if configured else Path(__file__).resolve().parents[3] / "data"


def split_networks(split: str) -> list[str]:
    """Return the names of a split's networks, e.g. ``train-0007``.

    Raises:
        ContractError: unknown split.
    """
    if split not in SPLIT_SIZES:
        raise ContractError("split", split, f"one of {sorted(SPLIT_SIZES)}")
    return [f"{split}-{index:04d}" for index in range(SPLIT_SIZES[split])]


def network_seed(name: str) -> int:
    """Return the first seed of a network.

    Raises:
        ContractError: no split has a network of this name.
    """
    match = re.fullmatch(r"([a-z]+)-(\d{4})", name)
    if not match or match[1] not in SPLIT_SIZES or int(match[2]) >= SPLIT_SIZES[match[1]]:
        known = ", ".join(f"{s}-0000..{n - 1:04d}" for s, n in SPLIT_SIZES.items())
        raise ContractError("network", name, f"one of {known}")
    return _SPLIT_SEEDS[match[1]] + int(match[2])


def network_kind(name: str) -> str:
    """Return the generator of network ``name``, one of ``KINDS``.

    Raises:
        ContractError: no split has a network of this name.
    """
    network_seed(name)
    split, index = name.split("-")
    return _HELD_OUT_KIND if split == "ood" else _KINDS[int(index) % len(_KINDS)]


@lru_cache(maxsize=4)
def build_road_map(name: str) -> RoadMap:
    """Return the network ``name`` in NAVSIM's layers, drawing it first if it is not cached.

    Raises:
        ContractError: unknown name.
        NetworkBuildError: none of the name's seeds gave a usable network.
    """
    net = read_net(name)
    signals, signal_of = build_signals(net)
    lanes = build_lanes(net, signal_of)
    kind = network_kind(name)
    polygons = build_polygons(net, lanes, KERB_RADIUS_M[kind])
    drivable = [p.ring for p in polygons if p.layer in (Layer.ROADBLOCK, Layer.INTERSECTION)]
    corners = np.concatenate(drivable)
    bounds = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
    area = drivable_area(polygons)
    crosswalks = build_crosswalks(net, area)
    return RoadMap(
        name=name,
        polygons=polygons,
        lanes=lanes,
        signals=signals,
        markings=build_markings(net, area, crosswalks),
        props=place_props(polygons, lanes, signals, bounds, network_seed(name), kind),
        bounds=bounds,
        kind=kind,
        crosswalks=crosswalks,
        sidewalks=build_sidewalks(net, area),
    )


@lru_cache(maxsize=4)
def right_of_way(name: str) -> RightOfWay:
    """Return which connectors of network ``name`` yield to which."""
    return build_right_of_way(read_net(name))


@lru_cache(maxsize=4)
def read_net(name: str) -> Any:
    """Return network ``name`` as sumolib reads it, internal lanes included."""
    import sumolib

    return sumolib.net.readNet(str(network_files(name).net), withInternal=True)


def network_files(name: str) -> NetworkFiles:
    """Return SUMO's files of network ``name``; builds them when absent or damaged."""
    seed = network_seed(name)
    folder = data_root() / "world" / "networks" / _VERSION / name
    if not _intact(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _build(name, seed, folder)
    return NetworkFiles(folder / "net.net.xml", folder / "tls.add.xml")


def _intact(folder: Path) -> bool:
    """Whether every file of a cached network is the one that was written."""
    try:
        index = json.loads((folder / "index.json").read_text())
        return bool(index) and all(_digest(folder / file) == sha for file, sha in index.items())
    except (OSError, ValueError, AttributeError):
        return False


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _build(name: str, seed: int, folder: Path) -> None:
    """Draw with the first seed that works; the finished folder appears in one rename."""
    causes, kind = [], network_kind(name)
    for attempt in range(_ATTEMPTS):
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder.parent) as scratch_name:
            scratch = Path(scratch_name)
            try:
                net_path, tls_path = draw_network(kind, seed + 1000 * attempt, scratch)
                _check_usable(net_path, kind)
            except (NetworkBuildError, SAXParseException, ParseError) as error:
                if shutil.disk_usage(folder.parent).free < _LEAST_SPACE:
                    raise OSError(ENOSPC, "no space left to draw network", name) from error
                causes.append(str(error))
                continue
            finished = scratch / "finished"
            finished.mkdir()
            for path in (net_path, tls_path):
                _strip_comments(path, finished / path.name)
            index = {path.name: _digest(path) for path in sorted(finished.iterdir())}
            (finished / "index.json").write_text(json.dumps(index))
            if folder.exists() and not _intact(folder):
                folder.replace(scratch / "damaged")
            try:
                finished.replace(folder)
            except OSError:
                if not _intact(folder):  # another process finished the same network first
                    raise
            return
    raise NetworkBuildError(f"network {name}: {_ATTEMPTS} seeds failed, last: {causes[-1]}")


def _strip_comments(source: Path, target: Path) -> None:
    """Copy a SUMO file without its comments, which hold the date: same seed, same bytes."""
    target.write_text(re.sub(r"<!--.*?-->\s*", "", source.read_text(), flags=re.DOTALL))


@dataclass(frozen=True)
class _Limits:
    """What a network of a kind must keep to: extent and edge lengths in m, signalised junctions."""

    least_extent: float
    most_extent: float
    least_edge: float
    signals: int = 0


_LIMITS = {
    "grid": _Limits(400.0, 850.0, 25.0, 3),
    "spider": _Limits(400.0, 850.0, 25.0, 3),
    "random": _Limits(400.0, 950.0, 25.0, 3),
    "rural": _Limits(400.0, 1150.0, 60.0),
    "merge": _Limits(500.0, 1150.0, 60.0),
    "split": _Limits(500.0, 1150.0, 60.0),
    "roundabout": _Limits(300.0, 950.0, 2.0),
}


def _check_usable(net_path: Path, kind: str) -> None:
    """Refuse networks that are too small, too wide, unsignalised or with broken junctions."""
    import sumolib

    limits = _LIMITS[kind]
    net: Any = sumolib.net.readNet(str(net_path), withInternal=True)
    x_min, y_min, x_max, y_max = net.getBoundary()
    extent = (x_max - x_min, y_max - y_min)
    if not (min(extent) > limits.least_extent and max(extent) < limits.most_extent):
        raise NetworkBuildError(
            f"extent {extent} m is not within {limits.least_extent} ... {limits.most_extent} m"
        )
    if len(net.getTrafficLights()) < limits.signals:
        raise NetworkBuildError(f"only {len(net.getTrafficLights())} signalised junctions")
    for edge in net.getEdges(withInternal=False):
        if edge.getLength() < limits.least_edge:
            raise NetworkBuildError(f"edge {edge.getID()} is {edge.getLength():.1f} m long")
        if not any(is_road(out) and vehicle_lanes(out) for out in edge.getOutgoing()):
            raise NetworkBuildError(f"edge {edge.getID()} is a dead end")
