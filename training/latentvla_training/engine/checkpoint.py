"""Checkpoints that a kill at any moment leaves whole: written aside, then renamed.

Tensors and plain values only; they are read with ``weights_only``.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from latentvla_ros.contract import ContractError

CHECKPOINT = "checkpoint.pt"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> Path:
    """Write ``state`` (tensors, numbers, strings, nested) to ``folder``; returns the file.

    Raises:
        OSError: it cannot be written (a full disk); the checkpoint before it stays as it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()  # torch turns a full disk into an error that does not say so
    torch.save(state, content)
    part = folder / f".{CHECKPOINT}.{os.getpid()}.part"
    try:
        with part.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        part.replace(folder / CHECKPOINT)
    except OSError as error:
        what = f"checkpoint not written: {error.strerror}"
        raise OSError(error.errno, what, str(folder)) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
    return folder / CHECKPOINT


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Return the state in ``folder`` on the CPU, or None when there is none.

    Raises:
        ContractError: the file is damaged.
    """
    path = folder / CHECKPOINT
    return _read(path) if path.is_file() else None


def weights_below(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the weights of a part of a module, whose names begin with ``prefix``, by its own."""
    return {k.removeprefix(prefix): value for k, value in state.items() if k.startswith(prefix)}


def checkpoint_step(folder: Path) -> int:
    """Return the step of the checkpoint in ``folder``, 0 when there is none; no weight is read.

    Raises:
        ContractError: the file is damaged.
    """
    path = folder / CHECKPOINT
    return int(_read(path, mmap=True)["step"]) if path.is_file() else 0


def _read(path: Path, mmap: bool = False) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        found = str(error).partition("\n")[0]
        raise ContractError(
            f"checkpoint {path}", found, "a whole checkpoint; remove it to train from the start"
        ) from error
    return state
