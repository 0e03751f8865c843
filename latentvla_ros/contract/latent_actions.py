"""Latent actions in words: which transitions they are about, and the names of their codes."""

from __future__ import annotations

from collections.abc import Sequence

from latentvla_ros.contract.errors import ContractError
from latentvla_ros.contract.plan import CODEBOOK_SIZE, NUM_LATENT_ACTIONS

#: Seconds after t0 that the latent actions are about, in order: beginning and end (paper 3.2).
TRANSITIONS_S = ((0.0, 1.0), (1.0, 2.0), (2.0, 4.0))
CODES_PER_TRANSITION = NUM_LATENT_ACTIONS // len(TRANSITIONS_S)

#: (4, 16) words: by position in a transition, then by code. Names repeat where codes mean alike.
LatentActionNames = tuple[tuple[str, ...], ...]


def latent_action_names(value: object, field: str) -> LatentActionNames:
    """Return names (4, 16) from nested lists or tuples of words.

    Args:
        field: named where they are wrong.

    Raises:
        ContractError: they are of another shape, or one is no word.
    """
    wanted = f"{CODES_PER_TRANSITION} positions x {CODEBOOK_SIZE} names"
    if not isinstance(value, (list, tuple)) or not all(isinstance(r, (list, tuple)) for r in value):
        raise ContractError(field, value, wanted)
    lengths = [len(row) for row in value]
    if lengths != [CODEBOOK_SIZE] * CODES_PER_TRANSITION:
        raise ContractError(field, f"{len(lengths)} positions x {lengths} names", wanted)
    for position, row in enumerate(value):
        for code, name in enumerate(row):
            if not isinstance(name, str) or not name.strip():
                raise ContractError(f"{field}[{position}][{code}]", name, "a name")
    return tuple(tuple(row) for row in value)


def latent_action_lines(
    names: LatentActionNames, ids: Sequence[int], probabilities: Sequence[float]
) -> list[tuple[str, str]]:
    """Return, for each transition, its time and its four latent actions by name.

    Args:
        names: (4, 16). ids: (12,) codes, transition-major.
        probabilities: (12,) of these codes; others that go by the same name are not counted.

    Returns:
        e.g. ``("0-1 s", "slow 62 %, left 40 %, hold 55 %, unclear 30 %")``, three of them.
    """
    lines = []
    for index, (start, end) in enumerate(TRANSITIONS_S):
        first = index * CODES_PER_TRANSITION
        words = [
            f"{names[position][int(ids[first + position])]} "
            f"{100 * float(probabilities[first + position]):.0f} %"
            for position in range(CODES_PER_TRANSITION)
        ]
        lines.append((f"{start:g}-{end:g} s", ", ".join(words)))
    return lines
