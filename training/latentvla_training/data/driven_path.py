"""The path that a recording's odometry went, as a label: futures and past states."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.geometry import se2
from latentvla_ros.sensing.ego_motion_buffer import (
    EgoMotionBuffer,
    EgoMotionSettings,
    OdometryStale,
    WarmingUp,
)
from latentvla_training.data.labels import AGENT_STEPS, FUTURE_STEPS, HISTORY_STEPS
from latentvla_training.data.scene import SceneLabels

Sample = tuple[int, NDArray[np.float64], NDArray[np.float64]]

#: A longer silence of the odometry ends a stretch: nothing is claimed about what happened in it.
MAX_GAP_S = 0.5
_STEP_NS = 100_000_000


class DrivenPath:
    """Poses at any stamp within the unbroken stretches of a recording's odometry.

    Args:
        samples: (stamp, pose (3,), twist (3,)) of the ego frame, in the order of recording. Those
            that are not finite or go back in time are left out; jumps are re-anchored by twist.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._stretches: list[EgoMotionBuffer] = []
        self._starts: list[int] = []
        self._stamps: list[list[int]] = []
        self._twists: list[list[NDArray[np.float64]]] = []
        settings = EgoMotionSettings(
            horizon_s=1e9,
            max_samples=max(len(samples) + 1, 16),
            max_extrapolation_s=0.0,
            max_gap_s=1e9,
            restart_after_backwards=2**62,
        )
        for stamp_ns, pose, twist in samples:
            last = self._stamps[-1][-1] if self._stamps else None
            if last is None or (stamp_ns - last) * 1e-9 > MAX_GAP_S:
                self._stretches.append(EgoMotionBuffer(settings))
                self._stamps.append([])
                self._twists.append([])
            if self._stretches[-1].add(stamp_ns, pose, twist):
                self._stamps[-1].append(stamp_ns)
                self._twists[-1].append(twist)
            if not self._stamps[-1]:  # the first sample of a stretch was refused
                for stretches in (self._stretches, self._stamps, self._twists):
                    stretches.pop()
        self._starts = [stamps[0] for stamps in self._stamps]

    @property
    def jumps(self) -> int:
        """Pose steps that disagreed with the twist."""
        return sum(stretch.jumps for stretch in self._stretches)

    def relative(self, t0_ns: int, stamps_ns: Sequence[int]) -> NDArray[np.float64]:
        """Return (N, 3) poses at ``stamps_ns`` in the ego frame of t0; NaN where unknown."""
        poses = np.full((len(stamps_ns), 3), np.nan)
        index = bisect_right(self._starts, t0_ns) - 1
        if index < 0:
            return poses
        for row, stamp_ns in enumerate(stamps_ns):
            try:
                poses[row] = self._stretches[index].relative(t0_ns, stamp_ns)
            except (WarmingUp, OdometryStale):
                continue
        return poses

    def twist(self, t0_ns: int, stamps_ns: Sequence[int]) -> NDArray[np.float64]:
        """Return (N, 3) twists vx, vy, yaw rate at ``stamps_ns``, held at the stretch's ends."""
        index = bisect_right(self._starts, t0_ns) - 1
        if index < 0:
            return np.zeros((len(stamps_ns), 3))
        times = (np.array(self._stamps[index]) - t0_ns) * 1e-9
        wanted = (np.array(stamps_ns) - t0_ns) * 1e-9
        twists = np.array(self._twists[index])
        return np.stack([np.interp(wanted, times, twists[:, axis]) for axis in range(3)], axis=-1)


def path_labels(path: DrivenPath, t0_ns: int, ego_pose: NDArray[np.float64]) -> SceneLabels:
    """Return labels that know the driven path alone.

    Args:
        path: of the recording.
        t0_ns: the Scene's moment. ego_pose: (3,) at t0 in the odometry frame.
    """
    steps = np.arange(FUTURE_STEPS + 1)
    future = path.relative(t0_ns, [t0_ns + int(step) * _STEP_NS for step in steps])
    known = np.isfinite(future[5::5, 0])
    past_ns = [t0_ns + step * _STEP_NS for step in HISTORY_STEPS]
    past = path.relative(t0_ns, past_ns)
    twist = path.twist(t0_ns, past_ns)
    before = path.twist(t0_ns, [stamp - _STEP_NS for stamp in past_ns])
    rate = (twist - before) / (_STEP_NS * 1e-9)
    states = np.zeros((len(past_ns), 11))
    states[:, :3] = se2.compose(ego_pose, past)
    states[:, 3:5] = twist[:, :2]
    states[:, 5] = rate[:, 0] - twist[:, 1] * twist[:, 2]
    states[:, 6] = rate[:, 1] + twist[:, 0] * twist[:, 2]
    states[:, 9], states[:, 10] = twist[:, 2], rate[:, 2]
    return SceneLabels(
        future_2hz=np.where(known[:, None], future[5::5], 0.0).astype(np.float32),
        future_10hz=future.astype(np.float32),
        future_mask=known,
        past_states=states,
        agent_type=np.zeros(0, np.uint8),
        agent_size=np.zeros((0, 2), np.float32),
        agent_height=np.zeros(0, np.float32),
        agent_state=np.zeros((0, AGENT_STEPS + 1, 5)),
        agent_valid=np.zeros((0, AGENT_STEPS + 1), np.bool_),
        agent_braking=np.zeros(0, np.bool_),
        polygon_xy=np.zeros((0, 2)),
        polygon_offset=np.zeros(1, np.int64),
        polygon_layer=np.zeros(0, np.uint8),
        polygon_on_route=np.zeros(0, np.bool_),
        light_polygon=np.zeros(0, np.int64),
        light_red=np.zeros((0, FUTURE_STEPS + 1), np.bool_),
        centerline=np.zeros((0, 3)),
        own_light=-1,
        own_light_distance_m=float("nan"),
        own_light_switched=False,
        pdm_reference_10hz=np.full((FUTURE_STEPS + 1, 3), np.nan),
    )
