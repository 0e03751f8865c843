"""Projection of anchors and integration of arcs agree with independent computations."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentvla_ros.geometry import se2, se3
from latentvla_ros.model.bev import BevEncoder, project, to_bev_grid
from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.model.kinematics import rollout

INTRINSICS = np.array([[200.0, 0.0, 127.5], [0.0, 200.0, 63.5], [0.0, 0.0, 1.0]])


@settings(max_examples=50, deadline=None)
@given(
    st.tuples(*[st.floats(-40, 60)] * 2, st.floats(0, 6)),
    st.floats(-3, 3),
    st.floats(-0.2, 0.2),
)
def test_projection_is_the_pinhole_camera(
    point: tuple[float, float, float], yaw: float, pitch: float
) -> None:
    mount = se3.camera_mount((1.5, 0.3, 1.6), yaw, pitch)
    camera = se3.transform_points(se3.inverse(mount), [point])[0]
    grid, visible = project(
        torch.tensor([point], dtype=torch.float64),
        torch.from_numpy(INTRINSICS)[None],
        torch.from_numpy(mount)[None],
        256,
        128,
    )
    if camera[2] < 0.49:
        assert not visible[0, 0]
        return
    if camera[2] > 0.51:
        u, v, _ = INTRINSICS @ (camera / camera[2])
        # The outer edges of the image are at -0.5 and width - 0.5.
        inside = -0.5 <= u <= 255.5 and -0.5 <= v <= 127.5
        if min(abs(u + 0.5), abs(u - 255.5), abs(v + 0.5), abs(v - 127.5)) > 1e-3:
            assert bool(visible[0, 0]) == inside
        if inside:
            expected = [(u + 0.5) / 128.0 - 1.0, (v + 0.5) / 64.0 - 1.0]
            np.testing.assert_allclose(grid[0, 0].numpy(), expected, atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 8), st.floats(-0.3, 0.3)), min_size=8, max_size=8),
)
def test_rollout_is_a_chain_of_arcs(arcs: list[tuple[float, float]]) -> None:
    steps, curvature = torch.tensor(arcs, dtype=torch.float64).T
    found = rollout(steps, curvature).numpy()
    pose = np.zeros(3)
    for index, (length, bend) in enumerate(arcs):
        pose = se2.compose(pose, se2.exponential(length, 0.0, length * bend, 1.0))
        # The chord is a little shorter than the arc; the rollout takes the arc for the chord.
        bound = 1e-6 + sum(s**3 * k**2 / 24.0 + 0.01 * s for s, k in arcs[: index + 1])
        assert np.hypot(*(found[index, :2] - pose[:2])) <= bound
        assert abs(se2.wrap_angle(found[index, 2] - pose[2])) < 1e-5


def test_standstill_stays_where_it_is() -> None:
    assert torch.equal(rollout(torch.zeros(3, 8), torch.full((3, 8), 0.2)), torch.zeros(3, 8, 3))


def test_anchors_lie_on_the_grid_that_plans_are_sampled_from(tiny: PlannerConfig) -> None:
    bev = BevEncoder(tiny)
    cells_x, cells_y = tiny.bev_cells
    ground = bev.anchors[: cells_x * cells_y]
    grid = to_bev_grid(ground[:, :2], tiny).view(1, cells_x, cells_y, 2)
    index = torch.arange(cells_x * cells_y, dtype=torch.float32).view(1, 1, cells_x, cells_y)
    sampled = torch.nn.functional.grid_sample(index, grid, align_corners=False)
    torch.testing.assert_close(sampled, index, atol=1e-3, rtol=0)
