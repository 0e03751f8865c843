"""The driving command, in NAVSIM's one-hot order."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Command(IntEnum):
    """What the route asks for next; the value is the index of the one-hot vector (NAVSIM)."""

    LEFT = 0
    STRAIGHT = 1
    RIGHT = 2
    UNKNOWN = 3

    def one_hot(self) -> NDArray[np.float32]:
        """Return the command as a (4,) float32 one-hot vector."""
        vector = np.zeros(len(Command), np.float32)
        vector[self] = 1.0
        return vector
