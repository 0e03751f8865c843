"""Published weights by their name on the hub or from a folder."""

from __future__ import annotations

from typing import Any

import torch


def from_pretrained(kind: Any, name_or_path: str, **arguments: Any) -> Any:
    """Return ``kind.from_pretrained(name_or_path, **arguments)`` of a class of transformers.

    The first time a process makes tensors under ``torch.device``, torch notes which functions do
    so. Transformers does that while it has put another ``linspace`` in the place of torch's, which
    is then missed for good: under ``torch.device("meta")`` it would go on making tensors on the
    CPU. So torch notes them here, before.
    """
    with torch.device("meta"):
        torch.empty(0)
    return kind.from_pretrained(name_or_path, **arguments)
