"""Pairs of front frames that are a transition's length apart, and what odometry says between them.

A Scene's later frames are the t0 frames of later Scenes of its episode. Where one is missing (the
end of a recording, a start beside the driven path) there is no pair: nothing is ever repeated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentvla_training.latent_action.scene_set import SceneSet, driven, front_present
from latentvla_training.latent_action.settings import DynamicsSettings

#: How far a frame's stamp may be from the time that is asked for, seconds.
TOLERANCE_S = 0.1
#: Poses of the driven segment that stage 1 is told.
TRAJECTORY_POINTS = 5
#: Ego state at the earlier frame: dynamics (6), which of them are known (6), command (4).
STATE_WIDTH = 16
#: Of which odometry says: speed, yaw rate, ... and which of them are known; no command.
ODOMETRY_WIDTH = 12

# Typical sizes, to bring inputs of networks to about one: m, m, rad; then m/s, rad/s, m/s2, rad.
_POSE_SCALE = np.array([10.0, 1.0, 0.3], np.float32)
#: Of ego motions as targets (m, m, rad): what a second of ordinary driving differs by.
MOTION_SCALE = np.array([8.0, 0.6, 0.1], np.float32)
#: Of motion that speed and yaw rate at its beginning did not foretell (m, m, rad), times the
#: seconds since then squared.
_UNFORESEEN_SCALE = np.array([0.5, 0.12, 0.03], np.float32)
_DYNAMICS_SCALE = np.array([10.0, 1.0, 0.3, 2.0, 2.0, 0.3], np.float32)


@dataclass(frozen=True)
class Pairs:
    """Frame pairs of some Scenes.

    Attributes:
        earlier, later: (P,) index of the Scenes whose t0 frames they are.
        interval: (P,) which of the settings' ``intervals_s`` lies between.
        trajectory: (P, 5, 3) driven poses x, y, yaw in equal steps up to the later frame, in the
            ego frame of the earlier one (m, rad).
        state, later_state: (P, 16) ego state at the earlier and the later frame, scaled.
        unforeseen: (P, 5, 3) how the driven poses differ from constant speed and yaw rate, scaled.
        of_scene: (N, K) pair of each transition of each Scene, -1 where it is missing.
        known: (P,) whether odometry is known; where it is not, all that it says is 0.
    """

    earlier: NDArray[np.int64]
    later: NDArray[np.int64]
    interval: NDArray[np.int64]
    trajectory: NDArray[np.float32]
    state: NDArray[np.float32]
    later_state: NDArray[np.float32]
    unforeseen: NDArray[np.float32]
    of_scene: NDArray[np.int64]
    known: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.earlier)

    def chosen(self, rows: NDArray[np.int64]) -> Pairs:
        """Return some of the pairs; which Scenes they belong to is left out."""
        return Pairs(
            self.earlier[rows],
            self.later[rows],
            self.interval[rows],
            self.trajectory[rows],
            self.state[rows],
            self.later_state[rows],
            self.unforeseen[rows],
            self.of_scene[:0],
            self.known[rows],
        )

    @property
    def motion(self) -> NDArray[np.float32]:
        """(P, 3) ego motion x, y, yaw over each pair (m, rad)."""
        return self.trajectory[:, -1]


def scaled_poses(poses: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return driven poses (..., 3) as networks take them."""
    return np.asarray(poses / _POSE_SCALE, np.float32)


