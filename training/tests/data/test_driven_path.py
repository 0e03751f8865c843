"""Futures from odometry: known where it was unbroken, unknown elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from latentvla_training.data.driven_path import DrivenPath, path_labels

from latentvla_ros.geometry import se2

SECOND = 1_000_000_000


def circle(speed: float, yaw_rate: float, seconds: float, rate_hz: int = 50) -> list:
    """Odometry of a steady circle from stamp 1 s on."""
    return [
        (
            SECOND + tick * SECOND // rate_hz,
            se2.exponential(speed, 0.0, yaw_rate, tick / rate_hz),
            np.array([speed, 0.0, yaw_rate]),
        )
        for tick in range(int(seconds * rate_hz) + 1)
    ]


@given(
    speed=st.floats(0.0, 30.0),
    yaw_rate=st.floats(-0.5, 0.5),
    start=st.floats(-np.pi, np.pi),
)
def test_a_steady_circle_comes_back(speed: float, yaw_rate: float, start: float) -> None:
    origin = np.array([5e5, 4e6, start])
    samples = [(s, se2.compose(origin, p), t) for s, p, t in circle(speed, yaw_rate, 8.0)]
    path = DrivenPath(samples)
    t0 = SECOND + 2 * SECOND + 7_000_000
    labels = path_labels(path, t0, se2.compose(origin, np.zeros(3)))
    assert labels.future_mask.all()
    for step in range(41):
        truth = se2.exponential(speed, 0.0, yaw_rate, step / 10)
        np.testing.assert_allclose(labels.future_10hz[step, :2], truth[:2], atol=2e-3)
    np.testing.assert_allclose(labels.past_states[:, 3], speed, atol=1e-9)
    np.testing.assert_allclose(labels.past_states[:, 6], speed * yaw_rate, atol=1e-6)


def test_nothing_is_claimed_across_a_silence() -> None:
    samples = circle(10.0, 0.0, 10.0)
    kept = [sample for sample in samples if not 5.0 < sample[0] / SECOND < 6.0]
    labels = path_labels(DrivenPath(kept), 3 * SECOND, np.zeros(3))
    assert labels.future_mask.tolist() == [True] * 4 + [False] * 4
    assert np.isfinite(labels.future_10hz[:21]).all() and np.isnan(labels.future_10hz[21:]).all()
    after = path_labels(DrivenPath(kept), 6 * SECOND, np.zeros(3))
    assert after.future_mask.all()
    assert np.isnan(after.past_states[0, :3]).all()


def test_a_jump_of_the_odometry_is_no_motion() -> None:
    samples = circle(10.0, 0.0, 8.0)
    moved = [
        (s, p + (np.array([30.0, -4.0, 0.0]) if s > 4 * SECOND else 0.0), t) for s, p, t in samples
    ]
    path = DrivenPath(moved)
    assert path.jumps == 1
    labels = path_labels(path, 3 * SECOND, np.zeros(3))
    np.testing.assert_allclose(labels.future_2hz[:, 0], np.arange(1, 9) * 5.0, atol=1e-3)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_left_out(broken: float) -> None:
    samples = circle(10.0, 0.0, 8.0)
    samples[0] = (samples[0][0], np.full(3, broken), samples[0][2])
    samples[99] = (samples[99][0], samples[99][1], np.full(3, broken))
    labels = path_labels(DrivenPath(samples), 2 * SECOND, np.zeros(3))
    np.testing.assert_allclose(labels.future_2hz[:, 0], np.arange(1, 9) * 5.0, atol=1e-3)


def test_no_odometry_at_all_knows_nothing() -> None:
    labels = path_labels(DrivenPath([]), SECOND, np.zeros(3))
    assert not labels.future_mask.any() and not labels.future_2hz.any()
