"""What the teacher must beat: counts of codes, and nets that know the ego state and the command.

A teacher is asked for code k after the *true* codes before it, which contain the future. What it is
compared with is told the same: beside the net of ego state and command there is one that is also
given the true codes before, and that is the one to beat (ours; method.md asks for the first).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from latentvla_ros.contract import NUM_LATENT_ACTIONS
from latentvla_ros.model.ego_encoder import EgoEncoder
from latentvla_training.data.shards import ShardReader
from latentvla_training.latent_action.codes import CODEBOOK_SIZE, MISSING, LatentCodes
from latentvla_training.planner.augmentation import hide_ego_state
from latentvla_training.planner.dataset import EGO_INPUTS, scenes_to_imitate
from latentvla_training.teacher.dataset import scenes_with_codes
from latentvla_training.teacher.settings import BaselineSettings

F32 = NDArray[np.float32]

#: Added to every count, so that nothing is impossible.
_PRIOR = 0.5

_IGNORED = -100


def unigram(train: NDArray[np.int8], sequence: NDArray[np.int8]) -> F32:
    """Return log-probabilities (N, 12, 16): how often each code stands at each place in training.

    Args:
        train, sequence: (M, 12) and (N, 12) codes; ``MISSING`` does not count.
    """
    counts = np.full((NUM_LATENT_ACTIONS, CODEBOOK_SIZE), _PRIOR)
    for place, column in enumerate(train.T):
        counts[place] += np.bincount(column[column >= 0], minlength=CODEBOOK_SIZE)
    table = np.log(counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)
    return np.broadcast_to(table, (len(sequence), *table.shape))


def previous_token(train: NDArray[np.int8], sequence: NDArray[np.int8]) -> F32:
    """Return log-probabilities (N, 12, 16) of each code at its place after the code before it.

    The first code, and one after a missing one, follows nothing: a 17th row of the table.
    """

    def before(codes: NDArray[np.int8]) -> NDArray[np.int64]:
        shifted = np.full(codes.shape, CODEBOOK_SIZE, np.int64)
        shifted[:, 1:] = np.where(codes[:, :-1] >= 0, codes[:, :-1], CODEBOOK_SIZE)
        return shifted

    counts = np.full((NUM_LATENT_ACTIONS, CODEBOOK_SIZE + 1, CODEBOOK_SIZE), _PRIOR)
    places = np.broadcast_to(np.arange(NUM_LATENT_ACTIONS), train.shape)
    known = train >= 0
    np.add.at(counts, (places[known], before(train)[known], train[known].astype(int)), 1.0)
    table = np.log(counts / counts.sum(axis=2, keepdims=True)).astype(np.float32)
    found: F32 = table[np.arange(NUM_LATENT_ACTIONS), before(sequence)]
    return found


class EgoCodesNet(nn.Module):
    """Past, motion and command to logits of 12 codes; if ``given_previous``, from those before.

    Args:
        width, layers: of the net. given_previous: whether code k also sees the codes before it.
    """

    earlier: Tensor

    def __init__(self, width: int, layers: int, given_previous: bool) -> None:
        super().__init__()
        self.given_previous = given_previous
        self.ego = EgoEncoder(width)
        blocks: list[nn.Module] = []
        for _ in range(layers):
            blocks += [nn.GELU(approximate="tanh"), nn.Linear(width, width)]
        self.body = nn.Sequential(*blocks, nn.GELU(approximate="tanh"))
        places, size = NUM_LATENT_ACTIONS, CODEBOOK_SIZE
        if given_previous:
            self.place = nn.Parameter(torch.randn(places, width) * 0.5)
            self.codes = nn.Linear(places * size, width, bias=False)
        self.head = nn.Parameter(torch.zeros(places, width, size))
        self.bias = nn.Parameter(torch.zeros(places, size))
        earlier = torch.ones(places, places).tril(-1)  # (code k, codes before it)
        self.register_buffer("earlier", earlier, persistent=False)

    def forward(self, codes: Tensor, *status: Tensor) -> Tensor:
        """Return logits (B, 12, 16).

        Args:
            codes: (B, 12) of which code k sees those before k, if any. status: ``EGO_INPUTS``.
        """
        _, mixed = self.ego(*status)
        if not self.given_previous:
            return torch.einsum("bw,pwc->bpc", self.body(mixed), self.head) + self.bias
        known = functional.one_hot(codes.clamp(min=0), CODEBOOK_SIZE) * (codes >= 0)[..., None]
        seen = known[:, None] * self.earlier[..., None]  # (B, 12, 12, 16)
        hidden = mixed[:, None] + self.place + self.codes(seen.flatten(2).to(mixed))
        return torch.einsum("bpw,pwc->bpc", self.body(hidden), self.head) + self.bias

    @torch.inference_mode()
    def log_probabilities(self, reader: ShardReader, codes: LatentCodes) -> F32:
        """Return log-probabilities (N, 12, 16) of the codes of all Scenes of a split."""
        sequence = torch.from_numpy(codes.sequence.astype(np.int64))
        status = [torch.from_numpy(reader.columns[name].copy()) for name in EGO_INPUTS]
        parts = [
            self(*(part[low : low + 512] for part in (sequence, *status))).log_softmax(dim=-1)
            for low in range(0, len(sequence), 512)
        ]
        return torch.cat(parts).float().numpy()


@dataclass
class TrainedBaseline:
    """A net, and the validation NLL of each dropout of the ego state that was tried."""

    net: EgoCodesNet
    val_nll: dict[float, float] = field(default_factory=dict)


def mean_nll(log_probabilities: F32, sequence: NDArray[np.int8]) -> float:
    """Return the mean negative log-likelihood of the codes that are there, nats."""
    known = sequence != MISSING
    chosen = np.take_along_axis(log_probabilities, sequence.clip(0)[..., None].astype(int), axis=2)
    return float(-chosen[..., 0][known].mean())


def train_baseline(
    train: tuple[ShardReader, LatentCodes],
    val: tuple[ShardReader, LatentCodes],
    settings: BaselineSettings,
    given_previous: bool,
    seed: int = 0,
    progress: bool = False,
) -> TrainedBaseline:
    """Train one net per dropout of the ego state and keep the one that is best on ``val``."""
    result: TrainedBaseline | None = None
    figures: dict[float, float] = {}
    for probability in settings.drop_ego_state:
        net = train_net(*train, settings, given_previous, probability, seed, progress)
        figures[probability] = mean_nll(net.log_probabilities(*val), val[1].sequence)
        if figures[probability] == min(figures.values()):
            result = TrainedBaseline(net)
    assert result is not None
    result.val_nll = figures
    return result


def train_net(
    reader: ShardReader,
    codes: LatentCodes,
    settings: BaselineSettings,
    given_previous: bool,
    drop_probability: float,
    seed: int = 0,
    progress: bool = False,
) -> EgoCodesNet:
    """Train one net on the codes of a split."""
    from tqdm import trange

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = EgoCodesNet(settings.width, settings.layers, given_previous)
    frequencies = unigram(codes.sequence, codes.sequence[:1])[0]
    net.bias.data.copy_(torch.from_numpy(frequencies.copy()))  # where it starts from
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    columns: list[NDArray[Any]] = [reader.columns[name] for name in EGO_INPUTS]
    scenes = scenes_with_codes(codes, scenes_to_imitate(reader))
    # Places are rows of their own where each sees other codes: a quarter of the Scenes is plenty.
    count = max(1, settings.batch_size // 4) if given_previous else settings.batch_size
    title = f"ego net{' after true codes' if given_previous else ''}, drop {drop_probability:g}"
    for _ in trange(settings.steps, desc=title, leave=False, disable=not progress):
        chosen = rng.choice(scenes, count)
        batch = [column[chosen].copy() for column in columns]
        hidden = rng.random(count) < drop_probability
        parts = [array[hidden] for array in batch[:4]]
        hide_ego_state(*parts)  # type: ignore[arg-type]
        for array, part in zip(batch, parts, strict=False):
            array[hidden] = part
        target = torch.from_numpy(codes.sequence[chosen].astype(np.int64))
        logits = net(target, *(torch.from_numpy(array) for array in batch))
        loss = functional.cross_entropy(
            logits.flatten(0, 1),
            target.masked_fill(target == MISSING, _IGNORED).flatten(),
            ignore_index=_IGNORED,
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()
