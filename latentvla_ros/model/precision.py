"""Islands of float32 inside a mixed-precision forward pass: geometry, ego state, controls."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return a context that switches autocast off on ``device``, and nothing where it is off.

    The check keeps autocast nodes out of exported graphs. The meta device knows no autocast.
    """
    if device.type != "meta" and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
