"""Exponential moving average of a module's weights: what is validated and exported."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class AveragedModel:
    """A shadow copy of a module that follows it; with a decay of 0 the module itself, no copy.

    The decay grows from 0 with the number of updates, so that short runs average too.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = module
        if decay:
            self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the averaged weights towards those of ``module``; other buffers are copied."""
        self.updates += 1
        if not self.decay:
            return
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        shadow, source = self.module.state_dict(), module.state_dict()
        floating = [name for name, value in shadow.items() if value.is_floating_point()]
        # Tied weights have several names and must move once.
        once = {shadow[name].data_ptr(): name for name in floating}.values()
        averaged: list[Tensor] = [shadow[name] for name in once]
        current: list[Tensor] = [source[name].detach() for name in once]
        torch._foreach_lerp_(averaged, current, 1.0 - decay)
        for name in shadow.keys() - set(floating):
            shadow[name].copy_(source[name])
