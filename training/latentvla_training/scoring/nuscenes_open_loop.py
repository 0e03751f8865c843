"""nuScenes open-loop planning metrics in the two published conventions, never to be mixed.

Sources: design/metrics.md section 6. ``uniad``: Hu et al., Planning-oriented Autonomous Driving
(CVPR 2023), ``planning_metrics.py`` (errors *at* 1, 2, 3 s). ``stp3``: Hu et al., ST-P3 (ECCV 2022)
as used by Jiang et al., VAD (ICCV 2023) (means *up to* 1, 2, 3 s). Both share the collision grid,
whose ego box is never rotated by the planned heading.

Frame: ego at t = 0, x forward, y left, m; six poses at 2 Hz. Occupancy grids have 200 x 200 cells
of 0.5 m: rows grow forward from -50 m, columns grow to the *right* from -50 m (nuScenes' lidar
frame).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from latentvla_ros.contract import ContractError

Convention = Literal["uniad", "stp3"]

STEPS = 6
STEPS_PER_SECOND = 2
HORIZONS_S = (1, 2, 3)
GRID_CELLS = 200
CELL_M = 0.5
FIRST_CELL_CENTER_M = -49.75
EGO_LENGTH_M = 4.084
EGO_WIDTH_M = 1.85
EGO_SHIFT_M = 0.5


@dataclass(frozen=True)
class OpenLoopResult:
    """Figures by horizon 1, 2, 3 s, in this order, and their mean.

    Attributes:
        convention: "uniad" or "stp3". samples: number of samples averaged over.
        l2_m: displacement. box_collision_rate: the published "obj_box_col", a fraction.
        center_collision_rate: "obj_col", only the cell under the planned centre.
    """

    convention: Convention
    samples: int
    l2_m: tuple[float, float, float]
    box_collision_rate: tuple[float, float, float]
    center_collision_rate: tuple[float, float, float]

    def average(self, figures: tuple[float, float, float]) -> float:
        """Mean of the three horizons, the tables' "Avg"."""
        return sum(figures) / len(figures)


def evaluate_open_loop(
    plans: Tensor,
    targets: Tensor,
    valid: Tensor,
    occupancy: Tensor,
    convention: Convention,
) -> OpenLoopResult:
    """Evaluate N samples.

    Args:
        plans, targets: (N, 6, >= 2) positions at 0.5 ... 3 s.
        valid: (N, 6) bool, target exists.
        occupancy: (N, 6, 200, 200) bool. ``uniad``: vehicles; ``stp3``: vehicles or pedestrians.
        convention: which of the two.

    Raises:
        ContractError: on wrong shapes, an unknown convention, non-finite plans, or no sample that
            the convention counts.
    """
    count = len(plans)
    for name, value, shape in (
        ("plans", plans[..., :2], (count, STEPS, 2)),
        ("targets", targets[..., :2], (count, STEPS, 2)),
        ("valid", valid, (count, STEPS)),
        ("occupancy", occupancy, (count, STEPS, GRID_CELLS, GRID_CELLS)),
    ):
        if tuple(value.shape) != shape:
            raise ContractError(f"{name}.shape", tuple(value.shape), str(shape))
    if not bool(torch.isfinite(plans[..., :2]).all()):
        raise ContractError("plans", "NaN or infinity", "finite positions")
    if convention not in ("uniad", "stp3"):
        raise ContractError("convention", convention, "'uniad' or 'stp3'")
    if convention == "stp3":
        complete = valid.all(-1)
        plans, targets, valid, occupancy = (
            value[complete] for value in (plans, targets, valid, occupancy)
        )
    if len(plans) == 0:
        raise ContractError("samples", 0, f"at least one that {convention!r} counts")
    plans, targets = plans[..., :2].to(torch.float64), targets[..., :2].to(torch.float64)
    targets = torch.where(valid[..., None], targets, 0.0)
    squared = ((plans - targets) ** 2).sum(-1)
    l2 = torch.sqrt(squared * valid)
    # Steps at which the recorded drive itself "collides" stay in the denominator only.
    counted = ~box_collisions(targets, occupancy)
    box = box_collisions(plans, occupancy) & counted
    center = center_collisions(plans, occupancy) & counted
    return OpenLoopResult(
        convention=convention,
        samples=len(plans),
        l2_m=_by_horizon(l2, convention),
        box_collision_rate=_by_horizon(box.to(torch.float64), convention),
        center_collision_rate=_by_horizon(center.to(torch.float64), convention),
    )


def _by_horizon(values: Tensor, convention: Convention) -> tuple[float, float, float]:
    """Average per-step values (N, 6): at the horizon (uniad) or up to it (stp3)."""
    figures = []
    for horizon in HORIZONS_S:
        last = horizon * STEPS_PER_SECOND
        first = last - 1 if convention == "uniad" else 0
        figures.append(float(values[:, first:last].mean()))
    return figures[0], figures[1], figures[2]


def _box_cells() -> tuple[range, range]:
    """Rows and columns whose centres lie in the ego box at the origin (8 x 4 cells)."""

    def cells(low: float, high: float) -> range:
        first = math.ceil((low - FIRST_CELL_CENTER_M) / CELL_M)
        return range(first, math.floor((high - FIRST_CELL_CENTER_M) / CELL_M) + 1)

    half_length, half_width = EGO_LENGTH_M / 2.0, EGO_WIDTH_M / 2.0
    return cells(EGO_SHIFT_M - half_length, EGO_SHIFT_M + half_length), cells(
        -half_width, half_width
    )


def box_collisions(positions: Tensor, occupancy: Tensor) -> Tensor:
    """Flags (N, 6): any cell of the unrotated ego box, moved by ``positions`` (N, 6, 2), is taken.

    The moved cells are truncated to integers and clipped to the grid, as published.
    """
    rows, columns = _box_cells()
    row = torch.tensor(list(rows), device=positions.device).to(positions)
    column = torch.tensor(list(columns), device=positions.device).to(positions)
    row = (positions[..., 0, None] / CELL_M + row).trunc().to(torch.int64)
    column = (-positions[..., 1, None] / CELL_M + column).trunc().to(torch.int64)
    row, column = row.clamp(0, GRID_CELLS - 1), column.clamp(0, GRID_CELLS - 1)
    sample = torch.arange(len(positions), device=positions.device)[:, None, None, None]
    step = torch.arange(STEPS, device=positions.device)[None, :, None, None]
    cells = occupancy[sample, step, row[..., :, None], column[..., None, :]]
    return cells.flatten(2).any(-1)


def center_collisions(positions: Tensor, occupancy: Tensor) -> Tensor:
    """Flags (N, 6): the cell of ``positions`` (N, 6, 2) is taken; off the grid it is not.

    As published, truncation counts from the *centre* of the first cell: half a cell early.
    """
    row = ((positions[..., 0] - FIRST_CELL_CENTER_M) / CELL_M).trunc().to(torch.int64)
    column = ((-positions[..., 1] - FIRST_CELL_CENTER_M) / CELL_M).trunc().to(torch.int64)
    on_grid = (row >= 0) & (row < GRID_CELLS) & (column >= 0) & (column < GRID_CELLS)
    sample = torch.arange(len(positions), device=positions.device)[:, None]
    step = torch.arange(STEPS, device=positions.device)[None]
    row, column = row.clamp(0, GRID_CELLS - 1), column.clamp(0, GRID_CELLS - 1)
    return occupancy[sample, step, row, column].to(torch.bool) & on_grid
