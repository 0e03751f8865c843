"""How good and how fast the published plans were: displacement errors, latency, rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latentvla_ros.cli.driven_path import DrivenPath
from latentvla_ros.contract import KNOT_INTERVAL_S, NUM_KNOTS
from latentvla_ros.geometry import se2
from latentvla_ros.geometry.trajectory import constant_turn_rate
from latentvla_ros.nodes.recording import RecordedPlan

HORIZON_S = NUM_KNOTS * KNOT_INTERVAL_S
_KNOT_OFFSETS_NS = np.arange(1, NUM_KNOTS + 1, dtype=np.int64) * round(KNOT_INTERVAL_S * 1e9)


@dataclass(frozen=True)
class DisplacementErrors:
    """Errors of plans against the driven path on the frames that have 4 s of it ahead.

    Attributes:
        stamps_ns: (F,) t0 of those frames.
        errors_m: (F, 8) distance of each knot from where the vehicle really was then.
    """

    stamps_ns: NDArray[np.int64]
    errors_m: NDArray[np.float64]

    @property
    def ade_m(self) -> float:
        """Mean distance over the 8 knots and all frames; NaN without frames."""
        return float(self.errors_m.mean()) if self.errors_m.size else float("nan")

    @property
    def fde_m(self) -> float:
        """Mean distance at 4 s over all frames; NaN without frames."""
        return float(self.errors_m[:, -1].mean()) if self.errors_m.size else float("nan")

    @property
    def per_frame_ade_m(self) -> NDArray[np.float64]:
        """(F,) mean distance over the knots of each frame."""
        return np.asarray(self.errors_m.mean(axis=1))


def plan_errors(
    plans: Sequence[RecordedPlan], path: DrivenPath
) -> tuple[DisplacementErrors, DisplacementErrors]:
    """Return the errors of the plans, and of constant velocity and turn rate on the same frames.

    A frame counts when the odometry covers its whole horizon. Each prediction is placed at the
    driven pose of t0, so that both rows start from the same place.
    """
    stamps: list[int] = []
    ours: list[NDArray[np.float64]] = []
    baseline: list[NDArray[np.float64]] = []
    for plan in plans:
        truth = path.poses_at(plan.stamp_ns + _KNOT_OFFSETS_NS)
        pose, twist = path.poses_at(plan.stamp_ns)[0], path.twists_at(plan.stamp_ns)[0]
        if not (np.isfinite(truth).all() and np.isfinite(pose).all() and np.isfinite(twist).all()):
            continue
        future = se2.relative(pose, truth)[:, :2]
        constant = constant_turn_rate(float(twist[0]), float(twist[2]), HORIZON_S)
        stamps.append(plan.stamp_ns)
        ours.append(np.linalg.norm(plan.knots[:, :2] - future, axis=1))
        baseline.append(np.linalg.norm(constant[:, :2] - future, axis=1))
    frames = np.asarray(stamps, np.int64)
    return (
        DisplacementErrors(frames, np.asarray(ours, np.float64).reshape(-1, NUM_KNOTS)),
        DisplacementErrors(frames, np.asarray(baseline, np.float64).reshape(-1, NUM_KNOTS)),
    )


def percentiles_ms(seconds: ArrayLike) -> dict[str, float] | None:
    """Return p50, p95, p99 and max in ms of the finite values; None when there is none."""
    values = np.asarray(seconds, np.float64).ravel()
    values = values[np.isfinite(values)] * 1e3
    if not len(values):
        return None
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99), "max": float(values.max())}


def rate_hz(stamps_s: ArrayLike) -> float:
    """Return events per second between the first and the last of ``stamps_s`` (s); 0 below two."""
    values = np.sort(np.asarray(stamps_s, np.float64).ravel())
    if len(values) < 2 or values[-1] <= values[0]:
        return 0.0
    return float((len(values) - 1) / (values[-1] - values[0]))
