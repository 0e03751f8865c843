"""Checkpoints that a kill at any moment leaves whole: written aside, then renamed.

Tensors and plain values only; they are read with ``weights_only``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

CHECKPOINT = "checkpoint.pt"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> Path:
    """Write ``state`` (tensors, numbers, strings, nested) to ``folder``; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{CHECKPOINT}.{os.getpid()}.part"
    with part.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder / CHECKPOINT)
    return folder / CHECKPOINT


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Return the state in ``folder`` on the CPU, or None when there is none."""
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
