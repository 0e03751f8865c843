"""Make the builders beside the tests importable, and the vectors known."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def vectors_folder() -> Path:
    """Folder of the small subset of NAVSIM's vectors."""
    return Path(__file__).parent / "vectors"


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from more threads, and spinning ones slow a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
