"""What the probes ask: how the ego's motion changes, and how a road user nearby moves.

Labels of the world serve here to judge a codebook; no stage of its training reads them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.geometry import se2
from latentvla_training.latent_action.pairs import Pairs
from latentvla_training.latent_action.probes import F64, ProbeData
from latentvla_training.latent_action.scene_set import SceneSet

#: A road user within this distance and this far from straight ahead is seen (60-degree camera).
AGENT_RANGE_M, HALF_VIEW_RAD = 40.0, np.radians(28.0)
#: Where curves over the speed may bend, m/s.
_SPEED_KNOTS = np.arange(1.0, 17.0)
#: Where curves over motion of either sign may bend, m, m/s, rad or rad/s.
_HALF = np.array([0.05, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0])
_KNOTS = np.concatenate([-_HALF[::-1], _HALF])


def known_at_t0(scenes: SceneSet, rows: NDArray[np.int64]) -> F64:
    """Return speed, yaw rate and command (n, 5) of Scenes: what was known without any code."""
    dynamics = scenes.column("ego_dynamics")[rows]
    command = scenes.column("command")[rows][:, :3]
    return np.concatenate([dynamics[:, [0, 2]], command], axis=1).astype(np.float64)


def curves_of_known(known: F64) -> F64:
    """Return what hangs on speed, yaw rate and command (n, 5) by any curve, linearly (n, 83).

    How the speed will change hangs on the speed by a curve, and by another one under every command:
    codes that say no more than the speed at t0 would count as news otherwise.
    """
    speed = np.concatenate([known[:, :1], steps_of(known[:, 0], _SPEED_KNOTS)], axis=1)
    by_command = [speed * command[:, None] for command in known[:, 2:].T]
    return np.concatenate([known[:, 1:2], steps_of(known[:, 1]), speed, *by_command], axis=1)


@dataclass(frozen=True)
class EgoQuestion:
    """Scenes whose transitions are all whole, and how the ego's motion changes in each.

    Attributes:
        rows: (n,) of the Scenes. pairs: (n, K) of each. data: targets are delta v (m/s) and delta
            yaw (rad) of every transition, transition-major (n, 2 K); known are speed, yaw rate and
            command at t0 and their curves. speed: (n,) at t0, m/s.
    """

    rows: NDArray[np.int64]
    pairs: NDArray[np.int64]
    data: ProbeData
    speed: F64


def ego_question(scenes: SceneSet, pairs: Pairs) -> EgoQuestion:
    """Ask for (delta v, delta yaw) over every transition, of whole Scenes."""
    rows = np.flatnonzero((pairs.of_scene >= 0).all(axis=1))
    chosen = pairs.of_scene[rows]  # (n, K)
    speed = scenes.column("ego_dynamics")[:, 0]
    change = speed[pairs.later[chosen]] - speed[pairs.earlier[chosen]]
    targets = np.stack([change, pairs.motion[chosen, 2]], axis=2).reshape(len(rows), -1)
    networks = scenes.column("network")[rows]
    known = known_at_t0(scenes, rows)
    all_known = np.concatenate([known, curves_of_known(known)], axis=1)
    data = ProbeData(all_known, targets.astype(np.float64), networks)
    return EgoQuestion(rows, chosen, data, known[:, 0])


@dataclass(frozen=True)
class AgentQuestion:
    """First transitions in which a road user is seen, and how it moves.

    Attributes:
        pairs: (n,). data: targets are the displacement x, y (m) over the transition in the ego
            frame of the earlier frame, and its length (m); known are the ego's speed, yaw rate and
            command, its own motion over the transition and change of speed, and steps of each.
    """

    pairs: NDArray[np.int64]
    data: ProbeData


def agent_question(scenes: SceneSet, pairs: Pairs) -> AgentQuestion:
    """Ask how the nearest road user in view, within 40 m, moves in the first transition."""
    chosen, targets = [], []
    seconds = _seconds(scenes, pairs)
    start = 0
    for reader in scenes.readers:
        for row in range(len(reader)):
            pair = int(pairs.of_scene[start + row, 0])
            if pair < 0:
                continue
            frames = round(10 * seconds[pair])
            found = _nearest_motion(
                reader.columns["ego_pose"][row],
                reader.heavy_label(row, "agent_state"),
                reader.heavy_label(row, "agent_valid"),
                frames,
            )
            if found is not None:
                chosen.append(pair)
                targets.append(found)
        start += len(reader)
    index = np.array(chosen, np.int64)
    rows = pairs.earlier[index]
    speed = scenes.column("ego_dynamics")[:, 0]
    change = speed[pairs.later[index]] - speed[rows]
    motion = np.concatenate([pairs.motion[index], change[:, None]], axis=1).astype(np.float64)
    known = np.concatenate([known_at_t0(scenes, rows), motion], axis=1)
    known = np.concatenate([known, *(steps_of(values) for values in known.T)], axis=1)
    networks = scenes.column("network")[rows]
    displacement = np.array(targets).reshape(-1, 2)
    asked = np.concatenate([displacement, np.hypot(*displacement.T)[:, None]], axis=1)
    return AgentQuestion(index, ProbeData(known, asked, networks))


def steps_of(values: F64, knots: F64 = _KNOTS) -> F64:
    """Return values (n,) beyond each knot, (n, knots): any curve of them is linear in these.

    Otherwise what hangs on the ego's motion by a curve (it stands, so the one ahead stands) would
    count as news about others.
    """
    return np.asarray(np.maximum(values[:, None] - knots, 0.0))


def _seconds(scenes: SceneSet, pairs: Pairs) -> F64:
    stamps = scenes.column("stamp_ns")
    return np.asarray((stamps[pairs.later] - stamps[pairs.earlier]) / 1e9)


def _nearest_motion(ego: F64, states: F64, valid: NDArray[np.bool_], frames: int) -> F64 | None:
    """Return the displacement (2,) of the nearest road user in view, ego frame; None for none."""
    if not len(states):
        return None
    known = valid[:, 0] & valid[:, frames]
    here = se2.transform_points(se2.inverse(ego), states[:, 0, :2])
    distance = np.hypot(here[:, 0], here[:, 1])
    bearing = np.abs(np.arctan2(here[:, 1], here[:, 0]))
    seen = known & (distance <= AGENT_RANGE_M) & (bearing <= HALF_VIEW_RAD)
    if not seen.any():
        return None
    nearest = int(np.flatnonzero(seen)[distance[seen].argmin()])
    there = se2.transform_points(se2.inverse(ego), states[nearest, frames, :2][None])[0]
    return np.asarray(there - here[nearest])
