"""Closed-loop figures with Bench2Drive's definitions: driving score, success, efficiency, comfort.

Source: design/metrics.md section 6; Jia et al., Bench2Drive (NeurIPS 2024),
``statistics_manager.py``, ``merge_route_json.py`` and ``efficiency_smoothness_benchmark.py``. Their
minimum-speed penalty has been off since August 2024; the leaderboard's rounding to six decimals is
left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.signal import savgol_filter

from latentvla_ros.contract import ContractError
from latentvla_training.scoring.comfort import LOWER_BOUNDS, UPPER_BOUNDS

BENCHMARK_ROUTES = 220
PENALTIES: dict[str, float] = {
    "collision_pedestrian": 0.5,
    "collision_vehicle": 0.6,
    "collision_static": 0.65,
    "red_light": 0.7,
    "stop_sign": 0.8,
    "scenario_timeout": 0.7,
    "yield_to_emergency_vehicle": 0.7,
}
# Recorded without a factor of their own; they end the route or only deny success.
UNPENALISED = ("route_deviation", "vehicle_blocked", "route_timeout")
SUCCESS_STATUSES = ("Completed", "Perfect")
MAX_MIN_SPEED_PERCENT = 1000.0
SMOOTHNESS_WINDOW = 7
SMOOTHNESS_SEGMENT = 20
SMOOTHNESS_STEP_S = 0.1

Samples = NDArray[np.float64]


@dataclass(frozen=True)
class RouteResult:
    """What happened on one route.

    Attributes:
        route: its name, unique in a benchmark.
        status: "Completed", "Perfect" or what went wrong.
        completion_percent: 0 ... 100 of the route's length.
        infractions: number of events by kind (``PENALTIES`` and ``UNPENALISED``).
        off_lane_percents: share of the route outside its lanes, one entry per event.
        min_speed_percents: speed relative to traffic at each checkpoint.
    """

    route: str
    status: str
    completion_percent: float
    infractions: Mapping[str, int] = field(default_factory=dict)
    off_lane_percents: Sequence[float] = ()
    min_speed_percents: Sequence[float] = ()

    def __post_init__(self) -> None:
        if not 0.0 <= self.completion_percent <= 100.0:
            raise ContractError(
                "RouteResult.completion_percent", self.completion_percent, "0 ... 100"
            )
        for kind, number in self.infractions.items():
            if kind not in PENALTIES and kind not in UNPENALISED:
                known = ", ".join([*PENALTIES, *UNPENALISED])
                raise ContractError("RouteResult.infractions", kind, f"one of: {known}")
            if number < 0:
                raise ContractError(f"RouteResult.infractions[{kind}]", number, ">= 0")
        for percent in self.off_lane_percents:
            if not 0.0 <= percent <= 100.0:
                raise ContractError("RouteResult.off_lane_percents", percent, "0 ... 100")

    @property
    def penalty(self) -> float:
        """Product of the penalties in [0, 1]: each event multiplies again."""
        factor = math.prod(
            PENALTIES[kind] ** number
            for kind, number in self.infractions.items()
            if kind in PENALTIES
        )
        return factor * math.prod(1.0 - percent / 100.0 for percent in self.off_lane_percents)

    @property
    def driving_score(self) -> float:
        """Route completion (percent) times penalties, 0 ... 100."""
        return self.completion_percent * self.penalty

    @property
    def success(self) -> bool:
        """Completed without an infraction of any kind except minimum speed."""
        clean = not any(self.infractions.values()) and not self.off_lane_percents
        return self.status in SUCCESS_STATUSES and clean

    @property
    def efficiency(self) -> float | None:
        """Mean minimum-speed percentage of the checkpoints that count; None without any."""
        counted = [p for p in self.min_speed_percents if p <= MAX_MIN_SPEED_PERCENT]
        return sum(counted) / len(counted) if counted else None


@dataclass(frozen=True)
class ClosedLoopSummary:
    """Benchmark figures.

    Attributes:
        routes: routes that reported. expected_routes: routes of the benchmark.
        driving_score: 0 ... 100. success_rate: 0 ... 1; routes that did not report count 0.
        efficiency: percent over routes with checkpoints, None without any.
    """

    routes: int
    expected_routes: int
    driving_score: float
    success_rate: float
    efficiency: float | None


def summarise(
    results: Sequence[RouteResult], expected_routes: int = BENCHMARK_ROUTES
) -> ClosedLoopSummary:
    """Aggregate routes; missing ones count 0.

    Raises:
        ContractError: on more routes than expected or a route that reported twice.
    """
    names = [result.route for result in results]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ContractError("results", repeated, "every route once")
    if len(results) > expected_routes or expected_routes < 1:
        raise ContractError(
            "results", f"{len(results)} routes", f"at most expected_routes={expected_routes}"
        )
    efficiencies = [r.efficiency for r in results if r.efficiency is not None]
    return ClosedLoopSummary(
        routes=len(results),
        expected_routes=expected_routes,
        driving_score=sum(r.driving_score for r in results) / expected_routes,
        success_rate=sum(r.success for r in results) / expected_routes,
        efficiency=sum(efficiencies) / len(efficiencies) if efficiencies else None,
    )


def driving_smoothness(
    longitudinal_acceleration: Samples, lateral_acceleration: Samples, yaw_rate: Samples
) -> float:
    """Share of the full two-second segments of a 10 Hz log within the six comfort bounds.

    Unusual, as published: the "yaw acceleration" is the smoothed yaw rate itself, and a log of at
    most 20 samples is judged as one segment. The remainder after the last full segment is dropped.

    Args:
        longitudinal_acceleration, lateral_acceleration, yaw_rate: (T,) m/s^2, rad/s.

    Raises:
        ContractError: on different lengths or fewer than 3 samples.
    """
    signals = [longitudinal_acceleration, lateral_acceleration, yaw_rate]
    length = len(yaw_rate)
    if any(np.shape(signal) != (length,) for signal in signals) or length < 3:
        raise ContractError("signals", [np.shape(s) for s in signals], "three of shape (T >= 3,)")
    if length <= SMOOTHNESS_SEGMENT:
        return float(_segment_is_smooth(*signals))
    smooth = [
        _segment_is_smooth(*(signal[start : start + SMOOTHNESS_SEGMENT] for signal in signals))
        for start in range(0, length - SMOOTHNESS_SEGMENT + 1, SMOOTHNESS_SEGMENT)
    ]
    return sum(smooth) / len(smooth)


def _segment_is_smooth(longitudinal: Samples, lateral: Samples, yaw_rate: Samples) -> bool:
    window = min(SMOOTHNESS_WINDOW, len(yaw_rate))

    def smooth(samples: Samples, derivative: int = 0) -> Samples:
        filtered = savgol_filter(samples, window, 2, deriv=derivative, delta=SMOOTHNESS_STEP_S)
        return np.asarray(filtered)

    smooth_longitudinal = smooth(longitudinal)
    smooth_yaw_rate = smooth(np.unwrap(yaw_rate))
    signals = (
        smooth_longitudinal,
        smooth(lateral),
        smooth(smooth(np.hypot(longitudinal, lateral)), 1),
        smooth(smooth_longitudinal, 1),
        smooth_yaw_rate,
        smooth_yaw_rate,
    )
    return all(
        bool(np.all((signal > low) & (signal < high)))
        for signal, low, high in zip(signals, LOWER_BOUNDS, UPPER_BOUNDS, strict=True)
    )
