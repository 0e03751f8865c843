"""Every process goes on with random numbers of its own, in whatever order processes are counted."""

from __future__ import annotations

import torch
from latentvla_training.engine.random_state import random_states, restore_random_state


def drawn() -> float:
    return float(torch.rand(()))


def test_a_process_goes_on_from_its_own_state() -> None:
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        states += random_states()
    after = [drawn()]
    torch.set_rng_state(states[0]["cpu"])
    after.insert(0, drawn())
    for process in (1, 0):
        torch.manual_seed(99)
        restore_random_state(states, process, (0, 5))
        assert drawn() == after[process]
    assert after[0] != after[1]


def test_a_process_that_had_no_state_begins_from_the_run_its_step_and_its_rank() -> None:
    states = random_states()

    def begun(process: int, *seed: int) -> float:
        restore_random_state(states, process, seed)
        return drawn()

    assert begun(1, 0, 5) == begun(1, 0, 5)
    found = {begun(0, 0, 5), begun(1, 0, 5), begun(2, 0, 5), begun(1, 0, 6), begun(1, 1, 5)}
    assert len(found) == 5


def test_one_state_without_ranks_is_that_of_all() -> None:
    state = torch.get_rng_state()
    wanted = drawn()
    for process in (0, 1):
        restore_random_state(state, process, (0, 5))
        assert drawn() == wanted
