"""What a student is told, by numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from latentvla_training.distill.losses import code_loss, divergence, feature_loss, kl_loss
from latentvla_training.distill.token_scores import by_codes, by_teacher

PROBABILITIES = torch.tensor([0.7, 0.2, 0.1]).expand(2, 12, 3)


def test_divergence_is_that_of_the_definition() -> None:
    logits = torch.tensor([0.3, -0.2, 1.0]).expand(2, 12, 3)
    own, target = logits[0, 0].softmax(-1), PROBABILITIES[0, 0]
    wanted = float((target * (target / own).log()).sum())
    torch.testing.assert_close(divergence(logits, PROBABILITIES), torch.full((2, 12), wanted))
    hot = (target.log() / 2.0).softmax(-1), (logits[0, 0] / 2.0).softmax(-1)
    wanted = 4.0 * float((hot[0] * (hot[0] / hot[1]).log()).sum())
    assert float(kl_loss(logits, PROBABILITIES, 2.0)) == pytest.approx(wanted, rel=1e-5)


def test_who_says_the_same_loses_nothing_even_of_what_is_impossible() -> None:
    certain = torch.eye(3).expand(12, 3, 3).transpose(0, 1)
    logits = certain.clamp(min=1e-8).log()
    assert float(divergence(logits, certain).abs().max()) < 1e-6
    assert float(kl_loss(PROBABILITIES.log(), PROBABILITIES, 2.0)) == pytest.approx(0.0, abs=1e-6)


def test_missing_codes_do_not_count() -> None:
    logits = torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(0))
    codes = torch.arange(12).expand(2, 12).to(torch.int8).clone()
    known = codes.clone()
    codes[:, 8:] = -1
    wanted = torch.nn.functional.cross_entropy(
        logits[:, :8].flatten(0, 1), known[:, :8].flatten().long()
    )
    torch.testing.assert_close(code_loss(logits, codes), wanted)
    assert float(code_loss(logits, torch.full((2, 12), -1))) == 0.0
    figures = by_codes(logits, codes.numpy())
    assert figures["nll"].mean() == pytest.approx(float(wanted), rel=1e-5)
    codes[1] = -1
    figures = by_codes(logits, codes.numpy())
    assert np.isnan(figures["nll"][1]) and np.isfinite(figures["nll"][0])


def test_features_count_alike() -> None:
    found = (torch.ones(2, 5, 4), torch.zeros(2, 12, 4))
    target = (torch.zeros(2, 5, 4), torch.full((2, 12, 4), 3.0))
    assert float(feature_loss(found, target)) == pytest.approx(2.0)


def test_figures_by_the_teacher() -> None:
    figures = by_teacher(PROBABILITIES.log(), PROBABILITIES.numpy())
    np.testing.assert_allclose(figures["kl"], 0.0, atol=1e-6)
    np.testing.assert_array_equal(figures["agreement"], 1.0)
