"""Pooling of the teacher's states: what reaches what."""

from __future__ import annotations

import torch
from latentvla_training.distill.pooling import (
    TEACHER_ACTION,
    TEACHER_VISUAL,
    AttentionPooling,
    TeacherStates,
)
from latentvla_training.distill.settings import PoolingSettings

SETTINGS = PoolingSettings(width=24, heads=8, visual_latents=5)


def states() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {TEACHER_VISUAL: torch.randn(2, 6, 20).half(), TEACHER_ACTION: torch.randn(2, 12, 20)}


def test_shapes_and_who_is_read() -> None:
    source = TeacherStates(20, 32, SETTINGS)
    known = states()
    found = source(known)
    assert found is not None and found.shape == (2, 5 + 12, 32)
    visual, action = source.pool(*known.values())
    assert visual.shape == (2, 5, 24) and action.shape == (2, 12, 24)
    # Pictures start the queries of the actions; no action reaches the pictures.
    other = source.pool(known[TEACHER_VISUAL] + torch.randn(2, 6, 20), known[TEACHER_ACTION])
    assert not torch.allclose(other[1], action)
    other = source.pool(known[TEACHER_VISUAL], torch.randn(2, 12, 20))
    assert torch.equal(other[0], visual) and not torch.allclose(other[1], action)


def test_what_is_pooled_is_normalised_last() -> None:
    pooled = AttentionPooling(20, 3, SETTINGS)(100.0 * torch.randn(4, 7, 20))
    torch.testing.assert_close(pooled.mean(dim=-1), torch.zeros(4, 3), atol=1e-5, rtol=0.0)
    torch.testing.assert_close(
        pooled.std(dim=-1, correction=0), torch.ones(4, 3), atol=1e-3, rtol=0
    )


def test_heads_are_those_that_divide_the_width() -> None:
    assert SETTINGS.most_heads == 8
    assert PoolingSettings(width=20, heads=8).most_heads == 5
    assert PoolingSettings(width=7, heads=4).most_heads == 1
