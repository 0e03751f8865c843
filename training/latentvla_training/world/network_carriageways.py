"""Fast one-way carriageways as closed circuits, with ramps that join (merge) or lanes that leave.

Along the circuit lie interchanges. In a ``merge`` circuit a ramp comes off the rightmost lane and,
after a collector road beside the carriageway, joins it again: by the rules the ramp yields, while
SUMO's drivers interleave at speed (one who waits for a gap from standstill never gets one). In a
``split`` circuit the rightmost lanes themselves leave, and come back as lanes of their own.
Traffic keeps to the right, so ramps lie to the right of the carriageway.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentvla_training.world.network_plan import (
    NetworkBuildError,
    NetworkPlan,
    PlanConnection,
    PlanEdge,
    PlanNode,
)
from latentvla_training.world.polyline import polyline_length, resample_polyline

Array = NDArray[np.float64]

LANE_M = 3.5
#: Length of the junction in which a ramp runs beside the carriageway, and of the change from a
#: ramp's place there to a collector's, m.
WEDGE_M, TAPER_M = 46.0, 150.0
#: Left edge of a ramp from the right edge of the carriageway where the wedge ends: asphalt that
#: only just has come apart, m.
GORE_M = 1.0
MIN_RADIUS_M = 190.0
_MAIN_PRIORITY, _RAMP_PRIORITY = 5, 2


@dataclass(frozen=True)
class _Interchange:
    """Arc lengths at which the wedges begin where traffic leaves and where it joins again."""

    leaves: float
    joins: float


class _Circuit:
    """The left edge of a closed carriageway and its parallels, by arc length in m."""

    def __init__(self, rng: np.random.Generator) -> None:
        angle = np.linspace(0.0, 2 * np.pi, 2000)
        radius = np.ones_like(angle)
        for order, most in ((2, 0.16), (3, 0.05)):
            phase = rng.uniform(0.0, 2 * np.pi)
            radius += rng.uniform(0.3, 1.0) * most * np.cos(order * angle + phase)
        loop = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        loop *= rng.uniform(2350.0, 2600.0) / polyline_length(loop)
        if rng.random() < 0.5:
            loop = loop[::-1]
        self._points = resample_polyline(loop)
        self.length = polyline_length(self._points)
        self._s = np.linspace(0.0, self.length, len(self._points))
        step = np.diff(self._points, axis=0)
        heading = np.unwrap(np.arctan2(step[:, 1], step[:, 0]))
        tightest = 1.0 / np.abs(np.diff(heading)).max()
        if tightest < MIN_RADIUS_M:
            raise NetworkBuildError(f"bend of {tightest:.0f} m, at least {MIN_RADIUS_M} m")
        tangent = np.gradient(np.concatenate([self._points[-2:-1], self._points,
                                              self._points[1:2]]), axis=0)[1:-1]  # fmt: skip
        tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
        self._right = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1)

    def parallel(self, s: Array, right: Array | float) -> Array:
        """Return the points ``right`` m to the right of the left edge at arc lengths ``s`` (N,)."""
        wrapped = np.mod(s, self.length)
        columns = [
            np.interp(wrapped, self._s, self._points[:, axis])
            + right * np.interp(wrapped, self._s, self._right[:, axis])
            for axis in (0, 1)
        ]
        return np.stack(columns, axis=1)


def plan_carriageway(kind: str, rng: np.random.Generator) -> NetworkPlan:
    """Return a circuit of kind ``merge`` or ``split``.

    Raises:
        NetworkBuildError: a bend of the circuit drawn is too tight for its speed.
    """
    circuit = _Circuit(rng)
    lanes = int(rng.choice((2, 3, 3, 4)))
    speed = float(rng.choice((80, 90, 100))) / 3.6
    leaving = (2 if lanes == 4 else 1) if kind == "split" else 0
    count = 3
    pitch = circuit.length / count
    plan = NetworkPlan()
    exchanges = []
    for index in range(count):
        leaves = index * pitch + rng.uniform(0.0, 40.0)
        exchanges.append(_Interchange(leaves, leaves + rng.uniform(0.52, 0.6) * pitch))
    for index, exchange in enumerate(exchanges):
        following = exchanges[(index + 1) % count]
        next_leaves = following.leaves + (circuit.length if index == count - 1 else 0.0)
        main = f"main{index}x", f"main{index}y"
        _add_edge(plan, circuit, main[0], f"out{index}", f"in{index}",
                  (exchange.leaves + WEDGE_M, exchange.joins), lanes - leaving, speed)  # fmt: skip
        _add_edge(plan, circuit, main[1], f"in{index}", f"out{(index + 1) % count}",
                  (exchange.joins + WEDGE_M, next_leaves), lanes, speed)  # fmt: skip
        ramp = f"ramp{index}x"
        ramp_lanes = max(leaving, 1)
        first, last = exchange.leaves + WEDGE_M, exchange.joins
        s = np.arange(first, last, 4.0)
        s = np.append(s, last)
        near = LANE_M * (lanes - leaving) + GORE_M
        far = near + rng.uniform(12.0, 22.0)
        away = np.minimum(_smooth_step((s - first) / TAPER_M), _smooth_step((last - s) / TAPER_M))
        plan.edges[ramp] = PlanEdge(
            f"out{index}", f"in{index}", ramp_lanes, float(rng.choice((60, 70, 80))) / 3.6,
            _RAMP_PRIORITY, circuit.parallel(s, near + (far - near) * away),
        )  # fmt: skip
        before = f"main{(index - 1) % count}y"
        _connect(plan, before, main[0], lanes - leaving, from_lane=leaving)
        _connect(plan, before, ramp, ramp_lanes)
        _connect(plan, main[0], main[1], lanes - leaving, to_lane=leaving)
        _connect(plan, ramp, main[1], ramp_lanes)
        joining = "priority" if leaving else "zipper"
        for node, s_node, control in (
            (f"out{index}", exchange.leaves, "priority"),
            (f"in{index}", exchange.joins, joining),
        ):
            middle = circuit.parallel(np.array([s_node + WEDGE_M / 2]), LANE_M * lanes / 2)[0]
            plan.nodes[node] = PlanNode(middle, 2.0, control)
    return plan


def _add_edge(
    plan: NetworkPlan,
    circuit: _Circuit,
    name: str,
    source: str,
    target: str,
    span: tuple[float, float],
    lanes: int,
    speed: float,
) -> None:
    shape = circuit.parallel(np.append(np.arange(span[0], span[1] - 2.0, 5.0), span[1]), 0.0)
    plan.edges[name] = PlanEdge(source, target, lanes, speed, _MAIN_PRIORITY, shape)


def _connect(
    plan: NetworkPlan, source: str, target: str, lanes: int, from_lane: int = 0, to_lane: int = 0
) -> None:
    for lane in range(lanes):
        plan.connections.append(PlanConnection(source, target, from_lane + lane, to_lane + lane))


def _smooth_step(t: Array) -> Array:
    """0 to 1 with level ends."""
    t = np.clip(t, 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t))
