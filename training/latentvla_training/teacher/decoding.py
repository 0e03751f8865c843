"""Codes one after the other with cached keys and values: the teacher's own, and samples of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from latentvla_ros.contract import NUM_LATENT_ACTIONS

if TYPE_CHECKING:
    from latentvla_training.teacher.model import Batch, Teacher


@dataclass(frozen=True)
class Answer:
    """What the teacher says to a batch when nothing but t0 is known to it.

    Attributes:
        codes: (B, 12) greedy: each the likeliest after those before it.
        states: (B, 12, D) at the places that predict each code, after the greedy ones before it.
        logits: (B, 12, 16) of those places.
        marginals: (B, 12, 16) mean over sampled prefixes of what follows them; None without any.
        prompt_states: (B, P, D) of the prompt.
    """

    codes: Tensor
    states: Tensor
    logits: Tensor
    marginals: Tensor | None
    prompt_states: Tensor


def answer(teacher: Teacher, batch: Batch, uniforms: Tensor | None = None) -> Answer:
    """Let the teacher answer.

    Args:
        uniforms: (B, S, 12) in [0, 1): S prefixes are sampled beside the greedy one, each code the
            first whose cumulated probability exceeds its number. The same numbers give the same
            samples, whatever else is in the batch.
    """
    ids, embedded = teacher.prompt_inputs(batch)
    found = teacher.run(batch, ids, embedded, use_cache=True)
    prompt_states: Tensor = found.last_hidden_state
    count = len(ids)
    paths = 1 if uniforms is None else 1 + uniforms.shape[1]
    cache: Any = found.past_key_values
    if paths > 1:
        cache.batch_repeat_interleave(paths)
    state = prompt_states[:, -1:].repeat_interleave(paths, dim=0)
    states, logits, codes = [], [], []
    for place in range(NUM_LATENT_ACTIONS):
        scores = teacher.logits(state[:, 0]).unflatten(0, (count, paths))
        states.append(state.unflatten(0, (count, paths))[:, 0, 0])
        logits.append(scores)
        chosen = scores.argmax(dim=-1)  # (B, 1 + S)
        if uniforms is not None:
            chosen[:, 1:] = _sample(scores[:, 1:], uniforms[..., place])
        codes.append(chosen)
        if place + 1 < NUM_LATENT_ACTIONS:
            token = teacher.actions.encode(chosen.reshape(-1, 1))
            position = teacher.positions[:, :, teacher.prompt_length + place]
            step = teacher.vlm.model.language_model(
                inputs_embeds=teacher.embed(token),
                position_ids=position[:, :, None].expand(-1, count * paths, -1),
                past_key_values=cache,
                use_cache=True,
            )
            state = step.last_hidden_state
    every = torch.stack(logits, dim=2)  # (B, 1 + S, 12, 16)
    marginals = None if uniforms is None else every[:, 1:].softmax(dim=-1).mean(dim=1)
    return Answer(
        torch.stack(codes, dim=2)[:, 0],
        torch.stack(states, dim=1),
        every[:, 0],
        marginals,
        prompt_states,
    )


def _sample(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Return codes (B, S) of logits (B, S, 16) by the inverse of their distribution."""
    cumulated = logits.double().softmax(dim=-1).cumsum(dim=-1)
    drawn = (uniforms.to(cumulated)[..., None] >= cumulated).sum(dim=-1)
    return drawn.clamp(max=logits.shape[-1] - 1)
