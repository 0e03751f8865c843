"""Small SVG charts for the report page: lines, markers and a map; no plotting library needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MARGIN_LEFT, _MARGIN_RIGHT, _MARGIN_TOP, _MARGIN_BOTTOM = 52, 16, 14, 36


@dataclass(frozen=True)
class Series:
    """One data row of a chart.

    Attributes:
        label: for the legend; empty to leave it out.
        x, y: (N,) values; not finite ones break the line.
        colour: any CSS colour.
        style: ``line``, ``dots`` or ``dashed``.
        width: of the line or dot, pixels.
    """

    label: str
    x: ArrayLike
    y: ArrayLike
    colour: str
    style: str = "line"
    width: float = 1.8


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about ``count`` round values that cover ``low`` to ``high``, both finite."""
    if not high > low:
        return [low]
    raw = (high - low) / max(count, 1)
    magnitude = 10.0 ** np.floor(np.log10(raw))
    step = next(m * magnitude for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * magnitude >= raw * 0.999)
    first = np.ceil(low / step - 1e-9) * step
    return [float(v) + 0.0 for v in np.arange(first, high + step * 1e-6, step)]  # never -0


def line_chart(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    width: int = 640,
    height: int = 260,
    y_from_zero: bool = True,
    equal_axes: bool = False,
) -> str:
    """Return an SVG chart of ``series``; with ``equal_axes`` a metre is as long on both axes."""
    points = [(np.asarray(s.x, np.float64), np.asarray(s.y, np.float64)) for s in series]
    x_range = _range([x for x, _ in points])
    y_range = _range([y for _, y in points], include_zero=y_from_zero and not equal_axes)
    plot_width = width - _MARGIN_LEFT - _MARGIN_RIGHT
    plot_height = height - _MARGIN_TOP - _MARGIN_BOTTOM
    if equal_axes:
        x_range, y_range = _equalised(x_range, y_range, plot_width / plot_height)

    def to_u(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return _MARGIN_LEFT + (x - x_range[0]) / (x_range[1] - x_range[0]) * plot_width

    def to_v(y: NDArray[np.float64]) -> NDArray[np.float64]:
        return _MARGIN_TOP + (y_range[1] - y) / (y_range[1] - y_range[0]) * plot_height

    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(y_label)} over '
        f'{escape(x_label)}" xmlns="http://www.w3.org/2000/svg">'
    ]
    bottom, right = _MARGIN_TOP + plot_height, _MARGIN_LEFT + plot_width
    for value in ticks(*x_range, 8):
        u = float(to_u(np.asarray(value)))
        parts.append(
            f'<line class="grid" x1="{u:.1f}" y1="{_MARGIN_TOP}" x2="{u:.1f}" y2="{bottom}"/>'
        )
        parts.append(f'<text x="{u:.1f}" y="{bottom + 15}" text-anchor="middle">{value:g}</text>')
    for value in ticks(*y_range, 5):
        v = float(to_v(np.asarray(value)))
        parts.append(
            f'<line class="grid" x1="{_MARGIN_LEFT}" y1="{v:.1f}" x2="{right}" y2="{v:.1f}"/>'
        )
        parts.append(
            f'<text x="{_MARGIN_LEFT - 6}" y="{v + 4:.1f}" text-anchor="end">{value:g}</text>'
        )
    for row, (x, y) in zip(series, points, strict=True):
        parts.append(_marks(row, to_u(x), to_v(y)))
    parts.append(
        f'<text x="{_MARGIN_LEFT + plot_width / 2:.0f}" y="{height - 4}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
        f'<text transform="translate(12 {_MARGIN_TOP + plot_height / 2:.0f}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_label)}</text></svg>'
    )
    legend = "".join(
        f'<span><i style="background:{escape(s.colour)}"></i>{escape(s.label)}</span>'
        for s in series
        if s.label
    )
    return f'<figure>{"".join(parts)}<figcaption class="legend">{legend}</figcaption></figure>'


def _marks(row: Series, u: NDArray[np.float64], v: NDArray[np.float64]) -> str:
    colour = escape(row.colour)
    good = np.isfinite(u) & np.isfinite(v)
    if row.style == "dots":
        return "".join(
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{row.width:g}" fill="{colour}"/>'
            for a, b in zip(u[good], v[good], strict=True)
        )
    moves: list[str] = []
    pen_down = False
    for a, b, ok in zip(u, v, good, strict=True):
        if ok:
            moves.append(f"{'L' if pen_down else 'M'}{a:.1f} {b:.1f}")
        pen_down = bool(ok)
    dash = ' stroke-dasharray="6 5"' if row.style == "dashed" else ""
    return (
        f'<path d="{"".join(moves)}" fill="none" stroke="{colour}" stroke-width="{row.width:g}"'
        f' stroke-linejoin="round"{dash}/>'
    )


def _range(
    values: Sequence[NDArray[np.float64]], include_zero: bool = False
) -> tuple[float, float]:
    joined = np.concatenate([v.ravel() for v in values]) if values else np.zeros(0)
    joined = joined[np.isfinite(joined)]
    if not len(joined):
        return (0.0, 1.0)
    low, high = float(joined.min()), float(joined.max())
    if include_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    pad = (high - low) * 0.04 or max(abs(high) * 0.1, 0.5)
    return (low if include_zero and low == 0.0 else low - pad, high + pad)


def _equalised(
    x: tuple[float, float], y: tuple[float, float], aspect: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    span = max(x[1] - x[0], (y[1] - y[0]) * aspect)
    x_middle, y_middle = (x[0] + x[1]) / 2, (y[0] + y[1]) / 2
    return (
        (x_middle - span / 2, x_middle + span / 2),
        (y_middle - span / aspect / 2, y_middle + span / aspect / 2),
    )
