"""Odometry in, ego state at any recent stamp out: one buffer for the car and for training.

Poses are kept in two forms. The *raw* pose is what the odometry said. The *chain* pose is the same
motion without jumps: while nothing jumps they are equal; when a pose step disagrees with the
integrated twist, the chain goes on by twist and the raw frame is re-anchored to it. History and
motion compensation read the chain; ``EgoMotion.pose`` is given in the latest raw frame.

Acceleration is no measurement but a fixed causal filter: the least-squares slope of the twist over
``ACCELERATION_WINDOW_S`` up to t0, taken at fixed times between the samples so that 10 Hz and 100
Hz odometry give the same value. ``ax = d vx/dt - vy r`` and ``ay = d vy/dt + vx r`` are the
inertial acceleration of the rear axle in body axes (a steady turn has ay = vx r).
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latentvla_ros.contract import EGO_DYNAMICS, HISTORY_OFFSETS_S, ContractError, EgoMotion
from latentvla_ros.geometry import se2

ACCELERATION_WINDOW_S = 0.4
_ACCELERATION_TIMES_S = np.linspace(-ACCELERATION_WINDOW_S, 0.0, 21)
_SLOPE_WEIGHTS = _ACCELERATION_TIMES_S - _ACCELERATION_TIMES_S.mean()
_SLOPE_WEIGHTS = _SLOPE_WEIGHTS / (_SLOPE_WEIGHTS**2).sum()


class WarmingUp(RuntimeError):
    """Less odometry is buffered before the asked stamp than a history needs."""


class OdometryStale(RuntimeError):
    """The asked stamp is further past the newest odometry than may be extrapolated."""


@dataclass(frozen=True)
class EgoMotionSettings:
    """Bounds of the buffer.

    Attributes:
        horizon_s: how far back samples are kept.
        max_samples: memory bound, whatever the rate.
        warm_up_s: odometry that must be buffered before t0.
        max_extrapolation_s: how far t0 may be past the newest sample.
        max_gap_s: a longer silence starts the buffer afresh.
        jump_distance_m, jump_angle_rad: disagreement of a pose step with the integrated twist that
            makes it a jump.
        max_speed_mps, max_yaw_rate_radps: a faster twist is rejected as implausible.
        future_tolerance_s: how far a stamp may be ahead of the clock.
        restart_after_backwards: so many samples in a row from before the newest one mean that the
            source has restarted: the buffer starts afresh with them.
    """

    horizon_s: float = 5.0
    max_samples: int = 8192
    warm_up_s: float = -HISTORY_OFFSETS_S[0]
    max_extrapolation_s: float = 0.1
    max_gap_s: float = 0.5
    jump_distance_m: float = 0.5
    jump_angle_rad: float = 0.1
    max_speed_mps: float = 100.0
    max_yaw_rate_radps: float = 10.0
    future_tolerance_s: float = 0.05
    restart_after_backwards: int = 10

    def __post_init__(self) -> None:
        for name in (
            "horizon_s",
            "max_gap_s",
            "jump_distance_m",
            "jump_angle_rad",
            "max_speed_mps",
            "max_yaw_rate_radps",
            "restart_after_backwards",
        ):
            if not getattr(self, name) > 0:
                raise ContractError(f"ego_motion.{name}", getattr(self, name), "a positive value")
        for name in ("max_extrapolation_s", "future_tolerance_s"):
            if not getattr(self, name) >= 0:
                raise ContractError(f"ego_motion.{name}", getattr(self, name), "a value >= 0")
        if not ACCELERATION_WINDOW_S <= self.warm_up_s <= self.horizon_s:
            raise ContractError(
                "ego_motion.warm_up_s",
                self.warm_up_s,
                f"between {ACCELERATION_WINDOW_S} and horizon_s {self.horizon_s}",
            )
        if self.max_samples < 16:
            raise ContractError("ego_motion.max_samples", self.max_samples, "at least 16")


@dataclass(frozen=True)
class _Sample:
    """One accepted odometry message; ``chain`` and ``twist`` are (3,)."""

    stamp_ns: int
    chain: NDArray[np.float64]
    twist: NDArray[np.float64]
    wheel_angle: float | None


class EgoMotionBuffer:
    """Bounded, time-ordered odometry with interpolation.

    Safe to use from two threads: the executor adds, the inference thread asks.

    Attributes:
        jumps: pose steps that disagreed with the twist.
        restarts: times that a gap or a restarted source emptied the buffer.
        rejected: samples refused, by cause: ``not_finite``, ``implausible``, ``zero_stamp``,
            ``future_stamp``, ``stamp_repeated``, ``stamp_backwards``.
    """

    def __init__(self, settings: EgoMotionSettings | None = None) -> None:
        self.settings = settings or EgoMotionSettings()
        self.jumps = 0
        self.restarts = 0
        self.rejected: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        self._stamps: list[int] = []
        self._samples: list[_Sample] = []
        self._chain_from_raw = np.zeros(3)
        self._backwards = 0

    def clear(self) -> None:
        """Forget all samples, as after a clock jump; counters stay."""
        with self._lock:
            self._reset()

    def __len__(self) -> int:
        return len(self._stamps)

    @property
    def newest_stamp_ns(self) -> int | None:
        """Stamp of the newest sample, or None."""
        with self._lock:
            return self._stamps[-1] if self._stamps else None

    @property
    def buffered_s(self) -> float:
        """Time spanned by the samples."""
        with self._lock:
            return (self._stamps[-1] - self._stamps[0]) * 1e-9 if self._stamps else 0.0

    def add(
        self,
        stamp_ns: int,
        pose: ArrayLike,
        twist: ArrayLike,
        wheel_angle: float | None = None,
        now_ns: int | None = None,
    ) -> bool:
        """Add one odometry message.

        Args:
            stamp_ns: its stamp.
            pose: (3,) x, y, yaw of the ego in the odometry frame, m and rad.
            twist: (3,) vx, vy, yaw rate in the ego frame, m/s and rad/s.
            wheel_angle: road-wheel angle in rad, left positive, where known.
            now_ns: ROS time; when given, stamps ahead of it are refused.

        Returns:
            whether it was accepted; a refusal is counted in ``rejected`` by cause.
        """
        raw = np.asarray(pose, np.float64).reshape(-1)
        motion = np.asarray(twist, np.float64).reshape(-1)
        with self._lock:
            cause = self._reject_cause(stamp_ns, raw, motion, wheel_angle, now_ns)
            if cause is not None:
                self.rejected[cause] += 1
                return False
            self._append(stamp_ns, raw, motion, wheel_angle)
            return True

    def _reject_cause(
        self,
        stamp_ns: int,
        raw: NDArray[np.float64],
        motion: NDArray[np.float64],
        wheel_angle: float | None,
        now_ns: int | None,
    ) -> str | None:
        limits = self.settings
        if raw.shape != (3,) or motion.shape != (3,):
            raise ValueError(f"pose {raw.shape} and twist {motion.shape}, expected (3,) each")
        if not (np.isfinite(raw).all() and np.isfinite(motion).all()):
            return "not_finite"
        if wheel_angle is not None and not np.isfinite(wheel_angle):
            return "not_finite"
        if np.abs(raw[:2]).max() > 1e8 or abs(motion[2]) > limits.max_yaw_rate_radps:
            return "implausible"
        if np.abs(motion[:2]).max() > limits.max_speed_mps:
            return "implausible"
        if stamp_ns <= 0:
            return "zero_stamp"
        if now_ns is not None and stamp_ns > now_ns + limits.future_tolerance_s * 1e9:
            return "future_stamp"
        if self._stamps and stamp_ns == self._stamps[-1]:
            return "stamp_repeated"
        if self._stamps and stamp_ns < self._stamps[-1]:
            self._backwards += 1
            if self._backwards < limits.restart_after_backwards:
                return "stamp_backwards"
            self._reset()
            self.restarts += 1
        return None

    def _append(
        self,
        stamp_ns: int,
        raw: NDArray[np.float64],
        motion: NDArray[np.float64],
        wheel_angle: float | None,
    ) -> None:
        limits = self.settings
        self._backwards = 0
        if self._stamps and (stamp_ns - self._stamps[-1]) * 1e-9 > limits.max_gap_s:
            self._reset()
            self.restarts += 1
        chain = se2.compose(self._chain_from_raw, raw)
        if self._samples:
            last = self._samples[-1]
            duration_s = (stamp_ns - last.stamp_ns) * 1e-9
            step = _moved(0.5 * (last.twist + motion), duration_s)
            predicted = se2.compose(last.chain, step)
            error = se2.relative(predicted, chain)
            if (
                np.hypot(error[0], error[1]) > limits.jump_distance_m
                or abs(error[2]) > limits.jump_angle_rad
            ):
                self.jumps += 1
                chain = predicted
                self._chain_from_raw = se2.compose(predicted, se2.inverse(raw))
        self._stamps.append(stamp_ns)
        self._samples.append(_Sample(stamp_ns, chain, motion, wheel_angle))
        self._trim()

    def _trim(self) -> None:
        oldest = self._stamps[-1] - int(self.settings.horizon_s * 1e9)
        # One sample at or before the horizon stays, so that the horizon itself can be interpolated.
        drop = max(bisect_right(self._stamps, oldest) - 1, 0)
        drop = max(drop, len(self._stamps) - self.settings.max_samples)
        if drop >= 64 or len(self._stamps) > self.settings.max_samples:
            del self._stamps[:drop]
            del self._samples[:drop]

    def at(self, t0_ns: int) -> EgoMotion:
        """Return the ego state at t0.

        Raises:
            WarmingUp: fewer than ``warm_up_s`` are buffered before t0.
            OdometryStale: t0 is more than ``max_extrapolation_s`` past the newest sample.
        """
        with self._lock:
            chain = self._chain_at(t0_ns)
            reach_s = (t0_ns - self._stamps[0]) * 1e-9
            if reach_s < self.settings.warm_up_s - 1e-9:
                raise WarmingUp(
                    f"{reach_s:.2f} s of odometry before the image, "
                    f"{self.settings.warm_up_s:g} s needed"
                )
            history = np.zeros((len(HISTORY_OFFSETS_S), 3))
            mask = np.zeros(len(HISTORY_OFFSETS_S), bool)
            for row, offset_s in enumerate(HISTORY_OFFSETS_S):
                stamp = t0_ns + round(offset_s * 1e9)
                if stamp >= self._stamps[0]:
                    history[row] = se2.relative(chain, self._chain_at(stamp))
                    mask[row] = True
            dynamics, dynamics_mask = self._dynamics_at(t0_ns)
            pose = se2.compose(se2.inverse(self._chain_from_raw), chain)
        return EgoMotion(
            stamp_ns=t0_ns,
            pose=pose,
            history=history.astype(np.float32),
            history_mask=mask,
            dynamics=dynamics.astype(np.float32),
            dynamics_mask=dynamics_mask,
        )

    def relative(self, t0_ns: int, t_ns: int) -> NDArray[np.float64]:
        """Return the pose (3,) of the ego at ``t_ns`` in the ego frame of ``t0_ns``.

        Raises:
            WarmingUp: one of the stamps lies before the first sample.
            OdometryStale: one of them is too far past the newest.
        """
        with self._lock:
            return se2.relative(self._chain_at(t0_ns), self._chain_at(t_ns))

    def _chain_at(self, stamp_ns: int) -> NDArray[np.float64]:
        """Return the jump-free pose (3,) at a stamp: constant twist between and past samples."""
        if not self._stamps:
            raise WarmingUp("no odometry yet")
        index = bisect_right(self._stamps, stamp_ns) - 1
        if index < 0:
            behind_s = (self._stamps[0] - stamp_ns) * 1e-9
            raise WarmingUp(f"the stamp lies {behind_s:.2f} s before the first odometry")
        sample = self._samples[index]
        elapsed_s = (stamp_ns - sample.stamp_ns) * 1e-9
        if index + 1 == len(self._samples):
            if elapsed_s > self.settings.max_extrapolation_s + 1e-9:
                raise OdometryStale(
                    f"newest odometry is {elapsed_s:.3f} s older than the image, "
                    f"{self.settings.max_extrapolation_s:g} s allowed"
                )
            return se2.compose(sample.chain, _moved(sample.twist, elapsed_s))
        if elapsed_s == 0.0:
            return sample.chain
        following = self._samples[index + 1]
        twist = se2.logarithm(se2.relative(sample.chain, following.chain))
        fraction = elapsed_s / ((following.stamp_ns - sample.stamp_ns) * 1e-9)
        return se2.compose(sample.chain, _moved(twist, fraction))

    def _dynamics_at(self, t0_ns: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return ``EGO_DYNAMICS`` (6,) and its mask (6,) at t0, which lies in the buffer."""
        # Past the newest sample the twist is unknown: the filter ends there, the twist is held.
        end_ns = min(t0_ns, self._stamps[-1])
        begin_ns = end_ns - int(ACCELERATION_WINDOW_S * 1e9)
        first = max(bisect_right(self._stamps, begin_ns) - 1, 0)
        last = bisect_right(self._stamps, end_ns)
        samples = self._samples[first : last + 1]
        times = np.array([(sample.stamp_ns - end_ns) * 1e-9 for sample in samples])
        twists = np.array([sample.twist for sample in samples])
        window = np.stack(
            [np.interp(_ACCELERATION_TIMES_S, times, twists[:, axis]) for axis in range(3)], axis=-1
        )
        vx, vy, yaw_rate = window[-1]
        slope = _SLOPE_WEIGHTS @ window
        wheel_angle = self._samples[last - 1].wheel_angle
        dynamics = np.array(
            [
                vx,
                vy,
                yaw_rate,
                slope[0] - vy * yaw_rate,
                slope[1] + vx * yaw_rate,
                0.0 if wheel_angle is None else wheel_angle,
            ]
        )
        mask = np.ones(len(EGO_DYNAMICS), bool)
        mask[-1] = wheel_angle is not None
        return dynamics, mask


def _moved(twist: NDArray[np.float64], duration_s: float) -> NDArray[np.float64]:
    """Return the pose (3,) reached under a constant twist (3,)."""
    return se2.exponential(float(twist[0]), float(twist[1]), float(twist[2]), duration_s)


def in_base_frame(
    pose: ArrayLike, twist: ArrayLike, base_from_twist: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Move odometry given for another point of the vehicle to the ego frame.

    Args:
        pose: (3,) of the odometry's child frame in the odometry frame.
        twist: (3,) vx, vy, yaw rate in that child frame.
        base_from_twist: (3,) x, y, yaw of the child frame in ``base_frame``
            (``Rig.base_from_twist``).

    Returns:
        pose (3,) of ``base_frame`` in the odometry frame and its twist (3,).
    """
    offset = np.asarray(base_from_twist, np.float64)
    motion = np.asarray(twist, np.float64)
    cos, sin = np.cos(offset[2]), np.sin(offset[2])
    rate = motion[2]
    return se2.compose(pose, se2.inverse(offset)), np.array(
        [
            cos * motion[0] - sin * motion[1] + rate * offset[1],
            sin * motion[0] + cos * motion[1] - rate * offset[0],
            rate,
        ]
    )
