"""Modules that FSDP2 keeps in pieces: whole states for checkpoints, decisions taken together."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def is_sharded(module: nn.Module) -> bool:
    """Return whether FSDP2 keeps a module's weights in pieces."""
    from torch.distributed.fsdp import FSDPModule

    return isinstance(module, FSDPModule)


def full_state(
    module: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return whole states of a module and its optimiser, on the CPU if they were in pieces.

    When they are, every process must call this, and the first alone gets them.
    """
    if not is_sharded(module):
        return module.state_dict(), optimizer.state_dict()
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return get_state_dict(module, optimizer, options=options)


def load_optimizer(
    module: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Load what ``full_state`` returned of an optimiser; every process has it whole."""
    if not is_sharded(module):
        optimizer.load_state_dict(state)
        return
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

    options = StateDictOptions(full_state_dict=True)
    set_optimizer_state_dict(module, optimizer, state, options=options)


def first_decides(decision: bool, device: torch.device) -> bool:
    """Return the first process's decision, for what all must do or none (clocks differ).

    All must call this together. ``device``: of this process.
    """
    from accelerate.utils import broadcast

    return bool(broadcast(torch.tensor(int(decision), device=device)))