def scaled_motion(motion: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ego motions (..., 3) as they are targets: a turn counts as much as eight metres."""
    return np.asarray(motion / MOTION_SCALE, np.float32)


def find_pairs(
    scenes: SceneSet, settings: DynamicsSettings, odometry: NDArray[np.bool_] | None = None
) -> Pairs:
    """Find every pair of frames that some transition of some Scene is about, each once.

    Scenes of one episode share their token up to the last "/".

    Args:
        odometry: (N,) Scenes whose odometry may be read; others are paired by their pictures alone.
            None: of all, and frames without odometry between them are no pair.
    """
    at = [later_rows(scenes, seconds) for seconds in settings.times_s]
    future = scenes.column("future_10hz")
    columns: list[NDArray[np.int64]] = []
    found: list[NDArray[np.int64]] = []
    for index, (start, end) in enumerate(settings.transitions):
        length = end - start
        earlier, later = at[index], at[index + 1]
        whole = (earlier >= 0) & (later >= 0)
        if odometry is None:
            whole[whole] &= np.isfinite(_segment(future, earlier[whole], length)).all(axis=(1, 2))
        column = np.full(len(whole), -1, np.int64)
        column[whole] = np.arange(whole.sum()) + sum(len(part) for part in found)
        columns.append(column)
        interval = np.full(len(whole), settings.intervals_s.index(length))
        found.append(np.stack([earlier, later, interval], axis=1)[whole])
    unique, inverse = np.unique(np.concatenate(found), axis=0, return_inverse=True)
    inverse = np.append(inverse.ravel(), -1)  # a missing pair stays missing
    earlier, later, interval = unique.reshape(-1, 3).T
    trajectory = np.zeros((len(unique), TRAJECTORY_POINTS, 3), np.float32)
    for index, length in enumerate(settings.intervals_s):
        chosen = interval == index
        trajectory[chosen] = _segment(future, earlier[chosen], length)
    of_scene = np.stack([inverse[column] for column in columns], axis=1)
    known = np.isfinite(trajectory).all(axis=(1, 2))
    state = _ego_state(scenes)
    if odometry is not None:
        known &= odometry[earlier] & odometry[later]
        state[~odometry] = 0.0
    trajectory[~known] = 0.0
    seconds = np.array(settings.intervals_s)[interval]
    dynamics = np.where(scenes.column("ego_dynamics_mask"), scenes.column("ego_dynamics"), 0.0)[
        earlier
    ]
    unforeseen = _unforeseen(trajectory, dynamics, seconds)
    unforeseen[~known] = 0.0
    return Pairs(
        earlier,
        later,
        interval,
        trajectory,
        state[earlier],
        state[later],
        unforeseen,
        of_scene,
        known,
    )


def _unforeseen(
    trajectory: NDArray[np.float32], dynamics: NDArray[np.float32], seconds: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return poses (P, 5, 3) less those of the speed and yaw rate of the beginning, scaled.

    Args:
        trajectory: (P, 5, 3) driven poses in equal steps over ``seconds`` (P,).
        dynamics: (P, 6) at the beginning; what is not known is 0.
    """
    speed, rate = dynamics[:, 0, None].astype(np.float64), dynamics[:, 2, None].astype(np.float64)
    time = seconds[:, None] * np.linspace(0.0, 1.0, TRAJECTORY_POINTS + 1)[1:]
    half = rate * time / 2.0
    chord = speed * time * np.sinc(half / np.pi)  # of the arc that is driven
    kept = np.stack([chord * np.cos(half), chord * np.sin(half), 2.0 * half], axis=-1)
    scale = _UNFORESEEN_SCALE * time[..., None] ** 2
    return np.asarray((trajectory - kept) / scale, np.float32)


def _segment(
    future: NDArray[np.float32], rows: NDArray[np.int64], length_s: float
) -> NDArray[np.float32]:
    """Return driven poses (n, 5, 3) in equal steps up to ``length_s`` after the Scenes' t0."""
    steps = np.linspace(0.0, 10.0 * length_s, TRAJECTORY_POINTS + 1)[1:]
    return future[rows][:, np.rint(steps).astype(int)]


def later_rows(scenes: SceneSet, seconds: float) -> NDArray[np.int64]:
    """Return (N,) the Scene whose t0 is ``seconds`` after that of each, -1 where there is none.

    Before it where they are negative.
    """
    episode = np.array([token.rpartition("/")[0] for token in scenes.column("token")])
    usable = driven(scenes) & front_present(scenes)
    stamps = scenes.column("stamp_ns")
    rows = np.full(len(scenes), -1, np.int64)
    for name in np.unique(episode):
        members = np.flatnonzero((episode == name) & usable)
        members = members[np.argsort(stamps[members], kind="stable")]
        if not len(members):
            continue
        times = stamps[members]
        wanted = times + round(seconds * 1e9)
        place = np.searchsorted(times, wanted)
        low, high = np.maximum(place - 1, 0), np.minimum(place, len(members) - 1)
        nearest = np.where(abs(times[low] - wanted) <= abs(times[high] - wanted), low, high)
        there = abs(times[nearest] - wanted) <= TOLERANCE_S * 1e9
        rows[members[there]] = members[nearest[there]]
    return rows


def _ego_state(scenes: SceneSet) -> NDArray[np.float32]:
    known = scenes.column("ego_dynamics_mask")
    dynamics = np.where(known, scenes.column("ego_dynamics"), 0.0) / _DYNAMICS_SCALE
    return np.concatenate([dynamics, known, scenes.column("command")], axis=1).astype(np.float32)
