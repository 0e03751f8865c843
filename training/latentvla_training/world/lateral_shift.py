"""A smooth move to the side, as a function of the distance travelled."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Comfortable to the side, m/s^2.
LATERAL_ACCELERATION = 1.2
#: Peak of a quintic's second derivative, for a move by 1 over a length of 1.
PEAK_BEND = 5.774


@dataclass(frozen=True)
class Shift:
    """A move from ``offset`` with slope ``slope`` at ``start_s`` to ``target`` over ``length``."""

    start_s: float
    length: float
    offset: float
    slope: float
    target: float

    def _coefficients(self) -> tuple[float, float, float, float, float]:
        delta, c1 = self.target - self.offset, self.slope * self.length
        return self.offset, c1, 10 * delta - 6 * c1, -15 * delta + 8 * c1, 6 * delta - 3 * c1

    def at(self, s: Array) -> Array:
        """Offset (...) to the left of the path at arc lengths s."""
        u = np.clip((s - self.start_s) / self.length, 0.0, 1.0)
        c0, c1, c3, c4, c5 = self._coefficients()
        return np.asarray(c0 + c1 * u + c3 * u**3 + c4 * u**4 + c5 * u**5)

    def slope_at(self, s: Array) -> Array:
        """Derivative of the offset by s."""
        u = np.clip((s - self.start_s) / self.length, 0.0, 1.0)
        _, c1, c3, c4, c5 = self._coefficients()
        slope = (c1 + 3 * c3 * u**2 + 4 * c4 * u**3 + 5 * c5 * u**4) / self.length
        return np.asarray(np.where((s < self.start_s) | (u >= 1.0), 0.0, slope))

    def curvature_at(self, s: float) -> float:
        """Second derivative of the offset by s."""
        u = (s - self.start_s) / self.length
        if not 0.0 < u < 1.0:
            return 0.0
        _, _, c3, c4, c5 = self._coefficients()
        return (6 * c3 * u + 12 * c4 * u**2 + 20 * c5 * u**3) / self.length**2

    def speed_cap(self, s: float) -> float:
        """Speed at which the rest of the move is comfortable, m/s."""
        if s >= self.start_s + self.length:
            return math.inf
        peak = PEAK_BEND * abs(self.target - self.offset) / self.length**2
        return math.sqrt(1.6 * LATERAL_ACCELERATION / max(peak, 1e-6))
