"""Random states of all processes of a run, for checkpoints: torch's on the CPU and on the GPU."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

#: Of one process: ``cpu``, and ``cuda`` where it computes on a GPU.
RandomState = dict[str, Tensor]


def random_states() -> list[RandomState]:
    """Return the states of all processes, by rank; all must call this together."""
    from accelerate.utils import gather_object

    own = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        own["cuda"] = torch.cuda.get_rng_state()
    states: list[RandomState] = gather_object([own])
    return states


def restore_random_state(
    states: list[RandomState] | Tensor, process: int, seed: tuple[int, ...]
) -> None:
    """Go on from the state that a process had.

    A process that had none, because there were fewer of them, begins with ``seed`` and its rank; so
    a run that goes on with another number of processes ends in other weights.

    Args:
        states: of ``random_states``; a tensor, that of the CPU for every process, in checkpoints of
            before each had its own. process: its rank. seed: of the run and its step.
    """
    if isinstance(states, Tensor):
        torch.set_rng_state(states)
    elif process < len(states):
        torch.set_rng_state(states[process]["cpu"])
        if "cuda" in states[process] and torch.cuda.is_available():
            torch.cuda.set_rng_state(states[process]["cuda"])
    else:
        torch.manual_seed(int(np.random.default_rng((*seed, process)).integers(2**63)))
