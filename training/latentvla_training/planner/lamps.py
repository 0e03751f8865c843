"""Where the lamps of the light are that the ego's lane obeys, from the road network."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import ContractError
from latentvla_ros.geometry import se2
from latentvla_training.data.shards import ShardReader
from latentvla_training.world.episode import EgoVehicle
from latentvla_training.world.layers import build_signals
from latentvla_training.world.networks import read_net

#: A stop line must be this near (m) to where the labels put it, to be taken for the own one.
_MATCH_M = 4.0


@lru_cache(maxsize=4)
def _stop_lines(network: str) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return middles of stop lines (S, 2) and lamps (S, 3, 3) of a network in the map frame.

    None for what is no network of the built-in world, e.g. a recorded drive.
    """
    try:
        signals, _ = build_signals(read_net(network))
    except ContractError:
        return None
    middles = np.array([signal.stop_line.mean(axis=0) for signal in signals]).reshape(-1, 2)
    return middles, np.array([signal.lamp_centers for signal in signals]).reshape(-1, 3, 3)


def own_lamps(reader: ShardReader, index: int) -> NDArray[np.float64] | None:
    """Return the lamps (3, 3) red, yellow, green as x, y, z in the ego frame of Scene ``index``.

    None where no light is ahead, or none stands where the labels put it.
    """
    columns = reader.columns
    if columns["own_light"][index] < 0:
        return None
    network = _stop_lines(str(columns["network"][index]))
    if network is None or not len(network[0]):
        return None
    middles, lamps = network
    vehicle = EgoVehicle()
    front = vehicle.rear_axle_to_center_m + 0.5 * vehicle.length_m
    pose = columns["ego_pose"][index]
    route = reader.heavy_label(index, "centerline")
    beside = int(np.hypot(*(route[:41, :2] - pose[:2]).T).argmin())
    ahead = beside + round(float(columns["own_light_distance_m"][index]) + front)
    if ahead >= len(route):
        return None
    distance = np.hypot(*(middles - route[ahead, :2]).T)
    best = int(distance.argmin())
    if distance[best] > _MATCH_M:
        return None
    found = lamps[best].copy()
    found[:, :2] = se2.transform_points(se2.inverse(pose), found[:, :2])
    return found
