"""What passes between encoder and decoder: entries of a codebook, or (a control) vectors as such.

The codebook is ``VectorQuantize`` of vector-quantize-pytorch: nearest entry, straight-through
estimator, commitment loss, entries as moving averages of what they stand for (instead of UniVLA's
codebook loss: ours, it does not hang on the learning rate), first entries by k-means of a batch.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from latentvla_training.latent_action.settings import DynamicsLoss, DynamicsSettings


class Encoded(NamedTuple):
    """What a bottleneck lets through.

    Attributes:
        vectors: (B, codes, code width) for the decoder.
        codes: (B, codes) int64; -1 when continuous.
        commitment: weighted. redundancy: of the vectors before they were quantised.
    """

    vectors: Tensor
    codes: Tensor
    commitment: Tensor
    redundancy: Tensor


class IntervalNorm(nn.Module):
    """Batch normalisation of vectors (B, D) among pairs of the same interval (ours).

    What all pairs of a length share is known to the decoder already and must not take up the
    codebook; what is left has unit spread, so that the codebook cannot collapse either.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, intervals: int, width: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(intervals, width))
        self.register_buffer("variance", torch.ones(intervals, width))

    def forward(self, vectors: Tensor, interval: Tensor) -> Tensor:
        """Return normalised vectors; ``interval`` (B,) says which pairs belong together."""
        mean, variance = self.mean[interval], self.variance[interval]
        if self.training:
            for index in range(len(self.mean)):
                members = interval == index
                if int(members.sum()) < 2:
                    continue  # too few to tell their spread: as in evaluation
                own = vectors[members]
                own_mean, own_variance = own.mean(dim=0), own.var(dim=0, unbiased=False)
                mean = torch.where(members[:, None], own_mean, mean)
                variance = torch.where(members[:, None], own_variance, variance)
                with torch.no_grad():
                    self.mean[index].lerp_(own_mean, self.momentum)
                    self.variance[index].lerp_(own_variance, self.momentum)
        return (vectors - mean) / (variance + 1e-5).sqrt()


class Bottleneck(nn.Module):
    """Quantises vectors (B, codes, code width); with ``continuous`` they only are normalised.

    Args:
        settings, loss: of the stage. revive_steps: training steps in which unused entries are
            revived; never in evaluation. batch_vectors: that a training step quantises.
    """

    steps: Tensor

    def __init__(
        self,
        settings: DynamicsSettings,
        loss: DynamicsLoss,
        continuous: bool = False,
        revive_steps: int = 0,
        batch_vectors: int = 0,
    ) -> None:
        super().__init__()
        self.continuous, self.revive_steps = continuous, revive_steps
        self.norm = IntervalNorm(len(settings.intervals_s), settings.codes * settings.code_width)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.quantizer: nn.Module | None = None
        if not continuous:
            from vector_quantize_pytorch import VectorQuantize

            self._threshold = loss.dead_share * batch_vectors / settings.codebook_size
            self.quantizer = VectorQuantize(
                dim=settings.code_width,
                codebook_size=settings.codebook_size,
                decay=0.99,
                kmeans_init=True,
                commitment_weight=loss.commitment,
                threshold_ema_dead_code=self._threshold,
                # Decided here: no process group exists yet when a stage is built.
                sync_codebook=int(os.environ.get("WORLD_SIZE", "1")) > 1,
            )

    @property
    def entries(self) -> Tensor:
        """The codebook, (entries, code width)."""
        assert self.quantizer is not None
        entries: Tensor = self.quantizer._codebook.embed[0]
        return entries

    def forward(self, vectors: Tensor, interval: Tensor) -> Encoded:
        """Quantise vectors; see ``Encoded``.

        Codes are -1 with a continuous bottleneck. ``interval`` (B,): see ``IntervalNorm``.
        """
        vectors = self.norm(vectors.float().flatten(1), interval).view(vectors.shape)
        redundancy = redundancy_of(vectors.flatten(1))
        if self.quantizer is None:
            none = vectors.new_full(vectors.shape[:2], -1).long()
            return Encoded(vectors, none, vectors.new_zeros(()), redundancy)
        if self.training:
            self.quantizer._codebook.threshold_ema_dead_code = (
                self._threshold if int(self.steps) < self.revive_steps else 0.0
            )
            self.steps += 1
        with _whole_precision(vectors):
            quantized, codes, commitment = self.quantizer(vectors)
        return Encoded(quantized, codes, commitment.sum(), redundancy)


def _whole_precision(vectors: Tensor) -> AbstractContextManager[None]:
    """Return a context whose products are in float32; the meta device has no other."""
    if vectors.is_meta:
        return nullcontext()
    return torch.autocast(vectors.device.type, enabled=False)


def redundancy_of(vectors: Tensor) -> Tensor:
    """Return the mean over numbers of their squared correlations with all others (VICReg, eq. 4).

    Args:
        vectors: (B, D) of unit spread. Zero when no position repeats what another says.
    """
    with _whole_precision(vectors):
        matrix = vectors.T @ vectors / len(vectors)
    off_diagonal = matrix - torch.diag(torch.diagonal(matrix))
    return off_diagonal.square().sum() / len(matrix)
