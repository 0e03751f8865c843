"""The path of the rear axle within the lane: as little and as steady a bend as the lane allows.

The front overhang swings out of a tight bend, so the box is kept inside the lane by bounds on the
rear axle's offset; within them the bend is spread by minimising curvature and its change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solveh_banded
from scipy.ndimage import gaussian_filter1d

from latentvla_training.world.episode import EgoVehicle
from latentvla_training.world.route import Route
from latentvla_training.world.traffic import EGO_FRONT_M

Array = NDArray[np.float64]

HALF_WIDTH_M = EgoVehicle().width_m / 2
#: Half the lane, less what must stay free to either side of the swept box.
HALF_LANE_M, FREE_M = 1.75, 0.2
#: Weights of the change of curvature (m^2) and of being off the centreline (1/m^4).
SMOOTHNESS, CENTRING = 12.0, 1.5e-4
_ROUNDS = 25


@dataclass(frozen=True)
class RacingLine:
    """Offsets (N,) of the rear axle to the left of a route's points.

    Attributes:
        offset, slope: and its derivative by s. curvature: (N,) of the path so made, 1/m.
        half_width: (N,) of what the box sweeps; its middle is ``middle`` to the left of the route.
    """

    offset: Array
    slope: Array
    curvature: Array
    half_width: Array
    middle: Array


def racing_line(route: Route) -> RacingLine:
    """Return the rear axle's line along ``route``."""
    spacing = float(route.s[-1] / (len(route.s) - 1))
    curvature = route.curvature
    swing, turn = _swing(curvature, spacing)
    reach = HALF_LANE_M - FREE_M - HALF_WIDTH_M
    outer = np.minimum(reach - swing, reach)
    low = np.where(turn > 0, -outer, -reach)
    high = np.where(turn > 0, reach, outer)
    # Where the swing asks for more than the inside gives, the middle of the swept box decides.
    middle = np.where(turn > 0, swing / 2, -swing / 2)
    narrow = low > high
    low, high = np.where(narrow, middle - 0.02, low), np.where(narrow, middle + 0.02, high)
    offset = _smooth_within(curvature, low, high, spacing)
    slope = np.gradient(offset, route.s)
    bend = curvature / np.maximum(1.0 - curvature * offset, 0.5) + np.gradient(slope, route.s)
    swing, turn = _swing(bend, spacing)
    return RacingLine(
        offset=offset,
        slope=slope,
        curvature=bend,
        half_width=HALF_WIDTH_M + swing / 2,
        middle=offset - np.sign(turn) * swing / 2,
    )


def _swing(curvature: Array, spacing: float) -> tuple[Array, Array]:
    """How far the front corner swings beyond the rear axle's band, and which way the road turns."""
    ahead = round(2.0 / spacing)
    turn = np.append(curvature[ahead:], np.repeat(curvature[-1:], ahead))[: len(curvature)]
    radius = 1.0 / np.maximum(np.abs(turn), 1e-3)
    outside = np.hypot(radius + HALF_WIDTH_M, EGO_FRONT_M) - radius - HALF_WIDTH_M
    return gaussian_filter1d(outside, 1.0 / spacing), turn


def _smooth_within(curvature: Array, low: Array, high: Array, spacing: float) -> Array:
    """Minimise curvature and its change over offsets between ``low`` and ``high``.

    The quadratic is banded; bounds enter as springs on the points that break them.
    """
    count = len(curvature)
    bands = np.zeros((4, count))
    gradient = np.zeros(count)
    second, third = np.array([1.0, -2.0, 1.0]) / spacing**2, np.array([-1.0, 3.0, -3.0, 1.0])
    third = third / spacing**3
    change = np.diff(curvature) / spacing
    for stencil, given, weight in (
        (second, curvature[1:-1], 1.0),
        (third, change[1:-1], SMOOTHNESS),
    ):
        rows = count - len(stencil) + 1
        for i, a in enumerate(stencil):
            gradient[i : i + rows] -= weight * a * given
            for j in range(i, len(stencil)):
                bands[3 - (j - i), j : j + rows] += weight * a * stencil[j]
    bands[3] += CENTRING
    springs = np.zeros(count)
    offset = np.zeros(count)
    for _ in range(_ROUNDS):
        system = bands.copy()
        system[3] += springs
        bound = np.where(offset > 0.5 * (low + high), high, low)
        offset = solveh_banded(system, gradient + springs * bound)
        beyond = (offset > high + 1e-3) | (offset < low - 1e-3)
        springs = np.where(beyond, np.maximum(springs * 2.0, 0.05), springs * 0.7)
        springs[springs < 1e-4] = 0.0
    return np.asarray(np.clip(offset, low, high))
